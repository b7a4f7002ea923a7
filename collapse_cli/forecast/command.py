"""The command that continues a run, as it can be given from the current folder."""

from collections.abc import Sequence
from pathlib import Path

RUNS_DIR = "--runs-dir"
DEFAULT_RUNS = Path("runs")  # where `collapse run` looks without the option


def with_options(words: Sequence[str], *options: str) -> list[str]:
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
    return kept if here == DEFAULT_RUNS.resolve() else with_options(kept, RUNS_DIR, str(here))
