"""All figures for papers by name, written to files."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from collapse_cli.report.paper import STYLE, TEXTS
from collapse_cli.report.paper_families import DRAWN as FAMILIES
from collapse_cli.report.reading import Run, Series


def _texts(draw: Callable[[Sequence[Series]], Any], runs: Sequence[Run], series: Sequence[Series]) -> Any:
    return draw([one for one in series if one.run.text])


DRAWN: Mapping[str, Callable[[Sequence[Run], Sequence[Series]], Any]] = {
    **{name: partial(_texts, draw) for name, draw in TEXTS.items()},
    **FAMILIES,
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
