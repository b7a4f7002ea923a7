"""Shares of the causes of collapse: of made-up runs whose shares are known."""

import json
from typing import Any

import numpy as np
import pytest
from support.rows import changed, row_of

from collapse_cli.findings.causes import Causes, shares
from collapse_cli.records.row import Row
from collapse_cli.where import Arm

Rows = dict[str, list[Row]]


def made(last: int = 3, seeds: tuple[int, ...] = (0, 1, 2), noise: float = 0.0, **added: float) -> Rows:
    """Runs whose KL grows in equal steps from 0.1 to 0.1 + 0.01 (the baseline) and as much as `added` above it."""
    draw = np.random.Generator(np.random.Philox(1))
    rows: Rows = {}
    for name, extra in {"baseline": 0.0, **added}.items():
        rows[name] = [
            row_of(
                "keep-0", seed, g, kl_truth=0.1 + 0.05 * seed + (0.01 + extra) * g / last + float(draw.normal(0, noise))
            )
            for seed in seeds
            for g in range(last + 1)
        ]
    return rows


def known(rows: Rows, **how: Any) -> Causes:
    found = shares(rows, **how)
    assert found is not None
    return found


def test_shares_are_those_that_were_put_in() -> None:
    found = known(made(statistical=0.1, expressivity=0.3, approximation=0.6, all=1.5))
    assert (found.generation, found.seeds) == (3, (0, 1, 2))
    assert list(found.variants) == ["baseline", "statistical", "expressivity", "approximation", "all"]
    for name, share in (("statistical", 0.1), ("expressivity", 0.3), ("approximation", 0.6)):
        cause = found.variants[name]
        assert cause.share is not None
        assert cause.excess is not None
        assert cause.share.mean == pytest.approx(share)
        assert cause.excess.mean == pytest.approx(share)
        assert cause.growth.mean == pytest.approx(share + 0.01)
        assert cause.error.mean == pytest.approx(0.15 + share + 0.01)
        # seeds differ in the level alone, and that drops out of the paired difference
        assert cause.share.half == pytest.approx(0, abs=1e-12)
        assert cause.error.half is not None
        assert cause.error.half > 0.05
    assert found.interaction is not None
    assert found.interaction.mean == pytest.approx(0.5)
    assert found.variants["baseline"].excess is None
    assert found.variants["all"].share is None
    assert found.variants["all"].excess is not None
    assert found.variants["all"].excess.mean == pytest.approx(1.5)


def test_noise_of_the_seeds_makes_intervals_and_these_hold_the_truth() -> None:
    found = known(made(seeds=tuple(range(40)), noise=0.02, statistical=0.2, expressivity=0.3, approximation=0.5))
    for name, true in (("statistical", 0.2), ("expressivity", 0.3), ("approximation", 0.5)):
        share = found.variants[name].share
        assert share is not None
        assert share.low is not None
        assert share.high is not None
        assert share.low < true < share.high
        assert 0.005 < share.high - share.low < 0.05


def test_shares_sum_to_one_and_may_be_negative() -> None:
    found = known(made(statistical=0.3, expressivity=-0.02, other=0.1, noise=0.01))
    means = [cause.share.mean for cause in found.variants.values() if cause.share]
    assert len(means) == 3
    assert sum(means) == pytest.approx(1)
    assert min(means) < 0
    assert found.interaction is None


def test_one_seed_has_no_interval() -> None:
    share = known(made(seeds=(7,), statistical=0.1, expressivity=0.3)).variants["statistical"].share
    assert share is not None
    assert (share.n, share.low, share.high) == (1, None, None)
    assert share.mean == pytest.approx(0.25)


def test_only_what_all_variants_have_counts() -> None:
    rows = made(last=4, statistical=0.4, expressivity=0.4)
    rows["expressivity"] = [row for row in rows["expressivity"] if row.where.generation < 3 and row.where.seed != 1]
    found = known(rows)
    assert (found.generation, found.seeds) == (2, (0, 2))
    excess = found.variants["statistical"].excess
    assert excess is not None
    assert excess.mean == pytest.approx(0.2)


def test_another_policy_has_shares_of_its_own() -> None:
    rows = made(statistical=0.1, expressivity=0.3)
    for name, some in made(statistical=0.3, expressivity=0.1).items():
        rows[name] += [
            row_of("keep-50", row.where.seed, row.where.generation, kl_truth=row.measure("kl_truth")) for row in some
        ]
    for policy, share in ((None, 0.25), ("keep-0", 0.25), ("keep-50", 0.75)):
        found = known(rows, arm=None if policy is None else Arm(policy)).variants["statistical"].share
        assert found is not None
        assert found.mean == pytest.approx(share)


def test_causes_that_add_nothing_have_no_shares() -> None:
    found = known(made(statistical=-0.01, expressivity=0.0))
    assert found.variants["statistical"].share is None
    assert found.variants["statistical"].excess is not None


@pytest.mark.parametrize(
    "rows",
    [
        {},
        made(),
        {name: rows for name, rows in made(statistical=0.1).items() if name != "baseline"},
        {**made(statistical=0.1), "expressivity": []},
        {name: [row for row in rows if row.where.generation == 0] for name, rows in made(statistical=0.1).items()},
        {name: [changed(row, kl_truth=None) for row in rows] for name, rows in made(statistical=0.1).items()},
        {**made(statistical=0.1), "expressivity": made(seeds=(5,))["baseline"]},
    ],
    ids=["nothing", "no cause", "no baseline", "no rows", "one generation", "no truth", "no common seed"],
)
def test_where_there_is_nothing_to_share_out_there_is_none(rows: Rows) -> None:
    assert shares(rows) is None


def test_the_record_is_json() -> None:
    record = known(made(statistical=0.1, expressivity=0.3, all=0.5)).record()
    assert json.loads(json.dumps(record)) == record
    assert record["variants"]["statistical"]["share"]["mean"] == pytest.approx(0.25)
