"""`list`, `options`, `status` without a run, `--version`, `-h`, near names; and what `--policy` means, both times."""

import json
import shutil
from pathlib import Path

import pytest
from support import e2e
from support.instrumented import write_run
from support.mixed import mixture_rows, tree_of, write

from collapse_cli.cli.app import app
from collapse_cli.config.experiment import Experiment
from collapse_cli.config.options import matching, options
from collapse_cli.engine import sealed


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four runs: finished, at work, a grid, and one whose record is damaged."""
    folder = tmp_path_factory.mktemp("looking")
    write_run(folder, "quick", policies=("keep-0", "keep-10"), seeds=(0, 1, 2), generations=3)
    gone = [("keep-10", 1, 3), ("keep-10", 1, 2)]
    write_run(folder, "long", seeds=(0, 1), generations=3, missing=gone, status="started")
    grid = {"rows": [200, 500], "share": [0.0, 0.1], "quality": [0.5]}
    tree = tree_of("ridge", kind="mixture", mixture=grid, loop={"seeds": [0, 1]})
    write(folder, "grid", tree, mixture_rows(tree, lambda row, random: {"error": 0.1}))
    (folder / "torn").mkdir()
    (folder / "torn" / "run.json").write_text("{")
    (folder / "store").mkdir()
    (folder / "no run").mkdir()
    return folder


# --- list --------------------------------------------------------------------------------------------------------------


def test_list_says_how_far_each_run_is(runs: Path) -> None:
    found = {one["name"]: one for one in e2e.collapse("list", "--runs-dir", runs, "--json").json}
    assert set(found) == {"quick", "long", "grid", "torn"}
    quick, long, grid, torn = (found[name] for name in ("quick", "long", "grid", "torn"))
    assert (quick["done"], quick["planned"], quick["status"], quick["learner"]) == (4, 4, "success", "lm")
    assert (quick["policies"], quick["seeds"]) == (["keep-0", "keep-10"], [0, 1, 2])
    assert (long["done"], long["planned"], long["status"]) == (2, 4, "started")
    assert (grid["done"], grid["planned"], grid["kind"], grid["policies"]) == (8, 8, "mixture", [])
    assert (torn["status"], torn["done"]) == ("damaged", 0)
    assert "damaged" in torn["error"]
    out = e2e.collapse("list", "--runs-dir", runs).out
    for words in ("quick", "0-2", "keep-0,", "keep-10", "damaged", "torn: "):
        assert words in out


def test_a_list_of_nothing_says_so(tmp_path: Path) -> None:
    result = e2e.collapse("list", "--runs-dir", tmp_path / "none")
    assert (result.code, "no runs in" in " ".join(result.out.split())) == (0, True)
    assert e2e.collapse("list", "--runs-dir", tmp_path / "none", "--json").json == []


def test_status_without_a_run_lists_them(runs: Path) -> None:
    for form in ((), ("--json",)):
        assert (
            e2e.collapse("status", "--runs-dir", runs, *form).out == e2e.collapse("list", "--runs-dir", runs, *form).out
        )


def test_status_of_a_run_without_its_store_says_so(runs: Path, tmp_path: Path) -> None:
    """A copy is no run that did nothing: its measurements are shown, and its stages are not said to be 0 of so many."""
    stage = {"kind": "train", "key": "0" * 64, "inputs": {}, "for": []}
    for folder, store, said in ((tmp_path / "bare", False, "is not there"), (tmp_path / "other", True, "has none")):
        shutil.copytree(runs / "quick", folder / "copied")
        (folder / "copied" / "plan.json").write_text(sealed.sealed({"stages": [stage]}))
        if store:
            (folder / "store").mkdir()
        found = e2e.collapse("status", "copied", "--runs-dir", folder)
        assert found.code == 0, found.err
        out = " ".join(found.out.replace("│", " ").split())
        assert said in out
        assert "1 planned" in out
        assert "train 0/1" not in out


# --- names that are nearly right ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["status", "report", "compare", "forecast", "eval"])
def test_the_nearest_run_is_named(runs: Path, command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    result = e2e.collapse(command, "qiuck", "--runs-dir", runs)
    assert result.code == 2
    assert "there is no run 'qiuck'" in result.err
    assert "did you mean 'quick'?" in result.err
    assert result.err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("rnu",), "did you mean 'run'?"),
        (("stats",), "did you mean 'status'?"),
        (("lst",), "did you mean 'list'?"),
        (("theory", "rigde"), "did you mean 'ridge'?"),
        (("xyzzy",), "collapse --help"),
        (("run", "--polcy", "keep-0"), "did you mean --policy?"),
        (("run", "--epochs", "3"), "--set train.epochs=…"),
        (("run", "--temperature", "3"), "--set sample.decode.temperature=…"),
        (("run", "--xyzzy", "3"), "collapse options"),
        (("list", "--jsn"), "did you mean --json?"),
        (("run", "--preset", "quik"), "did you mean 'quick'?"),
        (("compare",), "collapse list"),
    ],
    ids=str,
)
def test_what_was_meant_is_said(arguments: tuple[str, ...], words: str) -> None:
    result = e2e.collapse(*arguments)
    assert result.code == 2
    assert words in result.err, result.err
    assert result.err.count("\n") == 1


# --- options -----------------------------------------------------------------------------------------------------------


def test_every_option_has_a_type_a_default_and_a_meaning() -> None:
    known = options()
    assert len({one.key for one in known}) == len(known) > 100
    for one in known:
        assert one.type, one.key
        assert len(one.meaning) > 5, f"{one.key}: its meaning is {one.meaning!r}"
        assert "Literal" not in one.type
        assert "typing" not in one.type
    by_key = {one.key: one for one in known}
    assert (by_key["train.lr"].type, by_key["train.lr"].default) == ("number > 0", "2e-05")
    assert by_key["train.schedule"].type == "constant, linear, cosine or cosine-epoch"
    assert by_key["loop.policies"].default == '["keep-0", "keep-10", "keep-20"]'
    assert by_key["gmm.tol"].learners == ("gmm",)
    assert by_key["data.rows"].learners == ()


def test_options_are_found_by_section_name_and_meaning() -> None:
    assert {one.key for one in matching("train")} == {f"train.{name}" for name in Experiment().train.model_dump()}
    assert [one.key for one in matching("temperature")] == ["sample.decode.temperature", "train.anchor_temperature"]
    assert {one.key.partition(".")[0] for one in matching("gmm")} == {"gmm"}
    assert "sample.decode.beams" in {one.key for one in matching("beam search")}
    assert matching("xyzzy") == []


def test_options_on_the_command_line() -> None:
    found = e2e.collapse("options", "train.lr", "--json").json
    assert [one["key"] for one in found] == ["train.lr"]
    assert set(found[0]) == {"key", "type", "default", "meaning", "learners"}
    assert len(e2e.collapse("options", "--json").json) == len(options())
    assert "sample.decode.top_k" in e2e.collapse("options", "decode").out
    near = e2e.collapse("options", "temprature")
    assert (near.code, "sample.decode.temperature" in near.err) == (2, True)
    none = e2e.collapse("options", "xyzzy")
    assert (none.code, "collapse options" in none.err) == (2, True)


# --- --version, -h, --json ----------------------------------------------------------------------------------------------


def test_version() -> None:
    from importlib import metadata

    result = e2e.collapse("--version")
    assert (result.code, result.out) == (0, f"collapse {metadata.version('collapse-cli')}\n")


def commands() -> list[list[str]]:
    """Every command that there is."""
    own = [[command.name or str(command.callback.__name__)] for command in app.registered_commands if command.callback]
    theory = app.registered_groups[0].typer_instance
    assert theory is not None
    return [
        [],
        ["theory"],
        *own,
        *(
            ["theory", one.name or str(one.callback.__name__).replace("_", "-")]
            for one in theory.registered_commands
            if one.callback
        ),
    ]


@pytest.mark.parametrize("command", commands(), ids=str)
def test_help_is_h_everywhere(command: list[str]) -> None:
    short, long = e2e.collapse(*command, "-h"), e2e.collapse(*command, "--help")
    assert short.code == long.code == 0
    assert short.out == long.out
    assert "Usage" in short.out


@pytest.mark.parametrize("command", [one for one in commands() if one not in ([], ["theory"])], ids=str)
def test_every_command_that_prints_a_table_prints_json(command: list[str]) -> None:
    assert "--json" in e2e.collapse(*command, "-h").out


# --- what --policy means -------------------------------------------------------------------------------------------------


def test_policy_means_one_thing_and_says_what_it_does(tmp_path: Path) -> None:
    """What is named is computed in place of the configuration's; what a run holds already stays: said, both times."""
    config, runs = e2e.write_experiment(tmp_path), tmp_path / "runs"
    asked = ("run", config, "--runs-dir", runs, "--generations", "0")
    new = e2e.collapse(*asked, "--policy", "keep-50")
    assert new.code == 0, new.err
    said = " ".join(new.out.split())
    assert (
        f"note: policies: only keep-50, without keep-0, keep-10 of {config}; to run all, give each a --policy" in said
    )
    again = " ".join(e2e.collapse(*asked, "--policy", "keep-50").out.split())
    assert "keeps" not in again, "nothing is kept that was not asked for"
    more = " ".join(e2e.collapse(*asked, "--policy", "keep-20", "--seeds", "1").out.split())
    assert "note: the run tiny keeps its policies keep-50; keep-20 will be added" in more
    assert "note: the run tiny keeps its seeds 0; 1 will be added" in more
    record = json.loads((runs / "tiny" / "run.json").read_text())
    assert set(record["config"]["loop"]["policies"]) == {"keep-50", "keep-20"}
    assert "those of the configuration do not count" in " ".join(
        e2e.collapse("run", "-h").out.replace("│", " ").split()
    )


def test_two_names_of_one_policy_are_said_to_be_one(tmp_path: Path) -> None:
    """A run has each policy once; earlier versions wrote keep-0 and keep-0.0 into one run as if they were two."""
    config, runs = tmp_path / "small.toml", tmp_path / "runs"
    config.write_text(
        'learner = "gaussian"\n[loop]\ngenerations = 1\npolicies = ["keep-0"]\n[data]\nsource = "blobs"\nrows = 20\n'
    )
    asked = ("run", config, "--runs-dir", runs)
    assert "same policy" not in e2e.collapse(*asked).out
    note = "note: keep-0.0 is the same policy as keep-0, and in the run small it is called keep-0"
    again = " ".join(e2e.collapse(*asked, "--policy", "keep-0.0").out.split())
    assert again.count(note) == 1
    path = runs / "small" / "run.json"
    record = json.loads(path.read_text())
    assert record["config"]["loop"]["policies"] == ["keep-0"]
    record["config"]["loop"]["policies"] = ["keep-0", "keep-0.0"]
    del record["digest"]
    path.write_text(json.dumps(record))
    assert " ".join(e2e.collapse(*asked).out.split()).count(note) == 1
    assert json.loads(path.read_text())["config"]["loop"]["policies"] == ["keep-0"]


def test_nothing_is_said_where_nothing_is_replaced(tmp_path: Path) -> None:
    config = e2e.write_experiment(tmp_path)
    asked = ("run", config, "--runs-dir", tmp_path / "runs", "--generations", "0", "--dry-run")
    assert "without keep" not in e2e.collapse(*asked).out
    assert "without keep" not in e2e.collapse(*asked, "--policy", "keep-0", "--policy", "keep-10").out
    json_out = e2e.collapse(*asked, "--policy", "keep-50", "--json")
    assert "without keep" in " ".join(json_out.err.split())
    assert json_out.json["run"] == "tiny"
