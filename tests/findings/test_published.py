"""Published values are those of one experiment: a run that is another one says so wherever it shows them."""

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from support.instrumented import write_run

from collapse_cli.config import load, merge, not_as_published, presets, read_toml, variant_experiments
from collapse_cli.records.rundir import RunFolder
from collapse_cli.report import write_markdown, write_report
from collapse_cli.terminal.run_tables import expectations_table

NATURE = "opt125m-wikitext2"


def changed(preset: str, over: dict[str, Any]) -> dict[str, Any]:
    return load(merge(read_toml(presets()[preset]), over), preset).model_dump(mode="json")


@pytest.mark.parametrize("preset", presets())
def test_a_preset_is_the_experiment_of_its_own_values(preset: str) -> None:
    tree = read_toml(presets()[preset])
    for experiment in variant_experiments(tree, preset).values() or [load(tree, preset)]:
        assert not_as_published(experiment.model_dump(mode="json")) == ""


def test_how_far_a_run_goes_and_where_it_finds_things_makes_no_other_experiment() -> None:
    found = {"revision": "27dcfa7", "sha256": "ab" * 32, "tokenizer_sha256": "cd" * 32}
    over = {
        "loop": {"generations": 3, "policies": ["keep-0"], "seeds": [0, 1, 2]},
        "model": found,
        "data": {"sha256": "ef" * 32},
        "train": {"dtype": "bfloat16"},
        "store": {"keep_models": "none"},
    }
    assert not_as_published(changed(NATURE, over)) == ""


def test_another_model_text_or_setting_is_named() -> None:
    said = not_as_published(changed(NATURE, {"model": {"source": "folder"}, "train": {"lr": 1e-3}}))
    assert said == (
        f"the published values are of the preset {NATURE}; this run differs from it in model.source, train.lr, so it need "
        "not give them"
    )
    copies = not_as_published(changed(NATURE, {"model": {"source": "a"}, "data": {"source": "b"}}))
    assert copies.endswith(
        "data.source, model.source, so it need not give them, unless those are the same under other names"
    )


def test_theory_follows_the_configuration_and_values_of_ones_own_are_ones_own() -> None:
    assert not_as_published(changed("strong-ridge", {"data": {"regression": {"noise": 1.0}}})) == ""
    entry = {"what": "perplexity", "policy": "keep-0", "value": 12.0, "source": "mine"}
    assert not_as_published(changed("quick", {"expect": [entry], "train": {"lr": 1.0}})) == ""


@pytest.mark.parametrize("tree", [{}, {"expect": 5}, {"expect": [1, {}]}, {"expect": [{"value": []}], "model": 3}])
def test_a_configuration_that_is_none_says_nothing(tree: dict[str, Any]) -> None:
    assert not_as_published(tree) == ""


def test_it_is_said_in_the_terminal_and_in_both_reports(tmp_path: Path) -> None:
    tree = changed(NATURE, {"model": {"source": "mine"}})
    write_run(tmp_path, "run", generations=2, expect=tree["expect"], config=tree)
    folder, out = RunFolder(tmp_path, "run"), io.StringIO()
    Console(file=out, width=300).print(expectations_table(folder.rows(), folder.record()["config"]))
    page = write_report([folder], tmp_path / "report.html").read_text()
    plain = write_markdown([folder], tmp_path / "report.md").read_text()
    for shown in (out.getvalue(), page, plain):
        assert f"he published values are of the preset {NATURE}; this run differs from it in " in shown
