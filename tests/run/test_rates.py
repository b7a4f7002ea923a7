"""From what stages have taken to what others will: against plain sums, with times that are made up."""

from pathlib import Path

import numpy as np
import pytest
from support import e2e
from support.kinds import kind

from collapse_cli.config import load
from collapse_cli.config.reading import read_toml
from collapse_cli.engine.stage import ALL_POLICIES, Cost, Stage
from collapse_cli.experiment.costs import RECORD_BYTES, TOGETHER
from collapse_cli.records.rundir import RunFolder
from collapse_cli.records.runs import store_of
from collapse_cli.run.execution import Execution
from collapse_cli.run.preparation import Prepared, prepare
from collapse_cli.run.rates import Estimates, Left, TimeTaken, Timings, makespan, rate_of, sameness

WORK = kind("work")


def test_a_rate_is_what_stages_were_made_with() -> None:
    """Seconds that follow a law exactly give it back, and so the time of a stage a thousand times as large."""
    unit, part, stage = 0.002, 0.05, 0.3
    sizes = [(16, 2), (64, 2), (64, 8), (256, 32)]
    taken = [TimeTaken(work, parts, unit * work + part * parts + stage) for work, parts in sizes]
    rate = rate_of(taken)
    assert (rate.unit, rate.part, rate.stage) == pytest.approx((unit, part, stage), rel=1e-6)
    assert rate.of(256_000, 50) == pytest.approx(unit * 256_000 + part * 50 + stage, rel=1e-6)


def test_rates_of_noisy_times_are_near_and_never_negative() -> None:
    random = np.random.default_rng(0)
    for _ in range(20):
        taken = [
            TimeTaken(work, 1, max(0.0, 0.01 + 1e-4 * work + random.normal(0, 0.005)))
            for work in (10, 100, 1000, 10_000)
        ]
        rate = rate_of(taken)
        assert min(rate.unit, rate.part, rate.stage) >= 0
        assert rate.of(100_000, 1) == pytest.approx(10.01, rel=0.05)
    falling = rate_of([TimeTaken(10, 1, 2.0), TimeTaken(1000, 1, 1.0)])
    assert falling.unit == 0
    assert falling.of(10**6, 1) == pytest.approx(1.5)


def test_of_one_size_alone_the_time_grows_with_the_work() -> None:
    rate = rate_of([TimeTaken(100, 1, 1.0), TimeTaken(100, 1, 3.0)])
    assert (rate.unit, rate.part, rate.stage) == (pytest.approx(0.02), 0, 0)
    assert rate_of([TimeTaken(0, 1, 0.5)]).of(0, 1) >= 0, "a stage that counts no work"


def test_finished_stages_count_for_more_than_trials_and_the_newest_for_most() -> None:
    timings = Timings()
    timings.add(timings.tried, "train", "a", Cost(tokens=100), 1.0)
    assert timings.rate("train", "a").of(1000, 1) == pytest.approx(10)  # type: ignore[union-attr]
    assert timings.rate("train", "b").of(1000, 1) == pytest.approx(10), "of its name, where its own group has none"  # type: ignore[union-attr]
    assert timings.rate("eval", "a2") is None
    for _ in range(30):
        timings.add(timings.finished, "train", "a", Cost(tokens=100), 9.0)
    for _ in range(24):
        timings.add(timings.finished, "train", "a", Cost(tokens=100), 2.0)
    assert timings.rate("train", "a").of(1000, 1) == pytest.approx(20)  # type: ignore[union-attr]


def chain(count: int, *, name: str = "chain") -> list[Stage]:
    """Stages each of which needs the one before it."""
    made: list[Stage] = []
    for number in range(count):
        made.append(Stage(WORK, {"name": name, "number": number}, {"before": made[-1]} if made else {}))
    return made


def test_stages_at_the_same_time_wait_for_their_inputs() -> None:
    """Three chains of two on two slots take 4 seconds, in the order of the plan; one chain gains nothing; what is not to be done is not waited for."""
    chains = [stage for name in "abc" for stage in chain(2, name=name)]
    each = {stage.key: 1.0 for stage in chains}
    assert makespan(chains, each, 1) == 6
    assert makespan(chains, each, 2) == 4
    assert makespan(chains, each, 8) == 2
    line = chain(5)
    seconds = {stage.key: float(place) for place, stage in enumerate(line)}
    assert makespan(line, seconds, 4) == 0 + 1 + 2 + 3 + 4
    assert makespan(line[3:], seconds, 4) == 3 + 4
    assert makespan([], {}, 2) == 0


def test_only_a_seed_may_differ_between_stages_that_are_the_same(tmp_path: Path) -> None:
    one, other = (Stage(WORK, {"cells": [1, 2]}, seed=seed) for seed in (1, 2))
    assert sameness(one) == sameness(other)
    assert one.key != other.key
    assert sameness(one) != sameness(Stage(WORK, {"cells": [1, 3]}, seed=1))


def test_variants_with_other_rows_are_timed_for_themselves(tmp_path: Path) -> None:
    """Their stages do the same (`nature-gmm`: 500 to 50,000 rows), but not as much of it."""
    runs, made = tmp_path / "runs", []
    for rows in (100, 200):
        tree = {"learner": "gaussian", "loop": {"generations": 1}, "data": {"source": "blobs", "rows": rows}}
        one = prepare(load(tree, "a test"), RunFolder(runs, "x"), store_of(runs), tmp_path / "real", Execution(jobs=1))
        stage = next(each for each in one.plan.stages.values() if each.work == "block")
        made.append((stage, Estimates(one.size, Timings())))
    (few, small), (many, large) = made
    assert sameness(few) == sameness(many)
    assert small.alike(few) != large.alike(many)
    small.timings.same[small.alike(few)] = [3.0]
    large.timings = small.timings
    assert small.seconds(few) == 3.0
    assert not large.timed(many)


def prepared(tmp_path: Path, shards: int) -> Prepared:
    """The tiny experiment in so many shards."""
    config = load(read_toml(e2e.write_experiment(tmp_path)), "a test")
    runs = tmp_path / "runs"
    return prepare(config, RunFolder(runs, "x"), store_of(runs), tmp_path / "real", Execution(jobs=1, shards=shards))


@pytest.mark.parametrize("number", [2, 3, 7])
def test_shards_take_what_the_whole_would_and_each_the_time_of_a_stage(tmp_path: Path, number: int) -> None:
    """By a law of seconds that is made up: 0.001 a unit of work and 5 a stage; beside each other they take a part of that."""
    whole, parts = prepared(tmp_path / "whole", 1), prepared(tmp_path / "parts", number)
    stages = [stage for stage in parts.plan.stages.values() if stage.shards]
    assert {stage.work for stage in stages} == {"eval", "sample", "examine"}
    for stage in stages:
        alone, costs = whole.size.cost_of(whole.plan.stages[stage.key]), [*map(parts.size.cost_of, stage.shards)]
        if (
            stage.work == "sample"
        ):  # of what is scored the parts hold more than the whole (tests/whole/test_e2e_shards.py)
            assert sum(cost.disk for cost in costs) == alone.disk + (number - 1) * RECORD_BYTES
        for name in ("tokens", "rows", "flops", "work"):
            assert sum(getattr(cost, name) for cost in costs) == pytest.approx(getattr(alone, name), rel=1e-9), name
        estimates = Estimates(parts.size, Timings(), lambda stage: 1e9)
        for work in (alone.work, 3 * alone.work):
            taken = Cost(amount=work)
            estimates.tried(stage.shards[0], estimates.group(stage), taken, 0.001 * work + 5)
        assert estimates.timed(stage)
        seconds = {each.key: estimates.seconds(each) for each in (*stage.shards, stage)}
        assert sum(seconds[shard.key] for shard in stage.shards) == pytest.approx(0.001 * alone.work + 5 * number)
        assert TOGETHER <= seconds[stage.key] < TOGETHER + 0.01
        assert makespan([*stage.shards, stage], seconds, number) == pytest.approx(
            max(seconds.values()) + seconds[stage.key]
        )
        left = Left(estimates, [*stage.shards, stage], 1)
        assert left.seconds() == (pytest.approx(0.001 * alone.work + 5 * number), ())
        for shard in stage.shards:
            left.finished(shard, seconds[shard.key])
        left.finished(stage, 1e6)
        assert left.seconds() == (0, ())


def test_what_is_left_is_known_from_stages_at_work_and_said_to_be_a_part_of_it(tmp_path: Path) -> None:
    """The first stage tells of its kind once it has worked for two seconds; others come on top until they are known, too."""
    whole = prepared(tmp_path, 1)
    stages = [*whole.plan.stages.values()]
    train = [stage for stage in stages if stage.work == "train"]
    work = [whole.size.cost_of(stage).work for stage in train]
    left = Left(Estimates(whole.size, Timings()), stages, 1)
    kinds = tuple(dict.fromkeys(stage.work for stage in stages))
    assert left.seconds() == (0, kinds)
    left.at_work(train[0], 0.25, 100.0)
    left.at_work(train[0], 0.30, 101.0)
    assert left.seconds() == (0, kinds)
    left.at_work(train[0], 0.50, 105.0)
    rest = 20.0 * (sum(work) / work[0] - 0.5)
    assert left.seconds() == (pytest.approx(rest), tuple(name for name in kinds if name != "train"))
    left.at_work(train[0], 0.0, 106.0)  # it was lost, and begins again
    left.at_work(train[0], 0.5, 116.0)
    assert left.seconds().seconds == pytest.approx(rest)
    left.finished(train[0], 40.0)
    assert left.seconds().seconds == pytest.approx(40.0 * sum(work[1:]) / work[0])
    left.at_work(train[1], 0.5, 1.0)
    assert left.seconds().seconds == pytest.approx(40.0 * (sum(work[1:]) - work[1] / 2) / work[0])


def test_two_workers_halve_what_is_left_only_where_two_stages_can_be_at_work(tmp_path: Path) -> None:
    """Stages of one policy wait for each other: by guesses of a second each, a third worker is idle nearly always."""
    whole = prepared(tmp_path, 1)
    stages = [*whole.plan.stages.values()]
    one_policy = [stage for stage in stages if whole.plan.serves[stage.key][0].policy in (ALL_POLICIES, "keep-0")]

    def left(some: list[Stage], slots: int) -> float:
        estimates = Estimates(whole.size, Timings(), lambda stage: 1.0)
        for stage in some:
            estimates.finished(stage, 1.0)
        return Left(estimates, some, slots).seconds().seconds

    alone = left(one_policy, 1)
    depth = makespan(one_policy, {stage.key: 1.0 for stage in one_policy}, len(one_policy))
    assert depth > len(one_policy) / 2, "most of them wait for one another"
    assert left(one_policy, len(one_policy)) == pytest.approx(alone * depth / len(one_policy))
    assert left(stages, 2) < 0.7 * left(stages, 1)


def test_what_was_put_together_from_shards_counts_as_all_the_work_that_it_was(tmp_path: Path) -> None:
    """The record of such a stage has its seconds and those of its shards, so it tells how long the same takes at once."""
    whole = prepared(tmp_path, 1)
    stage = next(stage for stage in whole.plan.stages.values() if stage.work == "sample")
    estimates = Estimates(whole.size, Timings())
    estimates.finished(stage, 12.0)
    other = next(each for each in whole.plan.stages.values() if each.work == "sample" and each is not stage)
    share = whole.size.cost_of(other).work / whole.size.cost_of(stage).work
    assert estimates.seconds(other) == pytest.approx(12.0 * share)


def test_disk_is_what_short_versions_left_beside_what_is_counted(tmp_path: Path) -> None:
    """Of two sizes a part that is always there is told from what grows; of a kind that was not made the count stands."""
    whole = prepared(tmp_path, 1)
    stage = next(stage for stage in whole.plan.stages.values() if stage.work == "eval")
    other = next(stage for stage in whole.plan.stages.values() if stage.work == "train")
    estimates = Estimates(whole.size, Timings())
    counted = whole.size.cost_of(stage).disk
    assert estimates.disk(stage) == counted
    for times in (1, 3):
        estimates.left(estimates.group(stage), Cost(disk=times * 1000), 500 + times * 700)
    assert estimates.disk(stage) == pytest.approx(500 + 0.7 * counted, abs=1)
    assert estimates.disk(other) == whole.size.cost_of(other).disk
