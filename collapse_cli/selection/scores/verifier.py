"""The scores `verifier` and `biased-verifier`: what a checker with known rates of error keeps, where the truth is known.

A verifier keeps a right row with probability phi, and a wrong one with probability psi. Training on what it keeps recovers the truth if
fewer rows than p* = 1 / (1 + psi/phi) were wrong (Feng et al., arXiv 2406.07515, theorem 4.2).

A biased verifier keeps (x, y) if |y - x·theta_c| <= r |x| + sigma_c: a loop that trusts it ends at its theta_c, not at the truth
(Yi et al., arXiv 2510.16657, theorem 4.1).
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from collapse_cli.config.selection import Step
from collapse_cli.data import blobs
from collapse_cli.data.dataset import Dataset
from collapse_cli.data.world.world import world
from collapse_cli.errors import ConfigError, InputError
from collapse_cli.selection.score import Material, Scored

if TYPE_CHECKING:
    from collapse_cli.data.world.parser import Parser

Judge = Callable[[Dataset], np.ndarray]

CERTAIN = 0.99  # share of a blob's own points that count as right


def check_rates(phi: float, psi: float) -> None:
    """Whether two rates are those of a verifier.

    Raises:
        ConfigError: when it would keep wrong rows more readily than right ones, or all alike.
    """
    if not (0 <= psi < phi <= 1):
        raise ConfigError(
            f"select: a verifier keeps right rows more often than wrong ones: 0 <= psi < phi <= 1; given are phi = {phi:g} "
            f"and psi = {psi:g}"
        )


def threshold(phi: float, psi: float) -> float:
    """p*: the share of wrong rows up to which training on what the verifier keeps recovers the truth."""
    check_rates(phi, psi)
    return phi / (phi + psi)


def kept(right: np.ndarray, phi: float, psi: float, seed: int) -> np.ndarray:
    """(rows, ...) bool: what a verifier keeps of rows that are right or not.

    Each row has its own random number: of more rows the first are judged alike.
    """
    check_rates(phi, psi)
    drawn = np.random.Generator(np.random.Philox(seed)).random(right.shape)
    verdicts: np.ndarray = drawn < np.where(right, phi, psi)
    return verdicts


def inside(x: np.ndarray, y: np.ndarray, theta: np.ndarray, radius: float, slack: float) -> np.ndarray:
    """(rows,) bool: what a biased verifier keeps, |y - x·theta| <= radius |x| + slack.

    Args:
        x, y, theta: (rows, d), (rows,) and (d,).
    """
    off = np.abs(y - np.vecdot(x, theta))
    verdicts: np.ndarray = off <= radius * np.linalg.norm(x, axis=1) + slack
    return verdicts


# --- what is right ----------------------------------------------------------------------------------------------------


def right_numbers(x: np.ndarray, y: np.ndarray, w: np.ndarray, within: float) -> np.ndarray:
    """(rows,) bool: whether a label is within a distance of the true one, x·w, without its noise."""
    verdicts: np.ndarray = np.abs(y - np.vecdot(x, w)) <= within
    return verdicts


def right_signs(x: np.ndarray, y: np.ndarray, w: np.ndarray) -> np.ndarray:
    """(rows,) bool: whether a label has the sign of the true one, x·w: where labels are two classes."""
    verdicts: np.ndarray = np.sign(y) == np.sign(np.vecdot(x, w))
    return verdicts


def right_classes(y: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """(rows,) bool: whether the largest of a row's (rows, classes) outputs is that of its true class (rows,)."""
    verdicts: np.ndarray = y.argmax(axis=1) == classes
    return verdicts


def right_points(x: np.ndarray, centers: np.ndarray, spread: float) -> np.ndarray:
    """(rows, ...) bool: whether a point lies where 99% of the points of its nearest blob do.

    Args:
        x: (rows, ..., d).
        centers: (blobs, d); spread: the standard deviation of each, in each dimension.
    """
    from scipy.stats import chi2

    # a blob at a time: no array of all distances is needed
    nearest = np.full(x.shape[:-1], np.inf)
    for center in centers:
        np.minimum(nearest, ((x - center) ** 2).sum(axis=-1), out=nearest)
    verdicts: np.ndarray = nearest <= spread**2 * chi2.ppf(CERTAIN, x.shape[-1])
    return verdicts


def wrong_shares(parser: "Parser", texts: Sequence[str]) -> np.ndarray:
    """(rows,) of each document of `world`, which share of its sentences is wrong.

    A sentence is wrong if the grammar has none of its form, if it names what there is not, or if it states what is false. A last one that was
    cut off does not count. A text without a sentence is all wrong.
    """
    shares = []
    for text in texts:
        read = parser.parse(text)
        read = read[: -1 if read and not read[-1].text.endswith(".") else None]
        wrong = sum(not sentence.accepted or not all(claim.true for claim in sentence.claims) for sentence in read)
        shares.append(wrong / len(read) if read else 1.0)
    return np.array(shares)


def judge_of(step: Step, material: Material) -> Judge:
    """What says whether rows are right, (rows,) bool, by the truth of the data.

    Documents of `world` are right if no more than the share `tolerance` of their sentences is wrong (none, unless it is said). Labels of
    `regression` are right within `tolerance` of the true one, or where that is not said within two standard deviations of real labels from
    it; with `signs` if they have its sign. A label of an image is right if its largest output is at the true class. A point of
    `blobs` is right where 99% of the points of its nearest blob lie.

    Raises:
        ConfigError: where the truth is not known.
    """
    about, tolerance = material.about, step.tolerance
    if about.get("world") and material.text is not None:
        text, parser = material.text, world(about["world"]).parser
        return lambda rows: wrong_shares(parser, text(rows)) <= (tolerance or 0.0)
    if (w := _true_weights(material)) is not None:
        if step.signs:
            return lambda rows: right_signs(rows.arrays["x"], rows.arrays["y"], w)
        real = material.real.arrays
        within = tolerance if tolerance is not None else 2 * float(np.sqrt(np.mean((real["y"] - real["x"] @ w) ** 2)))
        return lambda rows: right_numbers(rows.arrays["x"], rows.arrays["y"], w, within)
    if "y" in material.real.arrays and material.real.arrays["y"].ndim > 1:
        return _by_image(material)
    if about.get("blobs"):
        source = blobs.Blobs(**about["blobs"])
        return lambda rows: right_points(rows.arrays["x"], blobs.centers(source), source.spread)
    raise ConfigError(UNKNOWN)


UNKNOWN = "select: by = verifier needs data whose truth is known for each row: data.source = world, regression, blobs, or images with labels"


def _true_weights(material: Material) -> np.ndarray | None:
    """Those of `regression`, which its data stage leaves in a file of their own."""
    file = material.encoded / "truth.safetensors"
    return Dataset.load_arrays(file)["w"] if file.is_file() else None


def _by_image(material: Material) -> Judge:
    """Synthetic labels are of real images: those of the original corpus, or of the test rows."""
    known: dict[bytes, int] = {}
    for rows in (material.held, material.real):
        known |= {x.tobytes(): int(y.argmax()) for x, y in zip(rows.arrays["x"], rows.arrays["y"], strict=True)}

    def judge(rows: Dataset) -> np.ndarray:
        true = np.array([known.get(x.tobytes(), -1) for x in rows.arrays["x"]])
        if (true < 0).any():
            raise InputError(
                f"select: {int((true < 0).sum()):,} images are none of the real ones, so that their labels cannot be verified"
            )
        return right_classes(rows.arrays["y"], true)

    return judge


class Verifier:
    """1 of a row that the verifier keeps, 0 of others."""

    def __init__(self, step: Step, material: Material) -> None:
        assert step.phi is not None, "refused when it was read"
        assert step.psi is not None, "refused when it was read"
        self.phi, self.psi = step.phi, step.psi
        self.seed, self.judge = material.seed, judge_of(step, material)

    def score(self, rows: Dataset) -> Scored:
        right = self.judge(rows)
        verdicts = kept(right, self.phi, self.psi, self.seed)
        wrong = int((~right).sum())
        facts: dict[str, Any] = {
            "wrong_share": wrong / len(right) if len(right) else None,
            "wrong_share_kept": float((~right[verdicts]).mean()) if verdicts.any() else None,
            "right_kept_share": float(verdicts[right].mean()) if right.any() else None,
            "wrong_kept_share": float(verdicts[~right].mean()) if wrong else None,
            "threshold": threshold(self.phi, self.psi),
        }
        return Scored(verdicts.astype(np.float64), facts)


class BiasedVerifier:
    """1 of a row that lies about the verifier's own line, 0 of others."""

    def __init__(self, step: Step, material: Material) -> None:
        w = _true_weights(material)
        if w is None:
            raise ConfigError("select: by = biased-verifier takes labels of data.source = regression")
        theta = np.asarray(step.theta, np.float64)
        if len(theta) not in (1, len(w)):
            raise ConfigError(
                f"select.theta has {len(theta):,} numbers; a biased verifier has a weight for each of the {len(w):,} dimensions, or one for all"
            )
        self.theta = np.broadcast_to(theta, w.shape)
        self.radius, self.slack = step.radius, step.slack
        self.off = float(np.linalg.norm(self.theta - w))

    def score(self, rows: Dataset) -> Scored:
        verdicts = inside(rows.arrays["x"], rows.arrays["y"], self.theta, self.radius, self.slack)
        return Scored(verdicts.astype(np.float64), {"distance_to_truth": self.off})
