"""`train.adapter` from the command line: what lies in the store, who else finds it, pruning, a kill, what is refused."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from support import e2e

ADAPTER = {"adapter_config.json", "adapter_model.safetensors", "base.json"}
SCRATCH = {"train__adapter": 2, "loop__init": "gen0"}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run from scratch with all weights, and one with adapters on its generation 0."""
    home = tmp_path_factory.mktemp("adapter")
    config = e2e.write_experiment(home)
    common: dict[str, Any] = {"loop__policies": '["keep-0"]', "loop__generations": 2}
    e2e.run(config, home / "runs", "--name", "whole", **common)
    e2e.run(config, home / "runs", "--name", "lora", **common, **SCRATCH)
    return home


def models(runs: Path, name: str) -> list[str]:
    """The keys of the models of a run's generations."""
    rows = e2e.metrics(runs, name)
    return [rows["keep-0", 0, generation]["model_key"] for generation in range(3)]


def files_of(runs: Path, key: str) -> set[str]:
    return {path.name for path in e2e.folder_of(runs, key).iterdir()}


def test_generation_0_from_scratch_is_shared_and_the_later_ones_are_adapters_on_it(home: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    runs = home / "runs"
    whole, lora = models(runs, "whole"), models(runs, "lora")
    assert whole[0] == lora[0]
    assert not set(whole[1:]) & set(lora[1:])
    for key in lora[1:]:
        assert files_of(runs, key) >= ADAPTER
        assert not files_of(runs, key) & {"model.safetensors", "config.json"}
        base = AutoModelForCausalLM.from_pretrained(e2e.folder_of(runs, lora[0]))
        PeftModel.from_pretrained(base, str(e2e.folder_of(runs, key)))
    assert e2e.stages(runs)[lora[1]]["facts"]["train_tokens"] > 0


def test_whoever_reads_an_adapter_has_the_model_below_among_its_inputs(home: Path) -> None:
    lora, planned = models(home / "runs", "lora"), e2e.plan(home / "runs", "lora")
    by_key = {stage["key"]: stage for stage in planned}
    assert by_key[lora[1]]["inputs"]["init"] == lora[0]
    readers = [stage for stage in planned if lora[1] in stage["inputs"].values() or lora[2] in stage["inputs"].values()]
    assert {stage["kind"] for stage in readers} == {"sample", "eval"}
    assert all(stage["inputs"]["model_base"] == lora[0] for stage in readers)
    assert not any("model_base" in stage["inputs"] for stage in e2e.plan(home / "runs", "whole"))


def test_evaluated_again_it_is_what_the_run_says(home: Path) -> None:
    again = e2e.collapse("eval", "lora", "--runs-dir", home / "runs", "--json")
    assert again.code == 0, again.err
    assert [row["difference"] for row in again.json] == [0, 0, 0]


def test_its_folder_is_a_model_to_whoever_is_given_it(home: Path) -> None:
    folder = e2e.folder_of(home / "runs", models(home / "runs", "lora")[2])
    again = e2e.collapse("eval", folder, "--data", home / "text", "--set", "data.block_size=16", "--json")
    assert again.code == 0, again.err
    assert again.json["perplexity"] > 1


def test_killed_while_it_trains_or_samples_the_numbers_are_the_same(home: Path) -> None:
    def job(runs: str, **more: Any) -> dict[str, Any]:
        argv = [
            "run",
            str(home / "tiny.toml"),
            "--runs-dir",
            str(home / runs),
            "--name",
            "lora",
            "--generations",
            "2",
            "--json",
        ]
        return {
            "argv": [
                *argv,
                *(f"--set={option}" for option in ('loop.policies=["keep-0"]', "train.adapter=2", "loop.init=gen0")),
            ],
            **more,
        }

    hit = [e2e.strike("train", 2, when="tell", tell=2), e2e.strike("sample", 1, when="tell")]
    codes = e2e.drive(job("calm"), *(job("killed", strike=where) for where in hit), job("killed"))
    assert [code for (code,) in codes] == [0, -9, -9, 0]
    assert e2e.results(home / "killed", "lora") == e2e.results(home / "calm", "lora")


def test_an_adapter_on_a_model_that_was_given(home: Path, tmp_path: Path) -> None:
    """From generation 0 on, carried on by `init = previous`; generation 0's weights go when nothing needs them."""
    base = e2e.write_model(tmp_path / "base")
    settings = {"loop__policies": '["keep-0"]', "loop__generations": 2, "model__tokenizer": '""', "train__adapter": 2}
    made = e2e.run(
        home / "tiny.toml", tmp_path / "runs", "--name", "given", "--model", str(base), "--set=loop.init=previous",
        "--set=store.keep_models=ends", **settings,
    )  # fmt: skip
    assert made
    first, second, last = models(tmp_path / "runs", "given")
    for key in (first, last):
        assert files_of(tmp_path / "runs", key) >= ADAPTER
    assert "adapter_model.safetensors" not in files_of(tmp_path / "runs", second), "pruned"
    again = e2e.collapse("eval", "given", "--runs-dir", tmp_path / "runs", "--json")
    assert again.code == 0, again.err
    assert [row["difference"] for row in again.json] == [0, None, 0]


def test_a_mixture_and_an_anchor_on_a_model_that_was_given_in_runs_that_are_moved(home: Path, tmp_path: Path) -> None:
    base, config, runs = e2e.write_model(tmp_path / "base"), home / "tiny.toml", tmp_path / "runs"
    given = ["--model", str(base), "--set", 'model.tokenizer=""', "--set", "train.adapter=2"]
    e2e.run(config, runs, "--name", "mix", *given, kind="mixture", mixture__rows="[20]", mixture__share="[0.5]")
    held = {"train__anchor": "kl", "train__anchor_to": "base", "loop__policies": '["keep-0"]'}
    e2e.run(config, runs, "--name", "held", *given, **held)
    rows = e2e.metrics(runs, "held")["keep-0", 0, 1]
    assert rows["train_objective"] > rows["train_loss"]
    moved = runs.rename(tmp_path / "moved")
    for name, models_in_it in (("mix", 1), ("held", 2)):
        again = e2e.collapse("eval", name, "--runs-dir", moved, "--json")
        assert [row["difference"] for row in again.json] == [0] * models_in_it


def test_where_a_lone_folder_was_moved_what_is_missing_is_said(home: Path, tmp_path: Path) -> None:
    key = models(home / "runs", "lora")[1]
    alone = Path(shutil.copytree(e2e.folder_of(home / "runs", key), tmp_path / "alone"))
    named = json.loads((alone / "adapter_config.json").read_text())
    (alone / "adapter_config.json").write_text(json.dumps(named | {"base_model_name_or_path": str(tmp_path / "gone")}))
    result = e2e.collapse("eval", alone, "--data", home / "text")
    assert result.code == 2
    assert "the base model that" in result.err
    assert result.err.count("\n") == 1
    assert "gone' is not a folder" in result.err
    assert "name it: --set model.base=FOLDER" in result.err
    below, text = (
        e2e.folder_of(home / "runs", models(home / "runs", "lora")[0]),
        ["--data", home / "text", "--set", "data.block_size=16", "--json"],
    )
    found = e2e.collapse("eval", alone, *text, "--set", f"model.base={below}")
    assert found.code == 0, found.err
    there = e2e.collapse("eval", e2e.folder_of(home / "runs", key), *text)
    assert found.json["perplexity"] == there.json["perplexity"]
    of_none = e2e.collapse("eval", below, *text, "--set", f"model.base={below}")
    assert of_none.code == 2
    assert "model.base names the model below an adapter" in of_none.err


def test_a_run_begins_with_an_adapter_whose_model_the_user_names(home: Path, tmp_path: Path) -> None:
    """Every stage that begins with the given model finds both, and the key is that of both."""
    lora = models(home / "runs", "lora")
    alone = Path(shutil.copytree(e2e.folder_of(home / "runs", lora[1]), tmp_path / "alone"))
    named = json.loads((alone / "adapter_config.json").read_text())
    (alone / "adapter_config.json").write_text(json.dumps(named | {"base_model_name_or_path": "of/somebody-else"}))
    config = home / "given.toml"
    text = (home / "tiny.toml").read_text()
    config.write_text(text[: text.index("[model]")] + text[text.index("[data]") :])
    common = {
        "model__source": alone,
        "model__base": e2e.folder_of(home / "runs", lora[0]),
        "loop__policies": '["keep-0"]',
    }
    made = e2e.run(config, tmp_path / "runs", "--name", "given", **common)
    assert [row["generation"] for row in made["rows"]] == [0, 1]
    assert e2e.collapse("eval", "given", "--runs-dir", tmp_path / "runs").code == 0
    other = e2e.run(
        config,
        tmp_path / "runs",
        "--name",
        "found",
        "--dry-run",
        **{**common, "model__source": e2e.folder_of(home / "runs", lora[1]), "model__base": '""'},
    )
    assert other["cached"] == other["stages"], "where they lie has no say in the key"


def test_rows_are_chosen_by_an_adapter(home: Path) -> None:
    """By the model that made them, which is generation 1's adapter on generation 0."""
    settings = SCRATCH | {"loop__policies": '["keep-0"]', "loop__generations": 2}
    chosen = {"select__oversample": 1.5, "select__by": "surprise", "select__keep": "highest"}
    e2e.run(home / "tiny.toml", home / "runs", "--name", "chosen", **settings, **chosen)
    first, second, _ = models(home / "runs", "chosen")
    readers = [stage["inputs"] for stage in e2e.plan(home / "runs", "chosen") if second in stage["inputs"].values()]
    assert {"maker": second, "maker_base": first}.items() <= next(each for each in readers if "maker" in each).items()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["train.adapter=2"], "with loop.init = base those are random"),
        (["train.adapter=2", "loop.init=gen0", "loop.generations=0"], "no effect with 0 generations"),
        (["train.adapter_alpha=2.0"], "train.adapter = 0: all weights are trained"),
        (["train.adapter=-1"], "must be at least 0"),
        (["train.adapter=200", "loop.init=gen0"], "a higher rank than any"),
        (
            ["train.adapter=2", "loop.init=gen0", 'train.adapter_modules=["nope"]'],
            "no linear layers beside its head called nope",
        ),
    ],
)
def test_what_is_refused(home: Path, options: list[str], said: str) -> None:
    sets = [f"--set={option}" for option in options]
    result = e2e.collapse("run", home / "tiny.toml", "--runs-dir", home / "refused", *sets)
    assert result.code == 2
    assert said in " ".join(result.err.split())
    assert "Traceback" not in result.err
    assert not list((home / "refused").glob("*/plan.json"))
