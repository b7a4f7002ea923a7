"""Paths, TOML and options at their extremes: one line, exit code 2, soon; and before torch is imported."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support import e2e
from support.waiting import PATIENCE

from collapse_cli.config import load, parse_seeds, parse_settings, read_toml
from collapse_cli.errors import ConfigError

ROOT = Path(__file__).resolve().parents[2]
HUGE, LONG = "9" * 5000, "n" * 300
NESTED = "[" * 5000
BASE = '[model.config]\nmodel_type = "opt"\n[data]\nsource = "pydoc"\n[sample]\ndecode = { beams = 1, temperature = 1.0 }\n'


def said(*arguments: str | Path) -> str:
    """What a mistake's one line says, without more work than any machine does in some seconds."""
    began = time.process_time()
    result = e2e.collapse(*arguments)
    took = time.process_time() - began
    assert result.code == 2, result
    assert result.err.startswith("collapse: ")
    assert result.err.count("\n") == 1, result.err
    assert len(result.err) < 2500
    assert result.out == ""
    assert took < 30, f"{took:.1f} s"
    return result.err


SETTINGS: dict[str, tuple[str, ...]] = {  # a --set, and what its line says
    f"train.epochs={HUGE}": ("train.epochs", "thousands of digits"),
    "train.epochs=9223372036854775808": ("train.epochs", "2**63"),
    "train.epochs=1e30": ("train.epochs",),
    f"train.lr={HUGE}": ("train.lr", "thousands of digits"),
    "train.lr=nan": ("train.lr", "finite"),
    "train.lr=inf": ("train.lr", "finite"),
    "train.lr=-inf": ("train.lr",),
    "train.lr=1e400": ("train.lr", "finite"),
    "train.adversarial=1e9": ("train.adversarial must be at most 1",),
    "train.lr=true": ("train.lr must be a number, it is true",),
    "train.epochs=true": ("train.epochs must be a whole number, it is true",),
    'train.epochs="5"': ("train.epochs must be a whole number",),
    "train.epochs=five": ("train.epochs must be a whole number, it is 'five'",),
    "train.epochs=1.5": ("train.epochs must be a whole number",),
    "train.epochs=2024-01-01": ("train.epochs",),
    "data.line_bos=1": ("data.line_bos must be true or false, it is 1",),
    "data.line_bos=yes": ("data.line_bos must be true or false",),
    "data.source=5": ("data.source must be text, it is 5",),
    "data.source=true": ("data.source must be text, it is true",),
    "loop.seeds=[true]": ("loop.seeds must be a whole number, it is true",),
    "loop.seeds=[-1]": ("loop.seeds", "at least 0"),
    "loop.seeds=[1.5]": ("loop.seeds",),
    f"loop.seeds=[{2**70}]": ("loop.seeds", "2**63"),
    "loop.policies=[1]": ("loop.policies must be text, it is 1",),
    "loop.policies=keep-0": ("loop.policies must be a list",),
    "loop.generations=1000000000": ("loop.generations", "1e+06"),
    "loop.generations=-1": ("loop.generations", "at least 0"),
    f"loop.generations={NESTED}": ("loop.generations",),
    f"loop.policies={NESTED}{']' * 5000}": ("nested too deeply",),
    "train=5": ("train must be a table",),
    "train.lr.x=5": ("train.lr",),
    ".".join("a" * 5000) + "=1": ("no option like that",),
    "a" * 5000 + "=1": ("unknown key",),
    "train..lr=1": ("key=value",),
    ".=1": ("key=value",),
    "train.=1": ("key=value",),
    "train.lr": ("key=value",),
    "=": ("key=value",),
    "sample.decode.x.y.z=1": ("unknown key 'sample.decode.x'",),
    "train.lr=0.1\ntrain.epochs=5": ("line break",),
    "data.train=a\nb.txt": ("line break",),
    "train.epochs=5 # of them": ("#",),
    "train.lr\x00=5": ("unknown key",),
    "tr\x1b[31main.lr=5": ("unknown key", "\\x1b"),
}


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda text: ascii(text)[:50])
def test_a_setting_at_its_extreme(tmp_path: Path, setting: str) -> None:
    line = said("run", "--preset", "smoke", "--runs-dir", tmp_path / "runs", "--set", setting)
    for words in SETTINGS[setting]:
        assert words in line, line
    assert "\x1b" not in line
    assert not (tmp_path / "runs").exists()


POLICIES = [
    *("keep-+5", "keep-1e1", "keep-\u0663", "keep-007", "keep-", "keep- 5", "keep-5 ", "keep-5.", "keep-.5", "keep-0x5", "keep-1_0"),
    *("keep-nan", "keep-inf", "keep--1", "keep-101", "keep-100.5", f"keep-{HUGE}", "Keep-5", "keep\n-5", "", LONG, "\x1b[31m"),
]  # fmt: skip


@pytest.mark.parametrize("policy", POLICIES, ids=lambda text: ascii(text)[:30])
def test_a_policy_at_its_extreme(tmp_path: Path, policy: str) -> None:
    line = said("run", "--preset", "smoke", "--runs-dir", tmp_path / "runs", "--policy", policy)
    assert "policy" in line
    assert not (tmp_path / "runs").exists()


OPTIONS: dict[str, tuple[tuple[str, ...], str]] = {
    "seeds twice": (("--seeds", "0,0"), "twice"),
    "seeds twice by range": (("--seeds", "0-3,2"), "twice"),
    "seed below 0": (("--seeds=-1",), "--seeds"),
    "seed no whole number": (("--seeds", "1.5"), "--seeds"),
    "seed beyond 64 bits": (("--seeds", str(2**70)), "--seeds"),
    "seed beyond 63 bits": (("--seeds", str(2**63)), "2**63"),
    "seeds counting down": (("--seeds", "9-0"), "0-9"),
    "too many seeds": (("--seeds", "0-99999999"), "10,000"),
    "no seed": (("--seeds", ""), "--seeds"),
    "a comma too many": (("--seeds", "0,"), "--seeds"),
    "Arabic digits": (("--seeds", "\u0663"), "--seeds"),
    "generations huge": (("--generations", "1000000000"), "generations"),
    "generations of 5,000 digits": (("--generations", HUGE), "generations"),
    "generations below 0": (("--generations", "-1"), "generations"),
    "jobs below 0": (("--jobs", "-1"), "--jobs"),
    "a plan too large": (("--generations", "1000000", "--seeds", "0-9"), "models"),
    "the same --set twice": (("--set", "train.lr=1", "--set", "train.lr=2"), "two values, 1 and 2"),
    "a table and its key": (("--set", "train={lr=1}", "--set", "train.lr=2"), "two values"),
    "a key and its table": (("--set", "train.lr=2", "--set", "train={lr=1}"), "two values"),
    "an option and --set": (("--generations", "1", "--set", "loop.generations=2"), "--generations and --set"),
    "an empty name": (("--name", ""), "--name is empty"),
    "a blank name": (("--name", "  "), "--name is empty"),
    "a long name": (("--name", LONG), "--name"),
    "a hidden name": (("--name", ".hidden"), "--name"),
    "a reserved name": (("--name", "store"), "--name"),
    "a reserved name in capitals": (("--name", "STORE"), "--name"),
    "a name with a control character": (("--name", "a\x1b[31mb"), "\\x1b"),
    "a name with a line break": (("--name", "a\n"), "--name"),
    "a name of letters that look alike": (("--name", "n\u0430me"), "--name"),
    "an empty preset": (("--preset", ""), "--preset is empty"),
    "a long preset": (("--preset", LONG * 100), "preset"),
    "an empty model": (("--model", ""), "--model is empty"),
    "empty data": (("--data", ""), "--data is empty"),
    "a long model": (("--model", "/" + LONG), "model"),
    "a long data path": (("--data", "/" + LONG), "data"),
}


@pytest.mark.parametrize("name", OPTIONS)
def test_an_option_at_its_extreme(tmp_path: Path, name: str) -> None:
    arguments, words = OPTIONS[name]
    preset = () if "--preset" in arguments else ("--preset", "smoke")
    assert words in said("run", *preset, "--runs-dir", tmp_path / "runs", *arguments)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    "command", [("run", "--preset", "smoke"), ("list",), ("status", "x"), ("gc",), ("report", "x")]
)
def test_an_empty_or_impossible_runs_folder(command: tuple[str, ...], tmp_path: Path) -> None:
    assert "--runs-dir" in said(*command, "--runs-dir", "")
    assert "--runs-dir" in said(*command, "--runs-dir", " ")
    if command[0] == "run":
        (tmp_path / "file").write_text("x")
        assert "--runs-dir" in said(*command, "--runs-dir", tmp_path / "file")
        assert "too long" in said(*command, "--runs-dir", tmp_path / LONG)


FILES: dict[str, tuple[bytes, str]] = {
    "not UTF-8": (b"a = '\xff'\n", "UTF-8"),
    "UTF-16": ('a = "b"\n'.encode("utf-16"), "UTF-8"),
    "a key twice": (b"[train]\nlr = 1\nlr = 2\n", "TOML"),
    "a table twice": (b"[train]\n[train]\n", "TOML"),
    "nested too deeply": (b"a = " + b"[" * 100_000, "nested too deeply"),
    "nested and closed": (b"a = " + b"[" * 500 + b"]" * 500, "nested too deeply"),
    "a table of tables": (b"[" + b".".join([b"a"] * 3000) + b"]\n", "nested too deeply"),
    "a huge number": (b"[train]\nlr = " + b"9" * 5000 + b"\n", "thousands of digits"),
    "a NUL": (b"a = 1\x00\n", "TOML"),
    "a million policies": (b"[loop]\npolicies = [" + b'"k",' * 240_000 + b"]\n", "1,000 entries"),
    "empty list": (b"[loop]\npolicies = []\n", "must not be empty"),
    "a table for a list": (b"[loop]\npolicies = {}\n", "must be a list"),
    "a hostile key": (b'"\\u001b[31mred" = 1\n', "\\x1b[31mred"),
    "a key of 10,000 letters": (b"k" * 10_000 + b" = 1\n", "unknown key"),
    "no table for variants": (b"variants = 5\n", "variants"),
    "no table for a variant": (b"[variants]\na = 5\n", "variants"),
    "a variant's name": (b"[variants.'../x']\n", "variant's name"),
    "an expectation that is none": (b"expect = [5]\n", "expect"),
    "of 2 MB": (b"#" * 2_000_000, "2,000,000 bytes"),
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_at_its_extreme(tmp_path: Path, name: str) -> None:
    content, words = FILES[name]
    file = tmp_path / "my.toml"
    file.write_bytes(content)
    line = said("run", file, "--runs-dir", tmp_path / "runs")
    assert words in line, line
    assert "my.toml" in line


@pytest.mark.parametrize("name", ["my experiment.toml", "-dash.toml", "store.toml", "größe.toml"])
def test_a_file_whose_name_no_run_can_have_says_so(tmp_path: Path, name: str) -> None:
    """Nobody gave a --name; it is the file's."""
    file = tmp_path / name
    file.write_text(BASE)
    line = said("run", file)
    assert "a run has the name of its file, and " in line
    assert "; give it another with --name" in line


def test_a_file_of_100_mb_is_not_read(tmp_path: Path) -> None:
    file = tmp_path / "data.toml"
    with file.open("wb") as sparse:
        sparse.truncate(100_000_000)
    assert "100,000,000 bytes" in said("run", file)


def test_a_byte_order_mark_is_passed_over(tmp_path: Path) -> None:
    file = tmp_path / "windows.toml"
    file.write_bytes(b"\xef\xbb\xbf" + b"[train]\r\nlr = 0.5\r\n")
    assert read_toml(file) == {"train": {"lr": 0.5}}


def test_a_file_that_changes_while_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, real, looks = tmp_path / "my.toml", os.fstat, []
    file.write_text(BASE)

    def growing(number: int) -> os.stat_result:
        found = real(number)
        looks.append(found.st_size)
        if len(looks) == 2 and found.st_size == len(BASE):
            file.write_text(BASE + "[train]\nlr = 0.5\n")
        return found

    monkeypatch.setattr(os, "fstat", growing)
    with pytest.raises(ConfigError, match="changed while it was read"):
        read_toml(file)


@pytest.fixture
def pipe(tmp_path: Path) -> Iterator[Path]:
    """A named pipe that nobody writes into."""
    path = tmp_path / "pipe.toml"
    os.mkfifo(path)
    yield path
    path.unlink()


def run_apart(*arguments: str | Path, timeout: float = PATIENCE) -> "subprocess.CompletedProcess[str]":
    """A command in a process of its own, which is ended when it hangs."""
    command = [sys.executable, "-m", "collapse_cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, cwd=ROOT)


def test_a_pipe_or_a_device_is_never_waited_for(pipe: Path, tmp_path: Path) -> None:
    runs = ("--runs-dir", tmp_path / "runs")
    for arguments in (
        ("run", pipe, *runs),
        ("run", "/dev/zero", *runs),
        ("run", tmp_path, *runs),
        ("run", "--preset", "smoke", "--data", pipe, *runs),
        ("run", "--preset", "smoke", "--model", pipe, *runs),
    ):
        done = run_apart(*arguments)
        assert done.returncode == 2, done
        assert done.stderr.count("\n") == 1, done.stderr
    assert not (tmp_path / "runs").exists()


def test_seeds_may_be_ranges() -> None:
    assert parse_seeds("0-9") == list(range(10))
    assert parse_seeds("0-3,7") == [0, 1, 2, 3, 7]
    assert parse_seeds(" 4 , 6 - 7") == [4, 6, 7]
    assert parse_seeds("5") == parse_seeds("5-5") == [5]


def test_what_looks_extreme_and_is_right_passes() -> None:
    assert parse_settings(['data.train="a#b.txt"', "data.test=a b.txt"]) == {
        "data": {"train": "a#b.txt", "test": "a b.txt"}
    }
    assert parse_settings(["train.lr=1", "train.lr=1"]) == {"train": {"lr": 1}}
    assert parse_settings(['loop.policies=["keep-0", "fresh-0.5"]'])["loop"]["policies"] == ["keep-0", "fresh-0.5"]
    one: Any = load({"data": {"rows": 1e6}, "train": {"lr": 1}}, "x")
    assert (one.data.rows, one.train.lr) == (1_000_000, 1.0)


# --- before torch ------------------------------------------------------------------------------------------------------

EARLY: dict[str, tuple[Callable[[Path], list[str]], str]] = {
    "preset": (lambda home: ["run", "--preset", "smok"], "'smoke'"),
    "file": (lambda home: ["run", str(home / "none.toml")], "none.toml"),
    "option": (lambda home: ["run", "--preset", "smoke", "--set", "train.epoch=1"], "train.epochs"),
    "meaning": (lambda home: ["run", "--preset", "smoke", "--set", "gmm.components=3"], "gmm.components"),
    "policy": (lambda home: ["run", "--preset", "smoke", "--policy", "kep-5"], "kep-5"),
    "name": (lambda home: ["run", "--preset", "smoke", "--name", ".."], "--name"),
    "learner": (lambda home: ["run", "--preset", "smoke", "--set", "learner=lmm"], "'lm'"),
    "model path": (lambda home: ["run", "--model", str(home / "none")], "none"),
    "model folder": (lambda home: ["run", "--model", str(home)], "config.json"),
    "model file": (lambda home: ["run", "--preset", "smoke", "--model", str(home / "no.json")], "no.json"),
    "tokenizer": (lambda home: ["run", "--preset", "smoke", "--set", f"model.tokenizer={home}/none"], "tokenizer"),
    "data": (lambda home: ["run", "--preset", "smoke", "--data", str(home / "none.txt")], "none.txt"),
    "data folder": (lambda home: ["run", "--preset", "smoke", "--data", str(home)], "holds no text files"),
    "numbers": (lambda home: ["run", "--preset", "smoke", "--set", "data.source=blobs"], "numbers"),
    "images": (lambda home: ["run", "--preset", "nature-vae", "--data", str(home / "none")], "images"),
    "grid": (lambda home: ["run", "--preset", "strong-ridge", "--set", "mixture.size=[3]"], "mixture.size"),
    "eval path": (lambda home: ["eval", str(home / "none")], "none"),
    "eval folder": (lambda home: ["eval", str(home)], "config.json"),
    "eval option": (lambda home: ["eval", str(home), "--set", "train.lr=1"], "train.lr"),
    "report": (lambda home: ["report", "nothing"], "nothing"),
    "compare": (lambda home: ["compare", "nothing", "other"], "nothing"),
    "forecast": (lambda home: ["forecast", "nothing"], "nothing"),
    "status": (lambda home: ["status", "nothing"], "nothing"),
    "theory": (lambda home: ["theory", "ridge", "--p2", "7"], "p2"),
    "theory option": (lambda home: ["theory", "ridge", "--m", "7"], "--m"),
    "command": (lambda home: ["rnu"], "'run'"),
    "flag": (lambda home: ["run", "--epochs", "3"], "--set train.epochs"),
}
SAID_EARLY = """
import contextlib, io, json, os, sys
from pathlib import Path
from collapse_cli.__main__ import main
for name, arguments in json.loads(sys.stdin.read()):
    err = io.StringIO()
    with contextlib.redirect_stderr(err):
        code = main(arguments)
    heavy = sorted({"torch", "transformers", "datasets"} & sys.modules.keys())
    print(json.dumps([name, code, err.getvalue(), heavy]))
"""


def test_a_mistake_is_said_before_torch_is_imported(tmp_path: Path) -> None:
    """One process says them all, and has none of the heavy libraries at the end of any."""
    import json

    home, cwd = tmp_path / "home", tmp_path / "cwd"
    home.mkdir()
    cwd.mkdir()
    (home / "notes.log").write_text("x")
    orders = [(name, case(home)) for name, (case, _) in EARLY.items()]
    done = subprocess.run(
        [sys.executable, "-c", SAID_EARLY],
        input=json.dumps(orders),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hub")},
    )
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [name for name, *_ in found] == list(EARLY)
    for name, code, err, heavy in found:
        assert (code, heavy) == (2, []), (name, err)
        assert EARLY[name][1] in err, (name, err)
        assert err.count("\n") == 1, (name, err)
    assert list(cwd.iterdir()) == []


def test_help_and_version_and_list_need_neither_torch_nor_numpy() -> None:
    code = (
        "import sys\nfrom collapse_cli.__main__ import main\n"
        "for a in (['-h'], ['run', '-h'], ['theory', '-h'], ['--version']): assert main(a) == 0\n"
        "print(sorted({'torch', 'transformers', 'datasets', 'numpy', 'scipy'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"


def test_two_mistakes_at_once_do_not_wait_for_each_other(tmp_path: Path) -> None:
    """Nothing takes a lock to say that a run is not there."""
    ends: list[int] = []
    threads = [threading.Thread(target=lambda: ends.append(run_apart("status", "x").returncode)) for _ in range(2)]
    for one in threads:
        one.start()
    for one in threads:
        one.join(30)
    assert ends == [2, 2]
