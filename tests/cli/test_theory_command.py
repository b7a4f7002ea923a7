"""`collapse theory`: what it prints, as JSON and as a table, and what it refuses."""

import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from collapse_cli import theory
from collapse_cli.__main__ import main

Say = pytest.CaptureFixture[str]
MODELS = (
    *("ridge", "projections", "weighted", "iterative", "generational", "accumulate", "gaussian"),
    *("weighted-mean", "contaminated", "feedback", "self-correction", "word-survival"),
    *("verifier", "biased-verifier", "curation", "truncated-loss"),
    *("exchange", "pooled-means"),
)
OF_LABELS = MODELS[:6]  # whose labels have noise


def asked(capsys: Say, *words: str) -> dict[str, Any]:
    assert main(["theory", *words, "--json"]) == 0
    said = capsys.readouterr()
    assert said.err == ""
    answer: dict[str, Any] = json.loads(said.out, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    return answer


@pytest.fixture
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")


def test_ridge_answers_with_its_inputs_and_the_formula(capsys: Say) -> None:
    words = "--d 60 --n 1e6 --lam 0.01 --p2 0.2 --c2 0.7 --noise 0.3 --noise-synthetic 0.6 --spectrum pow --beta 2"
    found = asked(capsys, "ridge", *words.split())
    exact = theory.ridge(
        eigenvalues=theory.spectrum("pow", 60, 2), n=1e6, lam=0.01, p2=0.2, c2=0.7, noise=0.3, noise_synthetic=0.6
    )
    asked_for = {"d": 60, "n": 1e6, "lam": 0.01, "p2": 0.2, "c2": 0.7, "noise": 0.3, "noise_synthetic": 0.6}
    assert {name: found[name] for name in asked_for} == asked_for
    assert (found["model"], found["spectrum"], found["beta"]) == ("ridge", "pow", 2)
    for name in ("risk", "bias", "variance", "zeta", "kappa", "u"):
        assert found[name] == getattr(exact, name)
    assert (
        found["plateau"]
        == theory.plateau_ridge(eigenvalues=theory.spectrum("pow", 60, 2), p2=0.2, c2=0.7, lam=0.01).risk
    )
    assert found["diverges"] == []
    assert "tr(Sigma Delta)" in found["note"]
    assert "UNCONFIRMED" in found["note"]
    assert "simulated" not in found


def test_noise_of_synthetic_labels_is_that_of_real_ones_by_default(capsys: Say) -> None:
    assert asked(capsys, "ridge", "--noise", "0.7")["noise_synthetic"] == 0.7


def test_what_is_infinite_is_null_and_named(capsys: Say) -> None:
    found = asked(capsys, "ridge", "--d", "50", "--n", "50", "--lam", "0", "--p2", "0")
    assert found["risk"] is None
    assert found["bias"] == 0
    assert found["diverges"] == ["risk", "variance", "u", "knee"]


def test_projections(capsys: Say) -> None:
    found = asked(capsys, "projections", "--d", "60", "--n", "90", "--m", "40", "--lam", "0.02")
    exact = theory.projections(eigenvalues=np.ones(60), n=90, m=40, lam=0.02, p2=0.1, c2=0.5, noise=0.5)
    assert (found["risk"], found["zeta"], found["m"]) == (exact.risk, exact.zeta, 40)
    assert found["plateau"] < found["risk"]


def test_weighted_takes_the_best_mass_or_the_given_one(capsys: Say) -> None:
    best = asked(capsys, "weighted", "--n", "1000")
    assert best["alpha"] == best["best_alpha"]
    assert best["risk"] == best["best_risk"] == pytest.approx(0.05586, abs=5e-6)
    assert best["low_dimensional_alpha"] == pytest.approx(0.0625)
    assert best["clean_risk"] == pytest.approx(0.0625)
    equal = asked(capsys, "weighted", "--n", "1000", "--alpha", "0.5")
    assert equal["alpha"] == 0.5
    assert equal["risk"] == pytest.approx(best["unweighted_risk"])
    assert equal["share"] == pytest.approx(0.5)
    alone = asked(capsys, "weighted", "--p2", "0")
    assert "best_alpha" not in alone


def test_iterative_both_protocols(capsys: Say) -> None:
    fresh = asked(capsys, "iterative", "--iterations", "4")
    assert fresh["risk"] == pytest.approx(0.05014, abs=5e-6)
    assert len(fresh["risks"]) == 5
    assert fresh["risks"][0] == pytest.approx(2)
    assert fresh["rate"] == pytest.approx(0.25 + 0.25 / 9)
    fixed = asked(capsys, "iterative", "--fixed")
    assert fixed["excess"] == pytest.approx(theory.iterative_fixed(d=100, n=1000, p2=0.5, noise=0.5).excess)
    assert "iterations" not in fixed, "it is a limit"
    ridge = asked(capsys, "iterative", "--lam", "0.1")
    assert ridge["rate"] is None
    assert ridge["diverges"] == []


def test_generational_and_accumulate(capsys: Say) -> None:
    found = asked(capsys, "generational", "--generations", "10")
    assert found["risk"] == pytest.approx(1.33961, abs=5e-6)
    assert found["noise_generator"] == 0.5
    few = asked(
        capsys,
        *[
            "generational",
            "--d",
            "200",
            "--t0",
            "120",
            "--n",
            "600",
            "--noise",
            "0.1",
            "--noise-generator",
            "0.3",
            "--generations",
            "6",
            "--same-inputs",
        ],
    )
    assert few["risk"] == pytest.approx(1.2253, abs=5e-5)
    all_of_them = asked(capsys, "accumulate", "--generations", "19", "--same-inputs")
    assert all_of_them["risk"] == pytest.approx(0.1339, abs=5e-5)
    assert all_of_them["replaced"] == pytest.approx(1.678, abs=5e-4)
    assert len(all_of_them["risks"]) == 20


def test_gaussian(capsys: Say) -> None:
    found = asked(capsys, "gaussian", "--n", "10", "--generations", "9", "--biased")
    assert found["variance"] == pytest.approx(0.9**10), "generation 9 has been fitted ten times"
    assert found["wasserstein"] == pytest.approx(1.1049, abs=5e-5)
    grows = asked(capsys, "gaussian", "--n", "10", "--generations", "9")
    assert grows["mean_error_limit"] is None
    assert grows["diverges"] == ["mean_error_limit"]
    kept = asked(capsys, "gaussian", "--n", "10", "--generations", "99", "--biased", "--policy", "accumulate")
    assert kept["variance"] == pytest.approx(0.84428, abs=5e-6)
    assert kept["std"] is None
    assert kept["diverges"] == []


def test_remedies(capsys: Say) -> None:
    """A number of the table of each, by its command."""
    golden = asked(capsys, "weighted-mean")
    assert golden["best_weight"] == golden["best_limit"] == pytest.approx(0.6180, abs=5e-5)
    assert golden["pooled_limit"] == pytest.approx(2 / 3)
    kept = asked(capsys, "weighted-mean", "--kept", "--m", "400")
    assert kept["relative_limit"] == pytest.approx(13 / 9)
    assert "best_weight" not in kept
    assert asked(capsys, "weighted-mean", "--real", "0")["diverges"] == ["relative_limit"]
    subsampled = asked(capsys, "gaussian", "--n", "100000", "--policy", "accumulate-subsample", "--biased")
    assert subsampled["mean_error"] * 100_000 == pytest.approx(2.649, abs=1e-3)
    assert asked(capsys, "gaussian", "--n", "10", "--above", "0.9")["std_above"] == pytest.approx(
        math.exp(-10 / 39) / 0.9
    )
    assert asked(capsys, "contaminated", "--share", "1")["relative_limit"] == pytest.approx(math.pi**2 / 6)
    assert asked(capsys, "feedback", "--generations", "20")["amplification"] == pytest.approx(2.159, abs=5e-4)
    assert asked(capsys, "self-correction", "--gamma", "0")["stable_below"] == 0.5
    assert asked(capsys, "self-correction", "--ratio", "3")["stable"] is False
    assert asked(capsys, "word-survival", "--generations", "0")["survival"] == pytest.approx(1 - math.exp(-10))
    assert asked(capsys, "verifier")["threshold"] == pytest.approx(0.6)
    assert asked(capsys, "biased-verifier", "--generations", "30")["distance"] < 1e-9
    curated = asked(capsys, "curation", "--candidates", "inf")
    assert [curated[f"probability_{i}"] for i in (1, 2, 3)] == pytest.approx([0.179, 0.29194, 0.52906], abs=5e-6)
    assert asked(capsys, "truncated-loss", "--threshold", "1")["growth"] == pytest.approx(2.525, abs=5e-4)


COUNTED = {
    "gaussian": (
        "[data]\nsource = 'blobs'\nrows = 10\nblobs = {dimensions = 1, centers = 1}\n[gaussian]\ntrials = 4000",
        {"variance": "variance", "std": "std", "mean_shift_squared": "mean_error"},
        {"keep-0": "gaussian --n 10 --biased", "accumulate": "gaussian --n 10 --biased --policy accumulate"},
    ),
    "ridge": (
        "[data]\nsource = 'regression'\nrows = 60\nregression = {dimensions = 10, noise = 0.5}\n[ridge]\nlam = 0.0",
        {"error": "risk"},
        {"keep-0": "generational --d 10 --n 60 --t0 60", "accumulate": "accumulate --d 10 --n 60"},
    ),
}


@pytest.mark.parametrize("learner", COUNTED)
def test_generation_g_is_the_same_generation_in_a_run_and_in_theory(capsys: Say, tmp_path: Path, learner: str) -> None:
    """What a run measures at generation g is nearest to what `--generations g` says, of all neighbours."""
    sections, names, commands = COUNTED[learner]
    seeds = list(range(4 if learner == "gaussian" else 60))
    loop = f"learner = '{learner}'\n[loop]\ngenerations = 4\npolicies = {list(commands)}\nseeds = {seeds}\n"
    (tmp_path / "one.toml").write_text(loop + sections, encoding="utf-8")
    assert main(["run", str(tmp_path / "one.toml"), "--runs-dir", str(tmp_path / "runs"), "--jobs", "1"]) == 0
    capsys.readouterr()
    lines = (tmp_path / "runs" / "one" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    for policy, command in commands.items():
        said = [asked(capsys, *command.split(), "--generations", str(g)) for g in range(6)]
        for ours, theirs in names.items():
            for g in (0, 1, 4):
                values = [row[ours] for row in rows if (row["policy"], row["generation"]) == (policy, g)]
                mean, error = float(np.mean(values)), float(np.std(values, ddof=1) / math.sqrt(len(values)))
                if (wanted := said[g][theirs]) is not None:
                    # the limit of infinite size is a few per cent low for sixty rows
                    room = 5 * error + (0.05 * wanted if command.startswith("generational") else 0)
                    assert abs(mean - wanted) < room, (policy, ours, g)
    first, second = (asked(capsys, *commands["keep-0"].split(), "--generations", g) for g in "01")
    name = next(iter(names.values()))
    assert abs(second[name] / first[name] - 1) > 0.05, "neighbours can be told apart"


SIMULATED = [
    ("ridge --d 40 --n 200", "risk"),
    ("projections --d 60 --n 200 --m 30", "risk"),
    ("weighted --d 40 --n 200", "risk"),
    ("iterative --d 40 --n 200 --iterations 3", "risk"),
    ("iterative --d 20 --n 200 --fixed", "excess"),
    ("generational --d 40 --n 150 --t0 120 --generations 2", "risk"),
    ("accumulate --d 20 --n 80 --generations 3", "risk"),
    ("gaussian --n 20 --generations 5", "std"),
    ("gaussian --n 6 --generations 5 --policy accumulate-subsample", "mean_error"),
    ("weighted-mean --n 10 --m 20 --weight 0.6 --variance biased", "variance"),
    ("weighted-mean --n 10 --m 20 --real 4 --kept", "relative"),
    ("contaminated --n 10 --share 0.7", "relative"),
    ("feedback --n0 2000 --m 100 --k 400", "amplification"),
    ("self-correction --n 10", "relative"),
    ("word-survival --n 500", "survival"),
    ("verifier --n 20000 --wrong 0.5", "cosine"),
    ("biased-verifier --generations 2 --n 4000", "distance"),
    ("curation --generations 2", "probability_2"),
    ("truncated-loss --n 20 --generations 2", "variance"),
    ("exchange --n 20 --public 20 --generations 2", "distance"),
    ("pooled-means --n 12 --m 12 --rule segments --generations 4", "distance"),
    ("pooled-means --n 12 --m 12 --private 6 --apart 1 --generations 4", "mixture_variance"),
]


@pytest.mark.parametrize(("words", "name"), SIMULATED, ids=[words for words, _ in SIMULATED])
def test_a_simulation_beside_the_formula(capsys: Say, words: str, name: str) -> None:
    few = ("verifier", "curation", *OF_LABELS)  # that draw much in each
    trials = "12" if any(words.split()[0].endswith(name) for name in few) else "500"
    found = asked(capsys, *words.split(), "--simulate", trials, "--seed", "3")
    drawn = found["simulated"][name]
    assert drawn["trials"] == int(trials)
    assert found["simulated"]["seed"] == 3
    assert drawn["relative"] == pytest.approx(found[name] / drawn["mean"] - 1)
    assert abs(drawn["relative"]) < max(0.03, 5 * drawn["standard_error"] / drawn["mean"])
    again = asked(capsys, *words.split(), "--simulate", trials, "--seed", "3")
    assert again == found
    other = asked(capsys, *words.split(), "--simulate", trials, "--seed", "4")
    assert other["simulated"][name]["mean"] != drawn["mean"]


@pytest.mark.usefixtures("wide")
@pytest.mark.parametrize("model", MODELS)
def test_the_table_has_the_formula_s_numbers_and_the_choices_made(capsys: Say, model: str) -> None:
    assert main(["theory", model]) == 0
    said = capsys.readouterr().out
    assert f"{model}: " in said
    assert "noise" in said or model not in OF_LABELS
    shown = {line.split()[0]: line.split()[1] for line in said.splitlines() if len(line.split()) > 2}
    found = asked(capsys, model)
    own = {"relative", "amplification", "survival", "cosine", "distance", "probability_1", "growth"}
    assert own & found.keys() or model in MODELS[:7]
    for name in ("risk", "bias", "variance", "zeta", "plateau", "excess", "wasserstein", *own):
        if isinstance(found.get(name), float):
            assert float(shown[name]) == pytest.approx(found[name], rel=1e-4), name
    assert "docs/theory.md" in said or "arXiv" in said
    assert "simulated" not in said


@pytest.mark.usefixtures("wide")
def test_the_table_with_a_simulation(capsys: Say) -> None:
    assert main(["theory", "ridge", "--d", "20", "--n", "100", "--simulate", "4"]) == 0
    said = capsys.readouterr().out
    assert "simulated ± s.e." in said
    assert " ± " in said.replace("simulated ± s.e.", "")
    assert "4 trials, seed 0" in said
    assert main(["theory", "gaussian", "--policy", "accumulate", "--generations", "3", "--simulate", "50"]) == 0
    said = capsys.readouterr().out
    assert "log_variance" in said, "simulated where there is no formula"
    assert main(["theory", "ridge", "--d", "20", "--n", "20", "--simulate", "2"]) == 0
    said = capsys.readouterr().out
    assert "∞" in said
    assert "inf" not in said


REFUSED = [
    ("ridge --p2 1.5", "p2 is 1.5; it is a share, from 0 to 1"),
    ("ridge --n -4", "n is -4; it must be a number above 0"),
    ("ridge --d 0", "d is 0; it must be a whole number, 1 or more"),
    ("ridge --spectrum flat", "spectrum 'flat' is not known; there are iso and pow"),
    ("projections --m 0", "m is 0; it must be a number above 0"),
    ("projections --m 2.5 --simulate 2", "m is 2.5; a simulation needs a whole number of them, 1 or more"),
    ("weighted --p2 0 --alpha 0.5", "alpha is 0.5, but p2 is 0: there are no synthetic rows to weigh"),
    ("iterative --fixed --lam 0.1", "--lam is 0.1; with --fixed there is a formula for lam = 0 only"),
    (
        "iterative --fixed --d 600",
        "there are 500 real rows for 600 dimensions; the formula needs more rows than dimensions",
    ),
    (
        "generational --t0 101",
        "t0 is 101 with 100 dimensions: a least squares fit to 101 rows has no finite mean risk; "
        "take at least 102 or at most 98",
    ),
    ("accumulate --n 51", "n is 51 with 50 dimensions: the mean risk is infinite; take at least 52"),
    ("gaussian --n 1", "n is 1; it must be a whole number, 2 or more"),
    ("gaussian --policy mix", "policy 'mix' is not known; there are replace, accumulate and accumulate-subsample"),
    (
        "gaussian --policy accumulate --above 0.5",
        "--above is given; there is a bound for the policy replace only, not for accumulate",
    ),
    ("gaussian --above 0.5 --n 2", "n is 2; it must be a whole number, 3 or more"),
    ("weighted-mean --weight 1.2", "weight is 1.2; it is a share, from 0 to 1"),
    ("weighted-mean --real 200 --kept", "real is 200; the original corpus has 100 rows to keep"),
    ("weighted-mean --variance some", "variance 'some' is not known; there are known, biased, unbiased"),
    ("weighted-mean --simulate 100000000", "100000000 trials do not fit in memory; take fewer"),
    ("contaminated --share -0.1", "share is -0.1; it is a share, from 0 to 1"),
    ("feedback --m -1", "m is -1; it must be a whole number, 0 or more"),
    ("self-correction --n 3", "ratio n is 1.5; it must be a whole number, 0 or more"),
    ("word-survival --frequency 2", "frequency is 2; it is a share, from 0 to 1"),
    ("verifier --phi 0", "phi is 0: a verifier that keeps no right row leaves nothing to learn from"),
    ("verifier --n 20", "of 20 rows 14.7 are kept; least squares in 20 dimensions needs more"),
    ("biased-verifier --slack 0", "slack and radius are 0: a verifier that allows no error keeps no row"),
    ("curation --rewards 1", "there are 3 probabilities and 1 rewards; each word has one of both"),
    ("curation --rewards a,b", "rewards is 'a,b'; it must be numbers with commas between them, as in 0.5,0.3,0.2"),
    ("curation --candidates inf --simulate 2", "candidates is inf; a simulation takes at most 13421"),
    ("truncated-loss --threshold 40", "threshold is 40: of 100 rows none lies beyond so many standard deviations"),
    ("exchange --pooled 1.1", "pooled is 1.1; it is a share, from 0 to 1"),
    (
        "exchange --public 0 --private 0.5",
        "private is 0.5, which leaves 0.5 to public rows, and there are none; give public rows, or private 1",
    ),
    ("exchange --n 4", "n is 4, fewer rows than the 5 dimensions; their Gram matrix has no full rank"),
    (
        "exchange --lineages 9",
        "9 points in 5 dimensions cannot all be equally far apart; take --d 8 or more",
    ),
    ("pooled-means --rule any", "rule 'any' is not known; there are own, all, others, segments"),
    ("pooled-means --lineages 0", "lineages is 0; it must be a whole number, 1 or more"),
    ("pooled-means --lineages 5000", "lineages is 5000; at most 1000 are gone through"),
    ("pooled-means --weights 1,2", "weights is '1,2'; it must be 3 numbers, of private, public, pooled rows"),
    ("pooled-means --weights 1,0,1", "the weight of private rows is 1, but there are none"),
    ("pooled-means --m 10 --simulate 2", "synthetic is 10; a simulation needs as many rows of each of 4 models"),
    ("ridge --simulate 0", "trials is 0; a simulation has at least 1"),
    (
        "ridge --n 105 --simulate 2 --p2 0.1",
        "p2 is 0.1: of 105 rows that is 10.5, no whole number; choose another n or p2",
    ),
]


@pytest.mark.parametrize(("words", "said"), REFUSED, ids=[words for words, _ in REFUSED])
def test_bad_values_are_one_line_and_exit_code_2(capsys: Say, words: str, said: str) -> None:
    for more in ((), ("--json",)):
        assert main(["theory", *words.split(), *more]) == 2
        heard = capsys.readouterr()
        assert heard.err == f"collapse: {said}\n"
        assert heard.out == ""


FOREIGN = [
    ("ridge", "--m"),
    ("ridge", "--alpha"),
    ("projections", "--generations"),
    ("weighted", "--m"),
    ("iterative", "--alpha"),
    ("generational", "--p2"),
    ("generational", "--c2"),
    ("accumulate", "--lam"),
    ("gaussian", "--noise"),
    ("gaussian", "--lam"),
    ("gaussian", "--weight"),
    ("weighted-mean", "--p2"),
    ("curation", "--phi"),
    ("exchange", "--rule"),
    ("pooled-means", "--pooled"),
]


@pytest.mark.parametrize(("model", "option"), FOREIGN)
def test_options_of_other_models_do_not_exist(capsys: Say, model: str, option: str) -> None:
    assert main(["theory", model, option, "1"]) == 2
    said = capsys.readouterr().err
    assert re.search(rf"there is no option {option}\b", said)
    assert said.endswith(f"(collapse theory {model} --help)\n")
    assert said.count("\n") == 1


def test_a_model_that_there_is_not(capsys: Say) -> None:
    assert main(["theory", "transformer"]) == 2
    assert "transformer" in capsys.readouterr().err


@pytest.mark.usefixtures("wide")
def test_help_lists_the_models(capsys: Say) -> None:
    assert main(["theory", "--help"]) == 0
    said = capsys.readouterr().out
    for model in MODELS:
        assert model in said


def test_one_trial_has_no_standard_error(capsys: Say, wide: None) -> None:
    """It was "0.037987 ± nan", of "1 trials"."""
    assert main(["theory", "ridge", "--simulate", "1"]) == 0
    said = capsys.readouterr().out
    assert "nan" not in said
    assert re.search(r"risk +0\.03\d+ +0\.03\d+ +[-+]", said)
    assert "Simulated: 1 trial, seed 0: one trial has no standard error." in " ".join(said.split())
    assert asked(capsys, "ridge", "--simulate", "1")["simulated"]["risk"]["standard_error"] is None
