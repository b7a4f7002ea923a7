"""Runs that are elsewhere: the command line with a real server of S3, as on a folder; killed, cut off, refused, twice at once."""

import importlib
import json
import os
import shutil
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from support import e2e, objects, small
from support.saboteur import FAULTS, Saboteur, in_turn
from support.waiting import until

from collapse_cli.engine.object_store import ObjectStore
from collapse_cli.engine.objects import CHECK, RemoteObjects
from collapse_cli.engine.remote_addresses import copy_of
from collapse_cli.records.elsewhere import following
from collapse_cli.run import garbage
from collapse_cli.view.server import server

pytestmark = pytest.mark.timeout(600)  # retries of a server that is away, and leases that end, are waited for
STRIKES = {
    "a step of training": e2e.strike("train", 2, when="tell", tell=2),
    "made, and nothing of it sent": e2e.strike("train", 2, when="published"),
}
LEASE = "10"  # seconds after which a lease ends here: longer than any process is held up
SOON = "2"  # of one that does end


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small.write_tiny(tmp_path_factory.mktemp("experiment"))


@pytest.fixture(scope="module")
def home(s3: objects.S3, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same experiment in a folder, `runs`, and in S3, at `whole`; the folder of copies is `one`."""
    home = tmp_path_factory.mktemp("elsewhere")
    config = small.write_tiny(home)
    with pytest.MonkeyPatch.context() as patch:
        objects.use(patch, s3.port, home / "one")
        first = e2e.run(config, home / "runs")
        other = e2e.collapse("run", config, "--runs-dir", address("whole"), "--json")
        assert other.code == 0, other.err
        assert other.json["computed"] == first["computed"] == len(s3.names("whole/store/records"))
    return home


@pytest.fixture(autouse=True)
def machine(s3: objects.S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Each test is on a machine of its own, which has seen nothing yet."""
    objects.use(monkeypatch, s3.port, tmp_path / "copies", COLLAPSE_LEASE_SECONDS=LEASE)
    return tmp_path / "copies"


def address(prefix: str) -> str:
    return f"s3://{objects.BUCKET}/{prefix}"


def copy(s3: objects.S3, tmp_path: Path) -> str:
    """The whole run for this test alone."""
    s3.copy("whole", tmp_path.name)
    return tmp_path.name


def rows(s3: objects.S3, prefix: str, name: str, scratch: Path) -> Any:
    """What the rows that are in S3 say, as `e2e.results` has it."""
    (scratch / name).mkdir(parents=True, exist_ok=True)
    (scratch / name / "metrics.jsonl").write_bytes(s3.read(f"{prefix}/runs/{name}/metrics.jsonl"))
    return e2e.results(scratch, name)


def states(s3: objects.S3, prefix: str) -> dict[str, str]:
    pages = s3.client.get_paginator("list_objects_v2").paginate(Bucket=objects.BUCKET, Prefix=f"{prefix}/store/")
    return {each["Key"]: str(each["LastModified"]) + each["ETag"] for page in pages for each in page["Contents"]}


def assert_whole(s3: objects.S3, prefix: str) -> None:
    """Each record has all its files."""
    names = s3.names(f"{prefix}/store")
    for name in names:
        if name.startswith("records/"):
            key = name.removeprefix("records/").removesuffix(".json")
            record = json.loads(s3.read(f"{prefix}/store/{name}"))
            files = {f"files/{key}/{value[:16]}/{file}" for file, value in record["files"].items()}
            assert files <= set(names)
    assert any(name.startswith("records/") for name in names)


# --- as in a folder ---------------------------------------------------------------------------------------------------


def test_the_rows_are_those_of_a_folder(home: Path, s3: objects.S3, tmp_path: Path) -> None:
    assert rows(s3, "whole", "tiny", tmp_path) == e2e.results(home / "runs")
    assert {name.rpartition("/")[2] for name in s3.names("whole/runs/tiny")} >= {
        "run.json", "plan.json", "metrics.jsonl", "events.jsonl", "samples.jsonl", "report.html",
    }  # fmt: skip
    assert json.loads(s3.read("whole/runs/tiny/run.json"))["status"] == "success"
    assert not [name for name in s3.names("whole") if "leases/" in name]
    assert_whole(s3, "whole")


def test_every_command_that_reads_does_so_on_another_machine(home: Path, machine: Path, tmp_path: Path) -> None:
    """With what it needs, and no more: of a model the weights are brought by `eval` alone."""
    there = ("--runs-dir", address("whole"))
    (listed,) = e2e.collapse("list", *there, "--json").json
    assert (listed["name"], listed["status"], listed["done"]) == ("tiny", "success", 2)
    assert f"runs in {address('whole')}" in " ".join(e2e.collapse("list", *there).out.split())
    status = e2e.collapse("status", "tiny", *there)
    assert f"{address('whole')}/runs/tiny" in "".join(status.out.split()).replace("│", "")
    here = e2e.collapse("compare", "tiny", "--runs-dir", home / "runs", "--json")
    assert e2e.collapse("compare", "tiny", *there, "--json").json == here.json
    for command in (["forecast", "tiny"], ["report", "tiny", "--out", str(tmp_path / "page.html")]):
        assert e2e.collapse(*command, *there).code == 0
    assert (tmp_path / "page.html").stat().st_size > 10_000
    assert not list(machine.rglob("*.safetensors"))
    dry = e2e.collapse("run", home / "tiny.toml", *there, "--dry-run", "--json")
    assert dry.json["stages"] == dry.json["cached"], dry.err
    assert not list(machine.rglob("model.safetensors"))
    scored = e2e.collapse("eval", "tiny", *there, "--json")
    assert scored.code == 0, scored.err
    assert {row["difference"] for row in scored.json} == {0.0}
    assert list(machine.rglob("model.safetensors"))
    assert "s3://" in " ".join(e2e.collapse("doctor", *there).out.split())


def test_a_finished_run_sends_nothing_again(home: Path, machine: Path, s3: objects.S3) -> None:
    """From another machine, which computes nothing and needs no model."""
    before = states(s3, "whole")
    again = e2e.collapse("run", home / "tiny.toml", "--runs-dir", address("whole"), "--json")
    assert again.code == 0, again.err
    assert (again.json["computed"], again.json["cached"]) == (0, len(s3.names("whole/store/records")))
    assert states(s3, "whole") == before
    assert not list(machine.rglob("model.safetensors"))


def test_weights_that_are_not_kept_leave_the_store(home: Path, s3: objects.S3, tmp_path: Path) -> None:
    made = e2e.collapse(
        "run", home / "tiny.toml", "--runs-dir", address(tmp_path.name), "--json", "--set", "store.keep_models=none"
    )
    assert made.code == 0, made.err
    assert rows(s3, tmp_path.name, "tiny", tmp_path) == e2e.results(home / "runs")
    assert not [name for name in s3.names(tmp_path.name) if name.endswith("/model.safetensors")]


def test_garbage_is_what_no_plan_elsewhere_reaches(
    home: Path, s3: objects.S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The runs there are looked at as often, however many stages go."""
    prefix = copy(s3, tmp_path)
    looks = list[str]()
    find = RemoteObjects.find
    monkeypatch.setattr(RemoteObjects, "find", lambda self, prefix: looks.append(prefix) or find(self, prefix))
    monkeypatch.setattr(garbage, "LOOK", 600.0)
    there = ("--runs-dir", address(prefix), "--json")
    before = s3.names(f"{prefix}/store")
    assert e2e.collapse("gc", *there).json["stages"] == 0
    assert s3.names(f"{prefix}/store") == before
    for name in s3.names(f"{prefix}/runs/tiny"):
        s3.client.delete_object(Bucket=objects.BUCKET, Key=f"{prefix}/runs/tiny/{name}")
    left = f"{prefix}/store/leases/{'0' * 64}/000001"  # of a machine that is gone
    s3.write(left, json.dumps({"host": "x", "pid": 1, "token": "0" * 32, "time": time.time() - 1000}).encode())
    at_work = e2e.plan(home / "runs")[0]["key"]
    with ObjectStore(f"{address(prefix)}/store").locked(at_work):
        before_looking = states(s3, prefix).keys()
        with monkeypatch.context() as patch:
            for name in ("write", "create", "upload", "remove"):
                patch.setattr(RemoteObjects, name, None)
            dry = e2e.collapse("gc", *there, "--dry-run")
        assert dry.json["stages"] == len(s3.names("whole/store/records")) - 1, "but for the one at work"
        assert states(s3, prefix).keys() == before_looking
    s3.client.delete_object(Bucket=objects.BUCKET, Key=left)  # it was written just now
    looks.clear()
    assert e2e.collapse("gc", *there).json["kept"] == 0
    assert s3.names(f"{prefix}/store") == [CHECK]
    assert looks.count("runs") < 5


def test_a_damaged_run_is_named_by_its_address_and_can_be_let_go(
    home: Path, s3: objects.S3, tmp_path: Path, machine: Path
) -> None:
    """Anybody who uses the bucket can clean it up."""
    prefix = copy(s3, tmp_path)
    there = ("--runs-dir", address(prefix))
    for file in ("plan.json", "run.json"):
        s3.write(f"{prefix}/runs/tiny/{file}", b"{")
        refused = e2e.collapse("gc", *there)
        assert (refused.code, refused.err.count("\n")) == (2, 1)
        assert refused.err.startswith(f"collapse: {address(prefix)}/runs/tiny/{file} is damaged")
        assert "collapse gc --without tiny" in refused.err
    for command in (["status", "tiny"], ["run", str(home / "tiny.toml")], ["list"], ["report", "tiny"]):
        result = e2e.collapse(*command, *there)
        said = "".join((result.out + result.err).split())
        assert f"{address(prefix)}/runs/tiny/run.jsonisdamaged" in said
        assert str(machine) not in said
    assert s3.names(f"{prefix}/store/records")
    assert e2e.collapse("gc", "--without", "tiny", *there).code == 0
    assert s3.names(f"{prefix}/store") == [CHECK]


def test_one_more_policy_takes_up_what_another_machine_made_and_a_damaged_object_is_made_again(
    home: Path, s3: objects.S3, tmp_path: Path
) -> None:
    """Generation 0's weights are needed by a policy more."""
    prefix, before = copy(s3, tmp_path), len(s3.names("whole/store/records"))
    (first,) = [
        stage["key"] for stage in e2e.plan(home / "runs") if stage["kind"] == "train" and stage["for"][0][2] == 0
    ]
    (weights,) = [name for name in s3.names(prefix) if first in name and name.endswith("/model.safetensors")]
    content = bytearray(s3.read(f"{prefix}/{weights}"))
    content[-1] ^= 1
    s3.write(f"{prefix}/{weights}", bytes(content))
    more = e2e.collapse("run", home / "tiny.toml", "--runs-dir", address(prefix), "--json", "--policy", "keep-50")
    assert more.code == 0, more.err
    assert "is removed and computed again" in more.err
    assert more.json["cached"] == before - 1
    after = rows(s3, prefix, "tiny", tmp_path)
    assert {where[0] for where in after} == {"keep-10", "keep-50"}
    assert {where: row for where, row in after.items() if where[0] != "keep-50"} == e2e.results(home / "runs")
    assert s3.read(f"{prefix}/{weights}") == s3.read(f"whole/{weights}")


@pytest.mark.slow
def test_worker_processes_share_the_store(config: Path, s3: objects.S3, tmp_path: Path) -> None:
    """With stages in shards, which pass through it, too."""
    argv = ["run", str(config), "--seeds", "0,1", "--generations", "0", "--jobs"]
    said = {"err": str(tmp_path / "err"), "forks": True}
    jobs = [{"argv": [*argv, "1", "--runs-dir", str(tmp_path / "runs")]}]
    jobs.append({"argv": [*argv, "2", "--shards", "2", "--runs-dir", address(tmp_path.name)], **said})
    assert e2e.drive(*jobs) == [[0], [0]], (tmp_path / "err").read_text()
    there = copy_of(address(tmp_path.name))
    assert rows(s3, tmp_path.name, "tiny", tmp_path / "rows") == e2e.results(tmp_path / "runs")
    events = e2e.read_lines(there / "tiny" / "events.jsonl")
    at_work, most = set[str](), 0
    for event in events:
        at_work = at_work | {event["key"]} if event["event"] == "started" else at_work - {event["key"]}
        most = max(most, len(at_work))
    assert most == 2, "not side by side"
    assert_whole(s3, tmp_path.name)


def test_a_browser_follows_runs_that_are_elsewhere(home: Path, s3: objects.S3, tmp_path: Path) -> None:
    """A run that comes to be there while they are looked at, and one that goes."""
    prefix = copy(s3, tmp_path)
    runs = copy_of(address(prefix))

    def listed() -> str:
        with urllib.request.urlopen(made.address) as answer:
            page: str = answer.read().decode()
        return page

    with following(runs), server(runs) as made:
        threading.Thread(target=made.serve_forever, daemon=True).start()
        assert address(prefix) in listed()
        assert ">tiny<" in listed()
        s3.copy(f"{prefix}/runs/tiny", f"{prefix}/runs/later")
        until(lambda: ">later<" in listed())
        for name in s3.names(f"{prefix}/runs/tiny"):
            s3.client.delete_object(Bucket=objects.BUCKET, Key=f"{prefix}/runs/tiny/{name}")
        until(lambda: ">tiny<" not in listed())
        made.shutdown()


def test_check_writes_there(home: Path, s3: objects.S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And says the same again on another machine, which compares nothing anew."""
    lines = (home / "text" / "train.txt").read_text().splitlines(keepends=True)
    (tmp_path / "made.txt").write_text("".join(line.replace("cat", "bird") for line in lines[:60]))
    argv = ["check", home / "text" / "train.txt", tmp_path / "made.txt", "--name", "texts", "--quick"]

    def what(said: e2e.Result) -> dict[str, Any]:
        return {name: value for name, value in said.json["checked"]["texts"].items() if name != "seconds"}

    here = e2e.collapse(*argv, "--runs-dir", tmp_path / "runs", "--json")
    there = e2e.collapse(*argv, "--runs-dir", address(tmp_path.name), "--json")
    assert there.code == here.code == 0, there.err
    assert what(there) == what(here)
    assert "check.json" in s3.names(f"{tmp_path.name}/runs/texts")
    monkeypatch.setenv("COLLAPSE_CACHE", str(tmp_path / "another"))
    monkeypatch.setattr("collapse_cli.check.side_by_side.examine", None)
    again = e2e.collapse(*argv, "--runs-dir", address(tmp_path.name), "--json")
    assert again.code == 0, again.err
    assert what(again) == what(here)


# --- killed, cut off, at once -----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_killed_anywhere_a_run_goes_on_here_and_on_another_machine(
    config: Path, s3: objects.S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same rows; what was published is not computed again, and what was made and not sent is sent."""

    def job(runs: str, **more: Any) -> dict[str, Any]:
        argv = ["run", str(config), "--runs-dir", runs, "--json"]
        name = runs.rpartition("/")[2]
        return {"argv": argv, "err": str(tmp_path / f"{name}.err"), "out": str(tmp_path / f"{name}.json"), **more}

    prefixes = {f"{tmp_path.name}-{number}": how for number, how in enumerate(STRIKES.values())}
    plain = job(str(tmp_path / "runs"))  # in the same process as the others: so many threads, so rounded
    codes = e2e.drive(plain, *(job(address(prefix), strike=how) for prefix, how in prefixes.items()))
    assert codes == [[0], [-9], [-9]], [path.read_text()[-1500:] for path in tmp_path.glob("*.err")]
    there = {}
    for prefix in prefixes:
        assert_whole(s3, prefix)
        assert json.loads(s3.read(f"{prefix}/runs/tiny/run.json"))["status"] == "started"
        (listed,) = e2e.collapse("list", "--runs-dir", address(prefix), "--json").json
        assert listed["at_work"] is False, "its own machine knows that it is dead"
        there[prefix] = len(s3.names(f"{prefix}/store/records"))
    elsewhere, unsent = prefixes
    there[unsent] += 1
    another = {
        "COLLAPSE_CACHE": str(tmp_path / "another machine"),
        "COLLAPSE_LEASE_SECONDS": SOON,
    }  # where leases end by themselves
    assert e2e.drive(job(address(unsent)), job(address(elsewhere), env=another)) == [[0], [0]]
    for prefix in prefixes:
        assert json.loads((tmp_path / f"{prefix}.json").read_text())["cached"] == there[prefix], prefix
        assert rows(s3, prefix, "tiny", tmp_path / "rows") == e2e.results(tmp_path / "runs")
        assert_whole(s3, prefix)


@pytest.mark.slow
def test_two_runs_at_once_share_a_store_and_one_run_is_of_one_process(
    config: Path, s3: objects.S3, tmp_path: Path
) -> None:
    """Two machines by two folders of copies; each stage is made once by both together; a second process on one run is refused."""
    jobs = []
    for name in ("one", "two"):
        argv = ["run", str(config), "--runs-dir", address(tmp_path.name), "--name", name, "--json"]
        said = {"out": str(tmp_path / f"{name}.json"), "err": str(tmp_path / f"{name}.err")}
        jobs.append({"argv": argv, "env": {"COLLAPSE_CACHE": str(tmp_path / name)}, **said})
    assert e2e.drive(jobs) == [[0, 0]], [path.read_text()[-1500:] for path in tmp_path.glob("*.err")]
    made = [json.loads((tmp_path / f"{name}.json").read_text()) for name in ("one", "two")]
    assert sum(one["computed"] for one in made) == len(s3.names(f"{tmp_path.name}/store/records"))
    one, two = (rows(s3, tmp_path.name, name, tmp_path / "rows") for name in ("one", "two"))
    assert one == two
    assert {where[0] for where in one} == {"keep-10"}


def test_a_second_process_on_one_run_is_refused(home: Path, tmp_path: Path, s3: objects.S3) -> None:
    prefix = copy(s3, tmp_path)
    code = (
        "import sys; from pathlib import Path; from collapse_cli.records.at_work import working\n"
        "with working(Path(sys.argv[1])): print(flush=True); sys.stdin.read()"
    )
    os.environ["COLLAPSE_CACHE"] = str(tmp_path / "another")
    held = copy_of(address(prefix)) / "tiny"
    os.environ["COLLAPSE_CACHE"] = str(tmp_path / "copies")
    with subprocess.Popen(
        [sys.executable, "-c", code, str(held)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "COLLAPSE_CACHE": str(tmp_path / "another")},
    ) as other:
        assert other.stdout is not None
        other.stdout.readline()
        second = e2e.collapse("run", home / "tiny.toml", "--runs-dir", address(prefix), "--policy", "keep-50")
        assert second.code == 2
        assert "works on the run 'tiny' in s3://" in second.err
        assert f"process {other.pid}" in second.err
        other.kill()
    assert "keep-50" not in s3.read(f"{prefix}/runs/tiny/run.json").decode()


@pytest.mark.slow
def test_a_connection_that_is_lost_is_waited_for_and_then_one_line_after_which_the_run_goes_on(
    config: Path, s3: objects.S3, tmp_path: Path
) -> None:
    """The first run ends where it waits for nothing; the second one loses the connection for seconds, and goes on."""
    argv = ["run", str(config), "--runs-dir", address(tmp_path.name)]
    with objects.Cut(s3.port, after=60) as cut, objects.Cut(s3.port, after=50, seconds=3) as mended:
        ways = [(cut, "0"), (mended, "200")]
        jobs = [
            {
                "argv": argv,
                **{stream: str(tmp_path / f"{seconds}.{stream}") for stream in ("out", "err")},
                "env": {
                    "AWS_ENDPOINT_URL": f"http://{objects.HOST}:{way.port}",
                    "COLLAPSE_OUTAGE_SECONDS": seconds,
                    "AWS_MAX_ATTEMPTS": "1",
                },
            }
            for way, seconds in ways
        ]
        assert e2e.drive(jobs[0]) == [[2]]
        assert_whole(s3, tmp_path.name)
        before = len(s3.names(f"{tmp_path.name}/store/records"))
        assert e2e.drive(jobs[1]) == [[0]]
        assert mended.since < float("inf")
    err = (tmp_path / "0.err").read_text()
    lines = [line for line in err.splitlines() if line.startswith("collapse: ")]
    assert lines[-1].startswith(f"collapse: {address(tmp_path.name)}"), err
    assert "cannot be reached" in lines[-1]
    assert "give the same command again" in lines[-1]
    assert "Traceback" not in err
    assert "it is asked again for 200 s" in (tmp_path / "200.out").read_text() + (tmp_path / "200.err").read_text()
    again = e2e.collapse("run", config, "--runs-dir", address(tmp_path.name), "--json")
    assert (again.code, again.json["computed"]) == (0, 0), again.err
    assert again.json["cached"] > before > 0
    assert len(rows(s3, tmp_path.name, "tiny", tmp_path / "rows")) == 2
    assert_whole(s3, tmp_path.name)


def test_requests_that_fail_now_and_then_change_nothing(
    s3: objects.S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Answered by an error, cut, reset, late, done and not answered, done twice: of each kind some."""
    config, prefix = small.write(tmp_path, "numbers", small.NUMBERS), tmp_path.name
    e2e.run(config, tmp_path / "runs", "--jobs", "1")
    with Saboteur(s3.port, in_turn(every=9)) as way:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{objects.HOST}:{way.port}")
        made = e2e.collapse("run", config, "--runs-dir", address(prefix), "--jobs", "1", "--json")
    assert made.code == 0, made.err
    assert all(way.done[fault] for fault in FAULTS), way.done
    copies = copy_of(address(prefix))
    assert small.rows_of(copies, "numbers") == small.rows_of(tmp_path / "runs", "numbers")
    assert s3.read(f"{prefix}/runs/numbers/metrics.jsonl") == (copies / "numbers" / "metrics.jsonl").read_bytes()
    assert_whole(s3, prefix)
    hidden = [name for name in s3.names(prefix) if "leases/" in name or name.startswith("store/.")]
    assert hidden == ["store/.check"]


# --- refused ----------------------------------------------------------------------------------------------------------


def refused(config: Path, runs: str, *told: str) -> str:
    """What `run` and `list` say, each in one line; nothing is made on this machine."""
    said = []
    for argv in (["run", str(config)], ["list"], ["gc"]):
        result = e2e.collapse(*argv, "--runs-dir", runs)
        assert result.code == 2, result.err
        assert result.out == ""
        assert result.err.count("\n") == 1, result.err
        said.append(result.err)
    assert all(word in said[0] for word in told), said[0]
    return said[0]


def test_what_cannot_be_used_is_one_line(
    config: Path, machine: Path, s3: objects.S3, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused(config, "s3://no-such-bucket/x", "there is no bucket 'no-such-bucket'", "s3://no-such-bucket/x")
    refused(config, "s4://bucket/x", "there is no protocol 's4'")
    refused(config, "memory://x", "gone when the command ends")
    refused(config, "s3://", "s3://BUCKET/PREFIX")
    refused(config, "s3://key:secret@bucket/x", "environment")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    refused(config, address("x"), "no credentials", "AWS_ACCESS_KEY_ID")
    objects.use(monkeypatch, 9, machine, AWS_MAX_ATTEMPTS="1")  # where nobody listens; asked less often than usual
    refused(config, address("y"), "cannot be reached")
    monkeypatch.delitem(importlib.import_module("fsspec.registry")._registry, "s3")
    monkeypatch.setitem(sys.modules, "s3fs", None)
    refused(config, address("z"), "pip install 'collapse-cli[s3]'")
    assert not machine.exists()
    assert s3.names("x") == []


def test_keys_that_are_refused_are_one_line(config: Path, s3: objects.S3, machine: Path) -> None:
    """The server checks signatures from the next request on."""
    s3.check_keys(True)
    try:
        refused(config, address("whole"), "the credentials are refused", "InvalidAccessKeyId")
    finally:
        s3.check_keys(False)
    assert not machine.exists()


def test_runs_elsewhere_are_named_and_not_addressed(home: Path) -> None:
    for argv in (["status", address("whole/tiny")], ["eval", address("whole/tiny")]):
        result = e2e.collapse(*argv)
        assert (result.code, result.err.count("\n")) == (2, 1)
        assert "--runs-dir" in result.err
    missing = e2e.collapse("status", "tinny", "--runs-dir", address("whole"))
    assert f"there is no run 'tinny' in {address('whole')}" in missing.err
    assert "tiny" in missing.err


def test_a_folder_that_machines_share_is_worked_on_without_locks(home: Path, tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    made = e2e.collapse("run", home / "tiny.toml", "--runs-dir", f"file://{shared}", "--json")
    assert made.code == 0, made.err
    hidden = [path for path in shared.rglob("*") if path.name.endswith(".lock") or path.name.startswith(".")]
    assert [path.relative_to(shared).as_posix() for path in hidden] == ["store/.check"]
    kept = tmp_path / "kept"
    shutil.copytree(shared / "runs", kept)
    assert e2e.results(kept) == e2e.results(home / "runs")
