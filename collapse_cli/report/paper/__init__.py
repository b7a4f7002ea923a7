"""Figures for papers: PNG at 300 dpi and SVG whose text is text. All of them by name, written to files."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from collapse_cli.report.grid_figures import TITLES
from collapse_cli.report.loading import Run, Series
from collapse_cli.report.paper import of_families, of_several_models, of_text
from collapse_cli.report.paper.canvas import STYLE
from collapse_cli.report.paper.over_grids import mixture

# by name what is drawn where there are numbers for it, None where there are none
DRAWN: Mapping[str, Callable[[Sequence[Run], Sequence[Series]], Any]] = {
    "perplexity": of_text.perplexity,
    "histograms": of_text.histograms,
    "deciles": of_text.deciles,
    "diversity": of_text.diversity,
    "headline": of_families.headline,
    "measures": of_families.measures,
    "lineages": of_several_models.lineages,
    "more": of_several_models.more,
    "pictures": of_families.pictures,
    **{f"mixture_{axis}": partial(mixture, axis) for axis in TITLES},
}


def write(
    runs: Sequence[Run], series: Sequence[Series], folder: Path, formats: Sequence[str], prefix: str = ""
) -> list[Path]:
    """Every figure there are numbers for, in every format; see `collapse_cli.report.write_figures`."""
    import matplotlib

    made = []
    folder.mkdir(parents=True, exist_ok=True)
    with matplotlib.rc_context(STYLE):
        for name, draw in DRAWN.items():
            for kind in formats:
                figure = draw(
                    runs, series
                )  # for each format anew: a layout depends on the resolution it was worked out at
                if figure is None:
                    break
                path = folder / f"{prefix}{name}.{kind}"
                # no date: the same run gives the same file
                metadata = {"Date": None} if kind == "svg" else {"CreationDate": None} if kind == "pdf" else None
                figure.savefig(path, format=kind, metadata=metadata)
                made.append(path)
    return made
