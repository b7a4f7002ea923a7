"""The corpus of a mixture's cell, or of its generator."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from collapse_cli.config import Experiment
from collapse_cli.config.cell import Cell
from collapse_cli.data.dataset import Dataset
from collapse_cli.engine.stage import Cost, Finished, Product, Stage, StageKind, Workplace, seed_for
from collapse_cli.errors import InputError
from collapse_cli.experiment.costs import Size, put_together
from collapse_cli.experiment.mixing import seeded_order
from collapse_cli.experiment.stages.base import CORPUS, ROWS, at, on_one_thread, with_history
from collapse_cli.experiment.stages.portion import too_few


def combine_stage(
    config: Experiment, data: Stage, made: Stage | None, real: int, synthetic: int, seed: int, *, end: bool = False
) -> Stage:
    """The first `real` real rows, then as many synthetic ones; `end`: the last real rows, for a generator (0: all)."""
    which = Combined(real, synthetic, seed_for(seed, "mix", 0), end)
    inputs = {"data": data} | ({"made": made} if made else {})
    return Stage(COMBINE, {"learner": config.learner, "mixture": which.params()}, inputs)


def with_foreign_stage(
    config: Experiment, data: Stage, sources: Sequence[Stage], real: int, synthetic: int, seed: int
) -> Stage:
    """The first `real` real rows, and synthetic ones of the sources in turn."""
    which = Combined(real, synthetic, seed_for(seed, "mix", 0), False, len(sources))
    inputs = {"data": data, **{f"foreign-{number:05d}": source for number, source in enumerate(sources)}}
    params = {"learner": config.learner, "mixture": which.params()}
    return Stage(COMBINE, params, inputs, seed_for(seed, "foreign", 0))


@dataclass(frozen=True)
class Combined:
    """Which rows a corpus has.

    Attributes:
        real: so many real rows; 0 with `end`: all.
        synthetic: so many of the generator's, which stand where the next real ones would.
        order: the seed of the order of real rows.
        end: whether real rows are taken from the end of that order.
        foreign: of how many sources of someone else's text the synthetic rows are, place by place in turn; 0: of a generator.
    """

    real: int
    synthetic: int
    order: int
    end: bool
    foreign: int = 0

    def params(self) -> dict[str, Any]:
        """As a stage's parameters have it; a key has `foreign` only where there are such sources."""
        return {name: value for name, value in vars(self).items() if name != "foreign" or value}

    @classmethod
    def of(cls, stage: Stage) -> "Combined":
        return cls(**stage.params["mixture"])

    def real_of(self, rows: int) -> int:
        """How many real rows it has, of so many that there are."""
        return self.real or (rows if self.end else 0)


@on_one_thread
def body(stage: Stage, inputs: Mapping[str, Finished], place: Workplace) -> dict[str, Any]:
    which, real = Combined.of(stage), Dataset.load(inputs["data"].file(CORPUS))
    order = seeded_order(len(real), which.order)
    if which.end:
        order = order[::-1]
    n1 = which.real_of(len(real))
    parts = [real.take(order[:n1])]
    if which.foreign:
        chosen, facts = _of_sources(
            which, n1, [made for name, made in sorted(inputs.items()) if name != "data"], real.arrays, stage.seed
        )
        Dataset.concat([*parts, chosen]).save(place.folder / CORPUS)
        return facts
    if which.synthetic:
        made = Dataset.load(inputs["made"].file(ROWS))
        parts.append(made.take(np.arange(n1, n1 + which.synthetic)))
    Dataset.concat(parts).save(place.folder / CORPUS)
    return with_history(stage, inputs, "made") if which.synthetic else {"sample_tokens": 0}


def _of_sources(
    which: Combined, first: int, sources: Sequence[Finished], names: Iterable[str], seed: int
) -> tuple[Dataset, dict[str, Any]]:
    """Rows for the places from `first` on, of each source in turn, and of each how many.

    The rows of a file stand in a seeded order, so that those of a small cell are among those of a large one. A server's
    continue the real rows of their places.

    Args:
        names: of the arrays that rows of a corpus have.
    """
    places = np.arange(first, first + which.synthetic)
    parts, theirs, facts, asked = [], [], [], 0
    for number, source in enumerate(sources):
        mine, rows = np.flatnonzero(places % which.foreign == number), Dataset.load(source.file(ROWS))
        if "place" in rows.arrays:
            part = rows.take(np.searchsorted(rows.arrays["place"], places[mine]))
            asked += int((part.arrays["lengths"] - part.arrays["start"]).sum())
        elif len(mine) > len(rows):
            raise InputError(too_few(len(mine), len(rows), "a source"))
        else:
            part = rows.take(seeded_order(len(rows), seed)[: len(mine)])
        parts.append(Dataset({name: part.arrays[name] for name in names}, part.origin))
        theirs.append(mine)
        facts.append({"rows": len(mine), **source.facts["source"]})
    chosen = Dataset.concat(parts).take(np.argsort(np.concatenate(theirs)))
    return chosen, {"sample_tokens": asked, "foreign_rows": facts}


def most_of_sources(cells: Sequence[Cell], sources: int) -> list[int]:
    """How many rows each of so many sources gives to one cell at most."""
    places = [np.arange(cell.real, cell.rows) % sources for cell in cells if cell.synthetic]
    most = (
        np.max([np.bincount(each, minlength=sources) for each in places], axis=0, initial=0)
        if places
        else [0] * sources
    )
    return [int(count) for count in most]


def cost(stage: Stage, size: Size) -> Cost:
    which = Combined.of(stage)
    return put_together(size, which.real_of(size.rows) + which.synthetic, 0.1)


COMBINE = StageKind[Size](name="mix", kind="mix", version=1, product=Product.ROWS, body=body, cost=cost, label=at)
