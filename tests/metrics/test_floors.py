"""Every floor, cap and small number that a measure or a learner uses stands in docs/metrics.md, and as the code has it."""

import math
import sys
from pathlib import Path

import numpy as np
import pytest

from collapse_cli.config import Experiment
from collapse_cli.data import zipf
from collapse_cli.learners import em, gaussian, gmm
from collapse_cli.metrics import features, perplexity, repetition, samples

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "metrics.md").read_text(encoding="utf-8")
CONFIG = Experiment()
FLOORS = {
    "`ngram.floor`": CONFIG.ngram.floor,
    "`gmm.ridge`": CONFIG.gmm.ridge,
    "`gmm.tol`": CONFIG.gmm.tol,
    "gmm: `NONE`": gmm.NONE,
    "gmm: `EMPTY`": em.EMPTY,
    "gmm: `SAFE`": em.SAFE,
    "gaussian: `TINY`": gaussian.TINY,
    "gaussian: `SCORED`": gaussian.SCORED,
    "gaussian: `COLLAPSED`": gaussian.COLLAPSED,
    "samples: `MOST_BARS`": samples.MOST_BARS,
    "near duplicates: `MARGIN`": repetition.MARGIN,
    "perplexities": sys.float_info.max,
    "zipf: `SINKHORN_ERROR`": zipf.SINKHORN_ERROR,
    "MAUVE: `FEWEST`": features.FEWEST,
}


def table() -> dict[str, float]:
    """Where -> number, as the page has them."""
    section = PAGE.partition("## Floors, caps and small numbers")[2].partition("\n## ")[0]
    rows = [
        line.split("|") for line in section.splitlines() if line.startswith("| ") and not line.startswith("| where")
    ]
    return {row[1].strip(): float(row[2].replace(",", "")) for row in rows}


def test_the_page_names_every_floor_as_the_code_has_it() -> None:
    found = table()
    assert found.keys() == FLOORS.keys()
    for where, number in FLOORS.items():
        assert found[where] == pytest.approx(number, rel=0.02), where


@pytest.mark.parametrize("field", ["unseen_share", "missing_mass", "seen_perplexity", "log10_l2_squared", "floor"])
def test_fields_beside_a_floor_are_on_the_page(field: str) -> None:
    assert f"`{field}`" in PAGE or f"`ngram.{field}`" in PAGE


def test_squared_l2_does_not_saturate_but_grows_as_components_thin() -> None:
    """The page said that it saturates once the two are apart everywhere."""
    one = em.Mixture(np.ones(1), np.zeros((1, 2)), np.eye(2)[None])

    def thin(spread: float) -> float:
        far = em.Mixture(np.ones(1), np.full((1, 2), 50.0), spread**2 * np.eye(2)[None])
        return em.l2_squared(one, far)

    for spread in (1.0, 0.1, 0.001):
        assert thin(spread) == pytest.approx(1 / (4 * math.pi * spread**2) + 1 / (4 * math.pi))
    assert thin(math.sqrt(CONFIG.gmm.ridge)) == pytest.approx(8e4, rel=0.01)


def test_a_perplexity_ends_at_the_largest_float() -> None:
    assert perplexity(709.7) < sys.float_info.max
    assert perplexity(709.8) == sys.float_info.max


def test_every_measure_says_what_it_misses() -> None:
    """In each table of measures the last cell is filled; what is no measure of collapse has a dash for its direction."""
    empty, head = [], False
    for line in PAGE.splitlines():
        cells = [cell.strip() for cell in line.split("|")[1:-1]] if line.startswith("|") else []
        if not cells:
            head = False
        elif cells[-1] == "misses":
            head = True
        elif head and not set(line) <= set("|-: ") and not cells[-1]:
            direction = cells[2] if len(cells) < 5 or cells[0].startswith("`") else cells[3]
            empty += [] if direction == "–" else [line[:80]]
    assert not empty
