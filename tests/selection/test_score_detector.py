"""The detector: honest where nothing can be told apart, calibrated where something can, and judged on rows it has not seen."""

from pathlib import Path

import numpy as np
import pytest

from collapse_cli.data.dataset import Dataset
from collapse_cli.errors import InputError
from collapse_cli.selection.row_contents import numbers
from collapse_cli.selection.scores import detector

TYPES, WIDTH = 300, 30


def texts(count: int, seed: int, tilt: float = 1.0, origin: int = 0) -> Dataset:
    """Rows of tokens whose frequencies fall with rank ** -tilt; row i continues row i."""
    shares = 1 / np.arange(1, TYPES + 1) ** tilt
    tokens = np.random.default_rng(seed).choice(TYPES, (count, WIDTH), p=shares / shares.sum()).astype(np.int32)
    rows = np.arange(count, dtype=np.int32)
    return Dataset(
        {"tokens": tokens, "lengths": np.full(count, WIDTH, np.int32), "row": rows}, np.full(count, origin, np.int32)
    )


def points(count: int, seed: int, spread: float = 1.0) -> Dataset:
    return Dataset({"x": spread * np.random.default_rng(seed).standard_normal((count, 3))}, np.zeros(count, np.int32))


@pytest.mark.parametrize("rows", [300, 1500])
def test_of_rows_of_one_distribution_it_says_that_it_knows_nothing(rows: int) -> None:
    made, facts = detector.fit(texts(rows, 1), texts(rows, 2, origin=1), 0)
    assert abs(facts["auc"] - 0.5) <= 4 * facts["auc_se"]
    assert facts["brier"] == pytest.approx(0.25, abs=0.02)
    assert "cannot tell the two apart" in detector.in_words(facts) or abs(facts["auc"] - 0.5) > 2 * facts["auc_se"]
    for seen in (texts(rows, 1), texts(rows, 2), texts(500, 3)):  # those that it was fitted on, too
        q = made.probabilities(seen)
        assert abs(q.mean() - 0.5) < 0.05
        assert q.std() < 0.06


@pytest.mark.parametrize(("tilt", "least"), [(1.1, 0.6), (1.3, 0.9)])
def test_what_it_says_of_itself_holds_for_rows_it_never_saw(tilt: float, least: float) -> None:
    made, facts = detector.fit(texts(1500, 1), texts(1500, 2, tilt, origin=1), 0)
    assert facts["auc"] > least
    assert facts["judged_real"] + facts["judged_synthetic"] + facts["fitted_rows"] == 3000
    new, is_synthetic = [texts(2000, 11), texts(2000, 12, tilt)], np.arange(4000) >= 2000
    q = np.concatenate([made.probabilities(rows) for rows in new])
    again = detector.judged(q, is_synthetic)
    error = np.hypot(facts["auc_se"], again["auc_se"])
    assert abs(again["auc"] - facts["auc"]) <= 4 * error
    assert again["brier"] == pytest.approx(facts["brier"], abs=0.03)
    assert again["calibration_error"] < 0.05, "a probability of .7 is right in about seven of ten cases"
    # what it was fitted on does not look more certain than what is new
    first, later = made.probabilities(texts(1500, 2, tilt)), q[is_synthetic]
    assert abs(first.mean() - later.mean()) <= 4 * np.sqrt(first.var() / 1500 + later.var() / 2000) + 0.01


def test_numbers_are_told_apart_by_their_spread() -> None:
    """The logarithm of a ratio of Gaussians is quadratic: q is known exactly."""
    spread = 0.7
    made, facts = detector.fit(points(4000, 1), points(4000, 2, spread), 0)
    assert facts["features"] == "numbers"
    x = points(2000, 5).arrays["x"]
    log_ratio = -3 * np.log(spread) - (x**2).sum(axis=1) / 2 * (1 / spread**2 - 1)
    q = made.probabilities(points(2000, 5))
    assert np.abs(q - 1 / (1 + np.exp(-log_ratio))).mean() < 0.03
    wide = Dataset({"x": np.zeros((5, 40)), "y": np.ones(5)}, np.zeros(5, np.int32))
    assert numbers(wide).shape == (5, 41) == detector.squared(numbers(wide)).shape


def test_no_row_that_judges_is_like_one_that_it_was_fitted_on() -> None:
    random = np.random.default_rng(0)
    lines, content = random.integers(0, 200, 600), random.integers(0, 900, 600)
    part = detector.parts(lines, content, random)
    for index in range(600):
        alike = (lines == lines[index]) | (content == content[index])
        assert len(set(part[alike].tolist())) == 1
    assert len(set(part.tolist())) > 1


def test_copies_are_never_learned_and_judged() -> None:
    """Real rows in ten copies each, and synthetic ones that are as real: by heart they could be told apart, honestly they cannot."""
    real, synthetic = texts(120, 1), texts(120, 2, origin=1)
    again = np.repeat(np.arange(120), 10)
    copied = [
        Dataset({**rows.take(again).arrays, "row": 10_000 * which + np.arange(1200)}, rows.take(again).origin)
        for which, rows in enumerate((real, synthetic))
    ]
    facts = detector.fit(*copied, 0)[1]
    assert abs(facts["auc"] - 0.5) <= 4 * 0.5 / np.sqrt(3 * 24), "as many as there are rows that differ, not copies"


def test_it_is_saved_and_read_again(tmp_path: Path) -> None:
    for real, synthetic in ((texts(100, 1), texts(100, 2, 1.2)), (points(100, 1), points(100, 2, 0.5))):
        made, facts = detector.fit(real, synthetic, 3)
        made.save(tmp_path)
        rows = real.take(np.arange(50))
        assert (detector.Detector.load(tmp_path).probabilities(rows) == made.probabilities(rows)).all()
        again, same = detector.fit(real, synthetic, 3)
        assert (again.probabilities(synthetic) == made.probabilities(synthetic)).all()
        assert same == facts
    assert made.probabilities(real.take(np.arange(0))).shape == (0,)


@pytest.mark.parametrize(
    ("real", "synthetic", "what"),
    [
        (texts(0, 1), texts(100, 2), "there are no real ones"),
        (texts(100, 1), texts(0, 2), "there are no synthetic ones"),
        (texts(100, 1), texts(30, 2), "at least 40 real and 40 synthetic rows .* there are 100 and 30"),
        (texts(100, 1), texts(1, 2).take(np.zeros(100, np.int64)), "too few rows differ"),
    ],
)
def test_one_kind_or_too_few_rows_are_refused(real: Dataset, synthetic: Dataset, what: str) -> None:
    with pytest.raises(InputError, match=what):
        detector.fit(real, synthetic, 0)


@pytest.mark.parametrize("rows", [400, 2400])
@pytest.mark.parametrize("sign", [1, -1])
def test_a_detector_made_elsewhere_is_calibrated_whichever_way_it_points(rows: int, sign: int) -> None:
    random = np.random.default_rng(0)
    is_synthetic = np.arange(rows) % 2 > 0
    decisions = sign * (3 * random.standard_normal(rows) + 3.0 * is_synthetic)
    curve, facts = detector.calibrated(decisions, is_synthetic, np.arange(rows), np.arange(rows), 0)
    assert facts["auc"] > 0.65
    assert facts["judged_real"] + facts["judged_synthetic"] + facts["fitted_rows"] == rows
    x = np.linspace(-4, 7, 50)
    log_odds = ((x / 3) ** 2 - (x / 3 - 1) ** 2) / 2
    assert np.abs(curve(sign * x) - 1 / (1 + np.exp(-log_odds))).mean() < 0.1
    with pytest.raises(InputError, match="no real ones"):
        detector.calibrated(decisions, np.ones(rows, bool), np.arange(rows), np.arange(rows), 0)


def test_a_detector_made_elsewhere_is_calibrated_without_the_texts_that_it_cannot_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def decisions(source: str, sha256: str, rows: list[str], tell: object) -> np.ndarray:
        found = np.random.default_rng(3).standard_normal(len(rows))
        found[[0, len(rows) // 2]] = np.nan  # a real and a synthetic one
        return found

    monkeypatch.setattr(detector, "decisions_of", decisions)
    curve, facts = detector.calibrate_model(
        "", "", texts(60, 1), texts(60, 2, origin=1), lambda rows: [""] * len(rows), 0, lambda *_: None
    )
    assert facts["judged_real"] + facts["judged_synthetic"] + facts["fitted_rows"] == 118
    assert np.isnan(curve(np.array([np.nan, 0.0]))).tolist() == [True, False]


def test_what_it_is_worth_by_plain_counting() -> None:
    random = np.random.default_rng(1)
    q = np.round(random.random(300), 1)
    is_synthetic = random.random(300) < q
    facts = detector.judged(q, is_synthetic)
    pairs = [(a > b) + 0.5 * (a == b) for a in q[is_synthetic] for b in q[~is_synthetic]]
    assert facts["auc"] == pytest.approx(np.mean(pairs))
    assert facts["brier"] == pytest.approx(np.mean((q - is_synthetic) ** 2))
    assert facts["accuracy"] == np.mean((q > 0.5) == is_synthetic)
    assert facts["calibration_error"] <= 2 * facts["calibration_error_by_chance"], "these q are right"
    assert detector.judged(1 - q, is_synthetic)["calibration_error"] > 0.3


def test_on_pure_noise_no_row_of_many_is_all_but_certain() -> None:
    """With a high power of 1 - q, rows that are thought certain would be drawn again and again."""
    random = np.random.default_rng(5)
    for _ in range(20):
        calibration = detector.Calibration.fit(random.standard_normal(2400), random.random(2400) < 0.5)
        q = calibration(random.standard_normal(2400))
        assert 0.3 < q.min() <= q.max() < 0.7
