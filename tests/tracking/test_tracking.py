"""Trackers mirror `metrics.jsonl`: read back with their own readers, resumed, broken in the middle, absent, off."""

import json
import logging
import os
import resource
import shutil
import socket
import sqlite3
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.rows import changed, row_of
from support.tracked import HOSTILE, RECORD, Run, a_row, config_of, rows_of

from collapse_cli import tracking
from collapse_cli.config import Experiment, load
from collapse_cli.engine import sealed
from collapse_cli.errors import ConfigError
from collapse_cli.records.row import PLACE, Row
from collapse_cli.tracking.mirrored import clean, histogram_of, metrics_of
from collapse_cli.where import Where

# --- rows as numbers --------------------------------------------------------------------------------------------------


def test_a_rows_numbers_have_flat_names_and_text_is_left_out() -> None:
    found = metrics_of(a_row("keep-0", 0, 1))
    assert found["perplexity"] == pytest.approx(31.006)
    assert found["nll_by_decile/01"] == pytest.approx(2.506)
    assert "nll_by_decile/02" not in found, "null"
    assert found["nll_by_decile/10"] == pytest.approx(10.506)
    assert found["sample_log_perplexity_quantiles/99"] == pytest.approx(1.986)
    assert found["seconds/train"] == pytest.approx(5.256)
    assert "mauve" not in found
    assert not {key for key in found if key.startswith(("warnings", "top_", "examples", "protocol", "model", "seed"))}
    assert len(found) == 2 + 9 + 99 + 2
    assert all(type(value) is float for value in found.values())
    edges, counts = histogram_of(a_row("keep-0", 0, 1)) or ([], [])
    assert (edges, counts) == ([1.5, 1.75, 2.0, 2.25], [3, 0, 6])
    assert histogram_of(row_of("keep-0", 0, 0, sample_histogram={"low": 0.0, "width": 1.0, "counts": []})) is None
    assert metrics_of(row_of("keep-0", 0, 0, many=[1.0] * 101, hundred=[1.0] * 100)).keys() == {
        f"hundred/{i:02d}" for i in range(1, 101)
    }


def test_names_from_outside_are_plain_file_names_and_stay_different() -> None:
    assert clean("keep-10-seed-0") == "keep-10-seed-0"
    bad = ["../../etc", "a/b", "a\\b", "a_b", "", ".", "..", "a\x00b", "\ud800", "x" * 300, HOSTILE]
    made = [clean(name) for name in bad]
    assert len(set(made)) == len(bad)
    for name in made:
        assert name
        assert not name.startswith(".")
        assert len(name) <= 107
        assert set(name) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-")


# --- configuration ----------------------------------------------------------------------------------------------------


def test_tracking_is_off_by_default_and_no_part_of_what_a_run_is() -> None:
    assert Experiment().tracking.to == ()
    assert config_of("mlflow", project="mine").identity() == config_of().identity()
    assert load({"tracking": {"to": "mlflow, tensorboard"}}, "--set").tracking.to == ("mlflow", "tensorboard")
    with pytest.raises(
        ConfigError, match=r"tracking\.to\.0 must be 'mlflow', 'wandb' or 'tensorboard', it is 'neptune'"
    ):
        load({"tracking": {"to": ["neptune"]}}, "--set")


def test_a_password_in_the_address_is_refused_before_it_is_written_anywhere() -> None:
    with pytest.raises(ConfigError, match="MLFLOW_TRACKING_URI") as caught:
        tracking.check_installed(config_of("mlflow", uri="https://me:secret@example.org"))
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "module"),
    [("mlflow", "mlflow"), ("mlflow", "sqlalchemy"), ("tensorboard", "tensorboard"), ("wandb", "wandb")],
)
def test_a_tracker_that_is_not_installed_is_said_in_one_line_before_anything_is_made(
    name: str, module: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ConfigError, match=rf"pip install 'collapse-cli\[{name}\]'") as caught:
        Run(tmp_path, config_of(name)).go([])
    assert "\n" not in str(caught.value)
    assert list((tmp_path / "a-run").iterdir()) == []


def test_a_folder_of_a_trackers_name_in_the_working_directory_is_no_tracker(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Wandb itself makes folders called wandb."""
    (tmp_path / "wandb").mkdir()
    monkeypatch.delitem(sys.modules, "wandb", raising=False)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *[p for p in sys.path if "site-packages" not in p]])
    with pytest.raises(ConfigError, match="wandb is not installed"):
        tracking.check_installed(config_of("wandb"))


def test_off_imports_no_tracker_and_writes_nothing(tmp_path: Path) -> None:
    code = f"""
import sys
from pathlib import Path
from collapse_cli import tracking
from collapse_cli.engine import sealed
from collapse_cli.config import Experiment
from collapse_cli.records.row import PLACE, Row
from collapse_cli.where import Where
with tracking.open_mirrors(Experiment(), Path({str(tmp_path)!r}), "x", {{}}) as mirrors:
    mirrors.add(Row.at(Where("keep-0", 0, 0), {{"perplexity": 1.0}}))
print(sorted({{"mlflow", "wandb", "tensorboard", "sqlalchemy", "torch"}} & sys.modules.keys()))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")
    assert list(tmp_path.iterdir()) == []


# --- MLflow -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MLflow's tables, which take seconds to make."""
    mlflow = pytest.importorskip("mlflow")
    file: Path = tmp_path_factory.mktemp("empty") / "mlflow.db"
    mlflow.MlflowClient(tracking_uri=f"sqlite:///{file}")
    return file


@pytest.fixture
def runs(empty_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A runs folder with an empty store. What the mirror sets in the environment ends with the test."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.setenv("MLFLOW_LOGGING_LEVEL", "CRITICAL")
    monkeypatch.setenv("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "2")
    folder = tmp_path / "runs of mine ü"
    folder.mkdir()
    shutil.copy(empty_store, folder / "mlflow.db")
    return folder


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What the user is told; each is one line, and a warning."""
    records = [record for record in caplog.records if record.name == "collapse_cli"]
    assert {record.levelno for record in records} <= {logging.WARNING}
    messages = [record.getMessage() for record in records]
    assert "\n" not in "".join(messages)
    return messages


def store(runs: Path) -> tuple[Any, list[Any]]:
    """The client of the runs folder's store, and MLflow's runs in it that are not deleted."""
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{runs / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("collapse")
    return client, list(client.search_runs([experiment.experiment_id])) if experiment else []


def assert_mlflow_holds(runs: Path, rows: list[Row], name: str = "a-run") -> None:
    """Every number of every row once, and nothing else."""
    client, found = store(runs)
    children = {
        (run.data.tags["collapse.policy"], int(run.data.tags["collapse.seed"])): run
        for run in found
        if "collapse.policy" in run.data.tags and run.data.tags["collapse.run"] == name
    }
    assert children.keys() == {(row.where.policy, row.where.seed) for row in rows}
    for where, run in children.items():
        mine = [row for row in rows if (row.where.policy, row.where.seed) == where]
        expected = {(key, row.where.generation, value) for row in mine for key, value in metrics_of(row).items()}
        got = [
            (key, point.step, point.value)
            for key in run.data.metrics
            for point in client.get_metric_history(run.info.run_id, key)
        ]
        assert sorted(got) == sorted(expected)


def test_mlflow_holds_every_number_below_one_parent(runs: Path) -> None:
    rows = rows_of()
    Run(runs, config_of("mlflow")).go(rows)
    assert_mlflow_holds(runs, rows)
    _, found = store(runs)
    assert len(found) == 5
    (parent,) = [run for run in found if "mlflow.parentRunId" not in run.data.tags]
    assert parent.info.run_name == "a-run"
    for run in found:
        assert run.info.status == "FINISHED"
        assert run.data.params["train.lr"] == "2e-05"
        assert run.data.params["data.source"] == "wikitext2"
        assert "tracking.uri" not in run.data.params
        assert run.data.tags["versions.torch"] == "2.13.0"
        assert run.data.tags["git.commit"] == "c044e3c"
        assert run.data.tags["loop.generations"] == "2"
        assert run is parent or run.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert "generated text" not in str([run.to_dictionary() for run in found])
    assert {path.name for path in runs.iterdir()} == {"a-run", "mlflow.db"}, "and nothing in the working directory"
    assert not (Path.cwd() / "mlruns").exists()


def test_mlflow_again_and_further_makes_neither_points_nor_runs_twice(runs: Path) -> None:
    run = Run(runs, config_of("mlflow"))
    run.go(rows_of(2))
    _, before = store(runs)
    run.go(rows_of(2))  # the same command again
    run.config = run.config.model_copy(
        update={"loop": run.config.loop.model_copy(update={"generations": 3, "seeds": (0, 1, 2)})}
    )
    run.go(rows_of(4))  # and one that goes further
    assert_mlflow_holds(runs, rows_of(4))
    _, after = store(runs)
    assert {one.info.run_id for one in before} == {one.info.run_id for one in after}
    assert {one.data.tags["loop.seeds"] for one in after} == {"[0, 1, 2]"}


def test_mlflow_mirrors_a_run_that_was_made_without_it(runs: Path) -> None:
    Run(runs, config_of()).go(rows_of())
    assert store(runs)[1:] == ([],)
    Run(runs, config_of("mlflow")).go([])
    assert_mlflow_holds(runs, rows_of())


def test_mlflow_follows_the_truth_when_rows_were_made_anew_and_keeps_runs_apart(runs: Path) -> None:
    run, other = Run(runs, config_of("mlflow")), Run(runs, config_of("mlflow"), "another")
    run.go(rows_of())
    other.go(rows_of(2))
    (run.folder.path / "metrics.jsonl").unlink()
    anew = [changed(row, perplexity=row.fields["perplexity"] + 1) for row in rows_of()]
    run.go(anew)
    assert_mlflow_holds(runs, anew)
    assert_mlflow_holds(runs, rows_of(2), "another")
    run.go([], {**RECORD, "created": "2027-01-01T00:00:00+00:00"})  # the name again, for another run
    _, found = store(runs)
    assert len([one for one in found if one.data.tags["collapse.run"] == "a-run"]) == 10


def test_mlflow_broken_in_the_middle_of_a_row_loses_nothing_and_is_mended_by_the_next_run(
    runs: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run, rows = Run(runs, config_of("mlflow")), rows_of()
    database = runs / "mlflow.db"

    def break_it() -> None:
        with sqlite3.connect(database) as data:
            data.execute("ALTER TABLE metrics RENAME TO metrics_gone")

    with tracking.open_mirrors(run.config, run.folder.path, "a-run", RECORD, run.folder.rows) as mirrors:
        for place, row in enumerate(rows):
            if place == 6:
                break_it()
            run.folder.add_rows([row])
            mirrors.add(row)
    (message,) = said(caplog)
    assert message.startswith("mlflow failed, and this run goes on without it (")
    assert sealed.of_file(run.folder.path / "metrics.jsonl") == ([row.record() for row in rows], 0)
    with sqlite3.connect(database) as data:
        data.execute("ALTER TABLE metrics_gone RENAME TO metrics")
    run.go([])
    assert_mlflow_holds(runs, rows)
    assert len(said(caplog)) == 1


def test_a_row_half_mirrored_by_a_killed_run_is_mirrored_once(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed after the numbers went out, before they were marked as done."""
    run, rows = Run(runs, config_of("mlflow")), rows_of()
    marked = tracking.MLflow._mark

    def killed(self: Any, where: tuple[str, str], generation: int, what: str) -> None:
        if generation == 1 and what != "-":
            raise KeyboardInterrupt
        marked(self, where, generation, what)

    monkeypatch.setattr(tracking.MLflow, "_mark", killed)
    with pytest.raises(KeyboardInterrupt):
        run.go(rows)
    _, found = store(runs)
    assert {one.info.status for one in found} == {"KILLED"}
    monkeypatch.setattr(tracking.MLflow, "_mark", marked)
    run.go(rows)
    assert_mlflow_holds(runs, rows)


def test_a_server_that_is_not_there_costs_a_warning(runs: Path, caplog: pytest.LogCaptureFixture) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    run = Run(runs, config_of("mlflow", uri=f"http://127.0.0.1:{port}"))
    run.go(rows_of())
    assert ["mlflow failed" in message for message in said(caplog)] == [True]
    assert len(run.metrics().splitlines()) == len(rows_of())


# --- TensorBoard ------------------------------------------------------------------------------------------------------


def assert_tensorboard_holds(folder: Path, rows: list[Row]) -> None:
    accumulators = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    assert len(list(folder.rglob("events*"))) == 1 + len({(row.where.policy, row.where.seed) for row in rows})
    for where in {(row.where.policy, row.where.seed) for row in rows}:
        mine = [row for row in rows if (row.where.policy, row.where.seed) == where]
        events = accumulators.EventAccumulator(
            str(folder / f"{where[0]}-seed-{where[1]}"), {"scalars": 0, "histograms": 0}
        )
        events.Reload()
        assert set(events.Tags()["scalars"]) == {key for row in mine for key in metrics_of(row)}
        for tag in events.Tags()["scalars"]:
            expected = [(row.where.generation, metrics_of(row)[tag]) for row in mine if tag in metrics_of(row)]
            got = [(event.step, event.value) for event in events.Scalars(tag)]
            assert [step for step, _ in got] == [step for step, _ in expected]
            assert [value for _, value in got] == pytest.approx([value for _, value in expected], rel=1e-6)
        histograms = events.Histograms("sample_histogram")
        assert [event.step for event in histograms] == [row.where.generation for row in mine]
        for event, row in zip(histograms, mine, strict=True):
            assert list(event.histogram_value.bucket)[1:] == row.fields["sample_histogram"]["counts"]
            assert list(event.histogram_value.bucket_limit) == [1.5, 1.75, 2.0, 2.25]
            assert event.histogram_value.sum == pytest.approx(3 * 1.625 + (5 + row.where.generation) * 2.125)


def test_tensorboards_event_files_hold_every_number_and_again_no_point_twice(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    run, folder = Run(tmp_path, config_of("tensorboard")), tmp_path / "a-run" / "tensorboard"
    run.go(rows_of(2))
    assert_tensorboard_holds(folder, rows_of(2))
    (folder / "notes.txt").write_text("mine")
    run.go(rows_of(3))
    run.go(rows_of(3))
    assert_tensorboard_holds(folder, rows_of(3))
    assert (folder / "notes.txt").read_text() == "mine", "only event files are written anew"
    assert b"generated text" not in b"".join(path.read_bytes() for path in folder.rglob("events*"))


def of_lineages() -> list[Row]:
    """Two lineages of one policy and seed, whose numbers differ."""
    return [
        Row.at(
            Where("keep-0", 0, generation, lineage),
            {
                **{name: value for name, value in row.fields.items() if name not in PLACE},
                "perplexity": perplexity + generation,
            },
        )
        for lineage, perplexity in (("a", 30.0), ("b", 70.0))
        for generation in range(2)
        for row in [a_row("keep-0", 0, generation)]
    ]


def test_each_lineage_is_mirrored_as_one_of_its_own(runs: Path) -> None:
    accumulators = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    run = Run(runs, config_of("mlflow", "tensorboard"))
    run.go(of_lineages())
    run.go(of_lineages())  # again no point twice
    client, found = store(runs)
    children = {child.data.tags["collapse.lineage"]: child for child in found if "collapse.lineage" in child.data.tags}
    assert children.keys() == {"a", "b"}
    assert {child.info.run_name for child in children.values()} == {"a-run keep-0/a seed 0", "a-run keep-0/b seed 0"}
    for lineage, perplexity in (("a", 30.0), ("b", 70.0)):
        points = client.get_metric_history(children[lineage].info.run_id, "perplexity")
        assert [(point.step, point.value) for point in points] == [(0, perplexity), (1, perplexity + 1)]
        assert children[lineage].data.params["lineage"] == lineage
        events = accumulators.EventAccumulator(str(runs / "a-run" / "tensorboard" / "keep-0" / f"{lineage}-seed-0"))
        events.Reload()
        assert [(one.step, one.value) for one in events.Scalars("perplexity")] == [(0, perplexity), (1, perplexity + 1)]


def test_tensorboard_shows_the_configuration_as_text(tmp_path: Path) -> None:
    accumulators = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    Run(tmp_path, config_of("tensorboard")).go([])
    events = accumulators.EventAccumulator(str(tmp_path / "a-run" / "tensorboard"))
    events.Reload()
    (text,) = events.Tensors("config/text_summary")
    assert "train.lr = 2e-05\n" in text.tensor_proto.string_val[0].decode()
    assert "git.commit = c044e3c\n" in text.tensor_proto.string_val[0].decode()


def test_numbers_at_the_ends_of_floats_are_mirrored(tmp_path: Path) -> None:
    accumulators = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    values = {"huge": 1e300, "none": float("nan"), "endless": float("inf"), "tiny": 1e-300}
    row = row_of("../../out", 0, 0, **values)
    with tracking.open_mirrors(config_of("tensorboard"), tmp_path, "x", {}) as mirrors:
        mirrors.add(row)
    assert {path.parent.parent for path in tmp_path.parent.rglob("*out-seed-0*/events*")} == {tmp_path / "tensorboard"}
    events = accumulators.EventAccumulator(str(tmp_path / "tensorboard" / clean("../../out-seed-0")))
    events.Reload()
    got = {tag: events.Scalars(tag)[0].value for tag in events.Tags()["scalars"]}
    assert (got["huge"], got["endless"], got["tiny"]) == (float("inf"), float("inf"), 0.0)
    assert got["none"] != got["none"]


def test_a_full_disk_ends_the_mirror_not_the_run(tmp_path: Path) -> None:
    """As far as a process without a full disk can: event files, which are the largest, may not grow beyond 10 kB."""
    pytest.importorskip("tensorboard")
    code = f"""
import resource, signal, sys
from pathlib import Path
sys.path.insert(0, {str(Path(__file__).parents[1])!r})
from support.rows import changed
from support.tracked import Run, config_of, rows_of
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
rows = [changed(row, examples=[], top_8grams=[]) for row in rows_of(4)]
run = Run(Path({str(tmp_path)!r}), config_of("tensorboard"))
add = run.folder.add_rows
def full(row):
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    done = add(row)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, resource.RLIM_INFINITY))
    return done
run.folder.add_rows = full
run.go(rows)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("tensorboard failed, and this run goes on without it (OSError: [Errno 27]") == 1
    assert len(done.stderr.splitlines()) == 1
    run = Run(tmp_path, config_of("tensorboard"))
    rows = run.folder.rows()
    assert len(rows) == 16
    run.go([])
    assert_tensorboard_holds(tmp_path / "a-run" / "tensorboard", rows)
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY


# --- W&B --------------------------------------------------------------------------------------------------------------


def records_of(file: Path) -> Iterator[bytes]:
    """What a .wandb file holds: LevelDB's log format (blocks of 32 KiB, a header of 7 bytes per piece) after 7 bytes."""
    data, at, record = file.read_bytes(), 7, b""
    assert data.startswith(b":W&B")
    while at + 7 <= len(data):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
            continue
        length, kind = struct.unpack("<HB", data[at + 4 : at + 7])
        record += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # a whole record, or the last piece of one
            yield record
            record = b""


def assert_wandb_holds(folder: Path, rows: list[Row]) -> None:
    """Every number of every row once, in one folder for each policy and seed."""
    proto = pytest.importorskip("wandb.proto.wandb_internal_pb2")
    got: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for file in sorted(folder.glob("wandb/offline-run-*/run-*.wandb")):
        settings: dict[str, Any] = {}
        points: list[dict[str, Any]] = []
        for raw in records_of(file):
            assert b"generated text" not in raw
            record = proto.Record()
            record.ParseFromString(raw)
            kind = record.WhichOneof("record_type")
            if kind == "run":
                settings |= {item.key: json.loads(item.value_json) for item in record.run.config.update}
                assert (record.run.run_group, record.run.project) == ("a-run", "collapse")
                assert record.run.host == ""
            if kind == "history":
                items = {"/".join(item.nested_key) or item.key: item.value_json for item in record.history.item}
                point = {key: json.loads(value) for key, value in items.items() if not key.startswith("_")}
                assert point.pop("sample_histogram/bins") == [1.5, 1.75, 2.0, 2.25]
                assert point.pop("sample_histogram/values") == [3, 0, 5 + point["generation"]]
                assert point.pop("sample_histogram/_type") == "histogram"
                points.append(point)
        assert settings["train.lr"] == "2e-05"
        assert (settings["policy"], settings["seed"]) not in got
        got[settings["policy"], settings["seed"]] = points
    expected: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for row in rows:
        point = {"generation": row.where.generation, **metrics_of(row)}
        expected.setdefault((row.where.policy, row.where.seed), []).append(point)
    assert got == expected


@pytest.fixture
def listener() -> Iterator[tuple[int, list[bytes]]]:
    """A port and what it was asked: where all proxies point to, so that nothing gets out unnoticed."""
    asked: list[bytes] = []
    server = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            with connection:
                connection.settimeout(5)
                asked.append(connection.recv(1000))

    threading.Thread(target=serve, daemon=True).start()
    yield server.getsockname()[1], asked
    server.close()


@pytest.mark.parametrize("name", ["mlflow", "tensorboard", "wandb"])
def test_no_tracker_asks_the_network_or_for_a_login(
    name: str, tmp_path: Path, listener: tuple[int, list[bytes]], request: pytest.FixtureRequest
) -> None:
    pytest.importorskip(name)
    if name == "mlflow":
        (tmp_path / "runs").mkdir()
        shutil.copy(request.getfixturevalue("empty_store"), tmp_path / "runs")
    port, asked = listener
    code = f"""
import sys
from pathlib import Path
sys.path.insert(0, {str(Path(__file__).parents[1])!r})
from support.tracked import Run, config_of, rows_of
run = Run(Path({str(tmp_path)!r}) / "runs", config_of({name!r}))
run.go(rows_of(1))
run.go(rows_of(2))
"""
    quiet = ("WANDB", "MLFLOW", "CI", "GITHUB", "PYTEST", "DO_NOT_TRACK", "no_proxy", "NO_PROXY")
    environment = {key: value for key, value in os.environ.items() if not key.startswith(quiet)}
    proxies = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), f"http://127.0.0.1:{port}")
    home = {"HOME": str(tmp_path / "home"), "WANDB_BASE_URL": f"http://127.0.0.1:{port}"}
    (tmp_path / "home").mkdir()
    work = tmp_path / "work"
    work.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**environment, **proxies, **home},
        cwd=work,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stderr
    assert (done.stdout, done.stderr) == ("", ""), "neither a warning nor the tracker's own words"
    assert asked == []
    assert list(work.iterdir()) == [], "nothing beside the runs folder"
    if name == "wandb":
        assert_wandb_holds(tmp_path / "runs" / "a-run", rows_of(2))
    elif name == "tensorboard":
        assert_tensorboard_holds(tmp_path / "runs" / "a-run" / "tensorboard", rows_of(2))
    else:
        assert_mlflow_holds(tmp_path / "runs", rows_of(2))


def test_wandb_online_without_a_key_asks_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("wandb")
    for name in [name for name in os.environ if name.startswith("WANDB")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("HOME", str(tmp_path))
    Run(tmp_path, config_of("wandb")).go(rows_of(1))
    assert ["wandb failed" in message for message in said(caplog)] == [True]


# --- any tracker ------------------------------------------------------------------------------------------------------


class Fake:
    """A tracker that remembers, and fails when told to."""

    def __init__(self, fails: str = "") -> None:
        self.rows: list[Row] = []
        self.fails, self.status = fails, ""

    def add(self, row: Any) -> None:
        if self.fails == "add":
            raise OSError(28, "No space left on device\nsecond line")
        self.rows.append(row)

    def close(self, status: str) -> None:
        if self.fails == "close":
            raise ConnectionError("gone")
        self.status = status


@pytest.mark.parametrize("fails", ["add", "close"])
def test_one_tracker_failing_leaves_the_other_alone(
    fails: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("mlflow")
    pytest.importorskip("tensorboard")
    good, bad = Fake(), Fake(fails)
    monkeypatch.setattr(tracking, "MLflow", lambda about: bad)
    monkeypatch.setattr(tracking, "TensorBoard", lambda about: good)
    Run(tmp_path, config_of("mlflow", "tensorboard")).go(rows_of())
    assert good.rows == rows_of()
    assert good.status == "success"
    assert len(said(caplog)) == 1


@pytest.mark.parametrize(("error", "status"), [(KeyboardInterrupt, "interrupted"), (ValueError, "error")])
def test_how_the_run_ended_is_told(
    error: type[BaseException], status: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("tensorboard")
    fake = Fake()
    monkeypatch.setattr(tracking, "TensorBoard", lambda about: fake)
    mirrors = tracking.open_mirrors(config_of("tensorboard"), tmp_path, "x", {})
    with pytest.raises(error), mirrors:
        raise error
    mirrors.close("success")
    assert fake.status == status


def test_rows_of_another_process_are_mirrored_at_the_end_and_by_one_process_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("tensorboard")
    made: list[Fake] = []
    monkeypatch.setattr(tracking, "TensorBoard", lambda about: made.append(Fake()) or made[-1])
    one, other = Run(tmp_path, config_of("tensorboard")), Run(tmp_path, config_of("tensorboard"))
    rows = rows_of(1)
    with tracking.open_mirrors(one.config, one.folder.path, "a-run", RECORD, one.folder.rows) as mirrors:
        one.folder.add_rows([rows[0]])
        mirrors.add(rows[0])
        other.go(rows)
        assert said(caplog) == [
            "tensorboard: this process does not mirror the run (another process mirrors this run); metrics.jsonl is complete"
        ]
        assert made[0].rows == rows[:1]
    assert len(made) == 1
    assert sorted(map(str, made[0].rows)) == sorted(map(str, rows))
    one.go([])
    assert len(made) == 2, "the lock was given back"
