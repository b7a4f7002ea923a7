"""What a plan costs: disk and time, estimated before it runs, and while it does. What a stage costs is known to its kind."""

import shutil
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import psutil

from collapse_cli import cores, families
from collapse_cli.engine import scheduler
from collapse_cli.engine.remote_addresses import CACHE
from collapse_cli.engine.stage import Product, Stage
from collapse_cli.engine.store import Store
from collapse_cli.errors import ConfigError
from collapse_cli.experiment.costs import Size, Sizes
from collapse_cli.learners import ALL, Fewer
from collapse_cli.learners.protocol import WEIGHT_BYTES
from collapse_cli.metrics import numbers
from collapse_cli.process import free_memory
from collapse_cli.records import elsewhere
from collapse_cli.records.rundir import RunFolder
from collapse_cli.run.computing import apart
from collapse_cli.run.ending import Ending
from collapse_cli.run.preparation import NOMINAL_SPEED, Prepared, to_do
from collapse_cli.run.rates import Estimates, Timings, makespan
from collapse_cli.run.timing import SECONDS, Places, Timed, time_stages
from collapse_cli.terminal.plan import SHARDS, KindCosts, PlanCosts

LEAST_SECONDS, SEVERAL = 1.5, 16.0  # for timing each of several plans at least, and all of them unless that is more
SEVERAL_MODELS = 4  # times as many models as were on a page that was timed: it is timed again
# how many sequences a CPU samples at once, whose keys and values take half of the free memory at most (`lm/sample.py`)
BATCH, CACHED, MOST_SEQUENCES = 640, 96 << 20, 2560
RAY_STARTS = 8.0  # seconds that a cluster of this machine alone takes to be there, or to be reached; beside what its workers load
RAY_BYTES = 600_000_000  # that Ray's own processes hold
TOKENS_AT_ONCE = 4096  # that a CPU trains on in one pass (`lm/step.py`)
HELD = 256 << 20  # bytes, at most, of the exponentials of a vocabulary that it keeps for the pass back (`lm/loss.py`)
HALF = 2  # bytes of a number of half precision
KEPT_NUMBERS = 17  # of a layer for each token and each number of its state, until the pass back
ROW_COPIES = 3  # of the rows of a corpus that are held at once: as read, chosen, and put together
# seconds in which the speed of the machine is measured; six products take less where it has units for them
ENOUGH = 0.3


@dataclass
class CostsAsked:
    """What plans of one command share, when they are asked what they will cost.

    Attributes:
        temporary: where short versions are timed; None: nowhere, first guesses do.
        plans: how many plans there are, which share the seconds for that.
        timings: what was timed for the plans before.
        reached: by group, the rows of the largest plan that it was timed for.
        counted: keys of stages that are counted with a plan before, which will compute them.
        loading: seconds that the libraries took to load, as they will again.
        turn: how many plans were timed before.
        places: where they are timed.
        starting: seconds that workers took to start.
        ending: what a run does besides its stages, as it was timed for the plan with the most models so far.
    """

    temporary: Path | None = None
    plans: int = 1
    timings: Timings = field(default_factory=Timings)
    reached: dict[str, int] = field(default_factory=dict)
    counted: set[str] = field(default_factory=set)
    loading: float = 0.0
    turn: int = 0
    places: Places = field(default_factory=Places)
    starting: float = 0.0
    ending: Ending | None = None


def describe(prepared: Prepared, store: Store, folder: RunFolder, asked: CostsAsked | None = None) -> PlanCosts:
    """The plan in numbers, for `--dry-run`: from finished stages, from short versions of it that are timed, else guessed."""
    asked = asked or CostsAsked()
    planned, size = prepared.plan, prepared.size
    needed = [stage for stage in to_do(planned, store) if stage.key not in asked.counted]
    todo = {stage.key for stage in needed}
    speed = NOMINAL_SPEED if size.known or not needed else matmul_speed(size.config.train.dtype)
    estimates = Estimates(size, asked.timings, partial(size.seconds, speed=speed))
    for key, stage in planned.stages.items():
        if store.has(key) and prepared.took_as_long(stage, made := store.get(key)):
            estimates.finished(stage, made.seconds)
    for key, made in prepared.real.items():
        if key not in planned.stages:
            continue
        estimates.timings.same.setdefault(estimates.alike(planned.stages[key]), [made.seconds])
    free, own = memory_free(prepared), held()  # before short versions take some of it
    timed = _timed(prepared, estimates, needed, asked, speed)
    estimates.guess = partial(size.seconds, speed=speed / timed.slower)
    seconds = {stage.key: estimates.seconds(stage) for stage in needed}
    kinds: dict[str, KindCosts] = {}
    parts = planned.shard_of
    for stage in planned.stages.values():
        entry = kinds.setdefault(f"{stage.kind}{SHARDS if stage.key in parts else ''}", KindCosts())
        entry.stages += 1
        if stage.key not in todo:
            entry.cached += 1
            continue
        cost = size.cost_of(stage)
        entry.tokens += cost.tokens
        entry.flops += cost.flops
        entry.disk += estimates.disk(stage)
        entry.seconds += seconds[stage.key]
        entry.guessed += not estimates.timed(stage)
    asked.counted |= todo
    asked.starting, asked.ending = timed.starting or asked.starting, timed.ending or asked.ending
    ending, models = asked.ending or Ending(), len(planned.generations)
    begin = asked.loading + ending.folder + timed.warming if needed else 0.0
    cold = {stage.key: timed.cold.get(estimates.group(stage), 0.0) for stage in needed}
    computing = _computing(prepared, needed, seconds, cold, asked.starting, models * ending.row) if needed else 0.0
    libraries, asked.ending = ending.libraries if needed else 0.0, replace(ending, libraries=0.0) if needed else ending
    end = libraries + ending.of(planned) if needed else 0.0
    return PlanCosts(
        run=folder.name,
        stages=len(planned.stages),
        cached=len(planned.stages) - len(needed),
        kinds=kinds,
        parameters=size.parameters,
        rows=size.rows,
        disk_needed=disk_needed(needed, size, estimates.disk),
        disk_free=shutil.disk_usage(existing(folder.runs)).free,
        seconds=begin + computing + end,
        measured=bool(needed) and all(map(estimates.timed, needed)),
        notes=[*prepared.notes, *prepared.of_command],
        begin=begin,
        end=end,
        libraries=libraries,
        workers=prepared.workers,
        executor=prepared.execution.executor,
        devices=prepared.execution.devices,
        timed=timed.seconds,
        fault=timed.fault,
        assumed=_assumed(timed.fewer),
        memory_needed=memory_needed(prepared, needed, timed, own, free),
        memory_free=free,
    )


def _timed(prepared: Prepared, estimates: Estimates, needed: Sequence[Stage], asked: CostsAsked, speed: float) -> Timed:
    """Short versions, where there are stages to do of which nothing is known."""
    unknown = {
        estimates.group(stage)
        for stage in needed
        if not stage.shards
        and estimates.alike(stage) not in estimates.timings.same
        and (group := estimates.group(stage)) not in estimates.timings.finished
        and asked.reached.get(group, -1) < prepared.size.rows
    }
    if asked.temporary is None or not unknown:
        return Timed()
    asked.reached |= dict.fromkeys(unknown, prepared.size.rows)
    place = asked.temporary / f"short-{len(asked.counted)}-{len(needed)}"
    seconds = SECONDS if asked.plans == 1 else min(SECONDS, max(LEAST_SECONDS, SEVERAL / asked.plans))
    asked.turn += 1
    free = memory_free(prepared)
    fits = prepared.workers == 1 or memory_needed(prepared, needed, Timed(), held(), free) <= free
    workers = prepared.workers if fits else 1  # several that do not fit would end the dry run that is to say so
    ending = asked.ending is None or len(prepared.plan.generations) > SEVERAL_MODELS * asked.ending.models
    return time_stages(
        prepared,
        estimates,
        unknown,
        place,
        speed,
        asked.places,
        seconds=seconds,
        turn=asked.turn - 1,
        workers=workers,
        ending=ending,
    )


def _computing(
    prepared: Prepared,
    needed: Sequence[Stage],
    seconds: Mapping[str, float],
    cold: Mapping[str, float],
    starting: float,
    rows: float,
) -> float:
    """Seconds from the first stage to the last, where and in which order a run computes them.

    Args:
        cold: by how much a stage takes longer, the first of its kind in a process: this one too computes some, where there are workers.
        starting: until workers are at work.
        rows: to write what was measured: between stages, or beside them where there are workers. Where these keep all cores busy, it slows them.
    """
    by_ray = prepared.execution.executor == "ray"
    if prepared.workers == 1 and not by_ray:
        return sum(seconds.values()) + rows
    alone, others = ((), needed) if by_ray else apart(needed, scheduler.width(prepared.plan))
    starting += RAY_STARTS * by_ray
    here = sum(seconds[stage.key] for stage in alone) + max((cold[stage.key] for stage in alone), default=0.0)
    if not others:
        return here + rows
    workers = min(prepared.workers, len(others))
    slowed = rows / workers if workers >= cores() else 0.0
    return max(here, starting) + makespan(others, seconds, workers) + slowed


def memory_free(prepared: Prepared) -> int:
    """Bytes that can still be taken: on a GPU, of its own, where the experiment has work for one."""
    if not _on_gpu(prepared):
        return free_memory()
    from collapse_cli.lm import memory
    from collapse_cli.lm.model import device

    return memory.free_bytes(device())


def held() -> int:
    """Bytes that this process holds."""
    return int(psutil.Process().memory_info().rss)


def memory_needed(prepared: Prepared, needed: Sequence[Stage], timed: Timed, own: int, free: int) -> int:
    """Bytes that all processes of a run hold at its peak, about.

    Each holds what this one did when a short version was timed; what its memory grew by between two versions it grows by on to the
    rows that are worked on at once: of a language model as many as are sampled so, of others all. Beside workers the run's own process holds what this one did
    before, or as much as they do, where it computes some itself; when they have ended, what the report takes. Where nothing was timed: weights, gradients and Adam's
    two moments beside what this process holds. Each device of a training on a CPU is a process that holds as much as the first.

    Args:
        own: bytes that this process held before short versions were timed.
        free: bytes that were free then.
    """
    size, rows = prepared.size, prepared.size.rows
    if not needed:
        return 0
    processes = prepared.workers + 1 if prepared.workers > 1 else 1
    trains = any(stage.of.product is Product.MODEL for stage in needed)
    copies = prepared.execution.devices if trains and not _on_gpu(prepared) else 1
    most = max((size.row_bytes(stage) for stage in needed), default=0)
    model = max((size.training_bytes(stage) for stage in needed), default=0)
    if not timed.memory:
        if not size.known:
            model = max(model + _of_step(size), WEIGHT_BYTES * size.parameters + _of_sampling(size, free))
        return (
            own
            + (processes - 1 or 1) * (copies * (model + ROW_COPIES * most) + (copies - 1) * own)
            + (processes - 1) * own
        )
    reached = max(timed.memory)
    peak = timed.memory[reached]
    before = [share for share in timed.memory if share < reached]
    if timed.fewer != ALL:
        peak = max(
            peak + _of_step(size) - _of_step(size, timed.fewer.batch),
            own + WEIGHT_BYTES * size.parameters + _of_sampling(size, free),
        )
    elif before and rows:
        slope = (peak - timed.memory[max(before)]) / ((reached - max(before)) * rows)
        at_once = (
            rows if size.known else min(rows, max(_sampled_at_once(each, free) for each in size.lineages.values()))
        )
        peak += round(max(0.0, slope) * max(0.0, at_once - reached * rows))
    each = copies * (max(peak, model) + round(ROW_COPIES * most * (1 - reached)))
    if prepared.execution.executor == "ray":
        return max(timed.at_end, own + RAY_BYTES + prepared.workers * each)
    if processes == 1:
        return max(timed.at_end, each)
    alone, _ = apart(needed, scheduler.width(prepared.plan))
    return max(timed.at_end, max(own, each if alone else 0) + prepared.workers * each)


def _of_step(sizes: Sizes, rows: int | None = None) -> int:
    """Bytes, about, that a training of a language model keeps for the pass back; of a step of fewer rows where that is said."""
    most = 0
    for size in sizes.lineages.values():
        batch = min(rows or size.config.train.batch_size, size.config.train.batch_size)
        tokens = min(batch * size.config.data.block_size, TOKENS_AT_ONCE)
        vocabulary = size.head_parameters // max(1, size.width)
        kept = tokens * KEPT_NUMBERS * WEIGHT_BYTES * size.width * (size.layers + 2)
        most = max(most, kept + min(HELD, tokens * vocabulary * WEIGHT_BYTES))
    return most


def _of_sampling(sizes: Sizes, free: int) -> int:
    """Bytes of the keys and values of all rows that a language model samples at once on a CPU, where so many are free."""
    return max(
        (min(size.rows, _sampled_at_once(size, free)) * _kept(size) for size in sizes.lineages.values()), default=0
    )


def _kept(size: Size) -> int:
    """Bytes of the keys and values of a row: its prompt, and what each of its beams writes."""
    sample = size.config.sample
    number = HALF if sample.dtype == "bfloat16" else WEIGHT_BYTES
    return 2 * size.layers * size.width * (sample.prompt_tokens + sample.decode.beams * sample.new_tokens) * number


def _sampled_at_once(size: Size, free: int) -> int:
    """How many rows a CPU samples at once, at most: more of one beam where little is kept of each."""
    kept, beams = max(1, _kept(size)), size.config.sample.decode.beams
    most = max(BATCH, min(MOST_SEQUENCES, CACHED // kept)) if beams == 1 else BATCH // beams
    return max(1, min(most, free // 2 // kept))


def _assumed(fewer: Fewer) -> str:
    """What is taken for granted where a large model was timed in a small part of its work; "" of others."""
    if fewer == ALL:
        return ""
    return (
        f"of up to {fewer.steps} steps of up to {fewer.batch} rows and {fewer.new_tokens} new tokens, for the model is large: more are taken to need as much "
        "for each, and so are larger batches and longer prompts"
    )


def _on_gpu(prepared: Prepared) -> bool:
    """Whether the models of an experiment are on a GPU."""
    if families.of(prepared.config.learner).light:  # torch itself would take more memory than such a run
        return False
    from collapse_cli.lm.model import device

    return device().type == "cuda"


def check_disk(prepared: Prepared, needed: Collection[Stage], runs: Path) -> None:
    """Stop before starting when the plan will not fit on the disk."""
    wanted = disk_needed(needed, prepared.size) if needed else 0
    free = shutil.disk_usage(existing(runs)).free
    if wanted > free:
        copies = elsewhere.is_copy(runs)  # it is this machine's disk then that is small, not that of --runs-dir
        which = f"{runs}, where this machine keeps copies of what is elsewhere" if copies else str(runs)
        other = f"name another folder for them with {CACHE}=FOLDER" if copies else "use another --runs-dir"
        raise ConfigError(
            f"the plan needs about {numbers.size(wanted)} on the disk of {which}; {numbers.size(free)} are free: free "
            f"some (collapse gc), {other}, or --set store.keep_models=ends"
        )


@cache
def matmul_speed(dtype: str) -> float:
    """FLOP/s of a matrix product on this machine, measured in a fraction of a second, once a process."""
    import torch

    from collapse_cli.lm.model import device

    side = 768 if device().type == "cpu" else 4096
    kind: Any = getattr(torch, dtype)
    a = torch.ones(side, side, dtype=kind, device=device())
    best, began = 0.0, time.perf_counter()
    for _ in range(6):
        start = time.perf_counter()
        (a @ a)[0, 0].item()
        now = time.perf_counter()
        best = max(best, 2 * side**3 / (now - start))
        if now - began > ENOUGH:  # as in bfloat16 on a processor that has no units for it
            break
    return best


def disk_needed(stages: Iterable[Stage], size: Sizes, left: Callable[[Stage], int] | None = None) -> int:
    """Bytes that stages still to be made need at most, with one training checkpoint (weights and optimizer).

    Args:
        left: says how many bytes a stage leaves; None: as is counted.
    """
    config, models, rest, trained = size.config, list[int](), 0, list[int]()
    for stage in stages:
        disk = left(stage) if left else size.cost_of(stage).disk
        if stage.of.product is Product.MODEL:
            models.append(disk)
            trained.append(size.trained_parameters(stage))
        else:
            rest += disk
    if config.store.keep_models != "all" and models:
        kept = (
            2 * len(config.loop.policies) * len(config.loop.seeds) * len(size.lineages)
        )  # at work at once, or the ends
        models = models[:kept]
    return sum(models) + rest + 12 * max(trained, default=size.parameters)


def existing(path: Path) -> Path:
    return next(parent for parent in (path, *path.absolute().parents) if parent.exists())
