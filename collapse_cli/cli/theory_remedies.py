"""`collapse theory`, the commands about what stops collapse: weights, budgets, schedules, and selection among rows."""

import math
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from collapse_cli.cli.theory import D, Generations, Output, app, command

if TYPE_CHECKING:
    from collapse_cli.simulate import Estimate

__all__ = ["app"]  # the one of `collapse theory`, with these commands too

MEANS = "Derived, docs/theory.md: Means of mixed rows. Exact."
MOST_OPTIONS = 1000  # numbers in a list

Variance = Annotated[
    str,
    typer.Option(help="Of synthetic rows: known (it is 1), biased (fitted, squares over n) or unbiased (over n - 1)."),
]
Phi = Annotated[float, typer.Option(help="Probability that the verifier keeps a row with the right label.")]
Psi = Annotated[float, typer.Option(help="Probability that it keeps one with a wrong label.")]


@command()
def weighted_mean(
    n: Annotated[int, typer.Option("--n", help="Real rows of generation 0.")] = 100,
    real: Annotated[int | None, typer.Option(help="Real rows of each later generation; by default n.")] = None,
    m: Annotated[int, typer.Option("--m", help="Synthetic rows of each later generation.")] = 100,
    weight: Annotated[
        float | None, typer.Option(help="Weight of all real rows together, 0 to 1; by default all rows weigh alike.")
    ] = None,
    kept: Annotated[
        bool, typer.Option("--kept", help="Real rows are those of generation 0, not new ones in each generation.")
    ] = False,
    variance: Variance = "known",
    generations: Generations = 9,
    *,
    output: Output,
) -> None:
    """A mean fitted to real and synthetic rows, weighted: the golden weight, and the same real rows kept."""
    from collapse_cli import theory
    from collapse_cli.terminal.theory import show

    arguments: dict[str, Any] = {
        "n": n,
        "real": n if real is None else real,
        "synthetic": m,
        "weight": weight,
        "kept": kept,
        "generations": generations,
        "variance": variance,
    }
    found = theory.mixed_mean(**arguments)
    values: dict[str, Any] = asdict(found)
    inputs = {"n": n, "real": arguments["real"], "m": m, "weight": values.pop("weight"), "kept": kept}
    inputs |= {"variance": variance, "generations": generations}
    if m > 0 and arguments["real"] > 0 and not kept:
        best = theory.golden_weight(arguments["real"], m)
        values["best_weight"] = best
        for name, other in (("best_limit", best), ("pooled_limit", None)):
            values[name] = theory.mixed_mean(**arguments | {"weight": other}).relative_limit
    measured: dict[str, Estimate] = {}
    if output.simulate is not None:
        from collapse_cli import simulate as drawn

        measured = drawn.mixed_mean(**arguments, trials=output.simulate, seed=output.seed)
    note = f"The best weight: arXiv 2502.18049, for new real rows and a known variance. {MEANS}"
    show("weighted-mean", inputs, values, measured, note, output.seed, output.as_json)


@command()
def contaminated(
    share: Annotated[float, typer.Option(help="Synthetic share of each generation's rows, 0 to 1.")] = 0.5,
    n: Annotated[int, typer.Option("--n", help="Rows of each generation, for the simulation.")] = 100,
    generations: Generations = 9,
    *,
    output: Output,
) -> None:
    """A mean fitted to all rows so far, to which each generation adds new real rows and synthetic ones."""
    from collapse_cli import theory
    from collapse_cli.terminal.theory import show

    found, exponent = theory.contaminated(share_synthetic=share, generations=generations)
    values = {"relative": found.value, "relative_limit": found.limit, "exponent": exponent, "all": found.values}
    inputs = {"share": share, "n": n, "generations": generations}
    measured: dict[str, Estimate] = {}
    if output.simulate is not None:
        from collapse_cli import simulate as drawn

        measured["relative"] = drawn.contaminated(
            share_synthetic=share, n=n, generations=generations, trials=output.simulate, seed=output.seed
        )
    note = "Theorem 1 of arXiv 2601.15468, the variance known. n does not matter to the formula. Exact."
    show("contaminated", inputs, values, measured, note, output.seed, output.as_json)


@command()
def feedback(
    n0: Annotated[int, typer.Option("--n0", help="Real rows of generation 0.")] = 20_000,
    m: Annotated[int, typer.Option("--m", help="Real rows that join each generation.")] = 1000,
    k: Annotated[int, typer.Option("--k", help="Rows labelled by the model that join each generation.")] = 4000,
    generations: Generations = 9,
    *,
    output: Output,
) -> None:
    """A model's bias, fed back: rows that it labelled join its data, beside real ones."""
    from collapse_cli import theory
    from collapse_cli.terminal.theory import show

    inputs = {"n0": n0, "m": m, "k": k, "generations": generations}
    found = theory.feedback(n0=n0, real=m, synthetic=k, generations=generations)
    values = {"amplification": found.value, "amplification_limit": found.limit, "all": found.values}
    measured: dict[str, Estimate] = {}
    if output.simulate is not None:
        from collapse_cli import simulate as drawn

        measured["amplification"] = drawn.feedback(
            n0=n0, real=m, synthetic=k, generations=generations, trials=output.simulate, seed=output.seed
        )
    note = (
        "arXiv 2209.03942, of a model that is off by the same amount from whatever it is fitted to; of one that is off by "
        "less than that it is a bound."
    )
    show("feedback", inputs, values, measured, note, output.seed, output.as_json)


@command()
def self_correction(
    ratio: Annotated[float, typer.Option(help="lambda: synthetic rows for each real row.")] = 0.5,
    gamma: Annotated[float, typer.Option(help="Strength: synthetic rows are of (p + gamma p*)/(1 + gamma).")] = 1.0,
    sharpness: Annotated[
        float, typer.Option(help="eps L/alpha of the theorem; 0 where the model can be the truth.")
    ] = 0.0,
    n: Annotated[int, typer.Option("--n", help="Real rows, the same in all generations.")] = 100,
    generations: Generations = 9,
    *,
    output: Output,
) -> None:
    """Synthetic rows moved towards the truth before they are learned from: is the loop stable?"""
    from collapse_cli import theory
    from collapse_cli.terminal.theory import show

    most, bound = theory.self_correction(ratio=ratio, gamma=gamma, sharpness=sharpness)
    arguments: dict[str, Any] = {"n": n, "ratio": ratio, "gamma": gamma, "generations": generations}
    relative, rate = theory.corrected_mean(**arguments)
    values = {"stable_below": most, "stable": ratio < most, "rate_bound": bound, "rate": rate, "relative": relative}
    inputs = {"ratio": ratio, "gamma": gamma, "sharpness": sharpness, "n": n, "generations": generations}
    measured: dict[str, Estimate] = {}
    if output.simulate is not None:
        from collapse_cli import simulate as drawn

        measured["relative"] = drawn.corrected_mean(**arguments, trials=output.simulate, seed=output.seed)
    note = (
        "Theorem 4.3 of arXiv 2402.07087: a sufficient condition. rate and relative are of a Gaussian's mean, whose loop is "
        "stable at any ratio (derived, docs/theory.md)."
    )
    show("self-correction", inputs, values, measured, note, output.seed, output.as_json)


@command()
def word_survival(
    n: Annotated[float, typer.Option("--n", help="Tokens of a generation.")] = 10_000,
    frequency: Annotated[float, typer.Option(help="The word's true probability.")] = 1e-3,
    generations: Generations = 9,
    *,
    output: Output,
) -> None:
    """Is a word still there after so many generations of counting and sampling?"""
    from collapse_cli import theory
    from collapse_cli.terminal.theory import show

    arguments: dict[str, Any] = {"n": n, "frequency": frequency, "generations": generations}
    found = theory.word_survival(**arguments)
    one = theory.survival_of_one(generations)
    values = {"survival": found.value, "of_one_token": one, "all": found.values}
    measured: dict[str, Estimate] = {}
    if output.simulate is not None:
        from collapse_cli import simulate as drawn

        measured["survival"] = drawn.word_survival(**arguments, trials=output.simulate, seed=output.seed)
    note = "arXiv 2412.17646: counts as Poisson variables, which they are for many tokens and a rare word."
    show("word-survival", arguments, values, measured, note, output.seed, output.as_json)


@command()
def verifier(
    phi: Phi = 0.9,
    psi: Psi = 0.6,
    wrong: Annotated[float, typer.Option(help="Share of wrong labels, 0 to 1.")] = 0.55,
    d: D = 20,
    n: Annotated[int, typer.Option("--n", help="Labelled rows, before the verifier.")] = 200_000,
    separation: Annotated[
        float, typer.Option(help="Half the distance of the two classes' means, in standard deviations.")
    ] = 1.0,
    *,
    output: Output,
) -> None:
    """Wrong labels and a verifier that errs: how many wrong ones are too many?"""
    from collapse_cli import theory
    from collapse_cli.terminal.theory import show

    inputs: dict[str, Any] = {"phi": phi, "psi": psi, "wrong": wrong, "d": d, "n": n, "separation": separation}
    found = theory.verifier(**inputs)
    values = {"threshold": found.threshold, "kept": found.kept, "wrong_kept": found.wrong, "cosine": found.cosine}
    measured: dict[str, Estimate] = {}
    if output.simulate is not None:
        from collapse_cli import simulate as drawn

        measured = drawn.verifier(**inputs, trials=output.simulate, seed=output.seed)
        measured["wrong_kept"] = measured.pop("wrong")
    note = (
        "Theorem 4.2 of arXiv 2406.07515; the cosine is derived (docs/theory.md: Selection): two Gaussians, least squares, "
        "many rows."
    )
    show("verifier", inputs, values, measured, note, output.seed, output.as_json)


@command()
def biased_verifier(
    offset: Annotated[float, typer.Option(help="Distance of generation 0 from the verifier's own parameters.")] = 1.0,
    noise: Annotated[float, typer.Option(help="Standard deviation of the labels' noise.")] = 1.0,
    slack: Annotated[float, typer.Option(help="sigma_c: error of a label that the verifier allows.")] = 1.0,
    radius: Annotated[float, typer.Option(help="r: error that it allows besides, times the input's length.")] = 0.0,
    d: D = 5,
    n: Annotated[int, typer.Option("--n", help="Rows of each generation, for the simulation.")] = 10_000,
    generations: Generations = 9,
    *,
    output: Output,
) -> None:
    """A verifier with parameters of its own: the loop ends at those, not at the truth."""
    from collapse_cli import theory
    from collapse_cli.terminal.theory import show

    arguments: dict[str, Any] = {"offset": offset, "noise": noise, "slack": slack, "radius": radius, "d": d}
    arguments["generations"] = generations
    found = theory.biased_verifier(**arguments)
    values: dict[str, Any] = {"distance": found[-1], "all": found}
    if radius == 0:
        values["approach"] = theory.approach(noise=noise, slack=slack)
    measured: dict[str, Estimate] = {}
    if output.simulate is not None:
        from collapse_cli import simulate as drawn

        measured["distance"] = drawn.biased_verifier(**arguments, n=n, trials=output.simulate, seed=output.seed)
    note = (
        "The rule of arXiv 2510.16657, Theorem 4.1; the map is derived (docs/theory.md: Selection), for ever more rows. "
        "n matters to the simulation alone."
    )
    show("biased-verifier", arguments | {"n": n}, values, measured, note, output.seed, output.as_json)


@command()
def curation(
    probabilities: Annotated[
        str, typer.Option(help="Of each kind of row, at generation 0: numbers with commas.")
    ] = "0.5,0.3,0.2",
    rewards: Annotated[str, typer.Option(help="Of each kind: numbers with commas.")] = "0,1,2",
    candidates: Annotated[float, typer.Option(help="K, of which one is taken; inf too.")] = 2,
    generations: Generations = 1,
    *,
    output: Output,
) -> None:
    """Of K rows the one that people like best is kept (Bradley-Terry): what is left after some generations?"""
    from collapse_cli import theory
    from collapse_cli.terminal.theory import show

    arguments: dict[str, Any] = {
        "probabilities": numbers("probabilities", probabilities),
        "rewards": numbers("rewards", rewards),
        "candidates": candidates,
        "generations": generations,
    }
    found = theory.curation(**arguments)[-1]
    values: dict[str, Any] = {f"probability_{i}": value for i, value in enumerate(found, 1)}
    values["reward"] = math.fsum(p * r for p, r in zip(found, arguments["rewards"], strict=True))
    inputs = {"probabilities": probabilities, "rewards": rewards, "candidates": f"{candidates:g}"}
    measured: dict[str, Estimate] = {}
    if output.simulate is not None:
        from collapse_cli import simulate as drawn

        ends = drawn.curation(**arguments, trials=output.simulate, seed=output.seed)
        measured = {f"probability_{i}": value for i, value in enumerate(ends, 1)}
    note = "Equation 6 of arXiv 2407.09499, for ever more rows."
    show("curation", inputs | {"generations": generations}, values, measured, note, output.seed, output.as_json)


@command()
def truncated_loss(
    threshold: Annotated[
        float, typer.Option(help="Rows nearer to the mean than so many standard deviations do not count.")
    ] = 0.5,
    n: Annotated[int, typer.Option("--n", help="Samples of each generation.")] = 100,
    biased: Annotated[
        bool, typer.Option("--biased", help="Variances divided by the rows that count, not by one less.")
    ] = False,
    generations: Generations = 9,
    *,
    output: Output,
) -> None:
    """A Gaussian refitted to the rows that the model before found unlikely: its variance grows."""
    from collapse_cli import theory
    from collapse_cli.terminal.theory import show

    arguments: dict[str, Any] = {"threshold": threshold, "n": n, "generations": generations, "unbiased": not biased}
    values = asdict(theory.truncated_loss(**arguments))
    inputs = {"threshold": threshold, "n": n, "biased": biased, "generations": generations}
    measured: dict[str, Estimate] = {}
    if output.simulate is not None:
        from collapse_cli import simulate as drawn

        measured["variance"] = drawn.truncated_loss(**arguments, trials=output.simulate, seed=output.seed)
    note = "arXiv 2509.08972; derived for a Gaussian, docs/theory.md: Selection. Generation 0 is fitted to all rows. Exact."
    show("truncated-loss", inputs, values, measured, note, output.seed, output.as_json)


def numbers(name: str, text: str) -> tuple[float, ...]:
    """Numbers with commas between them."""
    from collapse_cli.theory import TheoryError

    words = text.split(",")
    if len(words) > MOST_OPTIONS:
        raise TheoryError(f"{name} has {len(words)} numbers; at most {MOST_OPTIONS} are taken")
    try:
        return tuple(float(word) for word in words)
    except ValueError:
        raise TheoryError(
            f"{name} is {text[:60]!r}; it must be numbers with commas between them, as in 0.5,0.3,0.2"
        ) from None
