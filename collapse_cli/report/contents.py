"""What stands on the page, as it is filled: sections and figures in the order they are made."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from collapse_cli.families import Measure, headline
from collapse_cli.findings.diagnosis import Diagnosis
from collapse_cli.report.figures import Figure, curve
from collapse_cli.report.forecast import Forecast
from collapse_cli.report.html_elements import folded, plot, section
from collapse_cli.report.loading import Run, Series
from collapse_cli.report.text import escaped, one_line


@dataclass(frozen=True)
class Opening:
    """The section about the figure that opens the page; all but the figure and its title is HTML."""

    name: str
    title: str
    figure: Figure
    tools: str
    below: str


class Contents:
    """Sections and figures as they are made; a section without data leaves one line instead."""

    def __init__(
        self,
        runs: Sequence[Run],
        series: Sequence[Series],
        diagnoses: Sequence[Diagnosis],
        forecasts: Sequence[Forecast | None],
    ) -> None:
        self.runs, self.series, self.diagnoses, self.forecasts = runs, series, diagnoses, forecasts
        self.texts = [line for line in series if line.run.text]
        """The policies of language models: what sections on text are about."""
        self.learners = list(dict.fromkeys(line.run.learner for line in series if not line.run.text))
        """Other model families that have policies."""
        self.figures: list[Figure] = []
        self.sections: list[tuple[str, str, str]] = []
        self.missing: list[str] = []
        self.kept: dict[str, Any] = {}
        """Texts for the browser of samples, as its script reads them."""
        self.opening: Opening | None = None
        """The chart of the first screen, which stands nowhere else."""

    def of(self, learner: str) -> list[Series]:
        """The policies of another family."""
        return [line for line in self.series if line.run.learner == learner and not line.run.text]

    def of_run(self, index: int) -> list[Series]:
        """The policies of one run."""
        return [line for line in self.series if line.run_index == index]

    def title_of(self, learner: str) -> str:
        """What its headline measure is called."""
        title = headline(learner, "generational").title
        return title if len(self.learners) + bool(self.texts) == 1 else f"{one_line(learner, 30)}: {title}"

    def add(self, name: str, title: str, inside: str) -> None:
        if inside:
            self.sections.append((name, title, section(name, title, inside)))
        elif any(run.family.diagnosed and not run.mixture for run in self.runs):
            self.missing.append(title)

    def lead(self, name: str, title: str, figure: Figure, tools: str, below: str) -> None:
        """A section about one large figure: the first of them opens the page.

        Args:
            title, tools, below: HTML; `tools` stand above the figure.
        """
        self.figures.append(figure)
        if self.opening is None:
            self.opening = Opening(name, title, figure, tools, below)
        else:
            self.add(name, title, tools + plot(figure, "tall", card=False) + below)

    def plots(self, figures: Sequence[Figure | None], size: str) -> str:
        there = [figure for figure in figures if figure is not None]
        self.figures += there
        return "".join(plot(figure, size) for figure in there)

    def curves(self, measures: Sequence[Measure]) -> str:
        """Small plots of measures; none that stands on the page already."""
        there = {figure.name for figure in self.figures}
        figures = [curve(measure, self.texts) for measure in measures]
        return self.grid([figure for figure in figures if figure is not None and figure.name not in there], "small")

    def grid(self, figures: Sequence[Figure | None], size: str) -> str:
        """Plots in rows of three, or of two where that leaves none alone; those in which nothing moves are folded away."""
        there = [figure for figure in figures if figure is not None]
        still = [figure for figure in there if figure.still]
        there = [figure for figure in there if not figure.still]
        kind = "grid pairs" if len(there) in (1, 2, 4) else "grid"
        shown = f'<div class="{kind}">{self.plots(there, size)}</div>' if there else ""
        if not still:
            return shown
        titles = escaped(", ".join(f"{figure.title} ({figure.still})" for figure in still), 1000)
        return shown + folded(f"Nothing moves in: {titles}", f'<div class="grid">{self.plots(still, size)}</div>')
