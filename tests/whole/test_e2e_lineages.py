"""Whole runs of lineages: other models, tokenizers and text; killed where they meet; measured again; presets at full size, planned."""

import io
import json
import signal
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from support import e2e

from collapse_cli.config import Experiment, load, merge, preset_path, read_toml, variant_experiments
from collapse_cli.run import costs as run_costs
from collapse_cli.run import runner
from collapse_cli.run.timing import Timed

SAMPLE = "decode = { beams = 1, temperature = 1.0 }"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lineages")
    own = folder / "own.txt"
    own.write_text("".join(f"own text says {number} and {number * 7 % 31}.\n" for number in range(200)))
    e2e.write_lineages(folder, f'\n[lineages.owner]\ndata = {{ source = "{own.as_posix()}" }}\n')
    return folder


@pytest.fixture(scope="module")
def codes(home: Path) -> list[list[int]]:
    argv = ["run", str(home / "tiny.toml"), "--runs-dir"]
    killed = {"argv": [*argv, str(home / "killed")], "err": str(home / "killed.err")}
    strikes = [e2e.strike(kind, call, when="half") for kind, call in (("public", 2), ("translate", 3), ("pool", 2))]
    return e2e.drive(
        {"argv": [*argv, str(home / "whole")], "here": True},
        *({**killed, "strike": strike} for strike in strikes),
        killed,
    )


def rows_of(runs: Path) -> dict[tuple[str, int], dict[str, Any]]:
    rows = e2e.read_lines(runs / "tiny" / "metrics.jsonl")
    return {(row["lineage"], row["generation"]): {name: row[name] for name in row if name != "seconds"} for row in rows}


def test_each_lineage_has_its_rows(home: Path, codes: list[list[int]]) -> None:
    assert codes[0] == [0]
    rows = rows_of(home / "whole")
    assert [*rows] == [(name, generation) for generation in (0, 1) for name in ("plain", "other", "owner")]
    for (_, generation), row in rows.items():
        assert row["public_rows"] > 0
        assert row["synthetic_rows"] == 20 * generation
        assert row["real_rows"] == row["public_rows"] + 40 - 20 * generation
        assert row["real_weight"] == pytest.approx(0.5 if generation else 1.0)
        assert row["perplexity"] > 1
    test = {name: [stage for stage in e2e.plan(home / "whole") if stage["kind"] == "data"] for name in ("plain",)}
    assert len(test["plain"]) == 3, "other tokens, and other text, are other real data"


def test_text_passes_between_lineages_of_other_tokens(home: Path, codes: list[list[int]]) -> None:
    kinds = [stage["kind"] for stage in e2e.plan(home / "whole")]
    assert kinds.count("translate") == 6, "three lineages of three tokenizers, each takes of two others"
    assert kinds.count("pool") == 3
    facts = [record["facts"] for record in e2e.stages(home / "whole").values() if record["kind"] == "translate"]
    assert all(fact["translated_tokens"] > 0 for fact in facts)


def test_killed_where_lineages_meet_the_numbers_are_the_same(home: Path, codes: list[list[int]]) -> None:
    assert codes[1:] == [[-signal.SIGKILL]] * 3 + [[0]]
    assert rows_of(home / "killed") == rows_of(home / "whole")
    assert set(e2e.finished_events(home / "killed", "tiny").values()) == {1}, "nothing was computed twice"


def test_a_finished_run_computes_nothing_and_another_lineage_is_another_run(home: Path, codes: list[list[int]]) -> None:
    again = e2e.run(home / "tiny.toml", home / "whole")
    assert again["computed"] == 0
    refused = e2e.collapse("run", home / "tiny.toml", "--runs-dir", home / "whole", "--set=lineages.new.train.lr=0.5")
    assert refused.code == 2
    assert refused.err.count("\n") == 1
    assert "lineages" in refused.err


def test_models_of_all_lineages_are_measured_again(home: Path, codes: list[list[int]]) -> None:
    result = e2e.collapse("eval", "tiny", "--runs-dir", home / "whole", "--json")
    assert result.code == 0, result.err
    for one in result.json["models"] if isinstance(result.json, dict) else result.json:
        assert one["perplexity"] == pytest.approx(one["logged"], rel=1e-6)


def test_a_dry_run_counts_what_all_lineages_need(home: Path) -> None:
    result = e2e.collapse("run", home / "tiny.toml", "--runs-dir", home / "none", "--dry-run", "--json")
    assert result.code == 0, result.err
    assert not (home / "none").exists() or not (home / "none" / "tiny").exists()


# --- presets at full size: planned with small stand-ins -----------------------------------------------------------------

SMALL = {
    "data": {"block_size": 16, "rows": 32, "eval_rows": 8, "format": "text", "text": "text"},
    "sample": {"prompt_tokens": 8, "new_tokens": 8},
}
PRESETS = {
    "hodel-west": {"one": 1, "two": 2, "four": 4, "sixteen": 16},
    "vu": dict.fromkeys(("opt-a0", "opt-a05", "opt-a1", "llama-a0", "llama-a05", "llama-a1"), 2),
    "kovac": {"": 4},
}


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_at_full_size_is_planned_offline_with_small_stand_ins(
    preset: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        run_costs, "time_stages", lambda *_, **__: Timed()
    )  # how long stages take is asked in tests/run
    model = home / "model"
    if not model.exists():
        e2e.write_model(model)
        e2e.write_model(home / "other-model", tokens=300)
    tree = read_toml(preset_path(preset))
    whole = variant_experiments(tree, preset) or {"": load(tree, preset)}
    assert {name: len(one.lineage_names) for name, one in whole.items()} == PRESETS[preset]
    for number, (name, one) in enumerate(whole.items()):
        cut = stand_in(one, home)
        console = Console(file=io.StringIO(), width=120)
        (costs,) = runner.plan_all(cut, home / "dry", f"{preset}-{number}", console)
        generations, lineages = cut.loop.generations + 1, len(cut.lineage_names)
        trained = lineages + generations - 1 if cut.pool.rule == "random" else lineages * generations
        most = trained * len(cut.loop.policies) * len(cut.loop.seeds)
        assert costs.kinds["train"].stages <= most, name
        assert costs.kinds["train"].stages > (most - lineages) / 2, "but for generations 0 that are one model"
        assert costs.seconds > 0


def stand_in(one: Experiment, home: Path) -> Experiment:
    """The same with models, text and rows that are here."""
    text = {"source": (home / "text").as_posix(), "train": "", "test": "", "sha256": ""}
    changes: dict[str, Any] = {"model": {"source": (home / "model").as_posix()}, "data": {**SMALL["data"], **text}}
    changes["sample"] = SMALL["sample"]
    changes["mix"] = {"rows": 64} if one.mix.rows else {}
    if any(policy.rule == "accumulate-fresh" for policy in one.loop.policies):
        changes |= {"mix": {"rows": 2}, "data": {**changes["data"], "rows": 4}, "loop": {"seeds": [0]}}
    if one.pool.public:
        changes["pool"] = {"public": (home / "public.txt").as_posix(), "public_rows": 8}
    tree = merge(json.loads(one.model_dump_json()), changes)
    for number, table in enumerate(tree["lineages"].values()):
        if "source" in table.get("model", {}):
            table["model"]["source"] = (home / ("other-model" if number % 2 else "model")).as_posix()
        if "source" in table.get("data", {}):
            table["data"] = {"source": (home / "own.txt").as_posix()}
    if tree["train"]["adapter"]:
        tree["train"]["adapter_modules"] = ["q_proj"]
    return load(tree, "stand-in")
