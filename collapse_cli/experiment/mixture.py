"""The experiment kind `mixture`: one generation, a grid over real and synthetic rows, their quality, and model size.

A generator is fitted on real rows once; each cell of the grid mixes real rows with rows of the generator's, fits a model
and measures it: "Strong Model Collapse" (arXiv 2410.04840). Cells share random numbers: the first n1 real rows are the same
in all of them, and synthetic rows stand where real ones would otherwise. Families that do a whole cell in milliseconds
(`in_memory`) make many cells a stage.
"""

import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from collapse_cli import learners
from collapse_cli.config import Experiment
from collapse_cli.config.cell import Cell, cells
from collapse_cli.data.dataset import Dataset
from collapse_cli.engine import checkpoint
from collapse_cli.engine.stage import Finished, Generation, Plan, Stage, Workplace, seed_for
from collapse_cli.errors import InputError
from collapse_cli.experiment.loop import CORPUS, ROWS, learner_of, with_history
from collapse_cli.experiment.policies import seeded_order
from collapse_cli.experiment.stages import (
    cells_stage,
    combine_stage,
    data_stage,
    eval_stage,
    generate_stage,
    train_stage,
)

TOGETHER = 64  # cells of a stage, where they are done in memory
AXES_OF = {  # which axes of the grid mean something to which learner
    "ridge": ("quality", "lam", "weight", "iterations"),
    "projections": ("quality", "size", "lam"),
    "mlp": ("generator_rows", "size"),
    "lm": ("generator_rows", "size"),
}


def grid_of(config: Experiment) -> list[Cell]:
    """The cells of a configuration.

    Raises:
        InputError: for an empty grid, or an axis that its learner knows nothing of.
    """
    if config.learner not in AXES_OF:
        raise InputError(f"kind = mixture has no learner {config.learner!r}; it has {', '.join(AXES_OF)}")
    tree = config.mixture.model_dump(mode="json")
    for name in ("quality", "generator_rows", "size", "lam", "weight", "iterations"):
        if tree[name] and name not in AXES_OF[config.learner]:
            own = ", ".join(AXES_OF[config.learner])
            raise InputError(f"mixture.{name} means nothing to the learner {config.learner}; it has {own}")
    found = cells(tree)
    for share in tree["share"]:
        for n in tree["rows"] or tree["real_rows"]:
            made = round(n * share) if tree["rows"] else round(n * share / (1 - share))
            if (share > 0 and made == 0) or (share < 1 and tree["rows"] and made == n):
                raise InputError(
                    f"a share of {share:g} of {n:,} rows is {made:,} rows; give more rows or another share"
                )
    if not found:
        raise InputError(
            "the grid of the mixture is empty: give mixture.rows and mixture.share, real_rows and share, or real_rows and "
            "synthetic_rows"
        )
    return found


def plan(config: Experiment, hints: Mapping[str, Any]) -> Plan:
    """The stages of a mixture experiment."""
    made, grid = Plan(), grid_of(config)
    learner, tree = learners.learner_class(config.learner), config.model_dump(mode="json")
    for seed in config.loop.seeds:
        if getattr(learner, "in_memory", False):
            for start in range(0, len(grid), TOGETHER):
                chosen = grid[start : start + TOGETHER]
                stage = made.add(cells_stage(config, hints, chosen, seed), chosen[0].label, seed, 0)
                made.generations += [
                    Generation(cell.label, seed, 0, stage, stage, part=part, about=cell.record())
                    for part, cell in enumerate(chosen)
                ]
            continue
        sized = {size: config if size is None else _sized(learner, tree, size) for size in {cell.size for cell in grid}}
        data = made.add(data_stage(config, hints, seed), grid[0].label, seed, 0)
        needed: dict[int, int] = {}
        for cell in grid:
            rows = cell.rows if cell.synthetic else 0
            needed[cell.generator_rows or 0] = max(rows, needed.get(cell.generator_rows or 0, 0))
        generators: dict[int, Stage] = {}
        for rows, wanted in needed.items():
            if wanted:
                corpus = combine_stage(config, data, None, rows, 0, seed, end=True)
                other = seed_for(seed, "generator", 0)  # it must not start from the weights that the cells start from
                generator = train_stage(config, hints, data, made.add(corpus, "generator", seed, 0), [], other, 0)
                made.add(generator, "generator", seed, 0)
                generators[rows] = made.add(generate_stage(config, generator, data, wanted, seed), "generator", seed, 0)
        for cell in grid:
            where = (cell.label, seed, 0)
            source = generators[cell.generator_rows or 0] if cell.synthetic else None
            corpus = made.add(combine_stage(config, data, source, cell.real, cell.synthetic, seed), *where)
            trained = train_stage(sized[cell.size], hints, data, corpus, [], seed, 1)
            trained = made.add(trained, *where)
            measured = made.add(eval_stage(config, trained, data, None), *where)
            made.generations.append(Generation(*where, trained, measured, about=cell.record()))
    return made


def check(config: Experiment, rows: int) -> None:
    """Whether there are real rows enough for the grid.

    Raises:
        InputError: when more are asked for than there are.
    """
    for cell in grid_of(config):
        real = max(cell.real, cell.generator_rows or 0)
        if real > rows:
            raise InputError(
                f"the cell {cell.label} needs {real:,} real rows, but the data have {rows:,}; ask for fewer"
            )
        if config.learner == "mlp" and cell.rows > rows:
            raise InputError(
                f"the cell {cell.label} needs {cell.rows:,} inputs to label, but the data have {rows:,}; lower its rows"
            )


def rows_of(stage: Stage, rows: int) -> tuple[int, int]:
    """Of one stage: rows that are fitted or mixed, and rows that are sampled; for estimates. `rows`: all real ones."""
    if "cells" in stage.params:
        return sum((cell["real"] + cell["synthetic"]) * (cell["iterations"] or 1) for cell in stage.params["cells"]), 0
    if stage.kind == "sample":
        return 0, stage.params["mixture"]["rows"]
    mixed = stage if stage.kind == "mix" else stage.inputs.get("corpus")
    if mixed is None:
        return rows, 0
    said = mixed.params["mixture"]
    return (said["real"] or (rows if said["end"] else 0)) + said["synthetic"], 0


# --- the bodies -------------------------------------------------------------------------------------------------------


def cells_body(stage: Stage, inputs: Mapping[str, Finished], place: Workplace) -> dict[str, Any]:
    """Cells one after the other, in memory. Facts: `generations`, those of each."""
    file, chosen = place.scratch / "cells.safetensors", [Cell(**cell) for cell in stage.params["cells"]]
    _, facts = checkpoint.take_up(file) or ({}, [])
    written = time.monotonic()
    for done, cell in enumerate(chosen[len(facts) :], len(facts) + 1):
        start = time.perf_counter()
        learner: Any = learners.create(stage.params["learner"], stage.params, stage.hints, place.tell)
        found = learner.cell(cell, seed=stage.seed, scratch=place.scratch)
        facts.append({**found, "train_rows": cell.rows, "seconds": {"block": round(time.perf_counter() - start, 6)}})
        place.tell(done, len(chosen), "cells")
        if time.monotonic() - written > checkpoint.seconds_between():
            checkpoint.keep(file, {"done": np.array([done])}, facts)
            written = time.monotonic()
    return {"first": 0, "generations": facts}


def generate_body(stage: Stage, inputs: Mapping[str, Finished], place: Workplace) -> dict[str, Any]:
    """The generator's rows: row i continues (or labels) the i-th real row, beginning again where there are no more."""
    learner = learner_of(stage, inputs, place)
    learner.load(inputs["model"].folder)
    real = Dataset.load(inputs["data"].file(CORPUS))
    said = stage.params["mixture"]
    stream = np.arange(said["rows"])
    prompts = real.take(seeded_order(len(real), said["order"])[stream % len(real)])
    prompts = Dataset({**prompts.arrays, "stream": stream, "extra": np.zeros(len(stream), bool)}, prompts.origin)
    made = learner.sample(prompts, seed=stage.seed, scratch=place.scratch)
    Dataset(made.arrays, np.ones(len(made), np.int32)).save(place.folder / ROWS)
    return learner.facts


def combine_body(stage: Stage, inputs: Mapping[str, Finished], place: Workplace) -> dict[str, Any]:
    """A cell's corpus."""
    said, real = stage.params["mixture"], Dataset.load(inputs["data"].file(CORPUS))
    order = seeded_order(len(real), said["order"])
    if said["end"]:
        order = order[::-1]
    n1 = said["real"] or (len(real) if said["end"] else 0)
    parts = [real.take(order[:n1])]
    if said["synthetic"]:
        made = Dataset.load(inputs["made"].file(ROWS))
        parts.append(made.take(np.arange(n1, n1 + said["synthetic"])))
    Dataset.concat(parts).save(place.folder / CORPUS)
    return with_history(inputs["made"]) if said["synthetic"] else {"sample_tokens": 0}


def _sized(learner: Any, tree: Mapping[str, Any], size: int) -> Experiment:
    return Experiment.model_validate(learner.sized(tree, size))
