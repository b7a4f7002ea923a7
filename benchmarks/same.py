"""The same numbers, and the same stages, at two commits: presets are run by both, and the second takes up the runs of the first.

    .venv/bin/python benchmarks/same.py --commits be2790c .                       # every preset, most of them cut down in size
    .venv/bin/python benchmarks/same.py --commits be2790c . --whole quick,smoke --only quick,smoke
    .venv/bin/python benchmarks/same.py --commits be2790c . --keep runs/same       # what the first commit made is kept for next time

For each preset: both commits run it in an empty runs folder, and the rows of `metrics.jsonl` are compared, every field but
times. Then the second commit is given the same command on a copy of the first one's runs folder: it must find every stage and
compute none, and `status`, `report`, `compare` and `eval` must work there. Each run is a process of its own.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from loop import ROOT, checked_out
from report import Report, about_machine

from collapse_cli.config import presets, read_toml

sys.path.insert(0, str(ROOT / "tests"))
from support.cut import CUT

# fields that may differ from one time to the next, or say where a run folder is and that it is whole
NOT_COMPARED = ("seconds", "digest", "model_dir")
OPT = {"model_type": "opt", "hidden_size": 32, "word_embed_proj_dim": 32, "ffn_dim": 64, "num_hidden_layers": 1}
OPT |= {"num_attention_heads": 2, "max_position_embeddings": 128, "dropout": 0.1}
FOREIGN: dict[str, Any] = {  # a preset whose model comes from the Hub, with a small one of its own instead
    "loop": {"generations": 2},
    "model": {"source": "MODEL", "tokenizer": "bpe", "vocab_size": 320},
    "data": {"source": "pydoc", "rows": 64, "eval_rows": 32},
    "train": {"epochs": 1, "batch_size": 16},
}
SHARED = ROOT.parent / "shared" / "data"
MORE: dict[str, dict[str, Any]] = {  # of the presets that no test runs cut down
    "smoke": {},
    "quick": {"loop": {"generations": 2}},
    "error-sources": {"loop": {"generations": 1, "seeds": [0]}},
    "opt125m-wikitext2": FOREIGN,
    "nature-keep-10": FOREIGN,
    "wikitext2-small": {
        "loop": {"generations": 1},
        "data": {"source": str(SHARED / "wikitext-2"), "rows": 64, "eval_rows": 32},
        "model": {"tokenizer": str(SHARED / "opt-tokenizer")},
        "train": {"epochs": 1},
    },
    "strong-gpt2-full": {
        "loop": {"generations": 0},
        "model": {"tokenizer": "bpe", "vocab_size": 320, "config": {"n_embd": 32, "n_head": 2, "n_positions": 64}},
        "data": {"source": "pydoc", "block_size": 64, "eval_rows": 32},
        "sample": {"new_tokens": 63},
        "train": {"epochs": 1, "batch_size": 16},
        "mixture": {"rows": [32], "share": [0.0, 0.5], "size": [1, 2], "generator_rows": [32]},
    },
}


def options(preset: str, model: Path, *, whole: bool) -> list[str]:
    """The arguments of `collapse run` for a preset; of one with variants its options are those of each variant.

    Args:
        model: the file of a config, for presets whose model comes from the Hub.
    """
    cut = {} if whole else (CUT | MORE)[preset]
    if whole and preset == "wikitext2-small":
        cut = {"data": {"source": str(SHARED / "wikitext-2")}, "model": {"tokenizer": str(SHARED / "opt-tokenizer")}}
    prefixes = [f"variants.{name}." for name in read_toml(presets()[preset]).get("variants", {})] or [""]
    sets = [
        f"--set={prefix}{name}={value.replace('MODEL', str(model))}" for prefix in prefixes for name, value in flat(cut)
    ]
    return ["--preset", preset, *sets]


def flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """`("loop.seeds", "[0, 1]")` and so on."""
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", json.dumps(value)


def collapse(checkout: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """A command of a checkout, in its own process."""
    command = [sys.executable, "-m", "collapse_cli", *arguments]
    environment = os.environ | {"PYTHONPATH": str(checkout)}
    return subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True, check=False)


def run(checkout: Path, runs: Path, arguments: Sequence[str], name: str) -> float:
    """`collapse run`; its wall seconds.

    Raises:
        SystemExit: when it fails, with its last words.
    """
    start = time.perf_counter()
    done = collapse(checkout, "run", *arguments, "--runs-dir", str(runs), "--name", name)
    if done.returncode != 0:
        sys.exit(f"{' '.join(done.args)}\nended with {done.returncode}:\n{(done.stdout + done.stderr)[-3000:]}")
    return time.perf_counter() - start


def names_of(runs: Path) -> list[str]:
    return sorted(path.parent.name for path in runs.glob("*/metrics.jsonl"))


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def rows(runs: Path, name: str) -> dict[str, dict[str, Any]]:
    """The rows of a run by policy, seed and generation, without what is not compared."""
    found = {}
    for row in lines(runs / name / "metrics.jsonl"):
        where = f"{name}: {row['policy']}, seed {row['seed']}, generation {row['generation']}"
        found[where] = {field: value for field, value in row.items() if field not in NOT_COMPARED}
    return found


def differences(first: Path, second: Path) -> tuple[int, list[str]]:
    """How many rows there are, and each field that is not the same in both."""
    count, found = 0, []
    for name in sorted({*names_of(first), *names_of(second)}):
        before, after = rows(first, name), rows(second, name)
        count += len(before)
        for where in [*before, *(where for where in after if where not in before)]:
            one, other = before.get(where, {}), after.get(where, {})
            found += [
                f"{where}: {field}: {one.get(field)!r} and {other.get(field)!r}"
                for field in sorted(one.keys() | other.keys())
                if one.get(field) != other.get(field) or (field in one) != (field in other)
            ]
    return count, found


def keys(runs: Path, name: str) -> list[str]:
    """The keys of a run's plan, in its order."""
    return [stage["key"] for stage in json.loads((runs / name / "plan.json").read_bytes())["stages"]]


def computed(runs: Path, name: str, since: int) -> list[str]:
    """Stages computed since that many events."""
    events = lines(runs / name / "events.jsonl")[since:]
    return [f"{event['kind']} {event['key'][:8]}" for event in events if event["event"] in ("started", "finished")]


def taken_up(first: Path, second: Path, runs: Path, arguments: Sequence[str], name: str) -> list[str]:
    """What is not right when the second checkout takes up the runs of the first."""
    found = []
    events = {each: len(lines(runs / each / "events.jsonl")) for each in names_of(runs)}
    planned = {each: keys(runs, each) for each in events}
    before = {each: rows(runs, each) for each in events}
    run(second, runs, arguments, name)
    for each, since in events.items():
        found += [f"{each}: computed again: {stage}" for stage in computed(runs, each, since)]
        if keys(runs, each) != planned[each]:
            found.append(f"{each}: another plan")
        if rows(runs, each) != before[each]:
            found.append(f"{each}: other rows")
        for command in (["status"], ["report"], ["eval"]):
            done = collapse(second, *command, each, "--runs-dir", str(runs))
            if done.returncode != 0 and collapse(first, *command, each, "--runs-dir", str(runs)).returncode == 0:
                found.append(f"{each}: {command[0]} ended with {done.returncode}: {done.stderr.strip()[-300:]}")
    return found


def main() -> None:
    """Run, compare, print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--commits", nargs=2, default=("HEAD", "."), metavar="COMMIT", help="`.`: the working tree")
    parser.add_argument("--only", default=",".join(CUT | MORE), help="presets, with commas")
    parser.add_argument("--whole", default="smoke", help="those that are run as they are")
    parser.add_argument(
        "--keep", type=Path, metavar="FOLDER", help="where the runs are kept, and the first's found again"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the JSON there instead of printing it")
    asked = parser.parse_args()
    report = Report(asked.json, about_machine() | {"commits": asked.commits})
    table, faults = [], {}
    with tempfile.TemporaryDirectory(prefix="collapse-same-") as temporary:
        kept = (asked.keep or Path(temporary) / "kept").resolve()
        kept.mkdir(parents=True, exist_ok=True)
        model = kept / "opt.json"
        model.write_text(json.dumps(OPT), encoding="utf-8")
        with (
            checked_out(asked.commits[0], Path(temporary)) as first,
            checked_out(asked.commits[1], Path(temporary)) as second,
        ):
            for preset in asked.only.split(","):
                whole = preset in asked.whole.split(",")
                arguments = options(preset, model, whole=whole)
                name = f"{preset}-{'whole' if whole else 'cut'}"
                old, new, both = (kept / side / name for side in (asked.commits[0], "second", "both"))
                if not (old / "seconds").exists():
                    shutil.rmtree(old, ignore_errors=True)
                    seconds = run(first, old, arguments, name)
                    (old / "seconds").write_text(f"{seconds:.1f}")
                for folder in (new, both):
                    shutil.rmtree(folder, ignore_errors=True)
                seconds = run(second, new, arguments, name)
                count, found = differences(old, new)
                shutil.copytree(old, both)
                again = taken_up(first, second, both, arguments, name)
                stages = len({key for each in names_of(old) for key in keys(old, each)})
                table.append([
                    preset, "whole" if whole else "cut", str(count), str(stages), str(len(found)), str(len(again)),
                    (old / "seconds").read_text(), f"{seconds:.1f}",
                ])  # fmt: skip
                print(*table[-1], file=sys.stderr, sep="  ")
                print(*[*found, *again][:20], file=sys.stderr, sep="\n")
                faults[name] = [*found, *again]
                shutil.rmtree(both)
                shutil.rmtree(new)
    columns = ["preset", "size", "rows", "stages", "fields that differ", "faults when taken up"]
    report.table(f"{asked.commits[0]} and {asked.commits[1]}", [*columns, "s, first", "s, second"], table)
    report.finish({"faults": faults})
    sys.exit(any(faults.values()))


if __name__ == "__main__":
    main()
