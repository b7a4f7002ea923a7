"""The store that is objects: whole or not there at all, leases in the place of locks, nothing sent twice, copies that are checked.

In memory, in a shared folder, and on a real server of S3; two folders of copies stand for two machines.
"""

import errno
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support import objects
from support.kinds import kind as kind_of
from support.waiting import PATIENCE, until

from collapse_cli.engine import leases, scheduler
from collapse_cli.engine.executors.local import LocalExecutor
from collapse_cli.engine.object_store import ObjectStore
from collapse_cli.engine.objects import CHECK, RemoteObjects
from collapse_cli.engine.observer import Observer
from collapse_cli.engine.remote_addresses import address_of, check_path, copy_of
from collapse_cli.engine.stage import Finished, Stage
from collapse_cli.engine.store import store_at
from collapse_cli.errors import ConfigError, InputError, UnreachableError

SOON = "1.2"  # seconds after which a lease ends here
HOLDER = """
import sys
from collapse_cli.engine.object_store import ObjectStore
with ObjectStore(sys.argv[1]).locked(sys.argv[2]) as mine:
    print(mine, flush=True)
    sys.stdin.read()
"""


@pytest.fixture(params=["file", "s3"])
def address(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Where the store is; this machine's copies are in `tmp_path / "one"`."""
    monkeypatch.setenv("COLLAPSE_CACHE", str(tmp_path / "one"))
    monkeypatch.setenv("COLLAPSE_LEASE_SECONDS", SOON)
    if request.param == "s3":
        objects.use(monkeypatch, request.getfixturevalue("s3").port, tmp_path / "one")
        return f"s3://{objects.BUCKET}/{tmp_path.name}/store"
    return f"{request.param}://{'/' if request.param == 'file' else ''}{str(tmp_path / 'there' / 'store').lstrip('/')}"


@pytest.fixture
def shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A store in a shared folder alone, where what is tested has nothing to do with the server."""
    monkeypatch.setenv("COLLAPSE_CACHE", str(tmp_path / "one"))
    monkeypatch.setenv("COLLAPSE_LEASE_SECONDS", SOON)
    return f"file://{tmp_path / 'there' / 'store'}"


class Nobody(Observer):
    """Hears nothing."""


def machine(address: str, name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ObjectStore:
    """The same store as another machine sees it."""
    monkeypatch.setenv("COLLAPSE_CACHE", str(tmp_path / name))
    return ObjectStore(address)


def body(stage: Stage, inputs: Any, place: Any) -> dict[str, Any]:
    (place.folder / "model.safetensors").write_bytes(b"weights" * 1000)
    (place.folder / "deep").mkdir()
    (place.folder / "deep" / "config.json").write_text("{}")
    return {
        "number": stage.params["number"],
        "before": [made.file("model.safetensors").stat().st_size for made in inputs.values()],
    }


def stage(number: int = 0, **inputs: Stage) -> Stage:
    return Stage(kind_of("train", body=body), {"number": number}, inputs, seed=3)


def compute(store: ObjectStore, *stages: Stage) -> None:
    scheduler.run(stages, LocalExecutor(store), Nobody())


def made_here(store: ObjectStore, one: Stage) -> Finished:
    """A stage made, and published under its lock."""
    with store.locked(one.key) as mine:
        assert mine
        facts = body(one, {}, type("Place", (), {"folder": store.attempt(one.key)}))
        return store.publish(one, facts, 1.23456)


# --- publishing and reading -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("address", ["memory", "file", "s3"], indirect=True)
def test_another_machine_finds_what_one_published(
    address: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """All that is known of it at once; its files when they are asked for, and then as they were written."""
    one, first = store_at(address), stage(1)
    assert isinstance(one, ObjectStore)
    one.begin()
    second = stage(2, data=first)
    assert not one.has(first.key)
    compute(one, first, second)

    other = machine(address, "two", monkeypatch, tmp_path)
    assert other.has(first.key)
    assert other.keys() == sorted([first.key, second.key]) == one.keys()
    found = other.get(second.key)
    assert found.facts == {"number": 2, "before": [7000]}
    assert other.name_of(second.key) == f"store/{second.key[:2]}/{second.key}"
    copies = tmp_path / "two"
    assert not list(copies.rglob("*.safetensors")), "files that nobody asked for were brought"
    assert found.file("model.safetensors").read_bytes() == b"weights" * 1000
    assert found.file("deep/config.json").read_text() == "{}"
    assert len(list(copies.rglob("*.safetensors"))) == 1
    assert other.sound(second.key)
    assert other.size(second.key) == 7002
    with pytest.raises(FileNotFoundError, match="not in the store"):
        other.get(stage(9).key)
    assert not other.has("../" * 3)


class LostError(Exception):
    """The process ends here."""


@pytest.mark.parametrize(
    ("address", "lost"),
    [("file", "before the files"), ("file", "first file"), ("s3", "first file"), ("s3", "record")],
    indirect=["address"],
)
def test_a_stage_is_there_whole_or_not_at_all_and_nothing_is_sent_twice(
    lost: str, address: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Whatever a kill left unsent is sent by the next attempt, without computing it again."""
    one, made = ObjectStore(address), stage()
    uploaded: list[str] = []
    upload, create = RemoteObjects.upload, RemoteObjects.create

    def dying_upload(self: RemoteObjects, path: Path, name: str) -> None:
        if lost == "before the files" or (lost == "first file" and uploaded):
            raise LostError
        upload(self, path, name)
        uploaded.append(name)

    def dying_create(self: RemoteObjects, name: str, content: bytes) -> bool:
        if name.startswith("records/"):
            raise LostError
        return create(self, name, content)

    monkeypatch.setattr(RemoteObjects, "at_once", lambda self, work, items: [work(item) for item in items])
    with monkeypatch.context() as dying:
        dying.setattr(RemoteObjects, "upload", dying_upload)
        dying.setattr(RemoteObjects, "create", dying_create)
        with pytest.raises(LostError):
            compute(one, made)
    assert len(uploaded) == {"before the files": 0, "first file": 1, "record": 2}[lost]
    monkeypatch.setattr(
        RemoteObjects, "upload", lambda self, path, name: (upload(self, path, name), uploaded.append(name))
    )
    other = machine(address, "two", monkeypatch, tmp_path)
    assert not other.has(made.key)
    assert not other.holds(made.key)
    assert other.unfinished() == ([] if lost == "before the files" else [made.key])

    again = machine(address, "one", monkeypatch, tmp_path)
    monkeypatch.setattr("collapse_cli.engine.stage.StageKind.body", None, raising=False)
    compute(again, made)
    assert len(uploaded) == len(set(uploaded)) == 2
    assert machine(address, "two", monkeypatch, tmp_path).sound(made.key)


def test_of_many_who_create_one_succeeds(address: str) -> None:
    place, won = RemoteObjects(address), list[int]()
    place.check()
    many = [RemoteObjects(address) for _ in range(8)]
    place.at_once(
        lambda number: won.append(number) if many[number].create("records/one", str(number).encode()) else None,
        range(8),
    )
    assert len(won) == 1
    assert place.read("records/one") == str(won[-1]).encode()
    assert place.create("records/one", str(won[-1]).encode()), (
        "what is ours already was created, whatever became of the answer"
    )
    assert not place.create("records/one", b"another")


def test_a_server_that_overwrites_is_refused_before_anything_is_made(
    address: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As servers of S3 do that do not know If-None-Match."""
    monkeypatch.setattr(RemoteObjects, "create", lambda self, name, content: self.write(name, content) or True)
    store = ObjectStore(address)
    with pytest.raises(ConfigError, match="does not know If-None-Match"):
        store.begin()
    assert RemoteObjects(address).find("") == {}
    assert RemoteObjects(address).read(CHECK) is None
    assert not copy_of(address).exists()


def test_whether_a_server_overwrites_is_tried_with_one_object_that_stays(address: str) -> None:
    """So that none is left for good where keys are refused at any moment of that."""
    place = RemoteObjects(address)
    place.check()
    first = place.read(CHECK)
    assert first
    place.check()
    ObjectStore(address).begin()
    assert place.read(CHECK) == first
    assert (place.find(""), place.attempts()) == ({}, {}), "it is no stage, and nothing that a kill left"
    place.remove([CHECK])
    place.check()
    assert place.read(CHECK) not in (None, first)


def test_a_connection_that_is_lost_is_waited_for_once_there_was_one(
    s3: objects.S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    place = f"s3://{objects.BUCKET}/{tmp_path.name}"

    def through(way: objects.Cut, seconds: float) -> RemoteObjects:
        several = {"AWS_MAX_ATTEMPTS": "1", "COLLAPSE_OUTAGE_SECONDS": str(seconds)}
        objects.use(monkeypatch, way.port, tmp_path, **several)
        return RemoteObjects(place)

    with objects.Cut(s3.port, after=2, seconds=2) as way:
        there = through(way, 60)
        there.write("one", b"1")
        there.write("two", b"2")
        assert there.create("three", b"3"), "the other side may have had it, and its answer be lost"
        assert sorted(there.find("")) == ["one", "three", "two"]
    assert caplog.text.count("it is asked again for 60 s") == 1
    with objects.Cut(s3.port, after=1) as way:
        there = through(way, 0.1)
        there.write("one", b"1")
        for _ in range(2):
            with pytest.raises(UnreachableError, match="cannot be reached"):
                there.read("one")
        assert caplog.text.count("it is asked again") == 2
    with objects.Cut(s3.port, after=0) as way, pytest.raises(UnreachableError):
        through(way, 60).read("one")
    assert caplog.text.count("it is asked again") == 2, "who was never reached is not waited for"


# --- damage -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "damage"),
    [("file", "changed"), ("file", "record"), ("file", "record of another"), ("s3", "changed"), ("s3", "missing")],
    indirect=["address"],
)
def test_damage_on_the_other_side_is_found_and_made_again(
    damage: str, address: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    one, first, there = ObjectStore(address), stage(1), RemoteObjects(address)
    second = stage(2, data=first)
    compute(one, first)
    (weights,) = [name for name in there.find(f"files/{first.key}") if name.endswith(".safetensors")]
    record = f"records/{first.key}.json"
    if damage == "changed":
        there.write(weights, b"weightz" * 1000)
    elif damage == "missing":
        there.remove([weights])
    elif damage == "record":
        content = there.read(record)
        assert content is not None
        there.write(record, content.replace(b"1", b"2", 1))
    else:
        compute(one, stage(3))
        there.write(record, there.read(f"records/{stage(3).key}.json") or b"")

    other = machine(address, "two", monkeypatch, tmp_path)
    assert not other.sound(first.key)
    assert other.fault(first.key)
    compute(other, second)
    assert "is removed and computed again" in caplog.text
    assert other.sound(first.key)
    assert machine(address, "three", monkeypatch, tmp_path).sound(first.key), "and so it is sent"
    assert there.read(weights) == b"weights" * 1000
    assert one.sound(first.key)
    assert one.get(first.key).facts == other.get(first.key).facts


def test_what_is_damaged_again_and_again_is_said(shared: str, monkeypatch: pytest.MonkeyPatch) -> None:
    one, there = ObjectStore(shared), RemoteObjects(shared)
    for _ in range(2):
        compute(one, stage())
        there.write(f"records/{stage().key}.json", b"{}")
        one._list()
    compute(one, stage())
    there.write(f"records/{stage().key}.json", b"{}")
    one._list()
    with pytest.raises(InputError, match=r"damaged again .*check that store"):
        compute(one, stage())


def test_a_damaged_copy_on_this_machine_is_fetched_again(
    shared: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    compute(ObjectStore(shared), stage())
    (copy,) = (tmp_path / "one").rglob("*.safetensors")
    copy.write_bytes(b"weightz" * 1000)
    again = machine(shared, "one", monkeypatch, tmp_path)
    assert again.sound(stage().key)
    assert "is damaged" in caplog.text
    assert copy.read_bytes() == b"weights" * 1000


def test_of_several_on_one_machine_one_brings_a_stage(
    shared: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else each would bring it, and the slower one might remove what the faster one reads."""
    compute(ObjectStore(shared), stage())
    several = [machine(shared, "two", monkeypatch, tmp_path) for _ in range(2)]
    brought, waits, download = list[str](), threading.Event(), RemoteObjects.download

    def late(self: RemoteObjects, name: str, path: Path) -> bool:
        brought.append(name)
        waits.wait(PATIENCE)
        return download(self, name, path)

    monkeypatch.setattr(RemoteObjects, "download", late)
    with ThreadPoolExecutor(2) as pool:
        found = [pool.submit(store.sound, stage().key) for store in several]
        until(lambda: len(brought) >= 2)
        time.sleep(0.2)  # in which the other one would have begun
        waits.set()
        assert [one.result() for one in found] == [True, True]
    assert sorted(brought) == sorted(set(brought)), "each file once"
    assert all(store.get(stage().key).file("model.safetensors").stat().st_size == 7000 for store in several)


def test_a_full_disk_of_copies_is_named(shared: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not the other side, which has room."""

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    compute(ObjectStore(shared), stage())
    other = machine(shared, "two", monkeypatch, tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(RemoteObjects, "download", full)
        with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)) as caught:
            other.get(stage().key).file("model.safetensors")
        assert Path(caught.value.filename).is_relative_to(tmp_path / "two")
    assert other.get(stage().key).file("model.safetensors").stat().st_size == 7000
    assert other.sound(stage().key)


# --- leases -----------------------------------------------------------------------------------------------------------


class Clock:
    """The clock of a machine that waits, moved by hand: what the test does takes no time by it, however busy this machine is."""

    def __init__(self, store: ObjectStore) -> None:
        """That of the machine which sees the store so."""
        self.now, self.seconds = 0.0, store._leases.seconds
        self.time, self.sleep, self._store = time.time, time.sleep, store

    def monotonic(self) -> float:
        return self.now

    def takes(self, key: str, after: float) -> bool:
        """Whether it takes a lease when so much of the time of one has passed by its clock."""
        self.now += after * self.seconds
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(leases, "time", self)
            with self._store.locked(key) as mine:
                return mine


@pytest.mark.parametrize("address", ["s3"], indirect=True)
def test_a_lease_is_held_by_one_machine_and_given_back(
    address: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    one, key, objects_there = ObjectStore(address), stage().key, RemoteObjects(address)
    two = Clock(machine(address, "two", monkeypatch, tmp_path))

    def written() -> dict[str, bytes | None]:
        return {name: objects_there.read(name) for name in objects_there.find("leases")}

    def renewed_since(before: dict[str, bytes | None]) -> bool:
        return written() != before

    with one.locked(key) as mine:
        assert mine
        for _ in range(3):  # longer than it lasts: it is renewed
            assert not two.takes(key, after=0.9)
            until(partial(renewed_since, written()))
        assert two.takes(stage(1).key, after=0.0)
    assert not two.takes(key, after=0.01), "nobody is asked again at once"
    assert two.takes(key, after=0.1)
    assert objects_there.find("leases") == {}


def holder(address: str, key: str) -> "subprocess.Popen[str]":
    """Another process that holds the lock of a key."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, address, key], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline().strip() == "True"
    return process


@pytest.mark.parametrize("where", ["this machine", "another machine"])
def test_the_lease_of_a_killed_process_ends(
    where: str, shared: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """At once on its own machine, which knows that it is dead; elsewhere when it was not renewed for its time."""
    key, here = stage().key, where == "this machine"
    with holder(shared, key) as process:
        store = Clock(machine(shared, "one" if here else "two", monkeypatch, tmp_path))
        assert not store.takes(key, after=0.0)
        process.send_signal(signal.SIGKILL)
    assert store.takes(key, after=0.1) == here
    if not here:
        assert not store.takes(key, after=0.85), "it was renewed before the first look, or between that and its end"
        assert store.takes(key, after=0.2)


def test_a_lease_that_ended_before_it_was_seen_is_garbage_and_taken_at_once(shared: str) -> None:
    """By the times that the other side gives: its holder was killed on another machine, and nobody was there to see it renewed."""
    key, there = stage().key, RemoteObjects(shared)
    lease = f"leases/{key}/000001"
    held = {"for": key, "host": "another", "pid": 1, "token": "0" * 32, "beat": 1, "time": time.time()}
    there.write(lease, json.dumps(held).encode())
    assert ObjectStore(shared).unfinished() == [], "it may be renewed yet"
    before = time.time() - 3 * float(SOON)
    os.utime(Path(shared.removeprefix("file://"), lease), (before, before))
    assert ObjectStore(shared).unfinished() == [key]
    with ObjectStore(shared).locked(key) as mine:
        assert mine
    assert [path for path in Path(shared.removeprefix("file://")).rglob("*") if path.is_file()] == []


def test_the_other_side_says_when_an_object_was_written(address: str) -> None:
    there = RemoteObjects(address)
    there.write("one", b"1")
    about = there.about("one")
    assert about is not None
    assert abs(about.written - time.time()) < 60, "in other units, or of another time zone"


@pytest.mark.parametrize("days", [-400, 400])
def test_a_clock_that_is_wrong_takes_nothing_from_who_is_at_work(
    days: int, shared: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    one, key = ObjectStore(shared), stage().key
    with one.locked(key) as mine:
        assert mine
        wrong = SimpleNamespace(time=lambda: time.time() + 86_400 * days, monotonic=time.monotonic, sleep=time.sleep)
        monkeypatch.setattr(leases, "time", wrong)
        with machine(shared, "two", monkeypatch, tmp_path).locked(key) as other:
            assert not other


@pytest.mark.parametrize(
    "odd", ['"pid": Infinity', '"time": 1' + "0" * 400, '"time": NaN', '"pid": null', '"host": 7', '"token": []']
)
def test_a_lease_that_says_odd_things_is_somebodys(odd: str, shared: str) -> None:
    """Until it ends, as any that is not renewed."""
    key, there = stage().key, RemoteObjects(shared)
    held = '{"host": "another", "pid": 1, "token": "' + "0" * 32 + '", "time": 1.0, ' + odd + "}"
    there.write(f"leases/{key}/000001", held.encode())
    store = Clock(ObjectStore(shared))
    assert not store.takes(key, after=0.0)
    assert store._store.unfinished() == []
    assert (store._store._leases.heard_of(key) or 0.0) >= 0.0
    assert store._store._leases.holder(key)
    assert not store.takes(key, after=0.9)
    assert store.takes(key, after=0.2)


def test_who_was_taken_for_dead_and_was_not_does_no_harm(
    shared: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A paused process goes on when another one has published: that one's stage counts, and both have it."""
    one, made = ObjectStore(shared), stage()
    two = machine(shared, "two", monkeypatch, tmp_path)
    with one.locked(made.key) as mine:
        assert mine
        one._leases._end.set()  # paused: it renews nothing
        end = time.monotonic() + PATIENCE
        while not two.has(made.key):
            with two.locked(made.key) as other:
                if other:
                    (two.attempt(made.key) / "model.safetensors").write_bytes(b"theirs")
                    two.publish(made, {"whose": "theirs"}, 1.0)
            assert time.monotonic() < end
            time.sleep(0.05)
        (one.attempt(made.key) / "model.safetensors").write_bytes(b"ours")
        published = one.publish(made, {"whose": "ours"}, 1.0)
    assert published.facts == {"whose": "theirs"}
    assert published.file("model.safetensors").read_bytes() == b"theirs"
    assert "was published by another process meanwhile" in caplog.text
    assert machine(shared, "three", monkeypatch, tmp_path).sound(made.key)


# --- what leaves it ---------------------------------------------------------------------------------------------------


def test_pruning_and_removing(address: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    one, made = ObjectStore(address), stage()
    compute(one, made, stage(1))
    with one.locked(made.key):
        assert one.prune(made.key) == 7000
    for store in (one, machine(address, "two", monkeypatch, tmp_path)):
        assert not store.has(made.key)
        assert store.has(made.key, whole=False)
        assert store.get(made.key).file("deep/config.json").read_text() == "{}"
        assert not store.get(made.key).file("model.safetensors").exists()
    compute(one, made)  # made again where it is needed
    assert machine(address, "four", monkeypatch, tmp_path).sound(made.key)
    with one.locked(made.key):
        assert one.remove(made.key) == 7002
    assert one.keys() == [stage(1).key] == machine(address, "five", monkeypatch, tmp_path).keys()
    assert one.unfinished() == []
    assert [name for name in RemoteObjects(address).find("") if made.key in name] == []


def test_what_a_killed_machine_sent_of_a_stage_is_garbage(shared: str) -> None:
    one, key = ObjectStore(shared), stage().key
    RemoteObjects(shared).write(f"files/{key}/0123456789abcdef/model.safetensors", b"12345")
    assert one.unfinished() == [key]
    assert one.leftover_size(key) == one.clear(key) == 5
    assert one.unfinished() == []


def test_what_killed_writes_left_goes_after_a_day(shared: str) -> None:
    """A large file that was being copied, and what the server was asked with; by its own clock, and none that may be at work."""
    store, root = ObjectStore(shared), Path(shared.removeprefix("file://"))
    compute(store, stage())
    whole = {path for path in root.rglob("*") if path.is_file()}
    for name in ("." + "a" * 32, ".clock-" + "b" * 32, ".check-" + "c" * 32, ".mine"):
        (root / name).write_bytes(b"12345")
    assert store.drop_copies([stage().key]) == (0, 0)
    for path in root.glob(".*"):
        os.utime(path, (time.time() - 90_000,) * 2)
    assert store.drop_copies([stage().key], dry_run=True) == (3, 15)
    assert store.drop_copies([stage().key]) == (3, 15)
    assert {path for path in root.rglob("*") if path.is_file()} == whole | {root / ".mine"}


def test_a_record_that_this_machine_no_longer_has_as_it_was_is_fetched_again(
    shared: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Or came so by the line: the stage is whole on the other side, and is not removed there."""
    one = ObjectStore(shared)
    compute(one, stage())
    there = Path(shared.removeprefix("file://"), "records", f"{stage().key}.json")
    before = there.stat()
    other = machine(shared, "two", monkeypatch, tmp_path)
    assert other.has(stage().key)
    (kept,) = other.here.glob(".records/*.json")
    kept.write_bytes(kept.read_bytes().replace(b'"seconds"', b'"sfconds"'))
    read, flipped = RemoteObjects.read, list[str]()

    def once(self: RemoteObjects, name: str) -> bytes | None:
        content = read(self, name)
        if content is not None and name.startswith("records/") and not flipped:
            flipped.append(name)
            return content[:-30] + b"0" + content[-29:]
        return content

    third = machine(shared, "three", monkeypatch, tmp_path)
    assert machine(shared, "two", monkeypatch, tmp_path).has(stage().key)
    monkeypatch.setattr(RemoteObjects, "read", once)
    assert third.has(stage().key)
    assert flipped
    assert there.stat() == before


def test_copies_of_what_is_gone_are_dropped(shared: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Another machine removed one stage, and the weights of another; what is planned here, and was not sent yet, stays."""
    one, gone, unsent, pruned = ObjectStore(shared), stage(1), stage(2), stage(4)
    compute(one, gone, stage(3), pruned)
    monkeypatch.setattr(ObjectStore, "_send", lambda self, key: None)
    with one.locked(unsent.key):
        (one.attempt(unsent.key) / "model.safetensors").write_bytes(b"12345")
        one._here.publish(unsent, {}, 1.0)
    with (two := machine(shared, "two", monkeypatch, tmp_path)).locked(gone.key) as mine:
        assert mine
        two.remove(gone.key)
        two.prune(pruned.key)
    here = machine(shared, "one", monkeypatch, tmp_path)
    assert here.drop_copies({unsent.key, stage(3).key}, dry_run=True) == (
        2,
        sum(map(here._here.size, (gone.key, pruned.key))),
    )
    assert here.drop_copies({unsent.key, stage(3).key})[0] == 2
    assert here._here.keys() == sorted([unsent.key, stage(3).key])
    assert {path.name[:64] for path in (here._here.root / ".records").iterdir()} == {stage(3).key, pruned.key}
    assert here.drop_copies(set())[0] == 1
    assert here._here.keys() == [stage(3).key]


# --- addresses --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("address", ["s3://bucket", "s3://bucket/a/b", "file:///a/b", "memory://x"])
def test_the_folder_of_an_address_says_which_it_is(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLLAPSE_CACHE", str(tmp_path))
    assert address_of(copy_of(address)) == address == address_of(copy_of(f"{address}/"))
    assert address_of(copy_of(address) / "store") == f"{address}/store"
    assert address_of(tmp_path / "runs") == address_of(Path("/elsewhere/s3/bucket")) == ""


@pytest.mark.parametrize(
    "address", ["s3://", "s3://bucket//x", "s3://bucket/../x", "s3://key:word@bucket", "file://x", "s3://a/\n"]
)
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(ConfigError) as caught:
        copy_of(address)
    assert "\n" not in str(caught.value)
    assert "word" not in str(caught.value).replace("password", "")


@pytest.mark.parametrize(
    "path", ["s3:/bucket/x", "s3:bucket", "S3:/bucket", "s3//bucket/x", "file:/x", "file:x", "gs:/bucket"]
)
def test_an_address_that_was_written_wrongly_is_no_path(path: str) -> None:
    """A folder of that name would be made, and the runs would lie there."""
    with pytest.raises(ConfigError, match="begins like one"):
        check_path(path)
    check_path(f"./{path}")


@pytest.mark.parametrize("path", ["runs", "s3/x", "a:b", "C:/runs", "C:\\runs", "../s3:/x", "s3", "file", "files//x"])
def test_a_path_is_a_path(path: str) -> None:
    check_path(path)


def test_a_protocol_in_capitals_is_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLLAPSE_CACHE", str(tmp_path))
    assert copy_of("S3://bucket/X") == copy_of("s3://bucket/X")


@pytest.mark.parametrize(
    ("name", "value", "address", "said"),
    [
        ("AWS_ENDPOINT_URL", "127.0.0.1:1", "s3://bucket", "cannot be used: Invalid endpoint: 127.0.0.1:1; correct"),
        ("AWS_ENDPOINT_URL", "http://127.0.0.1:1", "s3://bucket", "cannot be reached .*, or correct AWS_ENDPOINT_URL in the environment$"),
        ("AWS_DEFAULT_REGION", "us east", "s3://bucket", "cannot be used: .*us east.*; correct .*AWS_DEFAULT_REGION"),
        ("AWS_ENDPOINT_URL", "http://127.0.0.1:1", "s3://buc ket/x", "cannot be used: no bucket can be called 'buc ket'; correct it"),
    ],
)  # fmt: skip
def test_what_is_wrong_in_the_environment_is_no_outage(
    name: str, value: str, address: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is waited for, and the same command would fail again."""
    for key, usual in objects.KEYS.items():
        monkeypatch.setenv(key, usual)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")  # else four seconds pass, in botocore
    monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match=said) as caught:
        RemoteObjects(address).find("runs")
    assert "?" not in str(caught.value)


def test_a_record_names_no_file_outside_its_stage(shared: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What is in the place of a hash is a part of an object's name."""
    from collapse_cli.engine import sealed

    compute(ObjectStore(shared), stage())
    place, there = f"records/{stage().key}.json", RemoteObjects(shared)
    record = json.loads(there.read(place) or b"")
    record["files"]["model.safetensors"] = "../../../secret"
    there.write(place, sealed.sealed(record).encode())
    other = machine(shared, "two", monkeypatch, tmp_path)
    assert not other.has(stage().key)
    assert "no record of a stage" in other.fault(stage().key)


def test_nothing_is_said_twice(shared: str, caplog: pytest.LogCaptureFixture) -> None:
    """A plain run of a stage warns of nothing."""
    caplog.set_level(logging.WARNING)
    compute(ObjectStore(shared), stage(), stage(1))
    assert caplog.text == ""
    assert os.environ["COLLAPSE_LEASE_SECONDS"] == SOON


def test_a_server_that_is_not_amazons_gets_none_of_its_new_checksums(monkeypatch: pytest.MonkeyPatch) -> None:
    """Since 1.36 botocore sends them with every object; servers that do not know them answer that the signature is wrong."""
    pytest.importorskip("s3fs")
    heads: list[str] = []

    class Server(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"  # which answers a client that asks whether it may go on

        def do_PUT(self) -> None:
            heads.extend(name.lower() for name in self.headers)
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    for key, usual in objects.KEYS.items():
        monkeypatch.setenv(key, usual)
    with ThreadingHTTPServer((objects.HOST, 0), Server) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{objects.HOST}:{server.server_address[1]}")
        RemoteObjects("s3://bucket/x").write("name", b"content")
        monkeypatch.setenv("AWS_REQUEST_CHECKSUM_CALCULATION", "when_supported")
        asked = len(heads)
        RemoteObjects("s3://bucket/x").write("name", b"content")
        server.shutdown()
    assert "content-length" in heads[:asked]
    assert not [name for name in heads[:asked] if "checksum" in name]
    assert [name for name in heads[asked:] if "checksum" in name], "who asks for them gets them"


def test_folders_that_somebody_made_on_the_servers_page_are_no_files(
    s3: objects.S3, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """They are objects of no bytes whose names end with a slash."""
    objects.use(monkeypatch, s3.port, tmp_path / "one")
    for name in ("", "runs/", "runs/a/"):
        s3.write(f"{tmp_path.name}/{name}", b"")
    there = RemoteObjects(f"s3://{objects.BUCKET}/{tmp_path.name}")
    there.write("runs/a/run.json", b"{}")
    assert list(there.find("runs")) == ["runs/a/run.json"]
    assert there.folders("runs") == ["a"]
