"""Helpers of the end-to-end tests: a tiny experiment, and the command line in this process or in forks of another.

Run as a script this file is the driver of the kill tests: it imports torch once, then runs each job in a fork of its
own, where the job may be killed at a chosen point. One driver serves all tests of a process.
"""

import contextlib
import importlib
import io
import itertools
import json
import os
import random
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from collapse_cli.__main__ import main

ROOT = Path(__file__).resolve().parents[2]
ROWS, BLOCK, TEST_ROWS = 40, 16, 12  # of the tiny experiment
HEX64 = "[0-9a-f]" * 2 + "/" + "[0-9a-f]" * 64
TINY = """
[loop]
generations = 1
policies = ["keep-0", "keep-10"]

[model]
tokenizer = "bpe"
vocab_size = 290

[model.config]
model_type = "opt"
hidden_size = 16
word_embed_proj_dim = 16
ffn_dim = 16
num_hidden_layers = 1
num_attention_heads = 2
max_position_embeddings = 32
dropout = 0.1

[data]
source = "{source}"
block_size = 16
rows = 40
eval_rows = 12

[sample]
prompt_tokens = 16
new_tokens = 16
dtype = "float32"
decode = {{ beams = 1, temperature = 1.0 }}

[train]
epochs = 1
lr = 1e-2
batch_size = 8
dtype = "float32"
"""
LINEAGES = """
[pool]
rule = "all"
public = "{public}"
weights = "1:1:2"

[lineages.plain]

[lineages.other]
model = {{ vocab_size = 300, config = {{ model_type = "gpt2", n_embd = 16, n_layer = 1, n_head = 2, n_positions = 64 }} }}
"""
ONE_THREAD = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
WORDS = ("the", "a", "cat", "dog", "bird", "runs", "sees", "likes", "old", "new", "red", "house", "tree", "of", "under")


# --- a tiny experiment ------------------------------------------------------------------------------------------------


def write_text(folder: Path, train_lines: int = 150) -> Path:
    """A folder of text with `train.txt`, `valid.txt` and `test.txt`; nearly every row of 16 tokens is unique."""
    folder.mkdir(parents=True, exist_ok=True)
    draw = random.Random(1)
    for split, lines in {"train": train_lines, "valid": 30, "test": 30}.items():
        text = "".join(" ".join(draw.choices(WORDS, k=12)).capitalize() + ".\n" for _ in range(lines))
        (folder / f"{split}.txt").write_text(text, encoding="utf-8")
    return folder


def write_experiment(folder: Path) -> Path:
    """A configuration file and its text: 40 rows, one layer, one epoch; a generation takes a tenth of a second."""
    path = folder / "tiny.toml"
    path.write_text(TINY.format(source=write_text(folder / "text").as_posix()), encoding="utf-8")
    return path


def write_lineages(folder: Path, more: str = "", *, public_lines: int = 200) -> Path:
    """The same of lineages `plain` and `other`, of another model and other tokens, which share a pool with public text; `more`: tables."""
    path, public = write_experiment(folder), folder / "public.txt"
    public.write_text(
        "".join(f"public text says {n} and {n * 7 % 31}.\n" for n in range(public_lines)), encoding="utf-8"
    )
    alone = path.read_text(encoding="utf-8").replace('policies = ["keep-0", "keep-10"]', 'policies = ["keep-50"]')
    path.write_text(alone + LINEAGES.format(public=public.as_posix()) + more, encoding="utf-8")
    return path


def write_model(folder: Path, *, vocab_size: int = 0, tokens: int = 290, positions: int = 64) -> Path:
    """A model folder as transformers writes it: a random OPT and a byte-level BPE of `tokens` entries."""
    import torch
    from transformers import OPTConfig, OPTForCausalLM

    from collapse_cli.lm.text import train_bpe

    tokenizer = train_bpe(["the old dog sees a red house under the tree\n"] * 20, tokens)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = OPTConfig(
            vocab_size=vocab_size or len(tokenizer),
            hidden_size=16,
            word_embed_proj_dim=16,
            ffn_dim=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            max_position_embeddings=positions,
        )
        model = OPTForCausalLM(config)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


# --- the command line in this process ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Result:
    """How a command ended and what it printed."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


def collapse(*arguments: str | Path) -> Result:
    """Run a command in this process."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main([str(argument) for argument in arguments])
    return Result(code, out.getvalue(), err.getvalue())


def run(config: Path, runs: Path, *arguments: str, **settings: Any) -> dict[str, Any]:
    """`collapse run CONFIG --json`, which must succeed; settings are written section__key=value."""
    sets = [f"--set={key.replace('__', '.')}={value}" for key, value in settings.items()]
    result = collapse("run", config, "--runs-dir", runs, "--json", *arguments, *sets)
    assert result.code == 0, result.err
    said: dict[str, Any] = result.json
    return said


# --- what is on disk --------------------------------------------------------------------------------------------------


def read_lines(path: Path) -> list[dict[str, Any]]:
    """A file of JSON lines, all of them whole; without their digests."""
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    for line in lines:
        if isinstance(line, dict):
            line.pop("digest", None)
    return lines


def metrics(runs: Path, name: str = "tiny") -> dict[tuple[str, int, int], dict[str, Any]]:
    """The rows of a run by (policy, seed, generation); each must be there once."""
    rows = read_lines(runs / name / "metrics.jsonl")
    by_model = {(row["policy"], row["seed"], row["generation"]): row for row in rows}
    assert len(by_model) == len(rows), "a generation has two rows"
    return by_model


def results(runs: Path, name: str = "tiny") -> dict[tuple[str, int, int], dict[str, Any]]:
    """The rows of a run without what may differ from one time to the next: the seconds."""
    return {
        where: {key: value for key, value in row.items() if key != "seconds"}
        for where, row in metrics(runs, name).items()
    }


def plan(runs: Path, name: str = "tiny") -> list[dict[str, Any]]:
    """The planned stages of a run."""
    planned: list[dict[str, Any]] = json.loads((runs / name / "plan.json").read_text())["stages"]
    return planned


def stages(runs: Path) -> dict[str, dict[str, Any]]:
    """All finished stages in the store by key: their `stage.json`."""
    return {path.name: json.loads((path / "stage.json").read_text()) for path in (runs / "store").glob(HEX64)}


def kinds(keys: Sequence[str] | set[str], runs: Path) -> Counter[str]:
    """How many of the stages `keys` are of each kind."""
    there = stages(runs)
    return Counter(there[key]["kind"] for key in keys)


def folder_of(runs: Path, key: str) -> Path:
    """Where a stage stands."""
    return runs / "store" / key[:2] / key


def finished_events(runs: Path, *names: str) -> Counter[str]:
    """How often each stage was computed, by key, as the runs' events say."""
    events = [event for name in names for event in read_lines(runs / name / "events.jsonl")]
    return Counter(event["key"] for event in events if event["event"] == "finished")


def snapshot(folder: Path) -> dict[str, tuple[int, int]]:
    """Every file below a folder with its size and time of change."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): (path.stat().st_size, path.stat().st_mtime_ns) for path in files}


def corpus(runs: Path, name: str, policy: str, seed: int, generation: int) -> Any:
    """The rows that a generation was trained on, as a Dataset: those of its mix stage."""
    from collapse_cli.data.dataset import Dataset

    (key,) = [
        stage["key"]
        for stage in plan(runs, name)
        if stage["kind"] == "mix" and [policy, seed, generation] in stage["for"]
    ]
    return Dataset.load(folder_of(runs, key) / "train.safetensors")


def real_rows(runs: Path, name: str, file: str = "train.safetensors") -> Any:
    """The rows of the data stage of a run, as a Dataset."""
    from collapse_cli.data.dataset import Dataset

    (key,) = [stage["key"] for stage in plan(runs, name) if stage["kind"] == "data"]
    return Dataset.load(folder_of(runs, key) / file)


def as_set(tokens: Any) -> set[tuple[int, ...]]:
    """Rows of tokens as a set."""
    return {tuple(row) for row in tokens.tolist()}


# --- the driver: jobs in forks of a process of their own --------------------------------------------------------------


def drive(*steps: Mapping[str, Any] | Sequence[Mapping[str, Any]], timeout: float = 240) -> list[list[int]]:
    """Run jobs one after the other, those of an inner list at once. Returns the exit codes of each step.

    A job is a dict with `argv` and, where wanted: `out` and `err` (files), `strike` (where it is hit by a signal),
    `until_done` (again and again while it is killed), `most_rows` (sampled at once), `log` (a file that hears how far
    each stage comes), `copy` (two folders: the first is copied to the second before), `pid` (a file that hears the
    number of its process), `env` (variables of its own), `forks` (whether its workers are forks of it, which imports nothing anew, or processes as a
    user's are), `here` (in the process that all other jobs of the call are
    forks of, which then need not do again what a process does once).
    """
    jobs = [[step] if isinstance(step, Mapping) else list(step) for step in steps]
    with tempfile.TemporaryDirectory() as temporary:
        ends, said = Path(temporary, "codes.json"), Path(temporary, "said.txt")
        asked = {"jobs": jobs, "env": dict(os.environ), "folder": str(Path.cwd()), "ends": str(ends), "said": str(said)}
        driver = _driver()
        assert driver.stdin is not None
        assert driver.stdout is not None
        try:
            driver.stdin.write(json.dumps(asked) + "\n")
            driver.stdin.flush()
            if not select.select([driver.stdout], [], [], timeout)[0]:
                raise TimeoutError(f"the jobs were not done after {timeout} seconds")
            answer = driver.stdout.readline()
        except BaseException:  # whose answer, later, would be taken for that of another call
            driver.kill()
            driver.wait()
            raise
        assert answer == "0\n", said.read_text() if said.exists() else "the driver has ended"
        codes: list[list[int]] = json.loads(ends.read_text())
        return codes


_started: list[subprocess.Popen[str]] = []


def _driver() -> subprocess.Popen[str]:
    """The driver of this process, which has imported all that takes seconds; it ends when its input does."""
    if not _started or _started[-1].poll() is not None:
        # of one thread, in which it can be forked: jobs at once would fight over the cores
        alone = {**dict.fromkeys(ONE_THREAD, "1"), "TOKENIZERS_PARALLELISM": "false"}
        _started.append(
            subprocess.Popen(
                [sys.executable, __file__],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env={**os.environ, **alone},
                text=True,
            )
        )
    return _started[-1]


def end_driver() -> None:
    """End the driver of this process, if there is one."""
    for driver in _started:
        with (
            contextlib.suppress(OSError),
            driver,
        ):  # which closes its input, and waits; one that was killed has no reader
            pass
    _started.clear()


def strike(kind: str, call: int = 1, *, when: str, tell: int = 1, name: str = "SIGKILL") -> dict[str, Any]:
    """Where a job is hit: in the `call`-th computed stage of `kind` (or of any).

    Args:
        when: `tell`: when the body reports progress for the `tell`-th time. `half`: with half of its largest file
            written. `published`: after the stage has become visible, before anybody hears of it.
    """
    return {"kind": kind, "call": call, "when": when, "tell": tell, "name": name}


def _drive() -> None:
    # What takes seconds is done once, before the forks: a run of its own. A fork must not inherit threads at work.
    for module in ("torch._dynamo", "transformers.generation", "collapse_cli.run.runner"):
        importlib.import_module(module)
    tasks = _threads()
    with tempfile.TemporaryDirectory() as temporary:
        config = write_experiment(Path(temporary))
        result = collapse("run", config, "--runs-dir", Path(temporary, "runs"), "--jobs", "1")
    assert result.code == 0, result.err
    _alone(tasks)
    own = {name: os.environ[name] for name in (*ONE_THREAD, "TOKENIZERS_PARALLELISM")}
    for line in sys.stdin:
        asked = json.loads(line)
        child = os.fork()
        if child == 0:
            _answer(asked, own)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


def _answer(asked: Mapping[str, Any], own: Mapping[str, str]) -> None:
    """Do the jobs of one call, in a fork of the driver, whose output is none of the caller's."""
    code = 1
    try:
        said = os.open(asked["said"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        for stream, file in ((0, os.open(os.devnull, os.O_RDONLY)), (1, said), (2, said)):
            os.dup2(file, stream)
        os.chdir(asked["folder"])
        os.environ.clear()
        os.environ.update({**asked["env"], **own})
        codes, tasks = [], _threads()
        for step in asked["jobs"]:
            if step[0].get("here"):
                codes.append([main(step[0]["argv"])])
                _alone(tasks)
                continue
            children = [_fork(job) for job in step]
            ends = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
            while step[0].get("until_done") and ends[-1] == -signal.SIGKILL and len(ends) < 100:
                ends.append(os.waitstatus_to_exitcode(os.waitpid(_fork(step[0]), 0)[1]))
            codes.append(ends)
        Path(asked["ends"]).write_text(json.dumps(codes))
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _threads() -> dict[str, str]:
    """The names of this process's threads, by number; none where the system does not tell.

    Without those of pyarrow's allocator, which begin when they like, and which a fork can do without.
    """
    names = {path.parent.name: path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")}
    return {number: name for number, name in names.items() if not name.startswith("jemalloc")}


def _alone(before: Collection[str]) -> None:
    """Wait until threads that have ended are gone; a fork must not inherit one that is at work."""
    end = time.monotonic() + 120
    while more := {number: name for number, name in _threads().items() if number not in before}:
        assert time.monotonic() < end, f"threads are still at work: {more}"
        time.sleep(0.02)


def _fork(job: Mapping[str, Any]) -> int:
    if child := os.fork():
        return child
    code = 1
    try:
        for number, name in ((1, "out"), (2, "err")):
            os.dup2(os.open(job.get(name, os.devnull), os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
        if "copy" in job:
            shutil.copytree(*job["copy"])
        os.environ.update(job.get("env", {}))
        if "pid" in job:
            Path(job["pid"]).write_text(str(os.getpid()))
        _arm(job)
        if job.get("forks"):
            importlib.import_module("forks").fork_workers()  # beside this script
        code = main(job["argv"])
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _arm(job: Mapping[str, Any]) -> None:
    """Make the stage bodies of this process tell how far they come, and strike where the job says."""
    from collapse_cli.engine.folder_store import FolderStore
    from collapse_cli.experiment.kinds import KINDS
    from collapse_cli.lm import sample

    sample.MOST_SEQUENCES["cpu"] = job.get("most_rows", sample.MOST_SEQUENCES["cpu"])
    signal.signal(signal.SIGINT, signal.default_int_handler)  # it is ignored where a shell started us in the background
    where = job.get("strike", {"kind": "nowhere", "call": 0, "when": "", "tell": 0, "name": "SIGKILL"})
    calls, published = itertools.count(1), itertools.count(1)

    def hit() -> None:
        os.kill(os.getpid(), getattr(signal, where["name"]))

    def armed(kind: str, body: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(stage: Any, inputs: Any, place: Any) -> Any:
            chosen = where["kind"] in (kind, "any") and next(calls) == where["call"]
            tells = itertools.count(1)

            def tell(done: int, total: int, unit: str) -> None:
                if "log" in job:
                    with Path(job["log"]).open("a") as log:
                        log.write(json.dumps([kind, stage.key, done, total]) + "\n")
                place.tell(done, total, unit)
                if chosen and where["when"] == "tell" and next(tells) == where["tell"]:
                    hit()

            facts = body(stage, inputs, replace(place, tell=tell))
            if chosen and where["when"] == "half":
                largest = max(
                    (path for path in place.folder.rglob("*") if path.is_file()), key=lambda p: p.stat().st_size
                )
                os.truncate(largest, largest.stat().st_size // 2)
                hit()
            return facts

        return wrapped

    for kind in KINDS:
        object.__setattr__(kind, "body", armed(kind.kind, kind.body))
    publish = FolderStore.publish

    def publish_and_hit(self: Any, stage: Any, *rest: Any) -> Any:
        made = publish(self, stage, *rest)
        if where["when"] == "published" and where["kind"] in (stage.kind, "any") and next(published) == where["call"]:
            hit()
        return made

    FolderStore.publish = publish_and_hit  # type: ignore[method-assign, assignment]


if __name__ == "__main__":
    _drive()
