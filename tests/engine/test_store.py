"""The store: stages published whole or not at all, one lock per key, checkpoints, pruning and collecting garbage."""

import errno
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import e2e
from support.kinds import kind as kind_of

from collapse_cli.config import Experiment
from collapse_cli.engine import checkpoint, scheduler
from collapse_cli.engine.executors.local import LocalExecutor
from collapse_cli.engine.folder_store import FolderStore, size_of
from collapse_cli.engine.record import RECORD
from collapse_cli.engine.scheduler import missing
from collapse_cli.engine.stage import Body, Finished, Stage, Workplace
from collapse_cli.errors import ConfigError
from collapse_cli.files import write_atomically
from collapse_cli.records import flags
from collapse_cli.records.names import STORE
from collapse_cli.records.rundir import RunFolder
from collapse_cli.run.garbage import collect_garbage

HOLDER = """
import sys
from pathlib import Path
from collapse_cli.engine.folder_store import FolderStore
with FolderStore(Path(sys.argv[1])).locked(sys.argv[2]) as mine:
    print(mine, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path / "runs" / STORE)


def stage(number: int = 0, kind: str = "train", body: Body = lambda *_: {}, **inputs: Stage) -> Stage:
    return Stage(kind_of(kind, body=body), {"number": number}, inputs, seed=3)


def publish(store: FolderStore, one: Stage, facts: dict[str, Any] | None = None, **files: str) -> Finished:
    """Publish a stage whose files hold these texts; `__` in a name is a folder."""
    folder = store.attempt(one.key)
    for name, text in (files or {"model.safetensors": "weights", "config.json": "{}"}).items():
        path = folder / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return store.publish(one, facts or {}, 1.23456)


@contextmanager
def held_elsewhere(store: FolderStore, key: str) -> Iterator[subprocess.Popen[str]]:
    """Another process holds the lock of a key."""
    command = [sys.executable, "-c", HOLDER, str(store.root), key]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline().strip() == "True"
        try:
            yield other
        finally:
            other.kill()
            other.communicate()


# --- publishing -------------------------------------------------------------------------------------------------------


def test_a_published_stage_is_found_with_all_that_is_known_of_it(store: FolderStore) -> None:
    data, trained = stage(1, "data"), stage(2, data=stage(1, "data"))
    assert not store.has(trained.key)
    made = publish(store, trained, {"train_loss": 1.5, "list": [1]}, **{"a.txt": "A", "deep__b.txt": "B"})
    assert store.has(trained.key)
    assert store.has(trained.key, whole=False)
    assert made == store.get(trained.key)
    assert made == Finished("train", trained.key, store.folder(trained.key), {"train_loss": 1.5, "list": [1]}, 1.235)
    record = json.loads((made.folder / RECORD).read_text())
    assert record["inputs"] == {"data": data.key}
    assert (record["kind"], record["version"], record["params"], record["seed"]) == ("train", 1, {"number": 2}, 3)
    assert record["files"] == {
        "a.txt": hashlib.sha256(b"A").hexdigest(),
        "deep/b.txt": hashlib.sha256(b"B").hexdigest(),
    }
    assert store.keys() == [trained.key]
    assert made.folder == store.root / trained.key[:2] / trained.key


def test_what_is_not_in_the_store_cannot_be_got(store: FolderStore) -> None:
    with pytest.raises(FileNotFoundError):
        store.get("0" * 64)
    assert not store.has("0" * 64)
    assert not store.has("0" * 64, whole=False)
    assert store.keys() == store.unfinished() == []


def test_a_stage_is_visible_only_when_it_is_complete(store: FolderStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kill at any moment of publishing leaves the stage whole, or not there at all."""
    one, moments = stage(), []

    def look(*_: Any) -> None:
        moments.append(store.has(one.key) or store.keys() != [] or store.folder(one.key).exists())

    for name in ("fsync", "replace", "rename"):
        real = getattr(__import__("os"), name)
        monkeypatch.setattr(f"os.{name}", lambda *given, real=real: (look(), real(*given))[1])
    rename = Path.rename
    monkeypatch.setattr(Path, "rename", lambda path, target: (look(), rename(path, target))[1])
    publish(store, one)
    assert len(moments) >= 5, "each file, the record and the folders are synced before the rename"
    assert not any(moments[:-1])
    assert store.has(one.key)
    assert [path.name for path in store.root.glob(".attempts/*")] == []


@pytest.mark.parametrize("broken", ["rename", "fsync"])
def test_a_publishing_that_fails_leaves_nothing_visible(
    store: FolderStore, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    def fail(*_: Any) -> None:
        raise OSError("disk")

    with monkeypatch.context() as patch:
        if broken == "rename":
            patch.setattr(Path, "rename", fail)
        else:
            patch.setattr("os.fsync", fail)
        with pytest.raises(OSError, match="disk"):
            publish(store, stage())
    assert not store.has(stage().key)
    assert store.keys() == []
    assert store.unfinished() == [stage().key]
    publish(store, stage())
    assert store.has(stage().key)


def test_facts_that_are_no_json_are_refused_before_anything_is_visible(store: FolderStore) -> None:
    for bad in (float("nan"), object()):
        with pytest.raises((TypeError, ValueError)):
            publish(store, stage(), {"loss": bad})
        assert not store.has(stage().key)


def test_what_a_killed_attempt_left_is_wiped(store: FolderStore) -> None:
    one = stage()
    (store.attempt(one.key) / "junk").mkdir()
    (store.attempt(one.key) / "junk.bin").write_text("half a file")
    assert list(store.attempt(one.key).iterdir()) == []
    made = publish(store, one)
    assert sorted(path.name for path in made.folder.iterdir()) == ["config.json", "model.safetensors", RECORD]


def test_scratch_survives_a_kill_and_goes_when_the_stage_is_published(store: FolderStore) -> None:
    one = stage()
    (store.scratch(one.key) / "checkpoint").write_text("step 7")
    store.attempt(one.key)
    assert (store.scratch(one.key) / "checkpoint").read_text() == "step 7"
    made = publish(store, one)
    assert not (store.root / ".scratch" / one.key).exists()
    assert not list(made.folder.rglob("checkpoint"))
    assert store.unfinished() == []


# --- pruning ----------------------------------------------------------------------------------------------------------


def test_pruning_drops_the_weights_and_keeps_the_record(store: FolderStore) -> None:
    one = stage()
    made = publish(store, one, {"loss": 2.0}, **{"model.safetensors": "x" * 1000, "config.json": "{}"})
    assert store.prune(one.key) == 1000
    assert not (made.folder / "model.safetensors").exists()
    assert (made.folder / "config.json").exists()
    assert not store.has(one.key)
    assert store.has(one.key, whole=False)
    assert store.get(one.key).facts == {"loss": 2.0}
    assert store.prune(one.key) == 0


def test_pruning_drops_weights_in_shards_too(store: FolderStore) -> None:
    """As transformers writes models of more than 50 GB: nothing was freed of them, though the record said so."""
    one = stage()
    shards = {f"model-0000{number}-of-00002.safetensors": "x" * 500 for number in (1, 2)}
    made = publish(store, one, {}, **shards, **{"model.safetensors.index.json": "{}", "config.json": "{}"})
    assert store.prune(one.key) == 1002
    assert [path.name for path in made.folder.glob("*model*")] == []
    assert (made.folder / "config.json").exists()


def test_a_kill_within_pruning_leaves_a_stage_that_counts_as_pruned(
    store: FolderStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = stage()
    publish(store, one)

    def killed(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", killed)
        with pytest.raises(KeyboardInterrupt):
            store.prune(one.key)
    assert not store.has(one.key)


def test_a_pruned_stage_can_be_made_again(store: FolderStore) -> None:
    one = stage()
    publish(store, one)
    store.prune(one.key)
    made = publish(store, one, {"again": True})
    assert store.has(one.key)
    assert made.facts == {"again": True}
    assert (made.folder / "model.safetensors").read_text() == "weights"
    assert store.unfinished() == []


# --- locks ------------------------------------------------------------------------------------------------------------


def test_a_lock_is_held_by_one_process_and_freed_when_that_dies(store: FolderStore) -> None:
    key, other_key = stage(1).key, stage(2).key
    with held_elsewhere(store, key) as other:
        with store.locked(key) as mine:
            assert not mine
        with store.locked(other_key) as mine:
            assert mine
        other.kill()
        other.wait()
        with store.locked(key) as mine:
            assert mine
    with store.locked(key) as mine:
        assert mine, "it was released after the block"


def test_a_lock_is_freed_when_its_block_fails(store: FolderStore) -> None:
    with pytest.raises(RuntimeError), store.locked("a"):
        raise RuntimeError
    with held_elsewhere(store, "a"):
        pass


# --- writing a file ---------------------------------------------------------------------------------------------------


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    write_atomically(path, "old")
    write_atomically(path, "new – ü")
    assert path.read_text(encoding="utf-8") == "new – ü"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("moment", ["os.fsync", "pathlib.Path.replace"])
def test_a_write_that_fails_leaves_the_old_file_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    path = tmp_path / "run.json"
    write_atomically(path, "old")

    def fail(*_: Any) -> None:
        raise OSError("no space")

    with monkeypatch.context() as patch:
        patch.setattr(moment, fail)
        with pytest.raises(OSError, match="no space"):
            write_atomically(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


# --- garbage ----------------------------------------------------------------------------------------------------------


def make_run(store: FolderStore, name: str, *stages: Stage) -> None:
    """A run whose plan holds these stages."""
    record = [{"kind": one.kind, "key": one.key, "inputs": {}, "for": []} for one in stages]
    RunFolder(store.root.parent, name).start(Experiment(), record, {})


def test_garbage_is_what_no_plan_reaches(store: FolderStore) -> None:
    mine, shared, theirs, orphan = (stage(number) for number in range(4))
    for one in (mine, shared, theirs, orphan):
        publish(store, one)
    make_run(store, "a", mine, shared)
    make_run(store, "b", shared, theirs)
    size = size_of(store.folder(orphan.key))
    wanted = {"stages": 1, "leftovers": 0, "bytes": size, "kept": 3}
    assert collect_garbage(store.root.parent, dry_run=True) == wanted
    assert store.has(orphan.key), "a dry run removes nothing"
    assert collect_garbage(store.root.parent) == wanted
    assert store.keys() == sorted(one.key for one in (mine, shared, theirs))
    assert collect_garbage(store.root.parent) == {"stages": 0, "leftovers": 0, "bytes": 0, "kept": 3}


def test_leftovers_of_killed_stages_go_unless_a_plan_will_take_them_up(store: FolderStore) -> None:
    planned, orphan = stage(1), stage(2)
    make_run(store, "a", planned)
    for one in (planned, orphan):
        (store.scratch(one.key) / "checkpoint").write_text("12345")
        (store.attempt(one.key) / "half").write_text("123")
    assert collect_garbage(store.root.parent) == {"stages": 0, "leftovers": 1, "bytes": 8, "kept": 0}
    assert store.unfinished() == [planned.key]
    assert (store.scratch(planned.key) / "checkpoint").read_text() == "12345"


def test_what_a_kill_within_removing_left_is_garbage(store: FolderStore, monkeypatch: pytest.MonkeyPatch) -> None:
    one = stage()
    publish(store, one)

    def killed(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("shutil.rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            store.remove(one.key)
    assert not store.has(one.key, whole=False), "it is gone at once, or there whole"
    assert collect_garbage(store.root.parent)["leftovers"] == 1
    assert store.unfinished() == []


def test_what_another_process_has_open_on_nfs_stays_until_the_next_gc(
    store: FolderStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There it gets another name, `.nfs…`, when it is removed, and its folder cannot be."""
    one, again = stage(1), stage(2)
    publish(store, one)
    (store.attempt(again.key) / "half").write_text("123")
    unlink = os.unlink

    def renamed(path: Any, *rest: Any, dir_fd: int | None = None) -> None:
        if not str(path).startswith(".nfs") and dir_fd is not None:
            os.rename(path, f".nfs{path}", src_dir_fd=dir_fd, dst_dir_fd=dir_fd)
            return
        unlink(path, *rest, dir_fd=dir_fd)

    with monkeypatch.context() as patch:
        patch.setattr("os.unlink", renamed)
        assert store.remove(one.key) == 0, "nothing is free yet"
        assert list(store.attempt(again.key).iterdir()) == []
    assert not store.holds(one.key)
    assert collect_garbage(store.root.parent)["leftovers"] == 3
    assert store.unfinished() == []


def test_what_cannot_be_removed_is_not_counted_and_the_user_learns_why(
    store: FolderStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Of a stage, at first, and then of what is left of it: a folder in it that belongs to somebody else."""
    one = stage()
    publish(store, one, **{"theirs.bin": "12345", "own.bin": "123"})
    unlink, size = os.unlink, store.size(one.key)

    def refuse(path: Any, *, dir_fd: int | None = None) -> None:
        if Path(path).name == "theirs.bin":
            raise PermissionError(errno.EACCES, "Permission denied", path)
        unlink(path, dir_fd=dir_fd)

    with monkeypatch.context() as patched:
        patched.setattr(os, "unlink", refuse)
        assert collect_garbage(store.root.parent) == {"stages": 1, "leftovers": 0, "bytes": size - 5, "kept": 0}
        assert collect_garbage(store.root.parent) == {"stages": 0, "leftovers": 0, "bytes": 0, "kept": 0}
    (left,) = (store.root / ".attempts").iterdir()
    assert (
        caplog.messages
        == [f"{left}/theirs.bin cannot be removed (Permission denied); remove it by hand, or let its owner do that"] * 2
    )
    assert collect_garbage(store.root.parent) == {"stages": 0, "leftovers": 1, "bytes": 5, "kept": 0}


def test_what_another_node_has_published_on_nfs_is_found_though_it_was_not_there(
    store: FolderStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For up to a minute NFS says of what was not there that it is not, unless the folder that it is in is opened."""
    one = stage()
    here = FolderStore(store.root)
    assert not here.sound(one.key)
    publish(store, one)
    stat, open_ = Path.stat, os.open
    asked: list[Path] = []

    def cached(path: Path, **more: Any) -> os.stat_result:
        if path.name == RECORD and here.folder(one.key).parent not in asked:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
        return stat(path, **more)

    def opened(path: Any, *rest: Any, **more: Any) -> int:
        number = open_(path, *rest, **more)
        asked.append(Path(os.fsdecode(path)))
        return number

    monkeypatch.setattr("pathlib.Path.stat", cached)
    monkeypatch.setattr("os.open", opened)
    assert not here.has(one.key)
    assert here.sound(one.key)
    asked.clear()
    assert here.get(one.key).key == one.key
    assert asked.index(here.root) < asked.index(here.folder(one.key).parent)


def test_whoever_may_read_a_record_may_read_the_weights(store: FolderStore) -> None:
    """Safetensors lets nobody but their owner read its files, and a store may be a group's."""
    one = stage()
    checkpoint.write(store.attempt(one.key) / "rows.safetensors", {"a": np.zeros(3)}, {})
    checkpoint.keep(store.scratch(one.key) / "checkpoint.safetensors", {"a": np.zeros(3)}, {})
    kept = next(store.scratch(one.key).iterdir()).stat().st_mode
    published = store.publish(one, {}, 1.0).folder
    assert {path.stat().st_mode for path in published.iterdir()} == {kept}
    (published / "mine").touch()
    assert (published / "mine").stat().st_mode == kept


def test_a_stage_at_work_in_another_process_is_never_garbage(store: FolderStore) -> None:
    finished, working = stage(1), stage(2)
    publish(store, finished)
    (store.attempt(working.key) / "half").write_text("123")
    for key in (finished.key, working.key):
        with held_elsewhere(store, key):
            collect_garbage(store.root.parent)
            assert store.has(finished.key) == (key == finished.key)
            assert (store.root / ".attempts" / working.key).exists() == (key == working.key)
        publish(store, finished)
        (store.attempt(working.key) / "half").write_text("123")


@pytest.mark.parametrize("name", ["run.json", "plan.json"])
@pytest.mark.parametrize("damage", ["gone", "{}", "[]", "{", '{"stages": []}', '{"stages": [3]}', "\udcff", "folder"])
def test_garbage_is_not_collected_while_a_run_cannot_be_read(store: FolderStore, name: str, damage: str) -> None:
    mine, orphan = stage(1), stage(2)
    for one in (mine, orphan):
        publish(store, one)
    make_run(store, "a", mine)
    path = store.root.parent / "a" / name
    path.unlink()
    if damage == "folder":
        path.mkdir()
    elif damage != "gone":
        path.write_bytes(damage.encode(errors="surrogateescape"))
    with pytest.raises(ConfigError, match=f"{name}.*the run 'a' needs; nothing was removed: give the run's command"):
        collect_garbage(store.root.parent)
    assert store.keys() == sorted((mine.key, orphan.key))


def test_a_run_that_cannot_be_read_can_be_let_go_and_no_other_one(store: FolderStore) -> None:
    """What it alone needs goes, too."""
    stages, runs = [stage(number) for number in range(3)], store.root.parent
    mine, shared, theirs = stages
    for one in stages:
        publish(store, one)
    make_run(store, "a", mine, shared)
    make_run(store, "b", shared, theirs)
    with pytest.raises(ConfigError, match="--without a: what that run needs can be read"):
        collect_garbage(runs, without=["a"])
    with pytest.raises(ConfigError, match=r"--without aa: there is no run .*did you mean 'a'"):
        collect_garbage(runs, without=["aa"])
    with pytest.raises(ConfigError, match=r"--without \.\./a: there is no run"):
        collect_garbage(runs, without=["../a"])
    (runs / "a" / "plan.json").write_text("{")
    with flags.raised(runs / "a"), pytest.raises(ConfigError, match="--without a: that run is at work"):
        collect_garbage(runs, without=["a"])
    with pytest.raises(ConfigError, match=r"or let it go \(collapse gc --without a\)"):
        collect_garbage(runs)
    assert collect_garbage(runs, without=["a"], dry_run=True)["stages"] == 1
    assert collect_garbage(runs, without=["a"])["stages"] == 1
    assert store.keys() == sorted((shared.key, theirs.key))


def test_a_dry_run_writes_nothing_and_leaves_what_is_at_work_out(store: FolderStore) -> None:
    """Not even a lock: others may want it at this moment."""
    finished, working, left = (stage(number) for number in range(3))
    for one in (finished, working):
        publish(store, one)
    (store.attempt(left.key) / "half").write_text("123")
    with held_elsewhere(store, working.key):
        before = e2e.snapshot(store.root)
        found = collect_garbage(store.root.parent, dry_run=True)
        assert e2e.snapshot(store.root) == before
    assert (found["stages"], found["leftovers"], found["kept"]) == (1, 1, 0)


def test_what_a_run_that_begins_meanwhile_needs_is_no_garbage(
    store: FolderStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run takes up stages that no plan held when the plans were read."""
    stages = [stage(number) for number in range(4)]
    for one in stages:
        publish(store, one)
    make_run(store, "a", stages[0])
    remove = FolderStore.remove

    def begins(self: FolderStore, key: str) -> int:
        monkeypatch.setattr(FolderStore, "remove", remove)
        make_run(store, "b", *(one for one in stages if one.key != key))
        return remove(self, key)

    monkeypatch.setattr(FolderStore, "remove", begins)
    assert collect_garbage(store.root.parent)["stages"] == 1
    assert len(store.keys()) == 3


def test_scratch_of_finished_stages_and_what_was_set_aside_is_garbage(store: FolderStore) -> None:
    mine = stage(1)
    publish(store, mine)
    make_run(store, "a", mine)
    (store.folder(mine.key) / "config.json").write_text("damaged")
    later = FolderStore(store.root)  # another process
    assert not later.sound(mine.key)
    later.set_aside(mine)
    publish(store, mine)
    (store.scratch(mine.key) / "checkpoint").write_text("12345")
    found = collect_garbage(store.root.parent)
    assert (found["stages"], found["leftovers"], found["kept"]) == (0, 2, 1)
    assert store.unfinished() == []
    assert store.sound(mine.key)


# --- the executor -----------------------------------------------------------------------------------------------------


class Heard:
    """A listener that writes down what it hears."""

    def __init__(self) -> None:
        self.finishes: list[tuple[str, bool]] = []
        self.waits: list[str] = []

    def started(self, stage: Stage) -> None: ...
    def progress(self, stage: Stage, done: int, total: int, unit: str) -> None: ...

    def finished(self, stage: Stage, made: Finished, *, cached: bool, memory_mb: int = 0) -> None:
        self.finishes.append((stage.key, cached))

    def waiting(self, stage: Stage) -> None:
        self.waits.append(stage.key)


def work(one: Stage, inputs: Any, place: Workplace) -> dict[str, Any]:
    """A body that adds its number to that of its input."""
    before = int((inputs["before"].folder / "sum").read_text()) if inputs else 0
    (place.folder / "sum").write_text(str(before + one.params["number"]))
    return {"sum": before + one.params["number"]}


def chain(length: int, body: Body = work) -> list[Stage]:
    stages = [stage(0, "work", body)]
    for number in range(1, length):
        stages.append(stage(number, "work", body, before=stages[-1]))
    return stages


def test_the_executor_computes_what_is_missing_and_nothing_else(store: FolderStore) -> None:
    stages, heard = chain(5), Heard()
    executor = LocalExecutor(store)
    scheduler.run(stages[:3], executor, heard)
    scheduler.run(stages, executor, heard)
    cached = [(key, flag) for key, flag in heard.finishes[3:]]
    assert cached == [(one.key, number < 3) for number, one in enumerate(stages)]
    assert store.get(stages[-1].key).facts == {"sum": 10}


@pytest.mark.parametrize("killed_at", range(4))
def test_killed_within_any_stage_the_same_plan_goes_on_where_it_was(store: FolderStore, killed_at: int) -> None:
    calls: list[int] = []

    def body(one: Stage, inputs: Any, place: Workplace) -> dict[str, Any]:
        assert list(place.folder.iterdir()) == []
        calls.append(one.params["number"])
        facts = work(one, inputs, place)
        if calls == list(range(killed_at + 1)):
            raise KeyboardInterrupt
        return facts

    stages, executor = chain(4, body), LocalExecutor(store)
    with pytest.raises(KeyboardInterrupt):
        scheduler.run(stages, executor, Heard())
    scheduler.run(stages, executor, Heard())
    assert calls == [*range(killed_at + 1), *range(killed_at, 4)]
    assert store.get(stages[-1].key).facts == {"sum": 6}


def test_the_executor_waits_for_a_stage_that_another_process_holds(
    store: FolderStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    stages, heard = chain(2), Heard()
    with held_elsewhere(store, stages[0].key) as other:
        monkeypatch.setattr("time.sleep", lambda _: (other.kill(), other.wait()))
        scheduler.run(stages, LocalExecutor(store), heard)
    assert heard.waits == [stages[0].key]
    assert heard.finishes == [(stages[0].key, False), (stages[1].key, False)]


def test_a_full_disk_is_named_however_a_library_words_it(store: FolderStore) -> None:
    def body(*_: Any) -> dict[str, Any]:
        raise RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)")

    with pytest.raises(OSError, match="No space left on device") as caught:
        scheduler.run(chain(1, body), LocalExecutor(store), Heard())
    assert caught.value.filename == str(store.root)


def test_only_what_leads_to_a_wanted_stage_is_missing(store: FolderStore) -> None:
    stages = chain(4)
    assert missing(stages, store, lambda one: one is stages[2]) == stages[:3]
    publish(store, stages[1])
    assert missing(stages, store, lambda one: one is stages[2]) == stages[2:3], "finished work needs no ancestors"
    store.prune(stages[1].key)
    assert missing(stages, store, lambda one: one is stages[2]) == stages[:3], "a pruned one that is needed is missing"
    publish(store, stages[2])
    assert missing(stages, store, lambda one: one is stages[2]) == []
