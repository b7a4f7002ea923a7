"""The experiment kind `mixture`: one generation, a grid over real and synthetic rows, their quality, and model size.

A generator is fitted on real rows once; each cell of the grid mixes real rows with rows of the generator's, fits a model
and measures it: "Strong Model Collapse" (arXiv 2410.04840). Cells share random numbers: the first n1 real rows are the same
in all of them, and synthetic rows stand where real ones would otherwise. Families that do a whole cell in milliseconds
(`in_memory`) make many cells a stage.
"""

from collections.abc import Mapping

from collapse_cli import families, learners
from collapse_cli.config import Experiment
from collapse_cli.config.cell import cells
from collapse_cli.config.foreign import server_of
from collapse_cli.engine.stage import Generation, Plan, Stage, seed_for
from collapse_cli.errors import InputError
from collapse_cli.experiment.stages.answered import answered_stage
from collapse_cli.experiment.stages.asked import ROWS_ASKED, asked_of_rows
from collapse_cli.experiment.stages.cells import cells_stage
from collapse_cli.experiment.stages.combine import combine_stage, most_of_sources, with_foreign_stage
from collapse_cli.experiment.stages.data import data_stage
from collapse_cli.experiment.stages.eval import eval_stage
from collapse_cli.experiment.stages.generate import generate_stage
from collapse_cli.experiment.stages.portion import too_few
from collapse_cli.experiment.stages.train import train_stage
from collapse_cli.experiment.stages.written import written_stage
from collapse_cli.where import Where

TOGETHER = 64  # cells of a stage, where they are done in memory


def plan(config: Experiment, hints: learners.Hints) -> Plan:
    """The stages of a mixture experiment."""
    made, grid = Plan(), cells(config.mixture)
    family = families.of(config.learner)
    for seed in config.loop.seeds:
        if family.grid is not None and family.grid.in_memory:
            for start in range(0, len(grid), TOGETHER):
                chosen = grid[start : start + TOGETHER]
                stage = made.add(cells_stage(config, hints, chosen, seed), at(chosen[0].label, seed))
                made.generations += [
                    Generation(at(cell.label, seed), stage, stage, part=part, about=cell.record())
                    for part, cell in enumerate(chosen)
                ]
            continue
        sized = {
            size: config if size is None else learners.sizable_class(config.learner).sized(config, size)
            for size in {cell.size for cell in grid}
        }
        data = made.add(data_stage(config, hints, seed), at(grid[0].label, seed))
        if config.mixture.synthetic:
            given = sources(made, config, hints, data, seed)
        needed: dict[int, int] = {}
        for cell in grid if not config.mixture.synthetic else ():
            rows = cell.rows if cell.synthetic else 0
            needed[cell.generator_rows or 0] = max(rows, needed.get(cell.generator_rows or 0, 0))
        generators: dict[int, Stage] = {}
        for rows, wanted in needed.items():
            if wanted:
                where = at("generator", seed)
                corpus = made.add(combine_stage(config, data, None, rows, 0, seed, end=True), where)
                other = seed_for(seed, "generator", 0)  # it must not start from the weights that the cells start from
                generator = made.add(train_stage(config, hints, data, corpus, None, other, 0), where)
                generators[rows] = made.add(generate_stage(config, generator, data, wanted, seed), where)
        for cell in grid:
            where = at(cell.label, seed)
            if cell.synthetic and config.mixture.synthetic:
                corpus = with_foreign_stage(config, data, given, cell.real, cell.synthetic, seed)
            else:
                source = generators[cell.generator_rows or 0] if cell.synthetic else None
                corpus = combine_stage(config, data, source, cell.real, cell.synthetic, seed)
            corpus = made.add(corpus, where)
            trained = train_stage(sized[cell.size], hints, data, corpus, None, seed, 1)
            trained = made.add(trained, where)
            measured = made.add(eval_stage(config, trained, data, None), where)
            made.generations.append(Generation(where, trained, measured, about=cell.record()))
    return made


def sources(made: Plan, config: Experiment, hints: learners.Hints, data: Stage, seed: int) -> list[Stage]:
    """The rows of each source of `mixture.synthetic`: of a file all, of a server those that any cell takes."""
    where, found, grid = at("other text", seed), list[Stage](), cells(config.mixture)
    named = config.mixture.synthetic
    for number, (source, sha256) in enumerate(zip(named, config.foreign.sha256, strict=True)):
        server = server_of(source)
        if server is None:
            found.append(made.add(written_stage(config, hints, data, sha256), where))
            continue
        places = {place for cell in grid if cell.synthetic for place in range(cell.real, cell.rows)}
        chunks = sorted({place // len(named) // ROWS_ASKED for place in places if place % len(named) == number})
        own_seed, order, part = seed_for(seed, "sample", 0), seed_for(seed, "mix", 0), (number, len(named))
        asked = [
            made.add(asked_of_rows(config, hints, server, data, own_seed, order, part, chunk), where)
            for chunk in chunks
        ]
        found.append(made.add(answered_stage(config, data, asked), where))
    return found


def at(cell: str, seed: int) -> Where:
    """The place of a cell, by its label; of the generator, which is none, by that word."""
    return Where("", seed, 0, cell=cell)


def check_real_rows(config: Experiment, rows: int) -> None:
    """Whether there are real rows enough for the grid.

    Raises:
        InputError: when more are asked for than there are.
    """
    grid = families.of(config.learner).grid
    for cell in cells(config.mixture):
        real = max(cell.real, cell.generator_rows or 0)
        if real > rows:
            raise InputError(
                f"the cell {cell.label} needs {real:,} real rows, but the data have {rows:,}; ask for fewer"
            )
        if grid is not None and grid.labels_real and cell.rows > rows:
            raise InputError(
                f"the cell {cell.label} needs {cell.rows:,} inputs to label, but the data have {rows:,}; lower its rows"
            )


def check_foreign_rows(config: Experiment, rows: Mapping[str, int]) -> None:
    """Whether each file of `mixture.synthetic` has rows enough for every cell.

    Args:
        rows: by hash, how many a file has.

    Raises:
        InputError: when one has fewer; no row is used twice.
    """
    needed = most_of_sources(cells(config.mixture), len(config.mixture.synthetic))
    for source, sha256, wanted in zip(config.mixture.synthetic, config.foreign.sha256, needed, strict=True):
        there = rows.get(sha256, wanted)  # a server has as many as are asked for
        if wanted > there:
            raise InputError(too_few(wanted, there, f"mixture.synthetic: {source}"))
