"""What the presets' rows against theory would notice: laws changed on purpose, with the standard errors of the runs shown."""

import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
NOTHING = "tells none of the mistakes of docs/results/mutations.md"
UNSEEN = {
    ("generational-regression", "n - d for n - d - 1"),
    ("strong-iterative", "p2² for g"),
}  # under 1% at these sizes


@pytest.fixture(scope="module")
def mutations() -> ModuleType:
    sys.path.insert(0, str(BENCHMARKS))
    try:
        import mutations as found
    finally:
        sys.path.remove(str(BENCHMARKS))
    return found


def test_the_page_is_that_of_the_presets_as_they_are(mutations: ModuleType) -> None:
    errors = json.loads(mutations.ERRORS_KEPT.read_text(encoding="utf-8"))
    for preset in mutations.PRESETS:
        for run, experiment in mutations.experiments(preset).items():
            assert len(errors[run]) == len(experiment.expect), f"run {run} again, then benchmarks/mutations.py"
    assert mutations.PAGE.read_text(encoding="utf-8") == mutations.table(errors)


def test_every_mistake_is_noticed_by_some_row(mutations: ModuleType) -> None:
    """Before, no row told a generation from the next one, nor the effective share from the nominal mass."""
    errors = json.loads(mutations.ERRORS_KEPT.read_text(encoding="utf-8"))
    for preset, rows in mutations.checked(errors).items():
        for mistake in mutations.MISTAKES[preset]:
            noticed = any(blind.get(mistake) is False for _, blind in rows)
            assert noticed != ((preset, mistake) in UNSEEN), f"{preset}: {mistake}"


def test_a_row_that_tells_nothing_says_so(mutations: ModuleType) -> None:
    errors = json.loads(mutations.ERRORS_KEPT.read_text(encoding="utf-8"))
    for preset, rows in mutations.checked(errors).items():
        entries = [
            entry
            for experiment in mutations.experiments(preset).values()
            for entry in experiment.expect
            if entry.value is None
        ]
        for (name, blind), entry in zip(rows, entries, strict=True):
            assert (NOTHING in entry.note) == (bool(blind) and all(blind.values())), f"{preset}: {name}"
