"""How `collapse theory` prints an answer: a table, or JSON."""

import json
import math
from collections.abc import Mapping
from typing import Any

from rich.box import SIMPLE_HEAD

from collapse_cli.simulate import Estimate
from collapse_cli.terminal import text as terminal

SAYS = {
    "risk": "expected error, label noise not included",
    "bias": "due to the true function",
    "variance": "due to noise",
    "zeta": "due to synthetic labels",
    "kappa": "effective penalty",
    "u": "what fluctuations of inputs add",
    "plateau": "risk for ever more rows",
    "knee": "rows where risk is twice the plateau (lam = 0)",
    "share": "effective synthetic share",
    "alpha": "nominal synthetic mass",
    "best_alpha": "the best nominal mass",
    "low_dimensional_alpha": "the same for d << n, lam = 0",
    "best_risk": "risk at the best mass",
    "clean_risk": "risk on the real rows alone",
    "unweighted_risk": "risk with equal weights",
    "floor": "risk after ever more iterations",
    "rate": "of approach to the floor, an iteration",
    "clean": "risk of n real rows, one fit",
    "clean_real": "risk of the p1 n real rows alone",
    "excess": "what mixing adds",
    "relaxation": "iterations until it is there, about",
    "bound": "pi^2/6 of generation 0's risk",
    "replaced": "risk if old labels are dropped",
    "mean_error": "E |mean - true mean|^2",
    "std": "E of the standard deviation",
    "log_variance": "E of ln variance",
    "wasserstein": "E of the squared W2 distance",
    "wasserstein_lower": "lower bound of that",
    "log_determinant": "E of ln det covariance",
    "variance_limit": "E variance in the end",
    "mean_error_limit": "E |mean - true mean|^2 in the end",
    "mean_error_bound": "pi^2 d/(6 n), never passed",
    "std_above": "at most, Pr of a larger deviation",
    "relative": "E (mean - truth)^2, times n",
    "relative_limit": "the same in the end",
    "best_weight": "the best of the real rows together",
    "best_limit": "the end with the best weight",
    "pooled_limit": "the end if all rows weigh alike",
    "exponent": "it falls like 1/t to that power",
    "amplification": "bias over generation 0's",
    "amplification_limit": "the same in the end",
    "stable_below": "largest ratio known to be stable",
    "stable": "whether the theorem says so",
    "rate_bound": "errors shrink at least so, a generation",
    "survival": "Pr that the word is still there",
    "of_one_token": "the same of one token's descendants",
    "threshold": "share of wrong labels that is too many",
    "kept": "share of rows that is kept",
    "wrong_kept": "share of wrong labels among those",
    "cosine": "E, of the fitted with the true direction",
    "distance": "from the verifier's parameters",
    "approach": "factor of a small distance, a generation",
    "probability": "of that kind of row",
    "reward": "mean reward",
    "growth": "of the variance, a generation, ever more rows",
    "counted": "share of rows that count",
    "shrink": "of the variance, as the mean is fitted too",
    "distance_alone": "the same without exchange (a = 0)",
    "ratio": "1 - a: the root of their quotient",
    "error": "E of the squared error",
    "error_common": "the same from the mean of all truths",
    "walk": "of that, what the labels' noise added",
    "walk_limit": "that in the end",
    "mixture_error": "E (mean of all - true mean of all)^2",
    "mixture_variance": "E variance of all models' mixture",
    "distance_own": "distance, if each takes its own rows",
    "mixture_variance_own": "mixture_variance, likewise",
}
A_VARIANCE = {"variance": "E of the variance"}
OWN: dict[str, dict[str, str]] = {  # what a name means in one model alone
    "gaussian": A_VARIANCE,
    "weighted-mean": A_VARIANCE,
    "exchange": {
        "distance": "E |difference|^2 of two lineages' models",
        "error": "E |difference|^2 from the own truth",
    },
    "pooled-means": A_VARIANCE
    | {"distance": "E (mean - mean)^2 of two lineages", "mean_error": "E (mean - own true mean)^2"},
    "truncated-loss": A_VARIANCE,
    "self-correction": {"rate": "the same of a Gaussian's mean"},
}


def show(
    model: str,
    inputs: Mapping[str, Any],
    values: Mapping[str, Any],
    measured: Mapping[str, Estimate],
    note: str,
    seed: int,
    as_json: bool,
) -> None:
    """Print the answer. In JSON what has no finite value is null, and named in "diverges" where it is infinite."""
    if as_json:
        finite = {name: _finite(value) for name, value in values.items()}
        diverges = [name for name, value in values.items() if isinstance(value, float) and math.isinf(value)]
        answer: dict[str, Any] = {"model": model, **inputs, **finite, "diverges": diverges, "note": note}
        if measured:
            answer["simulated"] = {"seed": seed} | {
                name: {
                    "mean": _finite(value_measured.mean),
                    "standard_error": _finite(value_measured.error),
                    "trials": value_measured.trials,
                    "relative": None if (to := values.get(name)) is None else _finite(value_measured.relative(to)),
                }
                for name, value_measured in measured.items()
            }
        print(json.dumps(answer, allow_nan=False))
        return
    says = SAYS | OWN.get(model, {})
    asked = ", ".join(f"{name.replace('_', '-')} {_said(value)}" for name, value in inputs.items())
    table = terminal.Table(terminal.safe(f"{model}: {asked}"), box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("quantity")
    for head in ("formula", *(("simulated ± s.e.", "formula/sim.") if measured else ())):
        table.add_column(head, justify="right")
    table.add_column("what it is")
    for name, value in values.items():
        simulated = measured.get(name)
        if isinstance(value, tuple) or (value is None and simulated is None):
            continue
        drawn = ["", ""] if measured else []
        if simulated is not None:
            drawn = [
                _said(simulated.mean) + (f" ± {simulated.error:.2g}" if math.isfinite(simulated.error) else ""),
                "",
            ]
            off = math.nan if value is None else simulated.relative(value)
            if math.isfinite(off):
                drawn[1] = f"{off:+.2%}" if abs(off) < 10 else f"{off:+.0e}"
        table.add_row(
            name, "" if value is None else _said(value), *drawn, says.get(name) or says.get(name.rpartition("_")[0], "")
        )
    console = terminal.console()
    console.print(table)
    trials = next(iter(measured.values())).trials if measured else 0
    if trials:
        alone = ": one trial has no standard error" if trials == 1 else ""
        note += f" Simulated: {trials:,} trial{'s' if trials > 1 else ''}, seed {seed}{alone}."
    console.print(note, style="dim", highlight=False, markup=False)


def _finite(value: Any) -> Any:
    """A number for JSON: None where it is not finite; tuples are lists."""
    if isinstance(value, tuple):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _said(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    return "∞" if value == math.inf else f"{value:.5g}" if abs(value) < 1e5 or isinstance(value, float) else str(value)
