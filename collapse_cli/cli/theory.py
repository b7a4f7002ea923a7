"""`collapse theory`: what the formulas of docs/theory.md say, and a simulation beside them where one is asked for."""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from collapse_cli.cli import repeated_options
from collapse_cli.cli.shared import fields_as_options, rank

if TYPE_CHECKING:
    from collapse_cli.simulate import Estimate
    from collapse_cli.theory import Problem

app = repeated_options.App(
    help="Closed-form predictions, no training: what synthetic data do to simple models, and what weights and selection do about it.",
    no_args_is_help=True,
)

D = Annotated[int, typer.Option("--d", help="Dimensions.")]
N = Annotated[float, typer.Option("--n", help="Rows in all, real and synthetic; 1e6 is a number too.")]
M = Annotated[float, typer.Option("--m", help="Random projections: the model's size.")]
Lam = Annotated[float, typer.Option("--lam", help="Ridge penalty per row; 0: none.")]
P2 = Annotated[float, typer.Option("--p2", help="Synthetic share of the rows, 0 to 1.")]
C2 = Annotated[
    float, typer.Option("--c2", help="Risk of the synthetic labels' own model, tr(Sigma Delta); 0: perfect.")
]
Noise = Annotated[float, typer.Option("--noise", help="Standard deviation of the labels' noise.")]
NoiseSynthetic = Annotated[
    float | None, typer.Option("--noise-synthetic", help="The same of the synthetic labels; by default as --noise.")
]
Spectrum = Annotated[
    str,
    typer.Option(
        "--spectrum", help="Eigenvalues of the inputs' covariance: iso (all equal) or pow (the k-th is k^-beta)."
    ),
]
Beta = Annotated[float, typer.Option("--beta", help="Exponent of --spectrum pow.")]
Generations = Annotated[int, typer.Option("--generations", help="The last generation; 0 has seen real data only.")]
SameInputs = Annotated[bool, typer.Option("--same-inputs", help="All generations have the same inputs.")]
Simulate = Annotated[int | None, typer.Option("--simulate", metavar="TRIALS", help="Also simulate it, so many times.")]
Seed = Annotated[int, typer.Option("--seed", help="Seed of the simulation.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for other programs.")]

SIZES = ("d", "n", "m")  # which come first


@dataclass(frozen=True)
class MixtureOptions:
    """What the commands about real and synthetic labels ask alike."""

    d: D = 100
    n: N = 1000
    lam: Lam = 0.0
    p2: P2 = 0.1
    c2: C2 = 0.5
    noise: Noise = 0.5
    noise_synthetic: NoiseSynthetic = None
    spectrum: Spectrum = "iso"
    beta: Beta = 1.5


@dataclass(frozen=True)
class Output:
    """What every command is asked beside its question: whether to simulate, and how to print."""

    simulate: Simulate = None
    seed: Seed = 0
    as_json: Json = False


def command(*first: str, **defaults: Any) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """A command of `collapse theory`; see `shared.fields_as_options`."""

    def made(function: Callable[..., None]) -> Callable[..., None]:
        asked: Callable[..., None] = app.command()(fields_as_options(function, first, **defaults))
        return asked

    return made


MIXED = (
    "Sigma has the named spectrum, w1 ~ N(0, I/tr Sigma), w2 - w1 ~ N(0, (c2/d) Sigma^-1); c2 = tr(Sigma Delta), which is d "
    "times what arXiv 2410.04840 may call c^2 (UNCONFIRMED). Limit of many rows and dimensions: low by some per mille at hundreds."
)


@command()
def ridge(
    mixed: MixtureOptions,
    *,
    output: Output,
) -> None:
    """Ridge regression on real and synthetic labels: Theorem 1 of "Strong Model Collapse"."""
    from collapse_cli import theory
    from collapse_cli.terminal.theory import show

    inputs = _inputs(mixed)
    given, arguments = _problem(inputs)
    exact = theory.ridge(**arguments)
    floor = theory.plateau_ridge(eigenvalues=given.eigenvalues, p2=mixed.p2, c2=mixed.c2, lam=mixed.lam)
    knee = theory.knee(d=mixed.d, p2=mixed.p2, c2=mixed.c2, noise=mixed.noise, noise_synthetic=mixed.noise_synthetic)
    values = _fields(exact, "risk", "bias", "variance", "zeta", "kappa", "u") | {"plateau": floor.risk, "knee": knee}
    measured: dict[str, Estimate] = {}
    if output.simulate is not None:
        from collapse_cli import simulate as drawn

        measured["risk"] = drawn.ridge(given, trials=output.simulate, seed=output.seed)
    show("ridge", inputs, values, measured, f"Theorem 1 of arXiv 2410.04840. {MIXED}", output.seed, output.as_json)


@command(*SIZES, lam=1e-3)
def projections(
    mixed: MixtureOptions,
    m: M = 50,
    *,
    output: Output,
) -> None:
    """Ridge regression on m random projections: what the model's size does to collapse."""
    from collapse_cli import theory
    from collapse_cli.terminal.theory import show

    inputs = _inputs(mixed, m=m)
    given, arguments = _problem(inputs)
    exact = theory.projections(**arguments, m=m)
    floor = theory.plateau_projections(eigenvalues=given.eigenvalues, m=m, p2=mixed.p2, c2=mixed.c2, lam=mixed.lam)
    values = _fields(exact, "risk", "bias", "variance", "zeta", "kappa", "u") | {"plateau": floor.risk}
    measured: dict[str, Estimate] = {}
    if output.simulate is not None:
        from collapse_cli import simulate as drawn

        measured["risk"] = drawn.projections(given, m=m, trials=output.simulate, seed=output.seed)
    note = f"Random projections of arXiv 2410.04840; the one-equation form is derived (docs/theory.md). {MIXED}"
    show("projections", inputs, values, measured, note, output.seed, output.as_json)


@command(p2=0.5)
def weighted(
    mixed: MixtureOptions,
    alpha: Annotated[
        float | None,
        typer.Option(
            help="Share of the weight that the synthetic rows have, 0 to 1; with p2 all rows weigh alike. By default the best."
        ),
    ] = None,
    *,
    output: Output,
) -> None:
    """Real and synthetic rows weighted: how little of the synthetic rows is best?"""
    from collapse_cli import theory
    from collapse_cli.terminal.theory import show

    inputs = _inputs(mixed, alpha=alpha)
    given, arguments = _problem(inputs)
    extra: dict[str, float] = {}
    if 0 < mixed.p2 < 1:
        best = theory.optimal_weight(**arguments)
        alpha = best.alpha if alpha is None else alpha
        extra = {
            "best_alpha": best.alpha,
            "low_dimensional_alpha": best.low_dimensional,
            "best_risk": best.best.risk,
            "clean_risk": best.clean.risk,
            "unweighted_risk": best.unweighted.risk,
        }
    exact = theory.weighted(**arguments, alpha=alpha)
    inputs["alpha"] = exact.alpha
    values = _fields(exact, "risk", "bias", "variance", "zeta", "kappa", "share") | extra
    measured: dict[str, Estimate] = {}
    if output.simulate is not None:
        from collapse_cli import simulate as drawn

        measured["risk"] = drawn.weighted(given, weights=exact.weights, trials=output.simulate, seed=output.seed)
    show("weighted", inputs, values, measured, f"Derived, docs/theory.md. {MIXED}", output.seed, output.as_json)


@command(p2=0.5, c2=2.0)
def iterative(
    mixed: MixtureOptions,
    iterations: Annotated[
        int, typer.Option(help="How often real and synthetic rows are mixed; the first model's risk is c2.")
    ] = 8,
    fixed: Annotated[
        bool, typer.Option("--fixed", help="Real rows are drawn once; the limit of many iterations.")
    ] = False,
    *,
    output: Output,
) -> None:
    """Mixing again and again: each model labels the synthetic rows of the next."""
    from collapse_cli import theory
    from collapse_cli.terminal.theory import show

    inputs = _inputs(mixed, iterations=iterations, fixed=fixed)
    given, arguments = _problem(inputs)
    protocol = f"Derived, docs/theory.md; which protocol arXiv 2410.04840 means is UNCONFIRMED. {MIXED}"
    measured: dict[str, Estimate] = {}
    if fixed:
        if mixed.lam != 0:
            raise theory.TheoryError(f"--lam is {mixed.lam:g}; with --fixed there is a formula for lam = 0 only")
        end = theory.iterative_fixed(
            d=mixed.d, n=mixed.n, p2=mixed.p2, noise=mixed.noise, noise_synthetic=mixed.noise_synthetic
        )
        values = _fields(end, "risk", "clean", "excess") | {"relaxation": end.iterations}
        if output.simulate is not None:
            from collapse_cli import simulate as drawn

            steps = max(20, math.ceil(5 * end.iterations))
            excess, risk, _ = drawn.iterative_fixed(
                given, mixing=steps, kept=steps, trials=output.simulate, seed=output.seed
            )
            measured |= {"risk": risk, "excess": excess}
        for name in ("iterations", "c2", "spectrum", "beta"):  # the limit does not depend on them
            del inputs[name]
        note = f"Real rows fixed, iterations without end; c2 and Sigma do not matter then. {protocol}"
        show("iterative", inputs, values, measured, note, output.seed, output.as_json)
        return
    exact = theory.iterative_fresh(**arguments, iterations=iterations)
    values = _fields(exact, "risk", "bias", "variance", "floor", "rate", "clean", "clean_real", "kappa", "risks")
    if output.simulate is not None:
        from collapse_cli import simulate as drawn

        measured["risk"] = drawn.iterative_fresh(
            given, iterations=iterations, trials=output.simulate, seed=output.seed
        )[-1]
    show(
        "iterative",
        inputs,
        values,
        measured,
        f"New real rows in each iteration. {protocol}",
        output.seed,
        output.as_json,
    )


@command()
def generational(
    d: D = 100,
    n: N = 400,
    lam: Lam = 0.0,
    noise: Noise = 0.5,
    noise_generator: Annotated[
        float | None,
        typer.Option(help="The same of the labels that earlier models were fitted to; by default as --noise."),
    ] = None,
    spectrum: Spectrum = "iso",
    beta: Beta = 1.5,
    t0: Annotated[
        int, typer.Option("--t0", help="Rows that each earlier model was fitted to; --n are those of the last one.")
    ] = 300,
    generations: Generations = 9,
    same_inputs: SameInputs = False,
    *,
    output: Output,
) -> None:
    """Labels replaced, generation after generation: "Model Collapse Demystified"."""
    from collapse_cli import theory
    from collapse_cli.terminal.theory import show

    own = noise if noise_generator is None else noise_generator
    inputs: dict[str, Any] = {
        "d": d,
        "n": n,
        "lam": lam,
        "noise": noise,
        "noise_generator": own,
        "spectrum": spectrum,
        "beta": beta,
        "t0": t0,
        "generations": generations,
        "same_inputs": same_inputs,
    }
    eigenvalues = theory.spectrum(spectrum, d, beta)
    arguments: dict[str, Any] = {
        "t0": t0,
        "generations": generations,
        "noise_generator": own,
        "same_inputs": same_inputs,
    }
    exact = theory.generational(eigenvalues=eigenvalues, n=n, lam=lam, noise=noise, **arguments)
    measured: dict[str, Estimate] = {}
    if output.simulate is not None:
        from collapse_cli import simulate as drawn

        given = theory.problem(eigenvalues=eigenvalues, n=n, p2=0.0, c2=0.0, lam=lam, noise=noise)
        measured["risk"] = drawn.generational(given, **arguments, trials=output.simulate, seed=output.seed)
    note = (
        "Theorems 4.1 to 4.6 of arXiv 2402.07712, with exact means of inverse Wishart matrices; w0 ~ N(0, I/tr Sigma). "
        "zeta is what the label makers' noise adds."
    )
    values = _fields(exact, "risk", "bias", "variance", "zeta", "kappa")
    show("generational", inputs, values, measured, note, output.seed, output.as_json)


@command()
def accumulate(
    d: D = 50,
    n: Annotated[int, typer.Option("--n", help="Rows of each generation.")] = 200,
    noise: Noise = 0.5,
    generations: Generations = 9,
    same_inputs: SameInputs = False,
    *,
    output: Output,
) -> None:
    """Labels accumulated: least squares on those of all generations, which stays below pi^2/6 of the first."""
    from collapse_cli import theory
    from collapse_cli.terminal.theory import show

    inputs: dict[str, Any] = {"d": d, "n": n, "noise": noise, "generations": generations, "same_inputs": same_inputs}
    exact = theory.accumulate_regression(**inputs)
    measured: dict[str, Estimate] = {}
    if output.simulate is not None:
        from collapse_cli import simulate as drawn

        measured["risk"] = drawn.accumulate_regression(**inputs, trials=output.simulate, seed=output.seed)[-1]
    note = "arXiv 2404.01413, any covariance of the inputs; with new inputs the sum is derived (docs/theory.md). Exact."
    show(
        "accumulate",
        inputs,
        _fields(exact, "risk", "bound", "replaced", "risks"),
        measured,
        note,
        output.seed,
        output.as_json,
    )


@command()
def gaussian(
    n: Annotated[int, typer.Option("--n", help="Samples of each generation.")] = 100,
    generations: Generations = 9,
    d: D = 1,
    policy: Annotated[
        str,
        typer.Option(
            help="replace; accumulate: fit the samples of all generations; or accumulate-subsample: n of those."
        ),
    ] = "replace",
    biased: Annotated[bool, typer.Option("--biased", help="Variances divided by n, not by n - 1.")] = False,
    above: Annotated[
        float | None,
        typer.Option(
            help="Also bound the probability that the standard deviation is above this (replace, n from 3 on)."
        ),
    ] = None,
    *,
    output: Output,
) -> None:
    """A Gaussian fitted to samples of a Gaussian, again and again; the truth has variance 1.

    Generations count as in a run: generation 0 is fitted to real rows, so that generation g has been fitted g + 1 times.
    """
    from collapse_cli import theory
    from collapse_cli.terminal.theory import show

    inputs: dict[str, Any] = {"n": n, "generations": generations, "d": d, "policy": policy, "biased": biased}
    arguments: dict[str, Any] = {
        "n": n,
        "refits": _whole_generation(generations) + 1,
        "d": d,
        "policy": policy,
        "unbiased": not biased,
    }
    values: dict[str, Any] = asdict(theory.gaussian(**arguments))
    tail: dict[str, Any] = {"n": n, "refits": arguments["refits"], "above": above}
    if above is not None:
        if policy != "replace":
            raise theory.TheoryError(
                f"--above is given; there is a bound for the policy replace only, not for {policy}"
            )
        values["std_above"] = theory.std_bound(**tail)
        inputs["above"] = above
    measured: dict[str, Estimate] = {}
    if output.simulate is not None:
        from collapse_cli import simulate as drawn

        measured = drawn.gaussian(**arguments, trials=output.simulate, seed=output.seed)
        if above is not None:
            measured["std_above"] = drawn.std_above(
                **tail, unbiased=not biased, trials=output.simulate, seed=output.seed
            )
    note = (
        f"After {generations + 1:,} fits, the first one to real rows. Theorem 3.1 of Shumailov et al., Nature 631 (2024), and "
        "closed forms derived for this project (docs/theory.md). Exact; "
        "variance, std and log_variance are of one coordinate. Beyond n generations, unbiased, mean variances depend on "
        "few large ones, which a simulation seldom draws: look at std and log_variance."
    )
    show("gaussian", inputs, values, measured, note, output.seed, output.as_json)


def _inputs(mixed: MixtureOptions, **own: Any) -> dict[str, Any]:
    """What was asked, in the order of the options."""
    given = asdict(mixed) | own
    return {name: given[name] for name in sorted(given, key=lambda name: rank(name, SIZES))}


def _problem(inputs: dict[str, Any]) -> tuple["Problem", dict[str, Any]]:
    """The problem that the inputs pose, and the arguments of a formula for it."""
    from collapse_cli import theory

    if inputs["noise_synthetic"] is None:
        inputs["noise_synthetic"] = inputs["noise"]
    names = ("n", "p2", "c2", "lam", "noise", "noise_synthetic")
    arguments: dict[str, Any] = {name: inputs[name] for name in names}
    arguments["eigenvalues"] = theory.spectrum(inputs["spectrum"], inputs["d"], inputs["beta"])
    return theory.problem(**arguments), arguments


def _fields(prediction: object, *names: str) -> dict[str, Any]:
    return {name: getattr(prediction, name) for name in names}


def _whole_generation(generations: int) -> int:
    from collapse_cli.theory import TheoryError

    if generations < 0:
        raise TheoryError(f"generations is {generations}; it must be a whole number, 0 or more")
    return generations
