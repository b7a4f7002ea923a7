"""The score `detector`: the probability that a row is synthetic, from a small classifier that the run itself trains and judges.

It is fitted once, on real rows against the candidates of generation 1, as many of each: q is a probability for a row of which nothing is
known but that one of two is synthetic. (Drayson et al., arXiv 2502.15654, take a detector that was trained elsewhere.)

Three things keep it honest:

- it is judged on rows that no part of it has seen; rows that are the same, and rows that continue the same row, are never on both sides;
- q is calibrated on decisions about rows that the classifier at work had not seen (Platt 1999);
- the rows that it was fitted on are scored by a classifier that was fitted without them: otherwise all that it has learned by heart would
  look more certain than what comes later.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np

from collapse_cli.config.selection import Step
from collapse_cli.data.dataset import Dataset, unchanged
from collapse_cli.errors import InputError
from collapse_cli.learners.protocol import Tell
from collapse_cli.selection.row_contents import digests, numbers
from collapse_cli.selection.score import Material, Scored

Features = Literal["n-grams", "numbers"]

BUCKETS = 1 << 17  # of hashed n-grams
LONGEST_GRAM = 3
MOST_ROWS = 20_000  # of each kind that it is made from
SQUARED = (
    32  # numbers in a row, up to which their squares and products are features: a ratio of Gaussians is one of these
)
PARTS, JUDGE_PARTS, FOLDS = 10, 2, 4  # a fifth of the groups of rows judges, the others are four folds
LEAST = 40  # rows of each kind
BINS = 10  # of the calibration error, of equally many rows each

FILE = "detector.safetensors"
KNOWN = "judged.json"  # what is known of either
CURVE = "calibration.safetensors"  # of a detector that was made elsewhere


@dataclass(frozen=True)
class Calibration:
    """From a classifier's decisions to probabilities: a curve through points.

    Attributes:
        decisions: (points,), increasing.
        log_odds: (points,) of being synthetic there. Between points it is linear, and beyond them as it is at the last.
        method: `platt`; "" where it is not known.
    """

    decisions: np.ndarray
    log_odds: np.ndarray
    method: str

    @staticmethod
    def fit(decisions: np.ndarray, synthetic: np.ndarray) -> "Calibration":
        """From decisions (rows,) on rows that the classifier has not seen, and what they are (rows,) bool; either may rise with the other.

        A line in the decision, however many rows there are: isotonic regression finds a first and a last few rows of one kind in pure noise,
        is all but certain of them, and a weight of (1 - q) to a high power draws these again and again.
        """
        from sklearn.linear_model import LogisticRegression

        middle, scale = float(decisions.mean()), float(decisions.std()) or 1.0
        by_rows = LogisticRegression(C=1e3).fit(((decisions - middle) / scale)[:, None], synthetic)
        ends = np.array([decisions.min(), decisions.max()])
        if ends[0] == ends[1]:
            ends[1] += 1.0
        slope, offset = float(by_rows.coef_[0, 0]), float(by_rows.intercept_[0])
        return Calibration(ends, slope * (ends - middle) / scale + offset, "platt")

    def save(self, folder: Path) -> None:
        from safetensors.numpy import save_file

        arrays = {"decisions": self.decisions, "log_odds": self.log_odds}
        save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, folder / CURVE)

    @staticmethod
    def load(folder: Path) -> "Calibration":
        """Raises: InputError for a damaged file."""
        return Calibration(**Dataset.load_arrays(folder / CURVE), method="")

    def __call__(self, decisions: np.ndarray) -> np.ndarray:
        """(rows,) q, the probability of being synthetic where half of all rows are."""
        q: np.ndarray = 1 / (1 + np.exp(-np.interp(decisions, self.decisions, self.log_odds)))
        return q


@dataclass(frozen=True)
class Detector:
    """A fitted detector.

    Attributes:
        features: of what it decides by.
        width: how much of a row of text it reads, in tokens: what both kinds of rows had when it was fitted.
        weights, offsets: (folds, features), (folds,) of the classifiers; one decides by their mean.
        middle, scale: (numbers,) by which rows of numbers are made standard; empty for text.
        calibration: of the decisions.
        seen, decided: (rows,) uint64 contents of the rows that it was fitted on, ascending, and the decision on each of the classifier that
            was fitted without it.
    """

    features: Features
    width: int
    weights: np.ndarray
    offsets: np.ndarray
    middle: np.ndarray
    scale: np.ndarray
    calibration: Calibration
    seen: np.ndarray
    decided: np.ndarray

    def probabilities(self, rows: Dataset) -> np.ndarray:
        """(rows,) q."""
        if not len(rows):
            return np.zeros(0)
        by_row = self._features(rows)
        decisions = np.asarray(by_row @ self.weights.T + self.offsets).mean(axis=1)
        content = digests(rows, self.width)
        place = np.minimum(np.searchsorted(self.seen, content), len(self.seen) - 1)
        decisions = np.where(self.seen[place] == content, self.decided[place], decisions)
        return self.calibration(decisions)

    def _features(self, rows: Dataset) -> Any:
        if self.features == "n-grams":
            return gram_counts(rows, self.width)
        return squared((numbers(rows) - self.middle) / self.scale)

    def save(self, folder: Path) -> None:
        from safetensors.numpy import save_file

        arrays = {name: getattr(self, name) for name in ("weights", "offsets", "middle", "scale", "seen", "decided")}
        arrays |= {"curve_decisions": self.calibration.decisions, "curve_log_odds": self.calibration.log_odds}
        words = {"features": self.features, "width": str(self.width), "method": self.calibration.method}
        save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, folder / FILE, words)

    @staticmethod
    def load(folder: Path) -> "Detector":
        """Raises: InputError for a damaged file."""
        from safetensors import safe_open

        arrays = Dataset.load_arrays(folder / FILE)
        with safe_open(folder / FILE, "numpy") as file:
            words = file.metadata()
        curve = Calibration(arrays.pop("curve_decisions"), arrays.pop("curve_log_odds"), words["method"])
        return Detector(cast(Features, words["features"]), int(words["width"]), calibration=curve, **arrays)


def fit(real: Dataset, synthetic: Dataset, seed: int) -> tuple[Detector, dict[str, Any]]:
    """A detector of real rows against synthetic ones, and what is known of it.

    Args:
        real: rows of the original corpus. Row i and those synthetic rows whose `row` is i are of one group.
        synthetic: the candidates of generation 1.

    Returns:
        The detector; its facts, as `judged` has them, with `features`, `calibration`, `fitted_rows`, and the mean lengths of both kinds.

    Raises:
        InputError: where there is one kind only, or too few rows that differ.
    """
    check_kinds(len(real), len(synthetic))
    random = np.random.Generator(np.random.Philox(seed))
    chosen, lines = drawn(real, synthetic, random)
    both, count = [real.take(chosen[0]), synthetic.take(chosen[1])], len(chosen[0])
    text = "tokens" in real.arrays
    width = min(int(rows.arrays["lengths"].max()) for rows in both) if text else 0
    content = np.concatenate([digests(rows, width) for rows in both])
    part = parts(lines, content, random)
    is_synthetic = np.arange(2 * count) >= count
    judging = part < JUDGE_PARTS
    fold = np.where(judging, -1, part % FOLDS)
    _check_folds(fold, is_synthetic)

    if text:
        x: Any = _stacked([gram_counts(rows, width) for rows in both])
        middle = scale = np.zeros(0)
    else:
        plain = np.concatenate([numbers(rows) for rows in both])
        middle, scale = plain[~judging].mean(axis=0), plain[~judging].std(axis=0)
        scale[scale == 0] = 1.0
        x = squared((plain - middle) / scale)

    weights, offsets, decisions = [], [], np.zeros(2 * count)
    for one in range(FOLDS):
        mine, others = fold == one, ~judging & (fold != one)
        w, b = classifier(x[others], is_synthetic[others])
        decisions[mine] = np.asarray(x[mine] @ w) + b
        weights.append(w)
        offsets.append(b)
    every, offset = np.stack(weights), np.array(offsets)
    curve = Calibration.fit(decisions[~judging], is_synthetic[~judging])
    seen, first = np.unique(content[~judging], return_index=True)
    made = Detector(
        "n-grams" if text else "numbers",
        width,
        every,
        offset,
        middle,
        scale,
        curve,
        seen,
        decisions[~judging][first],
    )
    unseen = np.flatnonzero(judging)
    q = np.concatenate(
        [
            made.probabilities(rows.take(unseen[(unseen < count) != late] - late * count))
            for late, rows in enumerate(both)
        ]
    )
    facts = judged(q, is_synthetic[judging]) | {
        "features": made.features,
        "calibration": curve.method,
        "fitted_rows": int((~judging).sum()),
    }
    if text:
        facts |= {"width": width} | {
            f"mean_length_{name}": float(rows.arrays["lengths"].mean())
            for name, rows in zip(("real", "synthetic"), both, strict=True)
        }
    return made, facts


def drawn(
    real: Dataset, synthetic: Dataset, random: np.random.Generator
) -> tuple[tuple[np.ndarray, np.ndarray], np.ndarray]:
    """Equally many rows of both kinds, at random: which, ascending; and the line of each, as `parts` has it."""
    count = min(len(real), len(synthetic), MOST_ROWS)
    ours, theirs = (np.sort(random.choice(len(rows), count, replace=False)) for rows in (real, synthetic))
    line = synthetic.arrays["row"][theirs] if "row" in synthetic.arrays else -1 - theirs
    return (ours, theirs), np.concatenate([ours, line])


def calibrated(
    decisions: np.ndarray, synthetic: np.ndarray, lines: np.ndarray, content: np.ndarray, seed: int
) -> tuple[Calibration, dict[str, Any]]:
    """The calibration of a detector that was made elsewhere, and what is known of it: one half of the rows for each.

    Which way its decisions point is found out as well: they may fall with the probability of being synthetic.

    Args:
        decisions: (rows,) of the detector; synthetic: (rows,) bool; lines, content: as `parts` has them.

    Raises:
        InputError: where there is one kind only, or too few rows that differ.
    """
    check_kinds(int((~synthetic).sum()), int(synthetic.sum()))
    part = parts(lines, content, np.random.Generator(np.random.Philox(seed)))
    judging = part < PARTS // 2
    _check_folds(np.where(judging, 0, 1), synthetic)
    curve = Calibration.fit(decisions[~judging], synthetic[~judging])
    facts = judged(curve(decisions[judging]), synthetic[judging])
    return curve, facts | {"calibration": curve.method, "fitted_rows": int((~judging).sum())}


def check_kinds(real: int, synthetic: int) -> None:
    """Whether there are rows of both kinds, and enough.

    Raises:
        InputError: when there are not.
    """
    if not real or not synthetic:
        lacking = "real" if not real else "synthetic"
        raise InputError(
            f"select: a detector learns from real and from synthetic rows, and there are no {lacking} ones; "
            "take a policy that has both, or another score"
        )
    if min(real, synthetic) < LEAST:
        raise InputError(
            f"select: a detector needs at least {LEAST} real and {LEAST} synthetic rows to be fitted and judged by; there are "
            f"{real:,} and {synthetic:,}; give more rows (data.rows), or take another score"
        )


def judged(q: np.ndarray, synthetic: np.ndarray) -> dict[str, Any]:
    """What a detector is worth, on rows that it has not seen.

    Args:
        q, synthetic: (rows,) its probabilities, and what the rows are (bool).

    Returns:
        `judged_real`, `judged_synthetic` (rows); `auc`, the probability that a synthetic row has the higher q, with `auc_se` (Hanley and McNeil
        1982); `accuracy` at q = 1/2; `brier`, the mean of (q - what it is)²; `calibration_error`, the mean over tenths of the rows of
        |mean q - share of synthetic ones|, and what that is expected to be of so many rows where q is right, `calibration_error_by_chance`;
        `base_rate`, the share of synthetic rows.
    """
    from sklearn.metrics import brier_score_loss, roc_auc_score

    ones, zeros = int(synthetic.sum()), int((~synthetic).sum())
    auc = float(roc_auc_score(synthetic, q))
    twice, square = auc / (2 - auc), 2 * auc**2 / (1 + auc)
    spread = auc * (1 - auc) + (ones - 1) * (twice - auc**2) + (zeros - 1) * (square - auc**2)
    off, by_chance = _calibration_error(q, synthetic)
    return {
        "judged_real": zeros,
        "judged_synthetic": ones,
        "auc": auc,
        "auc_se": float(np.sqrt(max(spread, 0.0) / (ones * zeros))),
        "accuracy": float(((q > 0.5) == synthetic).mean()),
        "brier": float(brier_score_loss(synthetic, q)),
        "calibration_error": off,
        "calibration_error_by_chance": by_chance,
        "base_rate": float(synthetic.mean()),
    }


def _calibration_error(q: np.ndarray, synthetic: np.ndarray) -> tuple[float, float]:
    """The mean over bins of equally many rows, equal q never parted, of |mean q - share of synthetic ones|; and that by chance alone."""
    borders = np.unique(np.quantile(q, np.arange(1, BINS) / BINS))
    place = np.searchsorted(borders, q, side="left")
    rows = np.bincount(place, minlength=BINS)
    said, true, spread = (np.bincount(place, each, minlength=BINS) for each in (q, synthetic, q * (1 - q)))
    chance = np.sqrt(2 / np.pi * spread).sum()  # of a normal deviation with that variance
    return float(np.abs(said - true).sum() / rows.sum()), float(chance / rows.sum())


# --- features ---------------------------------------------------------------------------------------------------------


def gram_counts(rows: Dataset, width: int) -> Any:
    """(rows, BUCKETS) sparse: hashed counts of the 1- to 3-grams of each row's first `width` tokens, of length 1."""
    from sklearn.feature_extraction.text import HashingVectorizer

    hashed = HashingVectorizer(analyzer=_grams, n_features=BUCKETS, alternate_sign=False, norm="l2")
    lengths = np.minimum(rows.arrays["lengths"], width)
    return hashed.transform(ids[:length].tolist() for ids, length in zip(rows.arrays["tokens"], lengths, strict=True))


def _grams(ids: list[int]) -> list[str]:
    words = list(map(str, ids))
    return [" ".join(words[at : at + n]) for n in range(1, LONGEST_GRAM + 1) for at in range(len(words) - n + 1)]


def squared(x: np.ndarray) -> np.ndarray:
    """Numbers with their squares and products, where they are few."""
    if x.shape[1] > SQUARED:
        return x
    first, second = np.triu_indices(x.shape[1])
    return np.concatenate([x, x[:, first] * x[:, second]], axis=1)


def parts(lines: np.ndarray, content: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """(rows,) 0..9: which tenth a row is of. Rows that hang together are of one. Arguments: as `hanging_together` has them."""
    group = hanging_together(lines, content)
    part: np.ndarray = random.permutation(int(group.max()) + 1)[group] % PARTS
    return part


def hanging_together(lines: np.ndarray, content: np.ndarray) -> np.ndarray:
    """(rows,) 0, 1, 2 …: which group a row is of. Rows of equal line, of equal content, and what hangs together by them, are of one.

    Args:
        lines: (rows,) the row of the original corpus that each is or continues.
        content: (rows,) as `digests` gives them.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    count = len(lines)
    _, line = np.unique(lines, return_inverse=True)
    _, kind = np.unique(content, return_inverse=True)
    size, row = int(line.max()) + 1, np.arange(count)
    ends = np.concatenate([count + line, count + size + kind])
    total = count + size + int(kind.max()) + 1
    edges = coo_array((np.ones(2 * count, np.int8), (np.concatenate([row, row]), ends)), shape=(total, total))
    _, group = connected_components(edges, directed=False)
    _, group = np.unique(group[:count], return_inverse=True)
    return np.asarray(group)


def classifier(x: Any, synthetic: np.ndarray) -> tuple[np.ndarray, float]:
    from sklearn.linear_model import LogisticRegression

    fitted = LogisticRegression(solver="liblinear").fit(x, synthetic)
    return fitted.coef_[0], float(fitted.intercept_[0])


def _stacked(parts: list[Any]) -> Any:
    from scipy.sparse import vstack

    return vstack(parts, format="csr")


def _check_folds(fold: np.ndarray, synthetic: np.ndarray) -> None:
    """Whether each part has rows of both kinds.

    Raises:
        InputError: when one has not, since too many rows are the same.
    """
    for one in np.unique(np.append(fold, 0)):
        kinds = np.unique(synthetic[fold == one])
        if len(kinds) < 2:
            raise InputError(
                "select: too few rows differ for a detector to be fitted on some and judged on others; "
                "give more rows (data.rows), or take another score"
            )


def in_words(facts: Mapping[str, Any]) -> str:
    """A sentence on what a detector is worth."""
    error = facts["auc_se"]
    chance = abs(facts["auc"] - 0.5) < 2 * error
    words = (
        "it cannot tell the two apart"
        if chance
        else f"calibration error {facts['calibration_error']:.3f} ({facts['calibration_error_by_chance']:.3f} by chance alone)"
    )
    return (
        f"detector, judged on {facts['judged_real']:,} real and {facts['judged_synthetic']:,} synthetic rows that it had not seen: "
        f"AUC {facts['auc']:.3f} ± {2 * error:.3f}, Brier score {facts['brier']:.3f}; {words}"
    )


class Detected:
    """q of each row: the probability that it is synthetic, by the run's own detector, or by one that was made elsewhere."""

    def __init__(self, step: Step, material: Material) -> None:
        self.sha256, self.material, self.folder = step.detector_sha256, material, material.folders["detector"]

    def score(self, rows: Dataset) -> Scored:
        known: dict[str, Any] = json.loads((self.folder / KNOWN).read_text(encoding="utf-8"))
        if not self.sha256:
            return Scored(Detector.load(self.folder).probabilities(rows), known)
        assert self.material.text is not None, "refused before"
        decisions = decisions_of(self.material.detector, self.sha256, self.material.text(rows), self.material.tell)
        return Scored(Calibration.load(self.folder)(decisions), known)


def calibrate_model(
    source: str,
    sha256: str,
    real: Dataset,
    synthetic: Dataset,
    text: Callable[[Dataset], Sequence[str]],
    seed: int,
    tell: Tell,
) -> tuple[Calibration, dict[str, Any]]:
    """The calibration of a model of transformers, used as it is, on this run's rows; and what is known of it.

    Args:
        source, sha256: its folder or Hub id, and the hash that it must have.
        real, synthetic, seed: as `fit` has them.
        text: rows as text.
    """
    chosen, lines = drawn(real, synthetic, np.random.Generator(np.random.Philox(seed)))
    both = [real.take(chosen[0]), synthetic.take(chosen[1])]
    decisions = decisions_of(source, sha256, [words for rows in both for words in text(rows)], tell)
    content = np.concatenate([digests(rows) for rows in both])
    read = ~np.isnan(decisions)
    return calibrated(decisions[read], np.flatnonzero(read) >= len(both[0]), lines[read], content[read], seed)


def decisions_of(source: str, sha256: str, texts: Sequence[str], tell: Tell) -> np.ndarray:
    """(rows,) the decisions of a model of transformers; NaN of a text without a token.

    Raises:
        InputError: when it is not there, or not what it was when the run was planned.
    """
    from collapse_cli.lm import classify

    folder, found = classify.find(source, "select.detector")
    unchanged(sha256, found, f"the detector {source}")
    return classify.odds(folder, texts, lambda done, total: tell(done, total, "rows"))
