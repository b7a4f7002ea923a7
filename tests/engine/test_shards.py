"""Stages in shards: parts that are stages of their own, and a whole that is put together from them under the key that it has anyway."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.kinds import kind

from collapse_cli.engine import scheduler
from collapse_cli.engine.executors.local import LocalExecutor
from collapse_cli.engine.folder_store import FolderStore
from collapse_cli.engine.observer import Observer
from collapse_cli.engine.stage import Finished, Plan, Shard, Stage, Workplace
from collapse_cli.where import Where

ROWS = 10


class Heard(Observer):
    """What was computed, and what was there."""

    def __init__(self) -> None:
        self.computed: list[str] = []
        self.cached: list[str] = []

    def finished(self, stage: Stage, made: Finished, *, cached: bool, memory_mb: int = 0) -> None:
        (self.cached if cached else self.computed).append(stage.key)


def squares(rows: range, place: Workplace, name: str) -> None:
    place.folder.joinpath(name).write_text("".join(f"{row * row}\n" for row in rows))


def some(stage: Stage, inputs: Mapping[str, Finished], place: Workplace) -> dict[str, Any]:
    squares(range(ROWS)[Shard(*stage.params["shard"]).rows(ROWS)], place, "part")
    return {}


def whole(stage: Stage, inputs: Mapping[str, Finished], place: Workplace) -> dict[str, Any]:
    if stage.shards:
        parts = [inputs[name].file("part").read_text() for name in sorted(inputs) if name.startswith("shard-")]
        place.folder.joinpath("rows").write_text("".join(parts))
    else:
        squares(range(ROWS), place, "rows")
    return {"parts": len(stage.shards)}


SOME = kind("squares", body=some)
SQUARES = replace(
    kind("squares", body=whole),
    split=lambda stage, number: [
        Stage(SOME, {**stage.params, "shard": [one, number]}, stage.inputs) for one in range(1, number + 1)
    ],
)


def planned(number: int) -> tuple[Plan, Stage]:
    """Data, what is made of them in so many shards, and what is made of that."""
    plan, where = Plan(), Where("p", 0, 1)
    data = plan.add(Stage(kind("data"), {}), where)
    made = plan.add(Stage(SQUARES, {}, {"data": data}), where)
    plan.add(Stage(kind("use"), {}, {"rows": made}), where)
    plan = plan.in_shards({made.key: number} if number > 1 else {})
    return plan, plan.stages[made.key]


def compute(plan: Plan, store: FolderStore) -> Heard:
    heard = Heard()
    store.begin()
    scheduler.run(list(plan.stages.values()), LocalExecutor(store), heard)
    return heard


@pytest.mark.parametrize("there", [0, 1, 5, 1000])
@pytest.mark.parametrize("number", [1, 2, 3, 7, 12])
def test_shards_have_each_row_once_in_order_and_are_of_like_size(there: int, number: int) -> None:
    parts = [range(there)[Shard(one, number).rows(there)] for one in range(1, number + 1)]
    assert [row for part in parts for row in part] == list(range(there))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_a_whole_stage_has_the_key_and_the_files_that_it_has_without_shards(tmp_path: Path) -> None:
    plain, alone = planned(1)
    files = {}
    for number in (1, 2, 3, 12):
        plan, stage = planned(number)
        assert stage.key == alone.key
        assert len(stage.shards) == (number if number > 1 else 0)
        assert {key for key in plan.stages if key not in plan.shard_of} == plain.stages.keys()
        store = FolderStore(tmp_path / str(number))
        heard = compute(plan, store)
        assert sorted(heard.computed) == sorted(plan.stages), "each stage once"
        files[number] = store.get(stage.key).file("rows").read_text()
    assert len(set(files.values())) == 1


def test_a_plan_in_no_shards_is_the_plan() -> None:
    plan, _ = planned(1)
    assert plan.in_shards({}) is plan
    other = plan.in_shards(dict.fromkeys(plan.stages, 3))
    assert [stage.of.name for stage in other.stages.values()] == ["data", *["squares"] * 4, "use"]


def test_the_plan_says_of_shards_what_they_are_a_part_of() -> None:
    plan, stage = planned(2)
    records = {record["key"]: record for record in plan.record()}
    assert [record.get("shard_of") for record in records.values()] == [None, stage.key, stage.key, None, None]
    assert all(records[shard.key]["inputs"] == {"data": stage.inputs["data"].key} for shard in stage.shards)


def test_the_seconds_of_a_whole_stage_are_those_of_its_shards_too(tmp_path: Path) -> None:
    plan, stage = planned(3)
    store = FolderStore(tmp_path)
    compute(plan, store)
    parts = sum(store.get(shard.key).seconds for shard in stage.shards)
    assert store.get(stage.key).seconds >= parts - 0.002


def test_what_is_there_is_not_computed_again(tmp_path: Path) -> None:
    plan, stage = planned(3)
    store = FolderStore(tmp_path)
    store.begin()
    first = [stage.inputs["data"], stage.shards[1]]
    scheduler.run(first, LocalExecutor(store), Heard())
    heard = compute(plan, store)
    assert heard.cached == [one.key for one in first]
    assert len(heard.computed) == len(plan.stages) - 2


def test_a_stage_that_is_there_needs_no_shards(tmp_path: Path) -> None:
    plain, _ = planned(1)
    store = FolderStore(tmp_path)
    compute(plain, store)
    plan, _ = planned(3)
    assert scheduler.missing(list(plan.stages.values()), store, lambda stage: stage.of.name == "use") == []
    heard = compute(plan, store)  # as of a process that planned them before another one published the whole
    assert heard.computed == []
    assert not any(store.holds(shard) for shard in plan.shard_of)


def test_a_damaged_shard_is_found_and_made_again(tmp_path: Path) -> None:
    plan, stage = planned(3)
    store = FolderStore(tmp_path)
    store.begin()
    scheduler.run([stage.inputs["data"], *stage.shards], LocalExecutor(store), Heard())
    rows = store.get(stage.shards[1].key).file("part")
    rows.write_text("1\n")
    again = FolderStore(tmp_path)
    heard = compute(plan, again)
    assert heard.computed.count(stage.shards[1].key) == 1
    assert again.get(stage.key).file("rows").read_text().split() == [str(row * row) for row in range(ROWS)]


def test_shards_are_as_many_at_once_as_there_are() -> None:
    plan, stage = planned(3)
    widths = scheduler.width(plan)
    assert {widths[shard.key] for shard in stage.shards} == {3}
    assert widths[stage.key] == 1
    assert widths.keys() == plan.stages.keys()
