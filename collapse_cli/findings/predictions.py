"""Which closed form of `collapse_cli.theory` belongs to which experiment, and what it says there.

Plain trees in (a configuration as `run.json` has it, the coordinates of a cell as a row of `metrics.jsonl` has them),
a number or None out: None where no formula is known for that very protocol. Nothing is approximated by a formula of
another protocol; the exception is a penalty too small to matter, which counts as least squares (`SMALL`).
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from itertools import islice
from typing import Any

import numpy as np

from collapse_cli import families, theory
from collapse_cli.config import pool
from collapse_cli.config.policies import Policy, of_row
from collapse_cli.config.weights import EQUAL, Weights
from collapse_cli.theory import TheoryError

Tree = Mapping[str, Any]  # a configuration as run.json has it
SMALL = 1e-3  # a penalty below this share of the smallest eigenvalue of X'X/n moves a risk by at most twice that share
EVERY = "*"  # in the place of a lineage: the mean over all
SETTLED = 5  # times its own time of relaxation, after which a chain with fixed real rows is at its end
FAR = (10**9, 10**12)  # rows, at which a closed form is at its plateau, or is not
GAUSSIAN = ("variance", "mean_shift_squared", "std", "log_variance", "w2_squared", "log_det")
WORDS = ("vocabulary_share", "missing_mass", "unseen_share")
MIXED = ("variance", "mean_shift_squared")
REAL_ROWS: dict[str, theory.RealRows] = {"keep": "drawn", "keep-rows": "same", "fresh": "new"}
RULES: dict[Policy | None, str] = {
    Policy("keep", 0.0): "replace",
    Policy("accumulate"): "accumulate",
}  # as formulas name them


@dataclass(frozen=True)
class _Regression:
    """The section `data.regression` as the formulas take it."""

    d: int
    kind: str
    beta: float
    noise: float
    noise_synthetic: float
    same_inputs: bool

    @staticmethod
    def of(tree: Tree) -> "_Regression":
        section = tree["data"]["regression"]
        first, second = float(section["noise"]), float(section["noise_synthetic"])
        return _Regression(
            int(section["dimensions"]),
            str(section["spectrum"]),
            float(section["beta"]),
            first,
            first if second < 0 else second,
            section["inputs"] == "same",
        )

    @property
    def eigenvalues(self) -> Any:
        return theory.spectrum(self.kind, self.d, self.beta)

    def least_squares(self, n: float, lam: float) -> bool:
        """Whether a fit to n > d rows is least squares, or so near that it makes no difference."""
        if n <= self.d:
            return False
        return lam <= SMALL * float(self.eigenvalues.min()) * (1 - math.sqrt(self.d / n)) ** 2


def predict_cell(tree: Tree, record: Mapping[str, Any]) -> float | None:
    """The expected headline measure of a cell of a mixture; None where no formula is known.

    Args:
        tree: of the experiment.
        record: the cell's coordinates, as `Cell.record` names them.
    """
    formula = _formula(tree, "cell")
    return None if formula is None else _finite(formula, tree, record)


def predict_loop(tree: Tree, what: str, policy: str, generation: int) -> float | None:
    """The expected value of a field of `metrics.jsonl` at a generation; None where no formula is known."""
    formula = _formula(tree, "loop")
    return None if formula is None else _finite(formula, tree, what, policy, generation)


def predict_lineage(tree: Tree, what: str, policy: str, lineage: str, generation: int) -> float | None:
    """The same of one lineage of several that take rows of each other; `*`: the mean over all of them."""
    formula = _formula(tree, "lineages")
    if formula is None:
        return None
    names = pool.names(pool.PoolConfig.model_validate(tree.get("pool") or {}), tree.get("lineages") or {})
    if len(names) > pool.MOST_LINEAGES or (lineage not in names and lineage != EVERY):
        return None
    values = [
        _finite(formula, tree, what, policy, name, generation) for name in (names if lineage == EVERY else (lineage,))
    ]
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(known) if known and len(known) == len(values) else None


def known_law(tree: Tree, where: Mapping[str, float]) -> tuple[float | None, float | None]:
    """What theory knows of error against rows at a place of a mixture's grid: its threshold, its plateau; None where it does not.

    Args:
        tree: of the experiment.
        where: `share` and the axes of its cells.
    """
    formula = _formula(tree, "law")
    threshold, plateau = (None, None) if formula is None else formula(tree, where)
    return threshold, plateau


def _formula(tree: Tree, which: str) -> Callable[..., Any] | None:
    """The closed form that the description of an experiment's family names; None where it names none."""
    known = families.of(tree["learner"]).theory
    return _imported(address) if known is not None and (address := getattr(known, which)) else None


@lru_cache
def _imported(address: str) -> Callable[..., Any]:
    module, _, name = address.partition(":")
    function: Callable[..., Any] = getattr(import_module(module), name)
    return function


# --- the closed forms of families, as their descriptions name them -----------------------------------------------------


def refitted_gaussian(tree: Tree, what: str, policy: str, generation: int) -> float | None:
    """`GAUSSIAN` of a single blob, in units of the true variance; of policies with real rows `MIXED`, with a truncated loss `variance`.

    Generation g has been fitted g + 1 times. Sources: Refitted Gaussians, Means of mixed rows and Selection in docs/theory.md.
    """
    own, blobs = tree[tree["learner"]], tree["data"]["blobs"]
    if tree["data"]["source"] != "blobs" or what not in GAUSSIAN or int(blobs["centers"]) != 1:
        return None
    rows, unbiased, d = int(tree["data"]["rows"]), bool(own["unbiased"]), int(blobs["dimensions"])
    threshold, rule = float(own.get("truncate", 0.0)), _rule(tree, policy)
    if threshold > 0:
        alone = what == "variance" and d == 1 and RULES.get(of_row(policy)) == "replace" and _plain(tree, "previous")
        if not alone:
            return None
        return theory.truncated_loss(threshold=threshold, n=rows, generations=generation, unbiased=unbiased).variance
    if rule:
        return _gaussian(what, rows, generation + 1, unbiased, rule, d)
    known = of_row(policy)
    if known is None or what not in MIXED or not _plain(tree, mixed=True):
        return None
    mix = tree["mix"]
    weights, size = Weights.parse(mix.get("weights", EQUAL)), int(mix.get("rows", 0)) or rows
    last = 1 << generation.bit_length()  # so that few of them are worked out
    path = _mixed(rows, size, known, last, unbiased, weights)
    if not path:
        return None
    error, variance = path[generation]
    return variance if what == "variance" else d * error


def counted_words(tree: Tree, what: str, policy: str, generation: int) -> float | None:
    """What unigrams have left of the language `zipf` without dependence, under keep-0 with as many tokens in each generation.

    Expectations over texts: of one text, which all seeds share, `vocabulary_share` is off by about 1% at 1,000 words. Source: Means of
    mixed rows in docs/theory.md.
    """
    data, sample = tree["data"], tree["sample"]
    if data["source"] != "zipf" or float((words := data["zipf"])["dependence"]) != 0 or what not in WORDS:
        return None
    tokens = int(data["rows"]) * int(data["block_size"])
    alone = int(tree[tree["learner"]]["order"]) == 1 and _rule(tree, policy) == "replace"
    drawn = sample["prompts"] == "none" and int(sample["new_tokens"]) == int(data["block_size"])
    if not (
        alone and drawn and float(sample["decode"]["temperature"]) == 1 and 0 < tokens <= int(words["train_tokens"])
    ):
        return None
    weights = np.arange(1, int(words["vocabulary"]) + 1, dtype=np.float64) ** -float(words["exponent"])
    left, missing = theory.words_left(n=tokens, probabilities=weights / weights.sum(), generations=generation)
    return left if what == "vocabulary_share" else missing


def regression_generations(tree: Tree, what: str, policy: str, generation: int) -> float | None:
    """`error` of ridge under keep-0 and accumulate, and `cosine` where labels are flipped and verified.

    Sources: Regression across generations, and Selection, in docs/theory.md.
    """
    flipped = float(tree["data"]["regression"].get("flipped", 0.0)) if tree["data"]["source"] == "regression" else 0.0
    if flipped > 0:
        return _verified(tree, flipped, policy) if what == "cosine" and generation == 1 else None
    rule = _rule(tree, policy)
    if not rule or tree["data"]["source"] != "regression" or what != "error":
        return None
    lam = float(tree[tree["learner"]]["lam"])
    return _generation(_Regression.of(tree), int(tree["data"]["rows"]), lam, rule, generation)


def regression_cell(tree: Tree, record: Mapping[str, Any]) -> float | None:
    """The error of ridge or projections on a mixture of real and synthetic rows.

    Sources: Ridge on a mixture, Random projections, Weighted mixing and Iterative mixing in docs/theory.md. Fixed real
    rows (Algorithm B) are known in their first round and at the end of many. Where the risk is infinite (an interpolation peak without penalty) there is None.
    """
    learner, grid = tree["learner"], _grid(tree)
    if grid is None:
        return None
    rows, synthetic = int(record["rows"]), int(record["synthetic_rows"])
    section = tree[learner]
    lam = record.get("lam")
    size = record.get("size")
    return _cell(
        _Regression.of(tree),
        rows,
        synthetic / rows,
        float(record.get("quality") or 0.0),
        float(section["lam"] if lam is None else lam),
        int(section[grid.size] if size is None else size) if grid.size else None,
        None if record.get("weight") is None else float(record["weight"]),
        int(record.get("iterations") or 1),
        tree["mixture"]["real_data"] == "fixed",
    )


def regression_law(tree: Tree, where: Mapping[str, float]) -> tuple[float | None, float | None]:
    """The threshold are rows that are used up before the error falls like a power of the rest; the plateau is that of ever more rows.

    Least squares with d dimensions has d/(n - d - 1), projections on m < d the same with m; with weight 0 real rows alone
    count. The plateau is 0 where the closed form goes on falling.
    """
    learner, grid = tree["learner"], _grid(tree)
    if grid is None:
        return None, None
    share = float(where["share"])
    place = {name: value for name, value in where.items() if name != "share"}
    far = [predict_cell(tree, {**place, "rows": rows, "synthetic_rows": round(rows * share)}) for rows in FAR]
    plateau = None if far[0] is None or far[1] is None else 0.0 if far[1] < far[0] / 10 else far[1]
    given = _Regression.of(tree)
    lam, weight = float(where.get("lam", tree[learner]["lam"])), where.get("weight")
    size = int(where.get("size", tree[learner][grid.size])) if grid.size else given.d
    if (weight not in (None, 0.0, share)) or where.get("iterations", 1) != 1 or not given.least_squares(FAR[0], lam):
        return None, plateau
    counted = 1 - share if weight == 0 else 1.0
    return ((min(size, given.d) + 1) / counted if counted > 0 else None), plateau


def _verified(tree: Tree, flipped: float, policy: str) -> float | None:
    """The cosine of generation 1, whose labels are generation 0's, which are right but for those that are flipped.

    With a verifier of signs before it, or with none.
    """
    given, chosen, rows = _Regression.of(tree), tree.get("select") or {}, int(tree["data"]["rows"])
    plain = {**tree, "select": {}}
    exact = given.kind == "iso" and given.noise == 0 and given.noise_synthetic == 0
    alone = (
        RULES.get(of_row(policy)) == "replace"
        and _plain(plain)
        and given.least_squares(rows, float(tree[tree["learner"]]["lam"]))
    )
    if not (exact and alone):
        return None
    rates = {"phi": 1.0, "psi": 1.0}
    if not _plain(tree):
        verifies = (
            chosen.get("by") == "verifier" and chosen.get("signs") and chosen.get("over", "synthetic") == "synthetic"
        )
        if not (verifies and chosen.get("short") == "shrink" and float(chosen.get("oversample", 1)) == 1):
            return None
        rates = {name: float(chosen[name]) for name in rates}
    return theory.flipped_cosine(**rates, wrong=flipped, d=given.d, n=rows, noise=0.0)


def _rule(tree: Tree, policy: str) -> str:
    """How each generation is fitted anew, as formulas name it: to the rows of the generation before alone, or to all so far.

    "" of any other policy, and where fits do not start anew.
    """
    rule = RULES.get(of_row(policy), "")
    grows = rule == "replace" and tree["mix"]["size"] != "constant"
    return rule if _plain(tree, growing=not grows) else ""


def _plain(tree: Tree, init: str = "base", *, growing: bool = False, mixed: bool = False) -> bool:
    """Whether rows enter a corpus as the policy alone says, all of one weight, and fits start from `init`.

    Args:
        growing: whether the size of a corpus may be any.
        mixed: whether weights may be any, and how many rows a generation puts together or adds.
    """
    mix, chosen = tree["mix"], tree.get("select") or {}
    chooses = any(chosen.get(name) for name in ("by", "do", "steps"))
    as_many = mixed or (Weights.parse(mix.get("weights", EQUAL)).equal and not mix.get("rows"))
    return not chooses and as_many and tree["loop"]["init"] == init and (growing or mix["size"] == "constant")


def _grid(tree: Tree) -> families.Grid | None:
    """What the family of an experiment has in mixtures, where its rows are those that the formulas are of."""
    return families.of(tree["learner"]).grid if tree["data"]["source"] == "regression" else None


def _finite(formula: Any, *arguments: Any) -> float | None:
    """What a formula says, unless that is that it cannot, or infinity."""
    try:
        value = formula(*arguments)
    except TheoryError:
        return None
    return None if value is None or not math.isfinite(value) else float(value)


@lru_cache(maxsize=4096)
def _cell(
    given: _Regression,
    rows: int,
    p2: float,
    c2: float,
    lam: float,
    width: int | None,
    weight: float | None,
    iterations: int,
    fixed: bool,
) -> float | None:
    same: dict[str, Any] = {
        "eigenvalues": given.eigenvalues,
        "n": rows,
        "p2": p2,
        "c2": c2,
        "lam": lam,
        "noise": given.noise,
        "noise_synthetic": given.noise_synthetic,
    }
    if width is not None:
        plain = weight is None and iterations == 1
        return theory.projections(**same, m=width).risk if plain else None
    if weight is not None:
        return theory.weighted(**same, alpha=weight).risk if iterations == 1 else None
    if iterations == 1:
        return theory.ridge(**same).risk
    if not fixed:
        return theory.iterative_fresh(**same, iterations=iterations).risk
    if not given.least_squares(rows * (1 - p2), lam):
        return None
    end = theory.iterative_fixed(d=given.d, n=rows, p2=p2, noise=given.noise, noise_synthetic=given.noise_synthetic)
    return end.risk if iterations >= SETTLED * end.iterations else None


@lru_cache(maxsize=4096)
def _generation(given: _Regression, rows: int, lam: float, rule: str, generation: int) -> float | None:
    d, first, later = given.d, given.noise**2, given.noise_synthetic**2
    if rule == "accumulate":
        if not given.least_squares(rows, lam):
            return None
        # the first batch's labels have the noise s1, all later ones s2: two sums of the formula, which is linear in s^2
        unit = theory.accumulate_regression(
            d=d, n=rows, noise=1.0, generations=generation, same_inputs=given.same_inputs
        ).risks
        return first * unit[0] + later * (unit[-1] - unit[0])
    if given.least_squares(rows, lam):
        one_fit = theory.replace_regression(d=d, n=rows, noise=1.0, generations=0)
        return (first + generation * later) * one_fit
    if given.same_inputs:
        return None
    return _relabelled(given, rows, lam, generation)


def _relabelled(given: _Regression, rows: int, lam: float, generation: int) -> float | None:
    """Replaced labels on new inputs with any penalty: iterative mixing without real rows, starting from the truth.

    Only where real and synthetic noise are one, because its first round has synthetic labels as well.
    """
    if given.noise != given.noise_synthetic:
        return None
    return theory.iterative_fresh(
        eigenvalues=given.eigenvalues,
        n=rows,
        p2=1.0,
        c2=0.0,
        lam=lam,
        noise=given.noise,
        iterations=generation + 1,
    ).risk


@lru_cache(maxsize=64)
def _mixed(
    rows: int, size: int, policy: Policy, last: int, unbiased: bool, weights: Weights
) -> Sequence[tuple[float, float]]:
    """E (mean - true mean)^2 of a coordinate, and E of the variance, of a Gaussian fitted to real and synthetic rows.

    Of all generations up to `last`, for each comes from the one before; empty where none is known.

    Args:
        rows, size: of the original corpus, and what each generation puts together, or adds where the policy accumulates.
    """
    rule: theory.Variance = "unbiased" if unbiased else "biased"
    generations = range(1, last + 1)
    if policy.rule == "accumulate-subsample" and weights.equal and size == rows:
        return tuple(islice(theory.subsampled_means(n=rows, variance=rule), last + 1))
    if policy.rule in ("accumulate", "accumulate-fresh") and weights.equal:
        added = (round(size * policy.until(g).percent / 100) if policy.rule != "accumulate" else 0 for g in generations)
        mixes = (theory.MixedRows(real, size - real) for real in added)
        return tuple(theory.growing_means(n=rows, mixes=mixes, variance=rule))
    if policy.rule not in REAL_ROWS:
        return ()
    own = policy.rows if policy.rule == "keep-rows" else 0
    there = (own or round(size * policy.at(g).percent / 100) for g in generations)
    mixes = (_mix(real, size - real, weights) for real in there)
    return tuple(theory.scheduled_means(n=rows, mixes=mixes, real_rows=REAL_ROWS[policy.rule], variance=rule))


def _mix(real: int, synthetic: int, weights: Weights) -> theory.MixedRows:
    both = weights.of_rows(real, synthetic)
    return theory.MixedRows(real, synthetic, None if both is None else real * both[0] / (real + synthetic))


@lru_cache(maxsize=4096)
def _gaussian(what: str, rows: int, refits: int, unbiased: bool, rule: str, d: int) -> float | None:
    prediction = theory.gaussian(n=rows, refits=refits, unbiased=unbiased, policy=rule, d=d)
    return {
        "variance": prediction.variance,
        "mean_shift_squared": prediction.mean_error,
        "std": prediction.std,
        "log_variance": prediction.log_variance,
        "w2_squared": prediction.wasserstein if d == 1 else None,
        "log_det": prediction.log_determinant,
    }[what]
