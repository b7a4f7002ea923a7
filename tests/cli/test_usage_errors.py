"""What a newcomer types wrong, and what the one line says of it: what is wrong, what was given, what may have been meant."""

import subprocess
import sys
from pathlib import Path

import pytest
from support import e2e
from support.waiting import PATIENCE

from collapse_cli.run.early_checks import _cached_dataset

ROOT = Path(__file__).resolve().parents[2]
QUICK = ("run", "--preset", "quick")
TYPED: dict[tuple[str, ...], str] = {
    ("version",): "there is no command 'version' (did you mean --version?)",
    ("help",): "there is no command 'help' (did you mean --help?)",
    ("-v",): "there is no option -v (did you mean --version?)",
    ("smoke",): "there is no command 'smoke' (did you mean `collapse run --preset smoke`?)",
    ("--preset", "smoke"): "there is no option --preset; it belongs after a command: `collapse run --preset …`",
    ("theory", "rigde"): "there is no command 'rigde' (did you mean 'ridge'?) (collapse theory --help)",
    ("theory", "ridge", "--blub", "3"): "there is no option --blub (collapse theory ridge --help)",
    ("theory", "gaussian", "--n", "1e3"): "--n must be a whole number, it is '1e3' (collapse theory gaussian --help)",
    ("theory", "ridge", "--n", "abc"): "--n must be a number, it is 'abc'",
    ("gc", "smoke"): "`collapse gc` does not take 'smoke' (collapse gc --help)",
    ("eval",): "TARGET is missing: A run (name or folder), a model folder, a .gguf file, or a Hub id (collapse eval --help)",
    ("report",): "RUN is missing: the name of a run, or its folder; `collapse list` shows the runs",
    ("forecast", "x", "--factor", "y"): "--factor must be a number, it is 'y' (collapse forecast --help)",
    (*QUICK, "--set", "seed=3"): "unknown key 'seed' (did you mean 'loop.seeds'?)",
    ("report", "smoke"): "there is no run 'smoke' in runs (`collapse run --preset smoke` makes it)",
    ("run", "quik"): "there is no configuration file 'quik' (did you mean --preset quick?)",
    ("run", "quick"): "there is no configuration file 'quick'; the preset of that name is --preset quick",
    (*QUICK, "--policy", "keep-0", "keep-10"): "no configuration file 'keep-10'; a policy is --policy keep-10",
    (*QUICK, "--set", "train.lr=1", "train.epochs=2"): "an option of the configuration is --set train.epochs=2",
    (*QUICK, "--set", "train.lr", "=", "1"): "`collapse run` does not take '1'; write KEY=VALUE without spaces",
    (*QUICK, "--set"): "--set needs a value after it",
    (*QUICK, "--generations", "5.5"): "--generations must be a whole number, it is '5.5' (collapse run --help)",
    (*QUICK, "--generations="): "--generations is empty; is a shell variable unset? (collapse run --help)",
    (*QUICK, "--seeds", ""): "--seeds is empty; is a shell variable unset?",
    (*QUICK, "--policy", "keep-0", "--policy", " "): "--policy is empty; is a shell variable unset?",
    ("run", ""): "CONFIG is empty; is a shell variable unset? (collapse run --help)",
    ("compare", "smoke", ""): "RUN is empty; is a shell variable unset?",
    ("eval", ""): "TARGET is empty; is a shell variable unset?",
    ("gc", "--without", ""): "--without is empty; is a shell variable unset?",
    ("theory", "gaussian", "--n", ""): "--n is empty; is a shell variable unset? (collapse theory gaussian --help)",
    ("status", "smoke", "--runs-dir", "a b"): "(`collapse run --preset smoke --runs-dir 'a b'` makes it); `collapse list --runs-dir 'a b'` shows",
    ("status", "s3://bucket/x/runs/smoke"): "its place given with --runs-dir, as in smoke --runs-dir s3://bucket/x",
    (*QUICK, "--jobs=-1"): "--jobs must be at least 0, it is '-1'",
    (*QUICK, "--executor", "Ray"): "--executor must be one of local, ray, it is 'Ray' (did you mean 'ray'?) (collapse run --help)",
    (*QUICK, "--set", "shards=4"): "which is an option of the command: --shards",
    (*QUICK, "--set", "loop.executor=ray"): "unknown key 'loop.executor'; it says how a run is computed, which is an option of the command",
    ("check", "a", "b", "--devices", "2"): "there is no option --devices; it is an option of `collapse run` (collapse check --help)",
    ("status", "--dry-run"): "there is no option --dry-run; it is an option of `collapse run` (collapse status --help)",
    ("list", "--runs-dir", "s3:/bucket/x"): "'s3:/bucket/x' is no address, though it begins like one; write s3://BUCKET/PREFIX",
    ("list", "--runs-dir", "https://host/x"): "runs cannot be kept behind http; for S3 name s3://BUCKET/PREFIX",
    ("list", "--runs-dir", f"{__file__}/x/y"): f"{__file__} is a file or a device, and {__file__}/x/y would be in it; name another folder",
    ("gc", "--without", "nine", "--runs-dir", str(Path(__file__).parent)): "--without nine: there is no run of that name in",
    (*QUICK, "--data", "s3://bucket/text.txt"): "'s3://bucket/text.txt' to take text from (data.source, --data) (an address: ",
    (*QUICK, "--model", "s3://bucket/model"): "'s3://bucket/model' is not a folder (an address: runs alone can be elsewhere",
    ("run", "--preset", "nature-vae", "--data", "s3://b/mnist"): "names no images (an address: runs alone can be elsewhere, and what they read is on",
    (*QUICK, "--seeds=-1"): "--seeds '-1': a seed must be at least 0",
    (*QUICK, "--lr", "1"): "there is no option --lr; any option of an experiment is --set KEY=VALUE: --set train.lr=…",
    (*QUICK, "--blub", "1"): "there is no option --blub; any option of an experiment is --set KEY=VALUE; `collapse options`",
    (*QUICK, "--dryrun"): "there is no option --dryrun (did you mean --dry-run?)",
    (*QUICK, "--policy", "keep10"): "there is no policy 'keep10' (did you mean 'keep-10'?)",
    (*QUICK, "--policy", "Fresh-5"): "there is no policy 'Fresh-5' (did you mean 'fresh-5'?)",
    (*QUICK, "--policy", "acumulate"): "there is no policy 'acumulate' (did you mean 'accumulate'?)",
    (*QUICK, "--policy", "keep-0,keep-10"): "as in keep-10; give each policy a --policy of its own",
    ("run", "--data", "./nowhere.txt"): "there is no file or folder './nowhere.txt'",  # before the Hub is asked for the model
    (*QUICK, "--preset", "smoke"): "--preset is given twice; give one (collapse run --help)",
    (*QUICK, "--seeds", "0", "--seeds", "1"): "--seeds is given twice; give one; several seeds are --seeds 0,1,2",
    ("eval", "x", "--data=a", "--data", "b", "--data", "c"): "--data is given 3 times; give one (collapse eval --help)",
    ("theory", "ridge", "--n", "100", "--n", "200"): "--n is given twice; give one (collapse theory ridge --help)",
    ("options", "lernrate"): "no option has 'lernrate' in its name or meaning; the nearest: learner",
}  # fmt: skip


@pytest.mark.parametrize("arguments", TYPED, ids=" ".join)
def test_what_is_typed_wrong_is_answered_in_one_line(arguments: tuple[str, ...], tmp_path: Path) -> None:
    runs = ("--runs-dir", tmp_path) if arguments[0] == "run" and arguments[-1] != "--set" else ()
    result = e2e.collapse(*arguments, *runs)
    assert result.code == 2
    assert result.out == ""
    assert result.err.startswith("collapse: ")
    assert result.err.count("\n") == 1
    assert TYPED[arguments] in result.err
    assert list(tmp_path.iterdir()) == []


def test_a_runs_folder_that_is_not_there_is_said(tmp_path: Path) -> None:
    nowhere = tmp_path / "nowhere"
    listed, cleared = (e2e.collapse(command, "--runs-dir", nowhere) for command in ("list", "gc"))
    assert (listed.code, cleared.code) == (0, 2)
    assert "a folder that does not exist" in " ".join(listed.out.split())
    assert f"there is no folder '{nowhere}' (--runs-dir)" in cleared.err
    assert not nowhere.exists()


def test_a_file_in_place_of_a_run_is_said(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    file.write_text("")
    for command in ("status", "report", "forecast"):
        said = e2e.collapse(command, file)
        assert said.code == 2
        assert said.err == f"collapse: {file} is a file; give the name of a run, or its folder\n"
    made = e2e.collapse(*QUICK, "--name", file.name, "--runs-dir", tmp_path)
    assert made.err == f"collapse: {file} is a file, and the run's folder must be there; give another --name\n"


def test_a_dataset_that_is_nowhere_is_said_before_torch_and_datasets(tmp_path: Path) -> None:
    """`--data corpus`, where no `corpus` is: took 8 to 21 s, and did not say that there is no such file."""
    code = """
import sys
from collapse_cli.__main__ import main
assert main(sys.argv[1:]) == 2
assert not {"torch", "transformers", "datasets"} & sys.modules.keys()
"""
    place = {"HF_HOME": str(tmp_path / "hf"), "HF_ENDPOINT": "http://127.0.0.1:9", "PATH": "", "HOME": str(tmp_path)}
    for command in (("run", "--preset", "smoke"), ("run", "--preset", "ngram-zipf")):
        done = subprocess.run(
            [sys.executable, "-c", code, *command, "--data", "corpus", "--runs-dir", str(tmp_path / "runs")],
            capture_output=True, text=True, cwd=ROOT, env=place | {"PYTHONPATH": str(ROOT)}, timeout=PATIENCE,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert (
            "there is no file or folder 'corpus' here, the Hub cannot be reached and the dataset is not cached"
            in done.stderr
        )
        assert done.stderr.count("\n") == 1


def test_a_cached_dataset_is_found_in_either_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "datasets"))
    assert not _cached_dataset("Some/BigText")
    (tmp_path / "datasets" / "Some___big_text").mkdir(parents=True)
    assert _cached_dataset("Some/BigText")
    assert not _cached_dataset("Some/Other")
    (tmp_path / "hub" / "datasets--Some--Other").mkdir(parents=True)
    assert _cached_dataset("Some/Other")
