"""What stands on the page, as it is filled: sections and figures in the order they are made."""

from collections.abc import Sequence

from collapse_cli.families import Measure, headline
from collapse_cli.findings.diagnosis import Diagnosis
from collapse_cli.report.figures import Figure, curve
from collapse_cli.report.forecast import Forecast
from collapse_cli.report.html_elements import plot, section
from collapse_cli.report.loading import Run, Series
from collapse_cli.report.text import one_line


class Contents:
    """Sections and figures as they are made; a section without data leaves one line instead."""

    def __init__(
        self,
        runs: Sequence[Run],
        series: Sequence[Series],
        diagnoses: Sequence[Diagnosis],
        forecasts: Sequence[Forecast | None],
    ) -> None:
        self.runs, self.series, self.found, self.forecasts = runs, series, diagnoses, forecasts
        self.texts = [line for line in series if line.run.text]
        """The policies of language models: what sections on text are about."""
        self.learners = list(dict.fromkeys(line.run.learner for line in series if not line.run.text))
        """Other model families that have policies."""
        self.figures: list[Figure] = []
        self.sections: list[tuple[str, str, str]] = []
        self.missing: list[str] = []

    def of(self, learner: str) -> list[Series]:
        """The policies of another family."""
        return [line for line in self.series if line.run.learner == learner and not line.run.text]

    def title_of(self, learner: str) -> str:
        """What its headline measure is called."""
        title = headline(learner, "generational").title
        return title if len(self.learners) + bool(self.texts) == 1 else f"{one_line(learner, 30)}: {title}"

    def add(self, name: str, title: str, inside: str) -> None:
        if inside:
            self.sections.append((name, title, section(name, title, inside)))
        elif any(run.family.diagnosed and not run.mixture for run in self.runs):
            self.missing.append(title)

    def plots(self, figures: Sequence[Figure | None], size: str) -> str:
        there = [figure for figure in figures if figure is not None]
        self.figures += there
        return "".join(plot(figure, size) for figure in there)

    def curves(self, measures: Sequence[Measure]) -> str:
        return self.grid([curve(measure, self.texts) for measure in measures], "small")

    def grid(self, figures: Sequence[Figure | None], size: str) -> str:
        """Plots in rows of three, or of two where that leaves none alone."""
        there = [figure for figure in figures if figure is not None]
        kind = "grid pairs" if len(there) in (1, 2, 4) else "grid"
        return f'<div class="{kind}">{self.plots(there, size)}</div>' if there else ""
