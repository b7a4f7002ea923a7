"""What trained models say of shares: sentences and intervals against simulated measurements whose truth is known."""

import math
from collections.abc import Sequence

import numpy as np
import pytest

from collapse_cli.findings.shares import ShareVerdict, verdict_of
from collapse_cli.records.row import Row
from collapse_cli.where import Where

REPLACED = [(100 - made, made) for made in (0, 10, 25, 50, 75, 100)]
ADDED = [(100, 25), (100, 100)]
ABOUT = {
    "rows": 100,
    "added_to": 100,
    "block": 64,
    "steps": 500,
    "batch": 32,
    "parameters": 174_000,
    "from_scratch": True,
}


def rows(effects: Sequence[float], seeds: int, noise: float | Sequence[float], draw: np.random.Generator) -> list[Row]:
    """Rows of a run in which cell i has `effects[i]` nats a token more than real text alone; seeds differ by more than the noise."""
    spread = np.broadcast_to(noise, len(effects))
    made = []
    for seed in range(seeds):
        own = draw.normal(0, 0.05)
        for (real, synthetic), effect, width in zip([*REPLACED, *ADDED], effects, spread, strict=True):
            fields = {
                "real_rows": real,
                "synthetic_rows": synthetic,
                "rows": real + synthetic,
                "share": synthetic / (real + synthetic),
            }
            fields["nll"] = 4 + own + effect + draw.normal(0, width)
            made.append(Row(Where("", seed, 0, "", f"{real} and {synthetic}"), fields))
    return made


def said(of: ShareVerdict | None, tone: str = "") -> str:
    assert of is not None
    return "\n".join(remark.text for remark in of.remarks if tone in ("", remark.tone))


def test_where_every_share_hurts_it_says_so_with_the_ends_and_names_none_as_the_best() -> None:
    found = verdict_of(rows([0, 0.1, 0.2, 0.3, 0.5, 0.9, 0.2, 0.4], 3, 0.005, np.random.default_rng(0)), ABOUT)
    assert found is not None
    assert "hurts at every share that was tried" in said(found, "bad")
    assert "at 10%, and by a factor of 2." in said(found, "bad")
    assert found.best == [0.0]
    assert found.replaced[1].ratio is not None
    assert found.replaced[1].ratio.mean == pytest.approx(math.exp(0.1), rel=0.02)
    assert "Adding as much synthetic text as there is real text raises" in said(found, "bad")
    assert "174 k parameters" in said(found)
    assert "all 7 comparisons together" in said(found)


def test_what_helps_and_what_hurts_are_told_apart() -> None:
    found = verdict_of(rows([0, -0.1, -0.2, 0.0, 0.2, 0.5, -0.1, 0.0], 3, 0.004, np.random.default_rng(1)), ABOUT)
    assert found is not None
    assert found.best == [0.25]
    assert "helps at 10% and 25%" in said(found, "good")
    assert "falls by 18% (" in said(found, "good")
    assert "raises perplexity" in said(found, "bad")
    assert "Adding 25% as much synthetic text to the real text lowers" in said(found, "good")
    assert "Replacing 50% is not shown to help or to hurt" in said(found)


def test_seeds_that_do_not_agree_allow_no_verdict() -> None:
    found = verdict_of(rows([0.0] * 8, 3, 0.2, np.random.default_rng(2)), ABOUT)
    assert said(found, "bad") == ""
    assert "is not shown to help or to hurt at any share" in said(found)
    assert "3 seeds do not allow to say" in said(found)


def test_one_seed_says_that_it_allows_none() -> None:
    found = verdict_of(rows([0, 0.1, 0.2, 0.3, 0.5, 0.9, 0.2, 0.4], 1, 0.0, np.random.default_rng(0)), ABOUT)
    assert found is not None
    assert [remark.tone for remark in found.remarks] == ["plain"]
    assert "One seed allows no verdict" in said(found)
    assert found.best == []


@pytest.mark.parametrize(
    ("noise", "most"),
    [(0.01, 0.05), ([0.01] * 5 + [0.05] + [0.01] * 2, 0.08), ([0.05] + [0.01] * 7, 0.15)],
    ids=["equal", "one cell five times as noisy", "real text alone five times as noisy"],
)
def test_where_nothing_differs_a_difference_is_seldom_claimed(noise: float | list[float], most: float) -> None:
    """For all seven comparisons together: docs/metrics.md has the figures of 1,000 repetitions."""
    draw = np.random.default_rng(0)
    wrong = 0
    for _ in range(300):
        found = verdict_of(rows([0.0] * 8, 3, noise, draw), ABOUT)
        assert found is not None
        wrong += any(effect.sign for effect in (*found.replaced, *found.added))
    assert wrong / 300 <= most


def test_intervals_hold_the_truth_together() -> None:
    draw, truth = np.random.default_rng(0), [0, 0.1, 0.2, 0.3, 0.5, 0.9, 0.2, 0.4]
    inside = best = 0
    for _ in range(300):
        found = verdict_of(rows(truth, 3, 0.03, draw), ABOUT)
        assert found is not None
        each = [effect.ratio for effect in (*found.replaced[1:], *found.added[1:]) if effect.ratio]
        inside += all(
            math.log(ratio.low or 0) <= true <= math.log(ratio.high or 0)
            for ratio, true in zip(each, truth[1:], strict=True)
        )
        best += 0.0 in found.best
    assert inside / 300 >= 0.93
    assert best / 300 >= 0.95


def test_seeds_that_are_not_measured_everywhere_do_not_count() -> None:
    every = rows([0, 0.1, 0.2, 0.3, 0.5, 0.9, 0.2, 0.4], 3, 0.005, np.random.default_rng(0))
    found = verdict_of(every[:-1], ABOUT)
    assert found is not None
    assert found.seeds == 2
    assert verdict_of(every[:1], ABOUT) is None
    assert verdict_of([], {}) is None


def test_more_real_text_than_is_replaced_has_a_line_of_its_own() -> None:
    """Where the synthetic text is the smaller one, replacing is of fewer rows than what is added to."""
    draw = np.random.default_rng(0)
    made = []
    for seed in range(3):
        for real, synthetic, nll in ((50, 0, 4.2), (25, 25, 4.5), (0, 50, 5.0), (100, 0, 4.0), (100, 50, 3.8)):
            fields = {
                "real_rows": real,
                "synthetic_rows": synthetic,
                "rows": real + synthetic,
                "share": 0.0,
                "nll": nll + draw.normal(0, 0.003),
            }
            made.append(Row(Where("", seed, 0, "", f"{real} and {synthetic}"), fields))
    found = verdict_of(made, ABOUT | {"rows": 50})
    assert found is not None
    assert [effect.amount for effect in found.replaced] == [0.0, 0.5, 1.0]
    assert [effect.amount for effect in found.added] == [0.0, 0.5]
    assert found.added[1].sign == -1
