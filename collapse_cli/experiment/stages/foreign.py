"""Text of someone else's model as rows that the learner can take: a file's, all of them; and those that one corpus takes."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from collapse_cli import learners
from collapse_cli.config import Experiment
from collapse_cli.config.policies import Policy
from collapse_cli.config.selection import candidates
from collapse_cli.data.dataset import Dataset, how_many, unchanged
from collapse_cli.data.known import KNOWN
from collapse_cli.engine.stage import Cost, Finished, Product, Stage, StageKind, Workplace, seed_for
from collapse_cli.errors import InputError
from collapse_cli.experiment import mixing
from collapse_cli.experiment.costs import Size, put_together
from collapse_cli.experiment.mixing import seeded_order
from collapse_cli.experiment.pool import quota
from collapse_cli.experiment.stages.base import ROWS, at, hints_of
from collapse_cli.foreign import written
from collapse_cli.where import Where


def written_stage(config: Experiment, hints: learners.Hints, data: Stage, sha256: str) -> Stage:
    """All rows of a text of that hash, in the tokens of `data`."""
    source = config.data.source
    documents = {"documents": True} if source in KNOWN and KNOWN[source].documents else {}
    shape = {"block_size": config.data.block_size, "line_bos": config.data.line_bos, **documents}
    return Stage(WRITTEN, {"learner": config.learner, "foreign": {"sha256": sha256, **shape}}, {"data": data}, 0, hints)


def body(stage: Stage, inputs: Mapping[str, Finished], place: Workplace) -> dict[str, Any]:
    from collapse_cli.learners.text_inputs import rows_of_text

    hints, how = hints_of(stage, inputs), stage.params["foreign"]
    named = hints.foreign.get(how["sha256"])
    if named is None:
        raise InputError(
            f"the text of another model with the hash {how['sha256'][:12]}… is not in the store, and no file of it is named here; "
            "give the run's command again"
        )
    text = written.read(named, hints.foreign_column)
    unchanged(how["sha256"], text.sha256, f"the text {named}")
    made, unknown = rows_of_text(
        hints.real(),
        text.rows,
        how["block_size"],
        line_bos=how["line_bos"],
        documents=how.get("documents", False),
        what=named,
    )
    Dataset(made.arrays, np.ones(len(made), np.int32)).save(place.folder / ROWS)
    return {
        "rows": len(made),
        "tokens": int(made.arrays["lengths"].sum()),
        "unknown_share": unknown,
        "source": {"sha256": how["sha256"]},
    }


def cost(stage: Stage, size: Size) -> Cost:
    return put_together(size, size.rows, 2.0)


def label(stage: Stage, where: Where) -> str:
    return "text of another model to tokens"


def note(stage: Stage, made: Finished) -> str:
    return f"{made.facts['rows']:,} rows of another model's"


WRITTEN = StageKind[Size](
    name="foreign",
    kind="foreign",
    version=1,
    product=Product.ROWS,
    body=body,
    cost=cost,
    label=label,
    note=note,
)


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


def take_portion(stage: Stage, inputs: Mapping[str, Finished], place: Workplace) -> dict[str, Any]:
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


def cost_of_portion(stage: Stage, size: Size) -> Cost:
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
    body=take_portion,
    cost=cost_of_portion,
    label=at,
    note=note,
)
