"""The server of `collapse view`: what it shows, how it follows, and what it refuses."""

import gzip
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import e2e
from support.instrumented import write_run
from support.pages import Text
from support.viewed import POLICIES, Live, ask, serving
from support.waiting import PATIENCE

from collapse_cli import report
from collapse_cli.engine import sealed
from collapse_cli.records.at_work import working
from collapse_cli.records.listing import RunFacts
from collapse_cli.records.rundir import RunFolder
from collapse_cli.report import write_report
from collapse_cli.view import kept
from collapse_cli.view import runs as view_runs
from collapse_cli.view import server as view_server
from collapse_cli.view.addresses import asked
from collapse_cli.view.kept import LONGEST_REST, REST, Kept
from collapse_cli.view.server import HOST, Server

SECRET = "a line of nobody's business"
HOSTILE_NAME = "<img src=x onerror=window.pwned=1>"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run, one at work, one interrupted, two that are damaged, and what no server may show."""
    folder = tmp_path_factory.mktemp("viewed") / "runs"
    write_run(folder, "quick", policies=POLICIES, generations=2)
    write_run(folder, "other", policies=POLICIES[:1], generations=2, entropy=1)
    write_run(folder, "stopped", policies=POLICIES[:1], generations=2, missing=[("keep-0", 0, 2)], status="interrupted")
    for name in ("torn", HOSTILE_NAME):
        (folder / name).mkdir()
        (folder / name / "run.json").write_text("{")
    for place in (folder.parent, folder, folder / "store", folder / "quick"):
        place.mkdir(exist_ok=True)
        (place / "secret.txt").write_text(SECRET)
    (folder / "linked").symlink_to(folder.parent, target_is_directory=True)
    return folder


@pytest.fixture(scope="module")
def made(runs: Path) -> Iterator[Server]:
    with serving(runs) as server:
        yield server


# --- what it shows ----------------------------------------------------------------------------------------------------


def test_the_first_page_lists_the_runs_with_their_states(made: Server) -> None:
    page = Text(ask(made, "/").text)
    for words in ("quick", "finished", "3 of 3 generations", "interrupted", "2 of 3", "keep-0, keep-10", "damaged"):
        assert words in page.said
    assert HOSTILE_NAME in page.said, "as text"
    assert "<img" not in ask(made, "/").text
    assert ask(made, "/lines").text in ask(made, "/").text
    assert '<a href="/run/quick">' in ask(made, "/lines").text
    assert "linked" not in page.said, "a folder that is no run"


def test_a_page_is_that_of_the_report(made: Server, runs: Path, tmp_path: Path) -> None:
    for target, names in (("/page/quick", ["quick"]), ("/page/quick,other", ["quick", "other"])):
        wanted = write_report([RunFolder(runs, name) for name in names], tmp_path / "report.html").read_bytes()
        assert ask(made, target).body == wanted
    assert b'http-equiv="Content-Security-Policy"' in wanted


def test_a_page_is_packed_for_who_takes_it(made: Server) -> None:
    plain = ask(made, "/page/quick")
    assert "content-encoding" not in plain.headers
    for takes in ("gzip", "br, gzip;q=0.5", "deflate, gzip, br, zstd"):
        packed = ask(made, "/page/quick", accept_encoding=takes)
        assert packed.headers["content-encoding"] == "gzip"
        assert int(packed.headers["content-length"]) == len(packed.body) < len(plain.body) / 2
        assert gzip.decompress(packed.body) == plain.body
    for takes in ("br", "gzip;q=0", "xgzip", "gzip; q=0.000, br"):
        assert ask(made, "/page/quick", accept_encoding=takes).body == plain.body, takes


def test_a_damaged_run_shows_its_one_line(made: Server, runs: Path) -> None:
    page = Text(ask(made, "/page/torn").text)
    assert "torn/run.json is damaged" in page.said
    assert ask(made, "/state/torn").json["runs"][0]["said"] == "damaged"
    assert Text(ask(made, "/page/quick,torn").text).said.count("damaged") == 1


def test_a_mistake_of_ours_is_said_on_the_page_and_the_others_are_shown(
    runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(runs) as server:
        monkeypatch.setattr(report, "write_report", lambda *_, **__: 1 / 0)
        assert "ZeroDivisionError" in Text(ask(server, "/page/quick").text).said
        monkeypatch.undo()
        assert "Report on other" in Text(ask(server, "/page/other").text).said


def test_a_run_that_trips_us_takes_no_other_out_of_the_list(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = view_runs.facts_of

    def tripping(folder: Path, name: str) -> RunFacts:
        return RunFacts(name, done=1 // 0) if name == "other" else plain(folder, name)

    monkeypatch.setattr(view_runs, "facts_of", tripping)
    with serving(runs) as server:
        said = Text(ask(server, "/").text).said
        assert "ZeroDivisionError" in said
        assert "3 of 3 generations" in said
        monkeypatch.setattr(server.runs, "states", lambda: 1 / 0)
        assert ask(server, "/").code == 500
        assert ask(server, "/state/quick").code == 200


def test_nothing_is_written_among_the_runs(runs: Path) -> None:
    def there() -> dict[str, tuple[int, int]]:
        return {str(path): (path.lstat().st_mtime_ns, path.lstat().st_size) for path in [runs, *runs.rglob("*")]}

    before = there()
    with serving(runs) as server:
        for target in ("/", "/lines", "/run/quick", "/state/quick", "/page/quick", "/page/torn", "/page/stopped"):
            assert ask(server, target).code == 200
    assert there() == before


# --- following --------------------------------------------------------------------------------------------------------


def test_a_row_more_makes_another_page_and_another_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "REST", 0.0)
    live = Live(tmp_path)
    with working(live.path), serving(tmp_path) as server:
        first = ask(server, "/state/live").json
        assert (first["runs"][0]["said"], first["runs"][0]["done"]) == ("at work", "3 of 5 generations")
        assert first["ended"] is False
        assert "6 of 10 models" in ask(server, "/page/live").text
        assert ask(server, "/state/live").json["version"] == first["version"]
        assert first["runs"][0]["doing"] == "", "all that was started was finished"
        started = {"event": "started", "work": "train", "key": "k" * 64, "for": ["keep-0", 0, 3]}
        sealed.append(live.path / "events.jsonl", started)
        assert ask(server, "/state/live").json["runs"][0]["doing"] == "train seed 0, generation 3, keep-0"
        assert "train seed 0, generation 3, keep-0" in ask(server, "/lines").text
        live.measure()
        second = ask(server, "/state/live").json
        assert second["version"] != first["version"]
        assert second["runs"][0]["done"] == "4 of 5 generations"
        assert "8 of 10 models" in ask(server, "/page/live").text
        (live.path / "samples.jsonl").touch()
        assert ask(server, "/state/live").json["version"] != second["version"], "texts to be read on the page"
        live.measure()
        live.finish()
        third = ask(server, "/state/live").json
        assert (third["ended"], third["runs"][0]["said"]) == (True, "finished")
        assert third["version"] not in (first["version"], second["version"])
        assert "of 10 models" not in ask(server, "/page/live").text


def test_a_run_that_was_killed_says_so(tmp_path: Path) -> None:
    live = Live(tmp_path)
    for file in live.path.iterdir():
        os.utime(file, (1e9, 1e9))
    with serving(tmp_path) as server:

        def said() -> str:
            made = ask(server, "/state/live").json
            assert made["ended"] is False
            assert made["runs"][0]["changed"] == time.strftime("%Y-%m-%d %H:%M", time.localtime(1e9))
            return str(made["runs"][0]["said"])

        assert said() == "at work, or killed", "made by a version that did not say"
        with working(live.path):
            assert said() == "at work"
            os.utime(live.path / ".at-work", (1e9, 1e9))
        assert said() == "killed"
        assert "killed" in ask(server, "/lines").text


def test_many_browsers_start_one_rendering(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    plain = report.write_report

    def counting(*arguments: object, **more: object) -> Path:
        calls.append(threading.get_ident())
        return plain(*arguments, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(report, "write_report", counting)
    with serving(runs) as server:
        sizes: list[int] = []
        many = [threading.Thread(target=lambda: sizes.append(len(ask(server, "/page/quick").body))) for _ in range(12)]
        for one in many:
            one.start()
        for one in many:
            one.join()
    assert len(calls) == 1
    assert len(sizes) == 12
    assert len(set(sizes)) == 1


def test_what_is_kept_is_made_anew_when_it_changed_and_has_rested() -> None:
    clock, stamps, made = [0.0], {"a": 1, "b": 1, "c": 1}, []

    def make(key: str) -> str:
        clock[0] += 2.0
        made.append(f"{key}{stamps[key]}")
        return made[-1]

    values = Kept(make, stamps.__getitem__, 2, lambda: clock[0])
    version, value = values.get("a")
    assert (value, values.version("a")) == ("a1", version)
    stamps["a"] = 2
    clock[0] += 2.0 * REST - 0.1
    assert values.get("a") == (version, "a1"), "it took two seconds, so it rests for a while"
    assert values.version("a") == version
    clock[0] += 0.2
    assert values.version("a") != version
    assert values.get("a") == (values.version("a"), "a2")
    assert values.get("b")[1] + values.get("a")[1] + values.get("c")[1] == "b1a2c1"
    assert made == ["a1", "a2", "b1", "c1"]
    assert values.get("a")[1] == "a2", "asked for later than b"
    assert values.get("b")[1] == "b1"
    assert made[4:] == ["b1"], "of three, two are kept"
    stamps["b"] = 2
    clock[0] += LONGEST_REST + 0.1
    assert values.get("b")[1] == "b2"


def test_what_could_not_be_made_is_tried_again_though_its_files_are_the_same() -> None:
    clock, there = [0.0], ["not yet"]
    values = Kept(lambda key: there[0], lambda key: 1, 2, lambda: clock[0], failed=lambda made: made == "not yet")
    assert values.get("a")[1] == "not yet"
    there[0] = "made"
    clock[0] += kept.FAILED_REST - 0.1
    assert values.get("a")[1] == "not yet", "not at every request: it may take long"
    clock[0] += 0.2
    assert values.get("a")[1] == "made"
    there[0] = "another"
    clock[0] += 1000
    assert values.get("a")[1] == "made"


def test_a_page_that_failed_for_a_while_comes_back(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(kept, "FAILED_REST", 0.0)
    monkeypatch.setattr(kept, "REST", 0.0)
    with serving(runs) as server:
        monkeypatch.setattr(report, "write_report", full)
        monkeypatch.setattr(view_runs, "facts_of", full)
        assert "No space left on device" in Text(ask(server, "/page/quick").text).said
        assert "No space left on device" in Text(ask(server, "/").text).said
        monkeypatch.undo()
        assert "Report on quick" in Text(ask(server, "/page/quick").text).said
        assert "No space left on device" not in Text(ask(server, "/").text).said


def test_what_is_there_is_had_while_something_else_is_made() -> None:
    going, let_go = threading.Event(), threading.Event()

    def make(key: str) -> str:
        if key == "slow":
            going.set()
            let_go.wait(20)
        return key

    values = Kept(make, lambda key: 1, 5)
    values.get("quick")
    slow = threading.Thread(target=values.get, args=("slow",))
    slow.start()
    assert going.wait(20)
    assert values.get("quick")[1] == "quick"
    assert values.version("slow")
    let_go.set()
    slow.join()
    assert values.get("slow")[1] == "slow"


# --- which runs -------------------------------------------------------------------------------------------------------


def test_of_runs_that_are_named_no_other_is_shown(runs: Path, tmp_path: Path) -> None:
    write_run(tmp_path, "quick", policies=POLICIES[:1], generations=1)
    named = [RunFolder(runs, "quick"), RunFolder(tmp_path, "quick"), RunFolder(runs, "quick")]
    with serving(runs, named) as server:
        assert server.address.endswith("/run/quick,quick~2"), "one that is named twice is shown once"
        assert ask(server, "/page/quick,quick~2").code == 200
        assert ask(server, "/state/quick~2").json["runs"][0]["done"] == "2 of 2 generations"
        assert Text(ask(server, "/").text).said.count("finished") == 2
        for name in ("other", "quick~3", "stopped"):
            assert ask(server, f"/page/{name}").code == 404


def test_an_empty_folder_and_none_at_all_say_so_and_are_followed(tmp_path: Path) -> None:
    with serving(tmp_path / "none") as server:
        assert "does not exist (yet)" in Text(ask(server, "/").text).said
        assert server.address == f"http://{HOST}:{server.server_port}/"
        write_run(tmp_path / "none", "new", generations=1)
        assert '<a href="/run/new">' in ask(server, "/lines").text


# --- what it refuses --------------------------------------------------------------------------------------------------

TARGETS = (
    *(
        "/..",
        "/../",
        "/../secret.txt",
        "/page/..",
        "/page/../secret.txt",
        "/page/../../etc/passwd",
        "/page/.",
        "/page/",
    ),
    *("/%2e%2e/secret.txt", "/page/%2e%2e", "/page/%2e%2e%2fsecret.txt", "/page/..%2fsecret.txt", "/page/%252e%252e"),
    *("//etc/passwd", "/etc/passwd", "/page//etc/passwd", "/page/etc/passwd", "/page/C:\\Windows", "/page/..\\..\\x"),
    *(
        "/page/quick%00",
        "/page/quick\0",
        "/page/quick/..",
        "/page/quick/secret.txt",
        "/page/quick/",
        "/page/quick%2f..",
    ),
    *("/page/linked", "/page/store", "/page/quick,linked", "/page/quick,", "/page/,quick", "/page/quick,quick"),
    *(
        "/look/page.html",
        "/look/../frame.html",
        "/look/%2e%2e/frame.html",
        "/look/",
        "/look/none.css",
        "/look/view.css/x",
    ),
    *(
        "/secret.txt",
        "/quick/secret.txt",
        "/runs/quick",
        "/page/quick~2",
        "/page/QUICK",
        "/page/qu%69ck",
        "/list",
        "/favicon.ico",
        "*",
    ),
    *("http://127.0.0.1/page/quick", "https://evil.example/", "file:///etc/passwd", "page/quick", "/page/caf\xe9"),
    *("/page/" + "a" * 101, "/page/" + ",".join(["quick"] * 2000), "/page/quick;x", "/page/quick#x", "/page/<b>"),
)


@pytest.mark.parametrize("target", TARGETS, ids=[str(index) for index in range(len(TARGETS))])
def test_any_other_address_leads_nowhere(made: Server, target: str) -> None:
    for kind in ("/page/", "/state/", "/run/") if target.startswith("/page/") else ("",):
        target_of = target.replace("/page/", kind, 1) if kind else target
        found = ask(made, target_of)
        assert found.code in (400, 404, 414), target_of
        assert SECRET not in found.text
        assert "root:" not in found.text


def test_the_forms_of_addresses_and_their_queries() -> None:
    """What the test above shows to be refused is not refused because everything is."""
    for target, kind, names in (
        ("/", "list", ()),
        ("/?page/..", "list", ()),
        ("/page/a", "page", ("a",)),
        ("/page/a?v=/../x", "page", ("a",)),
        ("/run/a,b.c~2", "run", ("a", "b.c~2")),
        ("/look/view.css", "look", ("view.css",)),
    ):
        found = asked(target)
        assert found is not None
        assert (found.kind, found.names) == (kind, names)
    assert asked("/page/a\n") is None


def test_files_of_a_run_that_are_links_to_others_are_not_shown(tmp_path: Path) -> None:
    """A link is followed, as `collapse report` does; what is not a row or a record of a run reaches no page."""
    (tmp_path / "secret").write_text(SECRET + "\n" + json.dumps({"policy": SECRET}) + "\n")
    folder = write_run(tmp_path / "runs", "sly", generations=1)
    for name in ("metrics.jsonl", "events.jsonl"):
        (folder / name).unlink()
        (folder / name).symlink_to(tmp_path / "secret")
    (tmp_path / "runs" / "slyer").mkdir()
    (tmp_path / "runs" / "slyer" / "run.json").symlink_to(tmp_path / "secret")
    with serving(tmp_path / "runs") as server:
        for target in ("/", "/page/sly", "/page/slyer", "/state/sly", "/state/slyer"):
            found = ask(server, target)
            assert found.code == 200
            assert SECRET not in found.text


def test_another_name_for_this_machine_is_refused(made: Server) -> None:
    """A page of somebody else's whose name is made to lead to 127.0.0.1 may not read the runs."""
    port = made.server_port
    for hosts in (
        [f"evil.example:{port}"], ["evil.example"], ["127.0.0.1.evil.example"], ["localhost.evil.example"], [""], [],
        ["127.0.0.1@evil.example"], [f"127.0.0.1:{port}", "evil.example"], ["0.0.0.0"], ["127.0.0.1:x"], ["127.0.0.2"],
    ):  # fmt: skip
        for target in ("/", "/page/quick", "/state/quick"):
            assert ask(made, target, hosts=hosts).code == 421, hosts
    for host in (f"127.0.0.1:{port}", f"localhost:{port}", "localhost:8080", "LOCALHOST", "127.0.0.1"):
        assert ask(made, "/state/quick", hosts=[host]).code == 200, host


def test_a_page_of_somebody_else_cannot_have_pages_made(made: Server) -> None:
    for site in ("cross-site", "same-site"):  # the latter: another server of this machine
        for mode, to in (("no-cors", "image"), ("no-cors", "script"), ("cors", "empty"), ("navigate", "iframe")):
            refused = ask(made, "/page/quick", sec_fetch_site=site, sec_fetch_mode=mode, sec_fetch_dest=to)
            assert refused.code == 403, (site, mode)
        assert ask(made, "/", sec_fetch_site=site, sec_fetch_mode="navigate", sec_fetch_dest="document").code == 200
    for site in ("none", "same-origin"):
        assert (
            ask(made, "/page/quick", sec_fetch_site=site, sec_fetch_mode="navigate", sec_fetch_dest="iframe").code
            == 200
        )


def test_it_answers_this_machine_alone(made: Server) -> None:
    assert made.socket.getsockname()[0] == "127.0.0.1"


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "MOVE", "x"])
def test_it_only_reads(made: Server, method: str) -> None:
    found = ask(made, "/page/quick", method)
    assert (found.code, found.headers["allow"]) == (405, "GET, HEAD")
    assert "access-control-allow-origin" not in found.headers


def test_who_reads_slowly_gets_the_whole_page(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(view_server._Handler, "timeout", 3.0)
    with serving(runs) as server, socket.socket() as reader:
        monkeypatch.setattr(server.pages, "page", lambda runs: gzip.compress(bytes(16_000_000)))
        reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
        reader.settimeout(PATIENCE)
        reader.connect((HOST, server.server_port))
        reader.sendall(f"GET /page/quick HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())
        got, slept = 0, 0
        while part := reader.recv(65_536):
            got += len(part)
            if got > 1_000_000 * (slept + 1):  # longer than the patience in all, never for long at a time
                slept += 1
                time.sleep(0.25)
    assert got > 16_000_000


def test_a_head_is_a_get_without_its_body(made: Server) -> None:
    head, whole = ask(made, "/page/quick", "HEAD"), ask(made, "/page/quick")
    assert head.body == b""
    assert {**head.headers, "date": ""} == {**whole.headers, "date": ""}
    assert int(head.headers["content-length"]) == len(whole.body)


def test_every_answer_is_for_this_page_alone(made: Server) -> None:
    for target in (
        "/",
        "/lines",
        "/run/quick",
        "/state/quick",
        "/page/quick",
        "/page/torn",
        "/look/follow.js",
        "/none",
    ):
        headers = ask(made, target).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cross-origin-resource-policy"] == "same-origin"
        assert headers["cache-control"] == "no-store"
        assert headers["referrer-policy"] == "no-referrer"
        policy = dict(part.strip().split(" ", 1) for part in headers["content-security-policy"].split(";"))
        assert policy["frame-ancestors"] == ("'self'" if target.startswith("/page/") else "'none'")
        assert (policy["base-uri"], policy["form-action"]) == ("'none'", "'none'")
        if target.startswith("/page/"):
            assert b'http-equiv="Content-Security-Policy" content="default-src \'none\'' in ask(made, target).body
        else:
            assert (policy["default-src"], policy["script-src"]) == ("'none'", "'self'")
            assert "<script>" not in ask(made, target).text


# --- the command ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_prints_its_address_serves_and_ends_when_told_to(runs: Path, number: signal.Signals) -> None:
    code = (  # Ctrl-C is ignored where a shell started us in the background
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from collapse_cli.__main__ import main; sys.exit(main())"
    )
    command = [sys.executable, "-c", code, "view", "quick", "--runs-dir", str(runs)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        said = child.stdout.readline()
        address, rest = said.split("  ")
        assert (address.rpartition("/")[2], rest) == ("quick", "(Ctrl-C ends it)\n")
        with urllib.request.urlopen(address, timeout=PATIENCE) as page:
            assert b'data-runs="quick"' in page.read()
        child.send_signal(number)
        out, err = child.communicate(timeout=PATIENCE)
    assert (child.returncode, out, err) == (0, "", "collapse: ended\n")


def test_a_page_is_served_without_the_libraries_of_learning(runs: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from support.viewed import serving, ask\n"
        f"with serving(Path({str(runs)!r})) as server: ask(server, '/'); ask(server, '/page/quick')\n"
        "print(sorted({'torch', 'transformers', 'datasets', 'plotly'} & sys.modules.keys()))"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(e2e.ROOT), str(e2e.ROOT / "tests")])}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_mistakes_of_the_command_line_are_one_line(runs: Path) -> None:
    with socket.create_server((HOST, 0)) as taken:
        port = taken.getsockname()[1]
        found = e2e.collapse("view", "--port", str(port), "--runs-dir", runs)
    assert (found.code, found.out) == (2, "")
    assert found.err == (
        f"collapse: --port {port} is taken by another program (Address already in use); name another one, or leave --port "
        "out to take one that is free\n"
    )
    for arguments, words in (
        (["view", "quik"], "there is no run 'quik'"),
        (["view", "../x y"], "neither the name of a run"),
        (["view", "--port", "65536"], "--port must be at most 65535"),
        (["view", "--port", "x"], "--port must be a whole number"),
    ):
        found = e2e.collapse(*arguments, "--runs-dir", runs)
        assert (found.code, len(found.err.splitlines())) == (2, 1), found
        assert words in found.err
