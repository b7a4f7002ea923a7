"""Every shipped preset of the two papers runs from its file to its report and its table of expectations, cut down in size.

What the presets themselves give, uncut, stands in docs/results/.
"""

import io
from pathlib import Path

import pytest
from rich.console import Console
from support.cut import CUT, LATER, SOME

from collapse_cli.config import load, merge, preset_path, read_toml, variant_experiments
from collapse_cli.families import headline
from collapse_cli.findings.expectations import is_mixture
from collapse_cli.run import runner
from collapse_cli.terminal.run import print_run

PROVED = {"strong-ridge", "strong-weighted", "strong-iterative", "generational-regression"}
ALL = CUT | LATER
RUNS = [
    (preset, variant)
    for preset in ALL
    for variant in SOME.get(preset) or list(read_toml(preset_path(preset)).get("variants", {})) or [""]
]


@pytest.mark.parametrize(("preset", "variant"), RUNS)
def test_a_preset_runs_cut_down(preset: str, variant: str, tmp_path: Path) -> None:
    tree = read_toml(preset_path(preset))
    whole = variant_experiments(tree, preset)[variant] if variant else load(tree, preset)
    config = load(merge(whole.model_dump(mode="json"), ALL[preset]), "a test")
    out = io.StringIO()
    result = runner.run(config, tmp_path / "runs", "small", Console(file=out, width=120))
    print_run(Console(file=out, width=120), result)
    measure = headline(config.learner, config.kind).name
    rows = result.rows
    models = len(config.loop.policies) * (config.loop.generations + 1)
    if is_mixture(tree):
        models = len({row.where.name for row in rows})
        assert models >= 2
    assert len(rows) == models * len(config.loop.seeds) * len(config.lineage_names)
    assert all(row.measure(measure) is not None for row in rows)
    assert (tmp_path / "runs" / "small" / "report.html").stat().st_size > 100_000
    assert "could not be written" not in out.getvalue()
    judged = result.judged
    assert len(judged) == len(config.expect)
    if judged:
        assert "measured against published numbers and theory" in out.getvalue()
    measured = [one for one in judged if one.verdict != "not run"]
    assert all(one.value is not None and one.ours for one in measured)
    if preset in PROVED or variant in (
        "n10",
        "ridgeless",
        "ridge",
        "two-public",
        "ridge-four",
    ):  # of others what is cut away is what is proved
        assert any(one.kind == "theory" for one in measured), "theory stands beside some of what was measured"
    again = runner.run(config, tmp_path / "runs", "small", Console(file=io.StringIO()))
    assert again.computed == 0
    assert again.rows == rows


def test_the_full_form_of_gpt2_is_an_experiment_with_the_settings_of_the_paper() -> None:
    """Its data come from the Hub, so that it cannot be planned here."""
    variants = variant_experiments(read_toml(preset_path("strong-gpt2-full")), "strong-gpt2-full")
    config, model = variants["share"], variants["share"].model.config
    assert (config.kind, config.learner, variants["size"].mixture.size) == ("mixture", "lm", (12, 18, 24))
    assert (model["n_embd"], model["n_head"], config.data.block_size) == (768, 12, 512)
    assert (config.train.lr, config.train.weight_decay) == (5e-3, 0.1)
