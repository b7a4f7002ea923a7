"""What each model family is, described once, without torch: a light file each, and the one place that lists them."""

from collections.abc import Mapping

from collapse_cli.families.description import KNOWN, SHARE, TEST_LOSS, Description, Grid, Headline, Measure, Theory
from collapse_cli.families.gaussian import GAUSSIAN
from collapse_cli.families.gmm import GMM
from collapse_cli.families.lm import LM
from collapse_cli.families.mlp import MLP
from collapse_cli.families.ngram import NGRAM
from collapse_cli.families.projections import PROJECTIONS
from collapse_cli.families.ridge import RIDGE
from collapse_cli.families.section import Section
from collapse_cli.families.vae import VAE

__all__ = [
    "DEFAULT",
    "FAMILIES",
    "INSTRUMENTS",
    "KNOWN",
    "NUMBERS",
    "OWN",
    "SHARE",
    "TEST_LOSS",
    "Description",
    "Grid",
    "Headline",
    "Measure",
    "Section",
    "Theory",
    "headline",
    "headline_measure",
    "instruments",
    "measures_of",
    "of",
]

FAMILIES: Mapping[str, Description] = {
    family.name: family for family in (LM, GAUSSIAN, GMM, NGRAM, VAE, RIDGE, PROJECTIONS, MLP)
}
DEFAULT = LM.name  # of an experiment that names none; older ones could not

INSTRUMENTS = tuple(
    dict.fromkeys(measure for family in FAMILIES.values() for group in family.instruments.values() for measure in group)
)
OWN = frozenset(measure for family in FAMILIES.values() for measure in family.measures)
# fields of rows of which anything but a finite number is damage
NUMBERS = frozenset().union(
    (measure.name for measure in INSTRUMENTS if measure.part is None),
    (name for measure in OWN for name in (measure.name, f"{measure.name}_se")),
    *(family.numbers for family in FAMILIES.values()),
)


def of(learner: str) -> Description:
    """What is known of a learner; of one of another version, that it has a test loss."""
    if learner in FAMILIES:
        return FAMILIES[learner]
    loss = Headline("test_loss", "loss on real test rows")
    return Description(learner, "", None, (), "numbers", loss, (TEST_LOSS,), grid=Grid((), loss, ()))


def instruments(group: str) -> tuple[Measure, ...]:
    """The measures of text that stand in a section of the page, of all families."""
    return tuple(
        dict.fromkeys(measure for family in FAMILIES.values() for measure in family.instruments.get(group, ()))
    )


def headline(learner: str, kind: str, source: str = "") -> Headline:
    """The first measure of an experiment.

    Args:
        source: `data.source`. Of a text whose truth is known, a mixture may be judged by its distance from it.
    """
    family = of(learner)
    if kind != "mixture" or family.grid is None:
        return family.headline
    return family.grid.truth or family.grid.headline if source in KNOWN else family.grid.headline


def measures_of(learner: str) -> tuple[Measure, ...]:
    """Those of a family over generations, its headline measure first; its loss where there are none."""
    return of(learner).measures or (TEST_LOSS,)


def headline_measure(learner: str, kind: str, name: str = "") -> Measure:
    """The headline measure with how to read it; `name` where the data decide which it is."""
    family = of(learner)
    name = name or headline(learner, kind).name
    known = measures_of(learner) if kind != "mixture" else family.grid.measures if family.grid else family.measures
    return next((measure for measure in known if measure.name == name), TEST_LOSS)
