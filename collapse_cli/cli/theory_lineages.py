"""`collapse theory`, the commands about several models that learn from each other's output."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from collapse_cli.cli.theory import D, Generations, Noise, NoiseSynthetic, Output, command
from collapse_cli.cli.theory_remedies import Variance, app, numbers

if TYPE_CHECKING:
    from collapse_cli.simulate import Estimate

__all__ = ["app"]  # the one of `collapse theory`, with these commands too

LineagesOption = Annotated[int, typer.Option("--lineages", help="K, models of each generation.")]


@command()
def exchange(
    lineages: LineagesOption = 2,
    d: D = 5,
    n: Annotated[int, typer.Option("--n", help="Private rows of each lineage, the same in all generations.")] = 100,
    public: Annotated[int, typer.Option(help="Public rows, which all share.")] = 100,
    m: Annotated[int | None, typer.Option("--m", help="Rows that each model makes; by default n.")] = None,
    pooled: Annotated[
        float, typer.Option(help="a: weight of the rows that all models made, 0 to 1; real rows have the rest.")
    ] = 0.5,
    private: Annotated[
        float | None,
        typer.Option(
            help="b: share of the real rows' weight that private ones have; by default 0.5, or 1 without public rows."
        ),
    ] = None,
    apart: Annotated[float, typer.Option(help="Distance of the truths of every two lineages.")] = 1.0,
    noise: Noise = 0.5,
    noise_synthetic: NoiseSynthetic = None,
    generations: Generations = 9,
    *,
    output: Output,
) -> None:
    """Linear models with private and public data and the pool of what all made: how far apart do they stay?"""
    from collapse_cli import theory
    from collapse_cli.terminal.theory import show

    own = (0.5 if public else 1.0) if private is None else private
    arguments: dict[str, Any] = {"lineages": lineages, "d": d, "n": n, "public": public, "made": m}
    arguments |= {"mix": theory.Exchange(pooled, own), "apart": apart, "noise": noise}
    arguments |= {"noise_synthetic": noise_synthetic, "generations": generations}
    found = theory.isotropic_exchange(**arguments)
    values = {name: getattr(found, name) for name in ("distance", "distance_alone", "ratio", "error", "error_common")}
    values |= {"walk": found.walk, "walk_limit": found.walk_limit}
    inputs: dict[str, Any] = {"lineages": lineages, "d": d, "n": n, "public": public, "m": n if m is None else m}
    inputs |= {"pooled": pooled, "private": own, "apart": apart, "noise": noise}
    inputs |= {"noise_synthetic": noise if noise_synthetic is None else noise_synthetic, "generations": generations}
    measured: dict[str, Estimate] = {}
    if output.simulate is not None:
        from collapse_cli import simulate as drawn

        measured = drawn.isotropic_exchange(**arguments, trials=output.simulate, seed=output.seed)
    note = (
        "The linear form of arXiv 2505.21677 (Theorems 1, 3) for Gram matrices that are all of one shape, isotropic and of full rank: "
        "private rows weigh (1-a) b, public ones (1-a)(1-b), each model's a/K. Of other Gram matrices: theory.linear_form, from "
        "Python. Derived, docs/theory.md: Several models. Exact."
    )
    show("exchange", inputs, values, measured, note, output.seed, output.as_json)


@command()
def pooled_means(
    lineages: LineagesOption = 4,
    rule: Annotated[
        str, typer.Option(help="Whose rows a lineage takes: own, all, others, or segments (parts of all, shuffled).")
    ] = "all",
    n: Annotated[int, typer.Option("--n", help="Private rows of each lineage's generation 0.")] = 100,
    private: Annotated[int, typer.Option(help="Of those, rows that each later generation keeps, drawn anew.")] = 0,
    public: Annotated[int, typer.Option(help="Public rows, which all share in all generations.")] = 0,
    m: Annotated[int, typer.Option("--m", help="Synthetic rows of each later generation of a lineage.")] = 100,
    weights: Annotated[
        str,
        typer.Option(
            help="Of all private, public and pooled rows: 3 numbers with commas; by default all rows weigh alike."
        ),
    ] = "",
    apart: Annotated[
        float, typer.Option(help="True means stand in a row, so far apart, about 0, which is that of the public rows.")
    ] = 0.0,
    variance: Variance = "biased",
    generations: Generations = 9,
    *,
    output: Output,
) -> None:
    """Gaussians that share a pool of their samples: do they become alike, and how long does the mixture hold?"""
    import numpy as np

    from collapse_cli import theory
    from collapse_cli.config.weights import KINDS
    from collapse_cli.terminal.theory import show
    from collapse_cli.theory.checks import not_negative, whole

    masses = numbers("weights", weights) if weights else ()
    if masses and len(masses) != len(KINDS):
        raise theory.TheoryError(
            f"weights is {weights[:60]!r}; it must be {len(KINDS)} numbers, of {', '.join(KINDS)} rows"
        )
    truths = not_negative("apart", apart) * (np.arange(min(whole("lineages", lineages, 1), 10**6)) - (lineages - 1) / 2)
    arguments: dict[str, Any] = {
        "n": n,
        "rows": theory.LineageRows(private, public, m, (masses[0], masses[1], masses[2]) if masses else None),
        "rule": rule,
    }
    arguments |= {"truths": truths, "variance": variance, "generations": generations}
    path = list(theory.pooled_means(**arguments))
    names = ("distance", "mean_error", "variance", "mixture_error", "mixture_variance")
    values: dict[str, Any] = {name: getattr(path[-1], name) for name in names}
    if rule != "own":
        *_, alone = theory.pooled_means(**arguments | {"rule": "own"})
        values |= {"distance_own": alone.distance, "mixture_variance_own": alone.mixture_variance}
    values |= {
        "distances": tuple(each.distance for each in path),
        "mixture_variances": tuple(each.mixture_variance for each in path),
    }
    inputs: dict[str, Any] = {"lineages": lineages, "rule": rule, "n": n, "private": private, "public": public, "m": m}
    inputs |= {"weights": weights or "equal", "apart": apart, "variance": variance, "generations": generations}
    measured: dict[str, Estimate] = {}
    if output.simulate is not None:
        from collapse_cli import simulate as drawn

        measured = drawn.pooled_means(**arguments, trials=output.simulate, seed=output.seed)
    note = (
        "Derived, docs/theory.md: Several models. Exact. Two lineages that take rows of one model take the same ones; segments are parts "
        "without common rows of all rows that K models made."
    )
    show("pooled-means", inputs, values, measured, note, output.seed, output.as_json)
