"""Far more than a person usually has, on one machine: runs in a folder, seeds, generations, text, stages.

    .venv/bin/python benchmarks/scale.py runs --runs 10000 --folder /tmp/many       # list, status, gc, compare
    .venv/bin/python benchmarks/scale.py stages --stages 10000,100000               # the scheduler, and what prunes models, alone
    .venv/bin/python benchmarks/scale.py seeds --seeds 1000
    .venv/bin/python benchmarks/scale.py generations --generations 100000
    .venv/bin/python benchmarks/scale.py text --megabytes 1000

Each command is a process of its own; of it: seconds by the clock, seconds of the processor (user and system, children included), and
the most memory that it and its children held at one moment (benchmarks/held.py). What is made stays in `--folder` when that is given, and is removed otherwise.
"""

import argparse
import gzip
import itertools
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from held import Peak
from report import Report, about_machine

from collapse_cli import SLEEPING
from collapse_cli.config import Experiment
from collapse_cli.engine import scheduler, sealed
from collapse_cli.engine.executors.base import Ended
from collapse_cli.engine.observer import Observer
from collapse_cli.engine.record import RECORD
from collapse_cli.engine.stage import Cost, Finished, Generation, Plan, Product, Stage, StageKind, digest
from collapse_cli.engine.store import Store
from collapse_cli.process import peak_memory_mb
from collapse_cli.records.remembered import FOLDER
from collapse_cli.records.rundir import RunFolder
from collapse_cli.run.observers.pruning import Pruning
from collapse_cli.where import Where

GAUSSIAN = """
learner = "gaussian"
[loop]
generations = {generations}
policies = [{policies}]
seeds = [{seeds}]
block = {block}
[gaussian]
trials = {trials}
[data]
source = "blobs"
rows = 100
eval_rows = 100
blobs = {{ dimensions = 1, centers = 1 }}
"""
NGRAM = """
learner = "ngram"
[loop]
generations = 3
policies = ["keep-10"]
[data]
source = "zipf"
block_size = 32
rows = 64
zipf = { vocabulary = 64, rank = 4, train_tokens = 8192, test_tokens = 2048 }
[sample]
prompts = "none"
new_tokens = 32
decode = { beams = 1, temperature = 1.0 }
"""
TEXT_MODEL = """
[loop]
generations = 1
policies = ["keep-0"]
[model]
tokenizer = "bpe"
vocab_size = 512
[model.config]
model_type = "opt"
hidden_size = 32
word_embed_proj_dim = 32
ffn_dim = 64
num_hidden_layers = 1
num_attention_heads = 2
max_position_embeddings = 64
dropout = 0.0
[data]
source = "{source}"
block_size = 64
rows = 512
eval_rows = 256
[train]
epochs = 1
batch_size = 32
[sample]
prompt_tokens = 32
new_tokens = 32
decode = {{ beams = 1, temperature = 1.0 }}
"""
READING = "import sys; from collapse_cli.data.dataset import load_text; load_text(sys.argv[1])"
EVERY = 10  # of so many runs one is a language model whose stages are many; the others are Gaussians in blocks


@dataclass(frozen=True)
class Took:
    """What a command took: seconds by the clock and of the processor, MB at the most, and what it printed."""

    clock: float
    processor: float
    memory_mb: int
    printed: str


def collapse(*words: str | Path, fails: bool = False) -> Took:
    """Run a command in a process of its own, as `measured` does."""
    return measured(["-m", "collapse_cli", *map(str, words)], fails=fails)


def measured(arguments: list[str], *, fails: bool = False) -> Took:
    """Run Python in a process of its own.

    Raises:
        SystemExit: when it fails, unless it may.
    """
    command = [sys.executable, *arguments]
    environment = os.environ | SLEEPING | {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as errors:
        start = time.perf_counter()
        with (
            subprocess.Popen(command, env=environment, stdout=out, stderr=errors) as process,
            Peak(process.pid) as peak,
        ):
            _, status, used = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        clock = time.perf_counter() - start
        for file in (out, errors):
            file.seek(0)
        printed = out.read()
        if process.returncode != 0 and not fails:
            sys.exit(f"{' '.join(command)} ended with {process.returncode}: {printed[-500:]} {errors.read()[-1500:]}")
    return Took(clock, used.ru_utime + used.ru_stime, peak.bytes // 10**6, printed)


def in_words(label: str, took: Took, note: str = "") -> list[str]:
    """A row of the table, printed at once, too."""
    row = [label, f"{took.clock:.2f}", f"{took.processor:.2f}", f"{took.memory_mb:,}", note]
    print("  ".join(row), flush=True)
    return row


# --- many runs --------------------------------------------------------------------------------------------------------


def fill(runs: Path, count: int) -> None:
    """Real runs, and copies of them under names and keys of their own until there are `count`.

    A copy is what the run with other seeds would have left: its stages have other seeds, so other keys, and all records and rows
    that name a key name the new one. Files without keys (data, models, the page) are hard links.
    """
    for name, text in (("gaussian", gaussian(20)), ("ngram", NGRAM)):
        if not (runs / name).exists():
            runs.mkdir(parents=True, exist_ok=True)
            file = runs.parent / f"{name}.toml"
            file.write_text(text)
            collapse("run", file, "--name", name, "--runs-dir", runs)
    templates = {name: Template.of(runs, name) for name in ("gaussian", "ngram")}
    for number in range(2, count):
        template = templates["ngram" if number % EVERY == 0 else "gaussian"]
        if not (runs / f"{template.name}-{number:05d}" / "run.json").exists():
            template.copy(number)


def gaussian(
    generations: int,
    seeds: Sequence[int] = (0,),
    policies: Sequence[str] = ("keep-0", "keep-50"),
    trials: int = 10,
    block: int = 0,
) -> str:
    """A configuration of the cheapest family."""
    text = GAUSSIAN.format(
        generations=generations,
        seeds=", ".join(map(str, seeds)),
        policies=", ".join(f'"{p}"' for p in policies),
        trials=trials,
        block=block,
    )
    return text.replace("block = 0\n", "")


@dataclass(frozen=True)
class Template:
    """A run that is copied: its name, its stages in the order of its plan, as their records stand, and its files."""

    runs: Path
    name: str
    stages: dict[str, dict[str, Any]]

    @classmethod
    def of(cls, runs: Path, name: str) -> "Template":
        """Read it."""
        planned = [entry["key"] for entry in sealed.read(runs / name / "plan.json")["stages"]]
        return cls(runs, name, {key: sealed.read(runs / "store" / key[:2] / key / RECORD) for key in planned})

    def copy(self, number: int) -> None:
        """Make one more run of it, whole, in the folder and its store."""
        name, keys = f"{self.name}-{number:05d}", dict[str, str]()
        for key, record in self.stages.items():
            inputs = {word: keys[made] for word, made in record["inputs"].items()}
            changed = record | {"seed": record["seed"] + number, "inputs": inputs}
            keys[key] = digest({word: changed[word] for word in ("kind", "version", "params", "inputs", "seed")})
            old, new = (self.runs / "store" / which[:2] / which for which in (key, keys[key]))
            if not new.exists():
                half = new.with_name(f"half-{new.name}")
                link(old, half, {RECORD: sealed.sealed(changed)})
                half.rename(new)
        run = self.runs / self.name
        record = sealed.read(run / "run.json")
        whole = {
            "plan.json": sealed.sealed(json.loads(renamed(json.dumps(sealed.read(run / "plan.json")), keys))),
            "metrics.jsonl": "".join(
                sealed.line(json.loads(renamed(json.dumps(row), keys)))
                for row in sealed.of_file(run / "metrics.jsonl")[0]
            ),
            "run.json": sealed.sealed(record | {"name": name}, allow_nan=True),
        }
        link(run, self.runs / name, whole)


KEYS = re.compile(r"[0-9a-f]{2}/[0-9a-f]{64}|[0-9a-f]{64}")


def renamed(text: str, keys: dict[str, str]) -> str:
    """With other keys, and the folders that are named after them."""

    def other(found: re.Match[str]) -> str:
        key = found[0][-64:]
        new = keys.get(key, key)
        return f"{new[:2]}/{new}" if "/" in found[0] else new

    return KEYS.sub(other, text)


def link(old: Path, new: Path, changed: dict[str, str]) -> None:
    """A folder whose files are hard links to those of another, but for those that are written anew."""
    shutil.copytree(old, new, copy_function=os.link, ignore=shutil.ignore_patterns(*changed))
    for name, text in changed.items():
        (new / name).write_text(text, encoding="utf-8")


def many_runs(folder: Path, asked: argparse.Namespace) -> list[list[str]]:
    """The commands that look through a folder of runs."""
    runs, table = folder / "runs", []
    start = time.perf_counter()
    fill(runs, asked.runs)
    print(f"made in {time.perf_counter() - start:.0f} s", flush=True)
    names = sorted(path.parent.name for path in runs.glob("*/run.json"))
    there = ["--runs-dir", str(runs)]
    shutil.rmtree(runs / FOLDER, ignore_errors=True)
    middle, other = names[len(names) // 2], names[len(names) // 3]
    for label, words in (
        ("`list`, the first time", ["list"]),
        ("`list`", ["list"]),
        ("`list --json`, the first time", ["list", "--json"]),
        ("`list --json`", ["list", "--json"]),
        ("`status`", ["status"]),
        ("`status RUN`", ["status", middle]),
        ("`status`, a name that is none", ["status", f"{middle}x"]),
        ("`compare` of two", ["compare", other, middle]),
        ("`gc --dry-run`, the first time", ["gc", "--dry-run"]),
        ("`gc --dry-run`", ["gc", "--dry-run"]),
        ("`gc`, nothing to do", ["gc"]),
    ):
        took = collapse(*words, *there, fails=label.endswith("none"))
        table.append(in_words(label, took, f"{len(took.printed):,} characters"))
    gone = [name for name in names if re.search(r"-\d{5}$", name)][-asked.gone :]
    for name in gone:
        shutil.rmtree(runs / name)
    table.append(
        in_words(f"`gc`, after {len(gone):,} runs were removed", took := collapse("gc", *there), took.printed.strip())
    )
    return table


# --- the scheduler alone ----------------------------------------------------------------------------------------------


class Nothing:
    """An executor and a store whose stages are done as soon as they are asked for."""

    slots = 4

    def __init__(self) -> None:
        self.store: Any = self
        self._there, self._at_work = set[str](), deque[Stage]()

    def has(self, key: str) -> bool:
        return key in self._there

    def get(self, key: str) -> Finished:
        return Finished("", key, Path(), {}, 0.0)

    def submit(self, stage: Stage, threads: int) -> None:
        self._at_work.append(stage)

    def poll(self, observer: Observer, wait: float | None) -> Iterator[Ended]:
        stage = self._at_work.popleft()
        self._there.add(stage.key)
        yield Ended(stage, self.get(stage.key))


class Nobody(Observer):
    """Hears nothing."""


def tiny_stages(count: int, *, chained: bool) -> list[Stage]:
    """Stages made from one, or each from the one before it."""
    kind = StageKind[Any](
        name="tiny",
        kind="tiny",
        version=1,
        product=Product.MODEL,
        body=lambda stage, inputs, place: {},
        cost=lambda stage, size: Cost(),
        label=lambda stage, place: "",
    )
    stages = [Stage(kind, {"number": 0})]
    for number in range(1, count):
        stages.append(Stage(kind, {"number": number}, {"made": stages[-1 if chained else 0]}))
        assert stages[-1].key
    return stages


def of_scheduler(folder: Path, asked: argparse.Namespace) -> list[list[str]]:
    """What deciding which stage is next takes, without anything else."""
    table = []
    for count in map(int, asked.stages.split(",")):
        for label, chained in (("from one", False), ("one after another", True)):
            stages, executor = tiny_stages(count, chained=chained), Nothing()
            start, began = time.perf_counter(), time.process_time()
            scheduler.run(stages, executor, Nobody())
            took = Took(time.perf_counter() - start, time.process_time() - began, peak_memory_mb(), "")
            table.append(in_words(f"scheduler, {count:,} stages {label}", took))
    return table


class Kept(set[str]):
    """A store of nothing but the keys of stages that are whole, and of all that were ever there."""

    def __init__(self) -> None:
        super().__init__()
        self.ever = set[str]()

    def has(self, key: str, *, whole: bool = True) -> bool:
        return key in (self if whole else self.ever)

    def locked(self, key: str) -> AbstractContextManager[bool]:
        return nullcontext(True)

    def prune(self, key: str) -> int:
        self.remove(key)
        return 0


def of_pruning(folder: Path, asked: argparse.Namespace) -> list[list[str]]:
    """What deciding which models nothing needs any more takes, without anything else: `store.keep_models = "none"`."""
    table = []
    config = Experiment.model_validate({"store": {"keep_models": "none"}})
    for count in map(int, asked.stages.split(",")):
        for label, chained in (("from one", False), ("one after another", True)):
            plan, store = Plan(), Kept()
            for number, stage in enumerate(tiny_stages(count, chained=chained)):
                where = Where("keep-0", 0, number)
                plan.generations.append(Generation(where, plan.add(stage, where), stage))
            start, began = time.perf_counter(), time.process_time()
            pruning = Pruning(RunFolder(folder, "mine"), cast(Store, store), config, plan)
            for key, stage in plan.stages.items():
                store.add(key)
                store.ever.add(key)
                pruning.finished(stage, cast(Finished, None), cached=False)
            pruning.prune()
            took = Took(time.perf_counter() - start, time.process_time() - began, peak_memory_mb(), "")
            table.append(in_words(f"pruning, {count:,} stages {label}", took, f"{len(store)} left"))
    return table


# --- one large run ----------------------------------------------------------------------------------------------------


def of_run(folder: Path, name: str, text: str) -> list[list[str]]:
    """A run, and what looks at it."""
    file, runs, table = folder / f"{name}.toml", folder / "runs", []
    file.write_text(text)
    there = ["--runs-dir", str(runs)]
    run = runs / name

    def size(path: Path) -> str:
        return f"{path.stat().st_size / 1e6:.1f} MB" if path.exists() else "none"

    for label, words in (
        ("`run`", ["run", file]),
        ("`run`, finished", ["run", file]),
        ("`status RUN`", ["status", name]),
        ("`report RUN`", ["report", name, "--out", folder / "page.html"]),
        ("`report RUN --md`", ["report", name, "--md", "--out", folder / "page.md"]),
        ("`forecast RUN`", ["forecast", name]),
        ("`compare RUN RUN`", ["compare", name, name]),
    ):
        took = collapse(*words, *there, fails=True)
        note = f"{len(took.printed):,} characters printed"
        if label == "`run`":
            note = f"metrics.jsonl {size(run / 'metrics.jsonl')}, page {size(run / 'report.html')}, store {sum(1 for _ in (runs / 'store').glob('[0-9a-f][0-9a-f]/*'))} stages"
        if "report" in label:
            note = size(folder / ("page.md" if "md" in label else "page.html"))
        table.append(in_words(label, took, note))
    return table


def many_seeds(folder: Path, asked: argparse.Namespace) -> list[list[str]]:
    """So many repetitions of twenty generations of two policies."""
    return of_run(folder, f"seeds-{asked.seeds}", gaussian(20, seeds=range(asked.seeds), trials=1))


def many_generations(folder: Path, asked: argparse.Namespace) -> list[list[str]]:
    """So many generations of one lineage, in blocks."""
    text = gaussian(asked.generations, policies=("keep-10",), trials=1, block=asked.block)
    return of_run(folder, f"generations-{asked.generations}", text)


# --- much text --------------------------------------------------------------------------------------------------------


def write_corpus(file: Path, megabytes: int) -> None:
    """Sentences of made-up words, some far more frequent than others, a paragraph a row: always the same for a size."""
    draw = random.Random(0)
    words = [
        "".join(draw.choice("bdfgklmnprstvz") + draw.choice("aeiou") for _ in range(draw.randint(1, 4)))
        for _ in range(20_000)
    ]
    weights = list(itertools.accumulate(1 / (rank + 3) for rank in range(len(words))))
    written = 0
    packed = file.suffix == ".gz"
    with gzip.open(file, "wt", 1, encoding="utf-8") if packed else file.open("w", encoding="utf-8") as out:
        while written < megabytes * 1_000_000:
            lines = []
            for _ in range(1000):
                drawn = draw.choices(words, cum_weights=weights, k=100)
                row = " ".join(drawn).capitalize() + "."
                lines.append((json.dumps({"text": row}) if ".jsonl" in file.name else row) + "\n")
            text = "".join(lines)
            written += len(text)
            out.write(text)


def much_text(folder: Path, asked: argparse.Namespace) -> list[list[str]]:
    """A file of text, of which a small model is trained on some rows, and continues them."""
    corpus = folder / f"text-{asked.megabytes}{asked.ending}"
    if not (corpus / f"test{asked.ending}").exists():
        corpus.mkdir(parents=True, exist_ok=True)
        write_corpus(corpus / f"train{asked.ending}", asked.megabytes)
        write_corpus(corpus / f"test{asked.ending}", 1)
    file, runs = folder / f"text-{asked.megabytes}.toml", folder / f"runs{asked.ending}"
    file.write_text(TEXT_MODEL.format(source=corpus))
    there, table = ["--runs-dir", str(runs)], list[list[str]]()
    table.append(in_words("reading it", measured(["-c", READING, str(corpus)])))
    commands: list[tuple[str, list[str | Path]]] = [
        ("`run`", ["run", file]),
        ("`run`, finished", ["run", file]),
        ("`run`, another seed", ["run", file, "--seeds", "1"]),
    ]
    for label, words in commands:
        took = collapse(*words, *there)
        table.append(in_words(label, took))
    for line in (runs / file.stem / "events.jsonl").read_text().splitlines():
        event = json.loads(line)
        if event["event"] == "finished":
            table.append(in_words(f"stage {event['work']}", Took(event["seconds"], 0.0, event["peak_memory_mb"], "")))
    size = sum(path.stat().st_size for path in (runs / "store").rglob("*") if path.is_file())
    table.append([f"store: {size / 1e6:,.0f} MB", "", "", "", ""])
    return table


# --- the command ------------------------------------------------------------------------------------------------------

PARTS: dict[str, Callable[[Path, argparse.Namespace], list[list[str]]]] = {
    "runs": many_runs,
    "stages": lambda folder, asked: of_scheduler(folder, asked) + of_pruning(folder, asked),
    "seeds": many_seeds,
    "generations": many_generations,
    "text": much_text,
}


@contextmanager
def place(given: Path | None) -> Iterator[Path]:
    """The folder to work in: the given one, which stays, or one that goes."""
    if given is not None:
        given.mkdir(parents=True, exist_ok=True)
        yield given
        return
    with tempfile.TemporaryDirectory(prefix="collapse-scale-") as name:
        yield Path(name)


def main() -> None:
    """Measure a part and print its table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--folder", type=Path, help="where it is made; it stays there, and what is there is used again")
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--gone", type=int, default=100, help="so many runs are removed, and `gc` their stages")
    parser.add_argument("--stages", default="10000,100000")
    parser.add_argument("--seeds", type=int, default=1000)
    parser.add_argument("--generations", type=int, default=100_000)
    parser.add_argument("--block", type=int, default=0, help="generations of a stage; 0: as the learner has it")
    parser.add_argument("--megabytes", type=int, default=1000)
    parser.add_argument(
        "--ending", choices=(".txt", ".txt.gz", ".jsonl", ".jsonl.gz"), default=".txt", help="of the text"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the JSON there instead of printing it")
    asked = parser.parse_args()
    report = Report(asked.json, about_machine())
    with place(asked.folder) as folder:
        table = PARTS[asked.part](folder, asked)
    columns = ["what", "s by the clock", "s of the processor", "MB at most", ""]
    report.table(asked.part, columns, table)
    report.finish({asked.part: table})


if __name__ == "__main__":
    main()
