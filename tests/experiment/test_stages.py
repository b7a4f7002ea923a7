"""What kinds of stages there are: each is whole, says its own cost, and is known by its kind alone."""

import ast
import inspect
from dataclasses import fields
from pathlib import Path

import pytest
from support.kinds import kind

from collapse_cli import config, experiment
from collapse_cli.engine.stage import Cost, Plan, Product, StageKind, never_split
from collapse_cli.experiment import kinds
from collapse_cli.experiment.costs import RECORD_BYTES, Size
from collapse_cli.experiment.kinds import KINDS
from collapse_cli.learners import Hints
from collapse_cli.where import Where

PACKAGE = Path(inspect.getfile(experiment)).parents[1]
STAGES = PACKAGE / "experiment" / "stages"


def test_each_kind_is_a_file_and_each_file_a_kind_that_is_listed() -> None:
    """The kind of the shards of a kind that splits stands in its file."""
    files = {path.stem.upper() for path in STAGES.glob("*.py")} - {"__INIT__", "BASE", "SHARDS"}
    splitting = {f"{name}_SHARD" for name in files if getattr(kinds, name).split is not never_split}
    assert splitting
    named = files | splitting
    assert {name for name, value in vars(kinds).items() if isinstance(value, StageKind)} == named
    assert len(KINDS) == len(set(map(id, KINDS))) == len(named)
    assert all(getattr(kinds, name) in KINDS for name in named)


@pytest.mark.parametrize("missing", ["name", "kind", "version", "product", "body", "cost", "label"])
def test_a_kind_that_leaves_something_out_cannot_be_made(missing: str) -> None:
    """Its file cannot be imported, then."""
    given = {one.name: getattr(kind("work"), one.name) for one in fields(StageKind) if one.name != missing}
    with pytest.raises(TypeError, match=f"'{missing}'"):
        StageKind(**given)


@pytest.mark.parametrize("one", KINDS, ids=lambda one: one.body.__module__.rpartition(".")[2])
def test_the_body_of_every_kind_keeps_numpy_on_one_thread(one: StageKind) -> None:
    """Or its sums would hang on how many cores there are."""
    assert one.body.__code__.co_name == "limited"  # type: ignore[attr-defined]


WORDS_OF_KINDS = [
    f"{name}.{word}" for name in ("stage", "made", "stage.of", "made.of") for word in ("kind", "work", "name")
]


def test_nothing_finds_out_from_parameters_or_names_what_a_stage_is() -> None:
    """No `"cells" in stage.params`, no `"n=" in policy`, no `stage.kind in ("eval", "block")`."""
    sniffed = []
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Compare) and isinstance(node.ops[0], ast.In | ast.NotIn):
                where = ast.unparse(node.comparators[0])
                if where.endswith(".params") or (isinstance(node.left, ast.Constant) and node.left.value == "n="):
                    sniffed.append(f"{path.name}:{node.lineno}: {ast.unparse(node)}")
            if isinstance(node, ast.Compare) and ast.unparse(node.left) in WORDS_OF_KINDS:
                sniffed.append(f"{path.name}:{node.lineno}: {ast.unparse(node)}")
    assert sniffed == []


def test_a_kind_says_what_it_leaves_and_which_lines_a_user_sees() -> None:
    leaves = {(one.name, one.product) for one in KINDS}
    assert leaves == {
        ("data", Product.DATA),
        ("train", Product.MODEL),
        *(
            (name, Product.ROWS)
            for name in ("sample", "detector", "select", "mix", "translate", "pool", "public", "foreign", "answers")
        ),
        *((name, Product.PART) for name in ("sample", "eval", "examine")),
        *((name, Product.MEASURES) for name in ("eval", "real", "examine", "between", "block")),
    }
    assert {one.name for one in KINDS if one.listed} == {"eval", "block"}


def planned(preset: str, **changes: object) -> tuple[config.Experiment, Plan]:
    tree = config.read_toml(config.preset_path(preset))
    tree.pop("variants", None)
    one = config.load(config.merge(tree, {"data": {"sha256": "0" * 64}, **changes}), preset)
    return one, kinds.plan(one, Hints())


def labels(made: Plan, word: str) -> list[str]:
    return [stage.of.label(stage, made.place(key)) for key, stage in made.stages.items() if stage.work == word]


def test_the_words_for_stages() -> None:
    _, loop = planned("smoke", loop={"policies": ["keep-0", "keep-10"], "generations": 1})
    assert labels(loop, "data") == ["real text to tokens"]
    assert labels(loop, "train") == [
        "seed 0, generation 0, all policies",
        "seed 0, generation 1, keep-0",
        "seed 0, generation 1, keep-10",
    ]
    gaussian = {"policies": ["keep-0"], "generations": 5, "seeds": [3], "block": 2}
    _, blocks = planned("nature-gaussian", loop=gaussian, expect=[])
    assert labels(blocks, "block") == [
        "seed 3, generation 0, all policies",
        "seed 3, generations 1 to 2, keep-0",
        "seed 3, generations 3 to 4, keep-0",
        "seed 3, generation 5, keep-0",
    ]
    _, cells = planned("strong-ridge", loop={"seeds": [1]}, expect=[])
    assert labels(cells, "block")[0].startswith("seed 1, 64 cells from n=")
    _, grid = planned("strong-gpt2", loop={"seeds": [2]}, expect=[])
    assert labels(grid, "train")[0] == "seed 2, generator"
    assert labels(grid, "train")[1].startswith("seed 2, n=")


def size_of(one: config.Experiment, **changes: float) -> Size:
    numbers = {"parameters": 1000, "layer_parameters": 700, "head_parameters": 300, "layers": 4} | changes
    return Size(one, rows=200, test_rows=50, **numbers)  # type: ignore[arg-type]


def test_the_costs_of_the_loop_follow_from_the_rows_of_each_stage() -> None:
    one, made = planned("smoke", loop={"policies": ["accumulate", "keep-25"], "generations": 2})
    size, width = size_of(one), one.data.block_size
    costs: dict[tuple[str, str, int], Cost] = {}
    for stage in made.stages.values():
        where = made.serves[stage.key][0]
        costs[stage.work, where.policy, where.generation] = size.cost_of(stage)
    assert [costs["train", "accumulate", g].tokens for g in range(3)] == [
        rows * width * one.train.epochs for rows in (200, 400, 600)
    ]
    assert costs["train", "keep-25", 2].tokens == 200 * width * one.train.epochs
    assert costs["sample", "accumulate", 1].rows == 200
    assert costs["sample", "keep-25", 1].rows == 150
    assert costs["examine", "keep-25", 1].tokens == 150 * one.sample.new_tokens
    assert costs["mix", "accumulate", 2].disk == 4 * 600 * width + RECORD_BYTES
    assert costs["eval", "accumulate", 2].flops == 2 * 1000 * 50 * (one.eval.block_size or width)
    speed = 1e9
    train = costs["train", "keep-25", 2]
    assert train.seconds(speed, 4) == pytest.approx(train.flops / (speed * 0.35) + train.steps * 0.006 * 2)
    assert costs["data", "accumulate", 0].seconds(speed, 4) == 2.0
    assert costs["mix", "accumulate", 1].seconds(speed, 4) == 0.1


def test_the_costs_of_blocks_and_cells_are_those_of_all_that_is_in_them() -> None:
    loop = {"policies": ["accumulate"], "generations": 4, "block": 4}
    sums, rows = 200 * 4 * 10.0, (400 + 1000) // 2 * 4 * 10.0
    for prompts, later in (("real", sums), ("previous", rows)):  # a corpus whose rows are continued is kept as rows
        one, made = planned("nature-gaussian", loop=loop, sample={"prompts": prompts}, expect=[])
        size = size_of(one, row_bytes=8, row_flops=10.0)
        blocks = [size.cost_of(stage) for stage in made.stages.values() if stage.kind == "block"]
        assert [cost.flops for cost in blocks][:2] == [200 * 10.0, later]
        assert [cost.parts for cost in blocks][:2] == [1, 4]
    one, made = planned("strong-ridge", loop={"seeds": [1]}, expect=[])
    stage = next(iter(made.stages.values()))
    rows = sum((cell["real"] + cell["synthetic"]) * (cell["iterations"] or 1) for cell in stage.params["cells"])
    assert size.cost_of(stage).flops == rows * 10.0


def test_stages_of_one_word_are_told_apart_by_their_kind() -> None:
    _, grid = planned("strong-gpt2", loop={"seeds": [2]}, expect=[])
    assert {stage.of for stage in grid.stages.values() if stage.kind == "mix"} == {kinds.COMBINE}
    assert {stage.of for stage in grid.stages.values() if stage.kind == "sample"} == {kinds.GENERATE}
    place = Where("keep-0", 1, 2)
    assert (str(place), str(Where("", 1, 0, cell="n=5"))) == ("seed 1, generation 2, keep-0", "seed 1, n=5")
