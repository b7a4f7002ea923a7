"""The lineages of one policy, seed and generation beside each other: what each model makes of the text of the others, how alike
they are, and what they predict together.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, cast

from collapse_cli import families, learners
from collapse_cli.config import Experiment
from collapse_cli.data.dataset import OWN_TEST, Dataset
from collapse_cli.engine.stage import Cost, Finished, Product, Stage, StageKind, Workplace, canonical
from collapse_cli.experiment.costs import TWENTIETH, Size
from collapse_cli.experiment.stages.base import CORPUS, RESERVE, ROWS, TEST, base_of, on_one_thread, own
from collapse_cli.where import Where

if TYPE_CHECKING:  # it imports torch, which a plan does without
    from collapse_cli.learners.between import Member

OwnText = Literal["test", "reserve", "corpus"]
# the test split of its own source, real rows that nothing is trained on, or those that its generation 0 is
OWN_ROWS: Mapping[OwnText, str] = {"test": f"{OWN_TEST}.safetensors", "reserve": RESERVE, "corpus": CORPUS}
LEAST_RESERVE = 32  # rows of real text kept out of training that a lineage's own text is measured on
FORM = (
    "block_size",
    "eval_block_size",
    "eval_rows",
    "test_tail",
    "line_bos",
)  # of rows: they say nothing of which text it is


@dataclass(frozen=True)
class Standing:
    """A lineage at a generation, as it is planned.

    Attributes:
        config, hints: of the lineage, as if it were alone.
        model, data: the stages of its newest model and of its real data.
        samples: what that model made; None where nothing is.
    """

    config: Experiment
    hints: learners.Hints
    model: Stage
    data: Stage
    samples: Stage | None


def between_stage(lineages: Mapping[str, Standing], *, reserve: bool) -> Stage | None:
    """What is measured between lineages, by name; None of families whose models are not compared.

    Args:
        reserve: whether real rows beyond the original corpora stay out of training, so that they can be measured on.
    """
    first = next(iter(lineages.values()))
    if not families.of(first.config.learner).text:
        return None
    inputs: dict[str, Stage] = {}
    for name, one in lineages.items():
        inputs |= {f"model-{name}": one.model, f"data-{name}": one.data}
        if base := base_of(one.model):
            inputs[f"base-{name}"] = base
        if one.samples is not None:
            inputs |= {f"samples-{name}": one.samples, f"prompts-{name}": one.samples.inputs["prompts"]}
    params = {
        "learner": first.config.learner,
        "lineages": {
            name: own(one.config, "between") | {"most": most_tokens(one.config)} for name, one in lineages.items()
        },
        "reserve": reserve,
    }
    hints = learners.Hints(lineages={name: one.hints for name, one in lineages.items()})
    return Stage(BETWEEN, params, inputs, hints=hints)


def most_tokens(config: Experiment) -> int:
    """Tokens of a row that a lineage's model surely takes: those of the rows that it is given in its other work."""
    sample = config.sample
    return max(config.data.block_size, config.eval.block_size, sample.prompt_tokens + sample.new_tokens)


@on_one_thread
def body(stage: Stage, inputs: Mapping[str, Finished], place: Workplace) -> dict[str, Any]:
    from collapse_cli.learners import between

    own_texts = {name: _own_text(stage, inputs[f"data-{name}"]) for name in stage.params["lineages"]}
    members = {name: _member(stage, inputs, name, OWN_ROWS[own]) for name, own in own_texts.items()}
    measured = between.measure(members, place.scratch, place.tell)
    for name, fields in measured.items():
        if "nll_on" in fields:
            fields["between"]["own_text"] = own_texts[name]
    return {"lineages": measured, "predicted_tokens": sum(each["between"]["test_tokens"] for each in measured.values())}


def _own_text(stage: Stage, data: Finished) -> OwnText:
    """Which real rows of a lineage's own the models of the others are measured on."""
    rows = {split: about.get("rows", 0) for split, about in data.facts["splits"].items()}
    if rows.get(OWN_TEST):
        return "test"
    return "reserve" if stage.params["reserve"] and rows.get("reserve", 0) >= LEAST_RESERVE else "corpus"


def _member(stage: Stage, inputs: Mapping[str, Finished], name: str, own_rows: str) -> "Member":
    from collapse_cli.learners.between import Member
    from collapse_cli.learners.continuations import continuations

    data, model, params = inputs[f"data-{name}"], inputs[f"model-{name}"], stage.params["lineages"][name]
    assert isinstance(stage.hints, learners.Hints)
    base = inputs.get(f"base-{name}")
    hints = replace(
        stage.hints.of_lineage(name),
        encoded=data.folder,
        about=data.facts,
        bases={str(model.folder): base.folder} if base else {},
    )

    def make() -> learners.Comparable:
        learner = cast(learners.Comparable, learners.create(stage.params["learner"], params, hints, learners.silent))
        learner.load(model.folder)
        return learner

    samples = prompts = None
    if f"samples-{name}" in inputs:
        made = Dataset.load(inputs[f"samples-{name}"].file(ROWS))
        samples = continuations(made)
        continued = Dataset.load(inputs[f"prompts-{name}"].file(CORPUS))
        prompts = make().continued(continued.take(made.arrays["row"]))
    return Member(
        model=model.folder,
        make=make,
        encoded=data.folder,
        most=params["most"],
        test=Dataset.load(data.file(TEST)),
        own=Dataset.load(data.file(own_rows)),
        own_text=_text_of(stage.inputs[f"data-{name}"]),
        samples=samples,
        prompts=prompts,
    )


def _text_of(data: Stage) -> str:
    """What a data stage says of which text its training rows are, whatever they are cut into."""
    about = {name: value for name, value in data.params["data"].items() if name not in FORM}
    return canonical(about).decode()


def cost(stage: Stage, size: Size) -> Cost:
    from collapse_cli.learners import between

    count = len(stage.params["lineages"])
    texts = len({_text_of(made) for name, made in stage.inputs.items() if name.startswith("data-")})
    sampled = sum(name.startswith("samples-") for name in stage.inputs)
    rows = count * (size.test_rows + (texts if texts > 1 else 0) * min(size.test_rows, between.ROWS))
    continued = count * sampled * min(between.ROWS, size.rows)
    if size.row_flops:
        rows += continued
        return Cost(flops=rows * size.row_flops * TWENTIETH, disk=4096 * count, efficiency=0.4, amount=rows)
    sample, block = size.config.sample, size.config.eval.block_size or size.config.data.block_size
    apart = count * (count - 1) * min(between.TOKENS, size.test_rows * block)  # each pair has two models
    tokens = rows * block + apart
    passed = size.layer_parameters * (tokens + continued * (sample.prompt_tokens + sample.new_tokens))
    headed = size.head_parameters * (tokens + continued * sample.new_tokens)
    return Cost(
        tokens=tokens + continued * sample.new_tokens,
        flops=2.0 * (passed + headed),
        disk=4096 * count,
        steps=-(-(rows + continued + apart // block) // 64),
        efficiency=0.4,
        step_seconds=0.01,
    )


def label(stage: Stage, where: Where) -> str:
    """Of all lineages together, whichever is the first."""
    return str(replace(where, lineage=f"{len(stage.params['lineages'])} lineages"))


def note(stage: Stage, made: Finished) -> str:
    from collapse_cli.metrics.numbers import perplexity

    first = next(iter(made.facts["lineages"].values()))
    if first.get("js_distance") is None or "mixture_perplexity" not in first:
        return f"{len(made.facts['lineages'])} lineages"
    return f"distance {first['js_distance']:.3f}, perplexity of all together {perplexity(first['mixture_perplexity'])}"


BETWEEN = StageKind[Size](
    name="between",
    kind="between",
    version=1,
    product=Product.MEASURES,
    body=body,
    cost=cost,
    label=label,
    note=note,
    counts="predicted_tokens",
)
