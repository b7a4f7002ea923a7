"""The command that continues a run, as it can be given from the current folder."""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from collapse_cli.config import DEFAULT_PRESET

FLAGS = ("--dry-run", "--json")  # options of `collapse run` that take no value
RUNS_DIR = "--runs-dir"
DEFAULT_RUNS = Path("runs")  # where `collapse run` looks without the option


def with_more_options(words: Sequence[str], *options: str) -> list[str]:
    """The words of a command with more options: before a `--`, after which no word is an option."""
    at = list(words).index("--") if "--" in words else len(words)
    return [*words[:at], *options, *words[at:]]


def seen_from_here(words: Sequence[str], runs: Path) -> list[str]:
    """A recorded `run …` with the runs folder as this process sees it, in place of the one it was given, elsewhere perhaps.

    The default folder needs no option; any other one is named by its absolute path.
    """
    kept: list[str] = []
    rest = iter(words)
    for word in rest:
        if word == "--":
            kept += [word, *rest]
        elif word == RUNS_DIR:
            next(rest, None)
        elif not word.startswith(f"{RUNS_DIR}="):
            kept.append(word)
    here = runs.resolve()
    return kept if here == DEFAULT_RUNS.resolve() else with_more_options(kept, RUNS_DIR, str(here))


def name_given(command: Sequence[str]) -> str | None:
    """The name that a `collapse run …` gives its run, as `collapse_cli.cli.app` reads it; None for any other command.

    The runs of a configuration with variants have longer names.
    """
    if "run" not in command[:3]:
        return None
    words = iter(command[command.index("run") + 1 :])
    given: dict[str, str] = {}
    for word in words:
        if word in FLAGS:
            continue
        if word == "--":
            given["file"] = next(words, "")
        elif word.startswith("--"):
            option, equals, value = word.partition("=")
            given[option] = value if equals else next(words, "")
        else:
            given["file"] = word
    file = given.get("file")
    return given.get("--name") or (Path(file).stem if file else given.get("--preset", DEFAULT_PRESET))


def continued(words: Sequence[str], option: Mapping[str, Any], seeds: Sequence[int]) -> str:
    """The run's own command with one more policy, or twice the seeds; what is in the store is not computed again."""
    kept = [word for word in words[words.index("run") :] if word not in FLAGS]
    if "policy" in option:
        return shlex.join(["collapse", *with_more_options(kept, "--policy", option["policy"])])
    new = [max(seeds, default=-1) + 1 + i for i in range(len(seeds))]
    bare, skip = [], False
    for word in kept:
        if not skip and word != "--seeds" and not word.startswith("--seeds="):
            bare.append(word)
        skip = word == "--seeds"
    return shlex.join(["collapse", *with_more_options(bare, "--seeds", ",".join(map(str, [*seeds, *new])))])
