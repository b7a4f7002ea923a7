"""Those rows of a text of someone else's model that one corpus takes."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from collapse_cli.config import Experiment
from collapse_cli.config.policies import Policy
from collapse_cli.config.selection import candidates
from collapse_cli.data.dataset import Dataset, how_many
from collapse_cli.engine.stage import Cost, Finished, Product, Stage, StageKind, Workplace, seed_for
from collapse_cli.errors import InputError
from collapse_cli.experiment import mixing
from collapse_cli.experiment.costs import Size, put_together
from collapse_cli.experiment.mixing import seeded_order
from collapse_cli.experiment.pool import quota
from collapse_cli.experiment.stages.base import ROWS, at, on_one_thread
from collapse_cli.experiment.stages.written import note


def portion_stage(
    config: Experiment, policy: Policy, data: Stage, rows: Stage, place: tuple[int, int], seed: int, generation: int
) -> Stage:
    """The rows of a file that the corpus of a generation takes.

    Args:
        rows: all of them.
        place: which member of the pool the file is, of how many.
    """
    which = {
        "policy": policy.until(generation).params(),
        "growing": config.mix.size == "growing",
        "generation": generation,
        "oversample": config.select.oversample,
        "place": list(place),
    }
    return Stage(
        PORTION, {"learner": config.learner, **which}, {"data": data, "rows": rows}, seed_for(seed, "foreign", 0)
    )


def given_rows(
    policy: Policy, rows: int, generation: int, oversample: float, place: tuple[int, int], *, growing: bool
) -> int:
    """How many rows a member of a pool gives to the corpus of a generation, further candidates for a choice among them.

    Args:
        rows: of the original corpus.
        place: which member it is, of how many.
    """
    if not policy.needs_samples(generation):
        return 0
    needed = mixing.new_rows(policy.at(generation), rows, generation, growing=growing and not policy.accumulates)
    return candidates(oversample, quota(needed, place[1], place[0]))


@on_one_thread
def body(stage: Stage, inputs: Mapping[str, Finished], place: Workplace) -> dict[str, Any]:
    """A seeded order of all rows is gone through, generation by generation; behind its end it begins again."""
    which, policy = stage.params, Policy.of(stage.params["policy"])
    real, (member, members) = inputs["data"].facts["splits"]["train"]["rows"], which["place"]
    counts = [
        given_rows(policy, real, generation, which["oversample"], (member, members), growing=which["growing"])
        for generation in range(1, which["generation"] + 1)
    ]
    rows = Dataset.load(inputs["rows"].file(ROWS))
    if counts[-1] > len(rows):
        raise InputError(too_few(counts[-1], len(rows), "a text of another model"))
    index = seeded_order(len(rows), stage.seed)[np.arange(sum(counts[:-1]), sum(counts)) % len(rows)]
    chosen = rows.take(index)
    begin = np.zeros(len(chosen), np.int32)
    origin = np.full(len(chosen), which["generation"], np.int32)
    Dataset({**chosen.arrays, "start": begin, "row": index.astype(np.int32)}, origin).save(place.folder / ROWS)
    return {"rows": len(chosen), "source": inputs["rows"].facts["source"]}


def too_few(needed: int, there: int, source: str) -> str:
    """What to say where a source has fewer rows than a corpus takes."""
    return f"{source} has {how_many(there, 'row')}, and {needed:,} are needed, each once; give more text, or ask for fewer synthetic rows"


def cost(stage: Stage, size: Size) -> Cost:
    which = stage.params
    rows = given_rows(
        Policy.of(which["policy"]),
        size.rows,
        which["generation"],
        which["oversample"],
        tuple(which["place"]),
        growing=which["growing"],
    )
    return put_together(size, rows, 0.1)


PORTION = StageKind[Size](
    name="foreign",
    kind="foreign",
    version=1,
    product=Product.ROWS,
    body=body,
    cost=cost,
    label=at,
    note=note,
)
