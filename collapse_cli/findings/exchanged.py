"""Which closed form of several models that learn from each other belongs to a lineage of an experiment, and what it says there.

As in `predictions`: plain trees in, a number or None out, None where no formula is known for that very protocol. Lineages have private
real rows (parts of one corpus, or the same rows for all), public rows, and the pool that `pool.rule` says.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice

import numpy as np

from collapse_cli import theory
from collapse_cli.config.names import merge
from collapse_cli.config.policies import Policy, of_row
from collapse_cli.config.pool import PoolConfig, Segment, overrides
from collapse_cli.config.weights import EQUAL, Shares, Weights
from collapse_cli.findings.predictions import SMALL, Tree
from collapse_cli.theory import LineageRows, Variance
from collapse_cli.theory.exchange import POOL_RULES, PoolRule

REAL_ROWS: dict[str, theory.RealRows] = {"keep": "drawn", "keep-rows": "same", "fresh": "new"}
MANY = 100  # rows for each dimension, from which on least squares is to about 1 / MANY a mean of rows in each direction
MOST = 100_000  # lineages times generations, up to which they are gone through
MEANS = ("variance", "mean_shift_squared", "distance_to_others", "mixture_variance")
ERRORS = ("error", "distance_to_others")


@dataclass(frozen=True)
class _Loop:
    """What `theory.pooled_means` is asked of one coordinate.

    Attributes:
        truths: of each lineage along the coordinate in which they differ.
        common: whether all lineages have the same real rows.
    """

    n: int
    rows: LineageRows
    rule: PoolRule
    truths: tuple[float, ...]
    public_truth: float
    real_rows: theory.RealRows
    variance: Variance
    common: bool


def exchanged_gaussian(tree: Tree, what: str, policy: str, lineage: str, generation: int) -> float | None:
    """`MEANS` of lineages of one blob each, in units of the true variance. Source: Several models in docs/theory.md. Exact."""
    own = _lineages(tree)
    if own is None or what not in MEANS or tree["data"]["source"] != "blobs" or lineage not in own:
        return None
    blobs = [one["data"]["blobs"] for one in own.values()]
    spread, d = float(blobs[0]["spread"]), int(blobs[0]["dimensions"])
    alike = all(
        int(blob["centers"]) == 1 and float(blob["spread"]) == spread and int(blob["dimensions"]) == d for blob in blobs
    )
    settings = [one["gaussian"] for one in own.values()]
    if not alike or any(one != settings[0] for one in settings) or float(settings[0].get("truncate", 0.0)) > 0:
        return None
    variance: Variance = "unbiased" if settings[0]["unbiased"] else "biased"
    base = float(tree["data"]["blobs"].get("shift", 0.0)) / spread
    shifts = tuple(float(blob.get("shift", 0.0)) / spread for blob in blobs)
    loop = _loop(tree, own, policy, shifts, base, variance)
    if loop is None:
        return None
    if len(own) * generation > MOST:
        return None
    last, place = 1 << generation.bit_length(), list(own).index(lineage)  # so that few of them are worked out
    moved, still = _path(loop, last), _path(_unmoved(loop), last)
    along, across = _value(moved[generation], what, place), _value(still[generation], what, place)
    total = along + (d - 1) * across
    return total / d if what in ("variance", "mixture_variance") else total


def exchanged_ridge(tree: Tree, what: str, policy: str, lineage: str, generation: int) -> float | None:
    """`ERRORS` of lineages of least squares with `MANY` rows or more for each dimension: off by about a hundredth then.

    With so many rows each of the d directions is a mean of rows with the labels' noise. Source: Several models in docs/theory.md.
    """
    own = _lineages(tree)
    if own is None or what not in ERRORS or tree["data"]["source"] != "regression" or lineage not in own:
        return None
    sections = [{**one["data"]["regression"], "shift": 0.0} for one in own.values()]
    section, noise = sections[0], float(sections[0]["noise"])
    later, d = float(section["noise_synthetic"]), int(section["dimensions"])
    plain = all(one == section for one in sections) and section["inputs"] == "fresh" and not section.get("flipped")
    if not plain or noise <= 0 or later not in (-1.0, noise):
        return None
    smallest = float(theory.spectrum(str(section["spectrum"]), d, float(section["beta"])).min())
    if any(float(one["ridge"]["lam"]) > SMALL * smallest for one in own.values()):
        return None
    base = float(tree["data"]["regression"].get("shift", 0.0)) / noise
    shifts = tuple(float(one["data"]["regression"].get("shift", 0.0)) / noise for one in own.values())
    loop = _loop(tree, own, policy, shifts, base, "known")
    rows = () if loop is None else (loop.n, loop.rows.private, loop.rows.public, loop.rows.synthetic)
    if loop is None or any(0 < some < MANY * d for some in rows) or len(own) * generation > MOST:
        return None
    name = "mean_shift_squared" if what == "error" else what
    last, place = 1 << generation.bit_length(), list(own).index(lineage)
    moved, still = _path(loop, last)[generation], _path(_unmoved(loop), last)[generation]
    return noise**2 * (_value(moved, name, place) + (d - 1) * _value(still, name, place))


def _lineages(tree: Tree) -> dict[str, Tree] | None:
    """The configuration of each lineage by name; None where there is one alone."""
    found = overrides(PoolConfig.model_validate(tree.get("pool") or {}), tree.get("lineages") or {})
    return None if "" in found else {name: merge(tree, table) for name, table in found.items()}


def _loop(
    tree: Tree,
    own: Mapping[str, Tree],
    policy: str,
    truths: tuple[float, ...],
    public_truth: float,
    variance: Variance,
) -> _Loop | None:
    """What a policy does to lineages that differ in their truths and in which rows are theirs; None where no formula has it."""
    pool, mix, known, chosen = tree.get("pool") or {}, tree["mix"], of_row(policy), tree.get("select") or {}
    rule = pool.get("rule", "own")
    plain = tree["loop"]["init"] == "base" and mix["size"] == "constant" and not pool.get("foreign")
    if any(chosen.get(name) for name in ("by", "do", "steps")) or not plain or rule not in POOL_RULES:
        return None
    if known is None or known.rule not in REAL_ROWS or len(set(known.shares)) > 1:
        return None
    sizes, segments = {int(one["data"]["rows"]) for one in own.values()}, [_segment(one) for one in own.values()]
    common = all(segment.whole for segment in segments)
    parted = not common and len({segment.of for segment in segments}) == 1 and len(set(segments)) == len(segments)
    if len(sizes) > 1 or not (common or parted) or (common and len(set(truths)) > 1):
        return None
    whole, of = sizes.pop(), segments[0].of
    if whole % of:
        return None
    n, members = whole // of, {"all": len(own), "others": len(own) - 1}.get(rule, 1)
    rows = _rows(tree, known, n)
    if rows is None or rows.synthetic % members:
        return None
    return _Loop(n, rows, rule, truths, public_truth, REAL_ROWS[known.rule], variance, common)


def _segment(tree: Tree) -> Segment:
    return Segment.parse(str(tree["data"].get("segment", "")))


def _rows(tree: Tree, policy: Policy, n: int) -> LineageRows | None:
    """The corpus of each generation, with the weights of its kinds of rows."""
    pool, mix = tree.get("pool") or {}, tree["mix"]
    size, public = int(mix.get("rows", 0)) or n, int(pool.get("public_rows", 0))
    private = policy.rows if policy.rule == "keep-rows" else round(size * policy.at(1).percent / 100)
    pooled, weights = size - private, Weights.parse(mix.get("weights", EQUAL))
    shares = Shares.parse(str(pool.get("weights", EQUAL)))
    if pooled < 0 or private > n or pool.get("public"):
        return None
    if shares.parts is not None:
        masses = [
            float(part) if rows else 0.0 for part, rows in zip(shares.parts, (private, public, pooled), strict=True)
        ]
        counts = [rows if mass else 0 for mass, rows in zip(masses, (private, public, pooled), strict=True)]
        return LineageRows(counts[0], counts[1], counts[2], (masses[0], masses[1], masses[2]))
    both = None if public else weights.of_rows(private, pooled)
    if public and not weights.equal:
        return None
    return LineageRows(private, public, pooled, None if both is None else (private * both[0], 0.0, pooled * both[1]))


def _unmoved(loop: _Loop) -> _Loop:
    """The same of a coordinate in which all truths are alike."""
    return _Loop(**{**vars(loop), "truths": (0.0,) * len(loop.truths), "public_truth": 0.0})


@lru_cache(maxsize=16)
def _path(loop: _Loop, last: int) -> tuple[theory.Lineages, ...]:
    asked = {**vars(loop), "truths": np.array(loop.truths)}
    return tuple(islice(theory.pooled_means(**asked, generations=last), last + 1))


def _value(at: theory.Lineages, what: str, place: int) -> float:
    if what == "distance_to_others":
        others = len(at.distances) - 1
        return float(at.distances[place].sum()) / others if others else 0.0
    if what == "mixture_variance":
        return at.mixture_variance
    return float({"variance": at.variances, "mean_shift_squared": at.by_lineage}[what][place])
