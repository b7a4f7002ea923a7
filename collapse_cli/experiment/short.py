"""A short version of an experiment, whose stages are timed so that those of the whole one can be estimated.

Its stages are of the same kinds and do the same work with the same model: on the first of the rows, for one seed and few
generations, and where a fit goes over its rows several times it does so once.
"""

import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from collapse_cli import families, learners
from collapse_cli.config import Experiment
from collapse_cli.config.policies import Policy
from collapse_cli.data.dataset import Dataset
from collapse_cli.engine.stage import Finished, Plan, Stage, digest
from collapse_cli.errors import InputError
from collapse_cli.experiment.costs import Size, Sizes
from collapse_cli.experiment.kinds import plan
from collapse_cli.learners import ALL, Fewer

LEAST_ROWS = 16  # of the first short version; and to measure a model on
AT_ONCE = 64  # rows of a large model that are sampled together: more take as long for each
# of a row of a large model, its prompt and what is written: in both versions within what the engine tries a model on (`lm.trial.LEAST_REACH`).
# With a longer row in the second the model would be tried anew there, and that be taken for what tokens take.
PROMPT, NEW = 2, (2, 6)
MORE = 4  # how many times as much each does as the one before


@dataclass(frozen=True)
class Extent:
    """How short a version is.

    Attributes:
        share: of the real rows.
        generations: behind generation 0, at most.
        fewer: what a large model does less of besides. Then of the stages that do the same in several generations one is enough.
        tests: rows that models are measured on; 0: as many as there are real rows, or a few.
    """

    share: float
    generations: int = 1
    fewer: Fewer = ALL
    tests: int = 0

    @property
    def once(self) -> bool:
        """Whether of the stages that do the same in several generations one is enough."""
        return self.fewer != ALL

    def rows(self, rows: int) -> int:
        """How many of so many there are: one at least, where there are some."""
        return math.ceil(rows * self.share - 1e-9)

    def test_rows(self, rows: int) -> int:
        """The same of those that models are measured on: a few, by which what they take stands out from what reading the model takes."""
        return min(rows, self.tests or max(LEAST_ROWS, self.rows(rows)))

    def of_split(self, split: str, rows: int) -> int:
        """The same of the rows of a split."""
        return self.test_rows(rows) if split == "test" else self.rows(rows)


@dataclass(frozen=True)
class Short:
    """A short version of an experiment.

    Attributes:
        extent: how short.
        config: the experiment.
        plan: its stages.
        alike: by their keys, the same stages of a version whose fits make all their passes: they say to which group it belongs.
        sizes: what their costs depend on.
    """

    extent: Extent
    config: Experiment
    plan: Plan
    alike: Mapping[str, Stage]
    sizes: Sizes

    def group(self, stage: Stage) -> str:
        """The group that a stage of it belongs to."""
        return group_of(self.alike[stage.key], self.sizes.of(stage))


def group_of(stage: Stage, size: Size) -> str:
    """Equal for stages that do the same work with the same model; how much of it they do may differ."""
    made_by = stage.inputs.get("model") or stage.inputs.get("reference")
    model = made_by.params.get("model") if made_by else None
    return digest(
        [stage.work, stage.of.apart(stage), model, size.parameters, size.config.data.block_size, size.row_bytes]
    )


def extents(config: Experiment, rows: int) -> list[Extent]:
    """Short versions, each with `MORE` times the rows of the one before it, up to all; in blocks, with more generations before and after.

    Args:
        rows: real rows that there are.
    """
    loop = config.loop.generations
    if in_memory(config):
        return [Extent(1.0, 0)]
    shares = [n / rows for n in _growing(LEAST_ROWS, rows)] if rows else [1.0]
    if not _in_blocks(config):
        return [Extent(share, min(loop, 1)) for share in shares]
    few, more, *most = [
        *dict.fromkeys(_growing(min(loop, 2), loop)),
        loop,
    ]  # what a block takes besides its generations
    return [
        *dict.fromkeys([Extent(shares[0], few), *(Extent(s, more) for s in shares), *(Extent(1.0, g) for g in most)])
    ]


def of_large_model(config: Experiment, rows: int, scale: float, of_a_step: int, devices: int = 1) -> list[Extent]:
    """Two short versions for a model of which a few rows take seconds: as many rows in both, but more steps, new tokens and test rows in the second.

    So what follows for more of them is what a step takes, and a token, with about as many rows at once as the run has.

    Args:
        scale: how many rows there are at once, as a share of `AT_ONCE`.
        of_a_step: how many rows a step of a training has, at most.
        devices: how many share a step.
    """
    share = min(1.0, max(LEAST_ROWS, round(AT_ONCE * scale)) / max(1, rows))
    batch = devices * max(1, round(of_a_step / devices))
    loop = min(config.loop.generations, 1)
    return [
        Extent(share, loop, Fewer(steps, batch, PROMPT, new_tokens), max(1, round(tests * scale)))
        for steps, new_tokens, tests in zip((1, 3), NEW, (4, 24), strict=True)
    ]


def _growing(first: int, last: int) -> list[int]:
    """Whole numbers from `first` to `last`, each `MORE` times the one before it, but for `last` itself."""
    made = [min(first, last)]
    while made[-1] < last:
        made.append(min(last, made[-1] * MORE))
    return made


def _in_blocks(config: Experiment) -> bool:
    """Whether many generations may make a stage."""
    return config.kind == "generational" and (config.loop.block or learners.learner_class(config.learner).block) > 1


def in_memory(config: Experiment) -> bool:
    """Whether it is a grid whose cells are done in memory, which draw their rows themselves."""
    grid = families.of(config.learner).grid
    return config.kind == "mixture" and grid is not None and grid.in_memory


def shortened(
    config: Experiment, hints: learners.Hints, sizes: Sizes, extent: Extent, turn: int = 0, beside: int = 1
) -> Short:
    """The short version of an experiment, which is looked up already.

    Args:
        turn: how many experiments were shortened in this process before. Cells that are done in memory are of the seed whose turn it is: learners
            remember from cell to cell, and in a run of several seeds the next variant finds nothing of its seed any more.
        beside: how many stages are computed at a time. There are as many lineages or seeds, then, so that stages slow each other as they
            will; cells that are done in memory are enough by themselves.
    """
    seeds, several = config.loop.seeds, math.ceil(beside / len(config.lineage_names))
    chosen = [seeds[turn % len(seeds)]] if in_memory(config) else [*seeds, *_others(seeds, several)][:several]
    few = _few(config, extent, tuple(chosen))
    once = _in_one_pass(few, extent.fewer)
    made, alike = plan(once, hints), plan(few, hints)
    own = once.of_lineages()
    cut = {
        name: replace(
            size,
            config=own[name],
            rows=extent.rows(size.rows),
            test_rows=extent.test_rows(size.test_rows),
            public_rows=extent.rows(size.public_rows),
        )
        for name, size in sizes.lineages.items()
    }
    return Short(extent, once, made, dict(zip(made.stages, alike.stages.values(), strict=True)), Sizes(cut, made))


def _in_one_pass(config: Experiment, fewer: Fewer) -> Experiment:
    once = learners.learner_class(config.learner).in_one_pass
    if config.lineage_names == ("",):
        return once(config, fewer)
    return once(config, fewer).with_lineages({name: once(own, fewer) for name, own in config.of_lineages().items()})


def _others(seeds: Sequence[int], many: int) -> list[int]:
    """So many seeds that are none of these."""
    return [seed for seed in range(many + len(seeds)) if seed not in seeds]


def _few(config: Experiment, extent: Extent, seeds: tuple[int, ...]) -> Experiment:
    """With few seeds, generations and policies, or few cells of a grid."""
    loop, share = config.loop, extent.share
    changed: dict[str, Any] = {}
    if config.kind == "mixture" and not in_memory(config):
        grid = config.mixture
        most = {
            name: tuple(sorted({max(2, extent.rows(max(values)))})) if (values := getattr(grid, name)) else ()
            for name in ("rows", "real_rows", "synthetic_rows")
        }
        most |= {"generator_rows": tuple(dict.fromkeys(extent.rows(rows) for rows in grid.generator_rows))[-1:]}
        both = [each for each in grid.share if 0 < each < 1] or [*grid.share]
        alone = {"added_rows": (), "added_to": 0}
        changed["mixture"] = grid.model_copy(update={**most, **alone, "share": tuple(both[-1:])})
    elif config.kind == "generational":
        changed["mix"] = config.mix.model_copy(update={"rows": extent.rows(config.mix.rows)})
        if config.select.on:  # an untrained model makes rows of which few may stay
            changed["select"] = config.select.model_copy(update={"short": "real"})
    few = {
        "seeds": seeds,
        "generations": min(loop.generations, extent.generations),
        "policies": tuple(_cut(policy, share) for policy in _telling(config)),
    }
    return config.model_copy(update={**changed, "loop": loop.model_copy(update=few)})


def _telling(config: Experiment) -> list[Policy]:
    """Policies whose stages say how long those of the others take: one of each rule where generations are in blocks, else one that samples."""
    policies = [*config.loop.policies]
    if _in_blocks(config):
        return [*{policy.rule: policy for policy in reversed(policies)}.values()]
    return ([policy for policy in policies if policy.needs_samples(1)] or policies)[:1]


def _cut(policy: Policy, share: float) -> Policy:
    return replace(policy, rows=math.ceil(policy.rows * share), name="") if policy.rows and share < 1 else policy


def cut(made: Finished, extent: Extent, folder: Path) -> dict[str, Any]:
    """Write the first of the rows of finished real data into a folder, and what else is there; its facts, of those rows."""
    counts = {}
    for path in sorted(made.folder.iterdir()):
        if path.name == "stage.json":
            continue
        rows = _rows(path)
        if rows is None:
            (shutil.copytree if path.is_dir() else shutil.copyfile)(path, folder / path.name)
            continue
        counts[path.stem] = extent.of_split(path.stem, len(rows))
        rows.take(np.arange(counts[path.stem])).save(folder / path.name)
    facts = dict(made.facts)
    if "splits" in facts:
        facts["splits"] = {
            split: {
                name: counts.get(split, 0) if name == "rows" else max(1, extent.of_split(split, value))
                for name, value in about.items()
            }
            for split, about in facts["splits"].items()
        }
    if "rows" in facts:
        facts["rows"] = counts.get("rows", facts["rows"])
    return facts


def _rows(path: Path) -> Dataset | None:
    """The rows of a file; None of one that holds none, such as a tokenizer or a truth."""
    if path.suffix != ".safetensors":
        return None
    try:
        arrays = Dataset.load_arrays(path)
    except InputError:
        return None
    return Dataset(arrays, arrays.pop("origin")) if "origin" in arrays else None
