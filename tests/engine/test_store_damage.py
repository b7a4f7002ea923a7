"""What the store holds is checked before it is used: a damaged stage is said, set aside and computed again."""

import json
import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.kinds import kind

from collapse_cli.engine import checkpoint, scheduler
from collapse_cli.engine.executors.local import LocalExecutor
from collapse_cli.engine.folder_store import FolderStore
from collapse_cli.engine.record import RECORD
from collapse_cli.engine.scheduler import missing
from collapse_cli.engine.stage import Finished, Stage, Workplace
from collapse_cli.errors import InputError
from collapse_cli.records.names import STORE


class Heard:
    """A listener that counts what was computed."""

    def __init__(self) -> None:
        self.computed: list[int] = []

    def started(self, stage: Stage) -> None: ...
    def progress(self, stage: Stage, done: int, total: int, unit: str) -> None: ...
    def waiting(self, stage: Stage) -> None: ...

    def finished(self, stage: Stage, made: Finished, *, cached: bool, memory_mb: int = 0) -> None:
        if not cached:
            self.computed.append(stage.params["number"])


def work(one: Stage, inputs: Any, place: Workplace) -> dict[str, Any]:
    before = int((inputs["before"].folder / "sum").read_text()) if inputs else 0
    (place.folder / "sum").write_text(f"{before + one.params['number']:05d}")
    (place.folder / "deep").mkdir()
    (place.folder / "deep" / "other").write_text("x" * 50)
    return {"sum": before + one.params["number"]}


WORK = kind("work", body=work)


def chain(length: int = 4) -> list[Stage]:
    stages = [Stage(WORK, {"number": 0})]
    for number in range(1, length):
        stages.append(Stage(WORK, {"number": number}, {"before": stages[-1]}))
    return stages


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A store that holds the first three of four stages."""
    root = tmp_path / "runs" / STORE
    scheduler.run(chain(3), LocalExecutor(FolderStore(root)), Heard())
    return root


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def make_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def make_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def put(content: bytes) -> Callable[[Path], None]:
    def replace(path: Path) -> None:
        path.write_bytes(content)

    replace.__name__ = f"put {content[:12]!r}"
    return replace


def another_record(path: Path) -> None:
    shutil.copy(next(one for one in path.parent.parent.parent.glob(f"??/*/{RECORD}") if one != path), path)


def change_facts(path: Path) -> None:
    path.write_text(path.read_text().replace('"sum": 3', '"sum": 4'))


def lose_digest(path: Path) -> None:
    path.write_text(path.read_text().replace('"digest"', '"eigest"'))


FILES = [flip, truncate, put(b""), Path.unlink, make_folder, make_pipe]
RECORDS = [
    *(
        flip,
        truncate,
        put(b""),
        put(b"{}"),
        put(b"[1]"),
        put(b"3"),
        put(b"null"),
        put(b"\xff\xfe{"),
        put(b"[" * 100_000),
    ),
    *(another_record, change_facts, lose_digest, Path.unlink, make_folder, make_pipe),
]
CASES = [(name, how) for name in ("sum", "deep/other") for how in FILES] + [(RECORD, how) for how in RECORDS]


@pytest.mark.parametrize(("name", "how"), CASES, ids=[f"{name}: {how.__name__}" for name, how in CASES])
def test_a_damaged_input_is_said_set_aside_and_computed_again(
    root: Path, caplog: pytest.LogCaptureFixture, name: str, how: Callable[[Path], None]
) -> None:
    stages, heard, store = chain(4), Heard(), FolderStore(root)
    damaged = stages[2]
    how(store.folder(damaged.key) / name)
    assert missing(stages, store, lambda one: one is stages[3]) == stages[2:], "planned before anything is touched"
    assert store.folder(damaged.key).exists(), "looking moves nothing"
    with caplog.at_level(logging.WARNING):
        scheduler.run(stages, LocalExecutor(store), heard)
    assert heard.computed == [2, 3]
    assert store.get(stages[3].key).facts == {"sum": 6}
    assert store.sound(damaged.key)
    (said,) = [record.getMessage() for record in caplog.records]
    assert "\n" not in said
    assert f"the work stage {damaged.key[:12]} in the store is damaged" in said
    assert [path.name[:64] for path in (root / ".damaged").iterdir()] == [damaged.key]
    assert FolderStore(root).sound(damaged.key), "and it stays so"


@pytest.mark.parametrize("how", [flip, truncate, Path.unlink])
def test_what_a_worker_is_told_to_compute_has_its_inputs_checked_too(
    root: Path, caplog: pytest.LogCaptureFixture, how: Callable[[Path], None]
) -> None:
    """A worker process gets one stage, and nobody looked at its inputs since they were published."""
    stages, heard, store = chain(4), Heard(), FolderStore(root)
    for number in (0, 2):
        how(store.folder(stages[number].key) / "sum")
    done = LocalExecutor(store).compute(stages[3], heard)
    assert done.made is not None
    assert done.made.facts == {"sum": 6}
    assert heard.computed == [2], "made from number 1, which is sound: number 0 is no longer needed"
    assert len(caplog.records) == 1


def test_a_chain_of_damaged_inputs_is_computed_from_its_beginning(root: Path) -> None:
    stages, heard, store = chain(4), Heard(), FolderStore(root)
    for one in stages[:3]:
        flip(store.folder(one.key) / "sum")
    done = LocalExecutor(store).compute(stages[3], heard)
    assert done.made is not None
    assert done.made.facts == {"sum": 6}
    assert heard.computed == [0, 1, 2]


def test_a_disk_that_damages_a_stage_again_and_again_ends_the_run(root: Path) -> None:
    stages, store = chain(4), FolderStore(root)
    for _ in range(2):
        flip(store.folder(stages[2].key) / RECORD)
        scheduler.run(stages[:3], LocalExecutor(store), Heard())
    flip(store.folder(stages[2].key) / RECORD)
    with pytest.raises(InputError, match=r"computed again and is damaged again .* check the disk"):
        scheduler.run(stages[:3], LocalExecutor(store), Heard())


def test_each_file_is_read_once_a_process_and_none_that_the_process_made(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from collapse_cli import files

    read: list[str] = []
    sha256_of = files.sha256_of
    monkeypatch.setattr(files, "sha256_of", lambda path: (read.append(path.name), sha256_of(path))[1])
    stages, store = chain(6), FolderStore(root)
    executor = LocalExecutor(store)
    scheduler.run(stages, executor, Heard())
    scheduler.run(stages, executor, Heard())
    assert sorted(read) == ["other", "sum"], "of the one finished stage that was an input"


def test_records_without_a_digest_of_their_own_stay_usable(root: Path) -> None:
    """As they were written before records had one."""
    stages = chain(4)
    for one in stages[:3]:
        path = FolderStore(root).folder(one.key) / RECORD
        record = json.loads(path.read_text())
        del record["digest"]
        path.write_text(json.dumps(record, indent=1))
    heard = Heard()
    scheduler.run(stages, LocalExecutor(FolderStore(root)), heard)
    assert heard.computed == [3]


def test_a_pruned_record_keeps_a_digest(root: Path) -> None:
    store, one = FolderStore(root), chain(3)[1]
    store.prune(one.key)
    assert FolderStore(root).has(one.key, whole=False)
    assert not FolderStore(root).has(one.key)
    path = store.folder(one.key) / RECORD
    path.write_text(path.read_text().replace('"pruned": true', '"pruned": false'))
    assert not FolderStore(root).has(one.key, whole=False)
    assert not FolderStore(root).has(one.key)


@pytest.mark.parametrize("name", ["../../elsewhere", "/etc/hostname", "a\nb", ""])
def test_names_of_files_in_a_record_lead_nowhere(root: Path, name: str) -> None:
    store, one = FolderStore(root), chain(3)[1]
    path = store.folder(one.key) / RECORD
    record = json.loads(path.read_text())
    del record["digest"]
    path.write_text(json.dumps(record | {"files": record["files"] | {name: "0" * 64}}))
    assert not FolderStore(root).has(one.key)


def test_a_file_that_does_not_belong_to_a_stage_is_a_fault_and_a_hidden_one_is_none(root: Path) -> None:
    one = chain(3)[1]
    folder = FolderStore(root).folder(one.key)
    (folder / ".nfs0001").write_text("left by the file system")
    assert FolderStore(root).sound(one.key)
    (folder / "deep" / "model.safetensors.index.json").write_text("{}")
    assert not FolderStore(root).sound(one.key)


# --- checkpoints ------------------------------------------------------------------------------------------------------


def other_stages(path: Path) -> None:
    """The checkpoint of the same name of another stage: whole, but not this one's."""
    there = path.parent.parent / "another" / path.name
    there.parent.mkdir()
    checkpoint.keep(there, {"a": np.arange(9)}, {"done": 5})
    shutil.copy(there, path)


@pytest.mark.parametrize("how", [*FILES, other_stages], ids=lambda how: how.__name__)
def test_a_damaged_checkpoint_is_said_once_and_dropped(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, how: Callable[[Path], None]
) -> None:
    path = tmp_path / "stage" / "block.safetensors"
    path.parent.mkdir()
    for done in (1, 2):
        checkpoint.keep(path, {"a": np.arange(done)}, {"done": done})
    arrays, facts = checkpoint.take_up(path) or ({}, None)
    assert (arrays["a"].tolist(), facts) == ([0, 1], {"done": 2})
    how(path)
    assert checkpoint.take_up(path) is None
    said = [record.getMessage() for record in caplog.records]
    why = "this checkpoint is damaged, or an earlier version of collapse wrote it; its stage starts anew"
    assert said == [f"{path} is not used: {why}"] * (how is not Path.unlink)
    assert not os.path.lexists(path)
    assert checkpoint.take_up(path) is None
    assert len(caplog.records) == (how is not Path.unlink)


def test_every_bit_of_a_checkpoint_counts(tmp_path: Path) -> None:
    path = tmp_path / "block.safetensors"
    checkpoint.keep(path, {"a": np.arange(2, dtype=np.int8)}, None)
    content = path.read_bytes()
    for at in range(len(content)):
        damaged = bytearray(content)
        damaged[at] ^= 1 << at % 8
        path.write_bytes(damaged)
        assert not checkpoint.is_sound(path), f"byte {at}"
    path.write_bytes(content)
    assert checkpoint.is_sound(path)


def test_checkpoints_reach_the_disk_before_they_take_the_place_of_the_old_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moments: list[str] = []
    fsync, replace = os.fsync, Path.replace
    monkeypatch.setattr("os.fsync", lambda file: (moments.append("fsync"), fsync(file))[1])
    monkeypatch.setattr(Path, "replace", lambda path, to: (moments.append("replace"), replace(path, to))[1])
    checkpoint.keep(tmp_path / "block.safetensors", {"a": np.arange(2)}, None)
    assert moments == ["fsync", "replace"]
