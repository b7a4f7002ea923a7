"""What becomes of a run's numbers: its report, its mirrors, comparisons, forecasts, and variants side by side."""

import errno
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from support import e2e
from support.idx import random_set, write_set
from support.instrumented import write_run

from collapse_cli.families.lm import LM
from collapse_cli.learners import text_measures
from collapse_cli.records import kept_texts
from collapse_cli.records.row import Row
from collapse_cli.records.rundir import RunFolder
from collapse_cli.records.runs import store_of
from collapse_cli.run import finished
from collapse_cli.run.execution import Execution
from collapse_cli.run.observers import reporting
from collapse_cli.run.observers import rows as written
from collapse_cli.run.observers.kept_texts import KeepingTexts
from collapse_cli.run.observers.reporting import Reporting
from collapse_cli.run.preparation import prepare
from collapse_cli.where import Where

VARIANTS = """
[variants.baseline]

[variants.statistical]
data = { rows = 20 }
"""


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return e2e.write_experiment(tmp_path_factory.mktemp("report"))


@pytest.fixture(scope="module")
def runs(tiny: Path) -> Path:
    """A run of two seeds, and one of another text beside it."""
    e2e.run(tiny, tiny.parent / "runs", "--seeds", "0,1", "--set=tracking.to=tensorboard")
    e2e.run(tiny, tiny.parent / "runs", "--name", "other", "--seeds", "0,1", train__lr="2e-2")
    return tiny.parent / "runs"


def test_every_row_has_every_instrument_of_the_family(runs: Path) -> None:
    """Which there are is said in the family's description alone; those of a known truth, or between lineages, are not of this run."""
    known = ("truth", "statements", "between")  # of sources whose truth is known, and of several lineages
    shown = {measure for group, measures in LM.instruments.items() if group not in known for measure in measures}
    for row in RunFolder(runs, "tiny").rows():
        compared = {measure for measure in shown if measure.name in ("tail_change", "head_change")}  # with generation 0
        wanted = shown if row.where.generation else shown - compared
        assert [
            measure.name for measure in wanted if measure.name not in row.fields
        ] == []  # null where samples are too few
        assert list(row.malformed()) == []
        assert len(row.examples) == 8
        quantiles, deciles = row.parts("sample_log_perplexity_quantiles"), row.parts("tokens_by_decile")
        assert quantiles is not None
        assert list(quantiles) == sorted(quantiles)
        assert row.histogram is not None
        assert sum(row.histogram.counts) == row.measure("sample_rows")
        assert deciles is not None
        assert sum(deciles) + row.fields["unseen_tokens"] == row.measure("predicted_tokens")


def shape(value: object) -> object:
    """What a field's value is like: of a list how long it is and what is in it, of a table its names."""
    if isinstance(value, dict):
        return {name: shape(held) for name, held in value.items()}
    if isinstance(value, list):
        return len(value), sorted({str(shape(held)) for held in value})
    return (
        "number" if value is None or isinstance(value, int | float) else type(value).__name__
    )  # null: too few to measure


def test_rows_made_up_for_tests_are_like_those_of_a_run(runs: Path, tmp_path: Path) -> None:
    """So that no second list of their fields is needed: what a run no longer writes, or writes otherwise, shows here."""
    write_run(tmp_path, "made-up", seeds=(0, 1), generations=2, policies=("keep-0", "keep-10"))
    made = {row.where: row for row in RunFolder(tmp_path, "made-up").rows()}
    varied = {
        "seconds",
        "protocol",
        "sample_histogram",
        "top_8grams",
        "epoch_losses",
        "warnings",
    }  # in length or in parts
    for row in RunFolder(runs, "tiny").rows():
        other = made[row.where]
        assert other.fields.keys() ^ row.fields.keys() == set()
        assert {
            name: (shape(value), shape(row.fields[name]))
            for name, value in other.fields.items()
            if name not in varied and shape(value) != shape(row.fields[name])
        } == {}


def test_the_same_prompts_are_shown_in_every_generation_and_policy(runs: Path) -> None:
    rows = e2e.metrics(runs).values()
    assert len({tuple(example["prompt"] for example in row["examples"]) for row in rows}) == 1
    assert len({tuple(example["text"] for example in row["examples"]) for row in rows}) > 2


def test_the_samples_measured_are_those_that_the_next_generation_is_trained_on(runs: Path) -> None:
    """Exact duplicates are counted twice, independently: of the samples made, and of the corpus made of them."""
    rows = e2e.metrics(runs)
    for (policy, seed, generation), row in rows.items():
        if generation:
            before = rows[policy, seed, generation - 1]
            assert before["sample_rows"] == row["synthetic_rows"]
            assert before["exact_duplicate_rate"] == pytest.approx(row["duplicate_share"])


def test_the_guard_rails_know_the_generation_before_whichever_row_is_written_first(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[tuple[str, int], float | None] = {}

    def warnings(row: Any, before: Any, **how: Any) -> list[str]:
        seen[row["policy"], row["generation"]] = before and before["perplexity"]
        return []

    monkeypatch.setattr(written.metrics, "warnings", warnings)
    with monkeypatch.context() as none_yet:
        none_yet.setattr(written.RunFolder, "rows", lambda self: [])
        e2e.run(tiny, tmp_path)
    rows = e2e.metrics(tmp_path)
    assert seen == {
        (policy, generation): rows[policy, 0, generation - 1]["perplexity"] if generation else None
        for policy, _, generation in rows
    }


def test_a_generation_that_has_nothing_to_sample_is_measured_all_the_same(tiny: Path, tmp_path: Path) -> None:
    e2e.run(tiny, tmp_path, loop__policies="['keep-99.9']")
    rows = e2e.metrics(tmp_path)
    assert [row["sample_rows"] for row in rows.values()] == [0, 0]
    assert "sample_perplexity" not in rows["keep-99.9", 0, 1]


def test_a_run_writes_its_report_and_says_where(tiny: Path, runs: Path) -> None:
    result = e2e.collapse("run", tiny, "--runs-dir", runs)
    assert result.code == 0
    assert f"report: {runs / 'tiny' / 'report.html'}" in result.out
    page = (runs / "tiny" / "report.html").read_text(encoding="utf-8")
    assert "keep-10" in page
    verdict = e2e.collapse("run", tiny, "--runs-dir", runs, "--json").json["verdict"]
    assert verdict in " ".join(result.out.split())


def test_the_report_is_there_after_the_first_generation(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    write = reporting.report.write_report

    def counted(folders: Any, out: Path, **how: Any) -> Path:
        seen.append(len(folders[0].rows()))
        return write(folders, out, **how)

    monkeypatch.setattr(reporting.report, "write_report", counted)
    monkeypatch.setattr(reporting, "REPORT_SHARE", 1e9)
    e2e.run(tiny, tmp_path)
    assert seen == [1, 2, 3, 4, 4]


def test_reports_that_take_long_are_written_at_the_end_only(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    monkeypatch.setattr(reporting, "REPORT_SHARE", -1.0)
    monkeypatch.setattr(
        reporting.report, "write_report", lambda folders, out, **how: seen.append(len(folders[0].rows()))
    )
    e2e.run(tiny, tmp_path)
    assert seen == [4]


def test_a_report_that_fails_costs_a_note_and_nothing_else(
    tiny: Path, runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError("no room")

    monkeypatch.setattr(reporting.report, "write_report", fail)
    (runs / "tiny" / finished.FILE).unlink(missing_ok=True)  # with it a finished run would write no page anew
    result = e2e.collapse("run", tiny, "--runs-dir", runs)
    assert result.code == 0
    assert "report could not be written" in result.out + result.err
    assert "report: " not in result.out, "one from before is not what it came to"


def test_a_tracker_mirrors_every_row(runs: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    rows = e2e.metrics(runs)
    found = {}
    for file in (runs / "tiny" / "tensorboard").glob("*/events.out*"):
        events = EventAccumulator(str(file.parent))
        events.Reload()
        for event in events.Scalars("perplexity"):
            found[file.parent.relative_to(runs / "tiny" / "tensorboard").as_posix(), event.step] = event.value
    assert len(found) == len(rows)
    assert sorted(found.values()) == pytest.approx(sorted(row["perplexity"] for row in rows.values()), rel=1e-6)


def test_report_command(runs: Path, tmp_path: Path) -> None:
    one = e2e.collapse("report", "tiny", "other", "--runs-dir", runs, "--out", tmp_path / "both.html", "--json")
    assert one.json == {"written": [str(tmp_path / "both.html")]}
    assert "other" in (tmp_path / "both.html").read_text(encoding="utf-8")
    two = e2e.collapse("report", runs / "tiny", "--md", "--out", tmp_path / "r.md", "--figures", tmp_path / "figures")
    assert two.code == 0
    assert "keep-10" in (tmp_path / "r.md").read_text(encoding="utf-8")
    written = [Path(line) for line in two.out.split()]
    assert {path.suffix for path in written} == {".md", ".png", ".svg"}
    assert all(path.stat().st_size > 500 for path in written)


def test_compare_command(runs: Path) -> None:
    found = e2e.collapse("compare", "tiny", "other", "--runs-dir", runs, "--json")
    assert found.code == 0
    assert {"tiny", "other"} <= set(json.dumps(found.json).replace('"', " ").split())
    table = e2e.collapse("compare", "tiny", "other", "--runs-dir", runs)
    assert "keep-10" in table.out


def test_forecast_command(runs: Path) -> None:
    """Two generations are no ground for a forecast, and it says so."""
    found = e2e.collapse("forecast", "tiny", "--runs-dir", runs, "--json")
    assert found.code == 0
    said = e2e.collapse("forecast", "tiny", "--runs-dir", runs)
    assert "not enough data" in " ".join(said.out.split())


@pytest.mark.parametrize("command", ["report", "compare", "forecast"])
def test_a_run_that_is_not_there_is_one_line(runs: Path, tmp_path: Path, command: str) -> None:
    result = e2e.collapse(command, "nothing", "--runs-dir", runs)
    assert result.code == 2
    assert result.err.count("\n") == 1
    assert "there is no run 'nothing'" in result.err
    assert not (runs / "nothing").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["compare", "tiny", "tiny"], "named twice"),
        (["forecast", "tiny", "--factor", "0.5"], "factor"),
        (["forecast", "tiny", "--generation", "-1"], "generation"),
        (["report", "../tiny"], "there is no run"),
    ],
)
def test_mistakes_are_one_line(runs: Path, arguments: list[str], said: str) -> None:
    result = e2e.collapse(*arguments, "--runs-dir", runs)
    assert result.code == 2
    assert said in result.err
    assert result.err.count("\n") == 1


def test_a_tracker_that_is_not_installed_is_said_before_anything_runs(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import importlib.util

    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "mlflow" else found(name, *rest)
    )
    result = e2e.collapse("run", tiny, "--runs-dir", tmp_path, "--set=tracking.to=mlflow")
    assert result.code == 2
    assert "pip install 'collapse-cli[mlflow]'" in result.err
    assert not any(tmp_path.iterdir())


def test_variants_are_runs_of_their_own_and_one_report(tiny: Path, tmp_path: Path) -> None:
    config = tmp_path / "sources.toml"
    config.write_text(tiny.read_text(encoding="utf-8") + VARIANTS, encoding="utf-8")
    made = e2e.run(config, tmp_path / "runs", "--policy", "keep-0")
    assert [result["run"] for result in made["runs"]] == ["sources-baseline", "sources-statistical"]
    assert made["sources"] is None, "the truth is not known"
    assert {row["train_rows"] for row in made["runs"][1]["rows"]} == {20}
    page = Path(made["report"])
    assert page == tmp_path / "runs" / "sources.html"
    assert "sources-statistical" in page.read_text(encoding="utf-8")
    said = e2e.collapse("run", config, "--runs-dir", tmp_path / "runs", "--policy", "keep-0")
    assert said.out.count("nothing to compute") == 2
    assert "collapse compare sources-baseline sources-statistical" in " ".join(said.out.split())


def test_a_damaged_line_is_said_and_written_again(tiny: Path, runs: Path) -> None:
    file = runs / "other" / "metrics.jsonl"
    whole = file.read_text(encoding="utf-8")
    file.write_text(whole.replace('"generation": 1', '"generation": "x"', 1), encoding="utf-8")
    for command in (["compare", "other", "tiny"], ["status", "other"], ["forecast", "other"]):
        result = e2e.collapse(*command, "--runs-dir", runs)
        assert result.code == 0
        assert "1 line is damaged and left out" in result.err
    file.write_text("{}\n" * 3, encoding="utf-8")
    for command in (["compare", "other", "tiny"], ["forecast", "other"]):
        result = e2e.collapse(*command, "--runs-dir", runs)
        assert (result.code, result.err.count("\n")) == (2, 1)
        assert "metrics.jsonl are damaged; give " in result.err
    file.write_text(whole.replace('"generation": 1', '"generation": "x"', 1), encoding="utf-8")
    e2e.run(tiny, runs, "--name", "other", "--seeds", "0,1", train__lr="2e-2")
    assert sorted(file.read_text(encoding="utf-8").splitlines()) == sorted(whole.splitlines())
    assert e2e.collapse("status", "other", "--runs-dir", runs).err == ""


def test_what_variants_differ_in_is_not_set_for_all(tiny: Path, tmp_path: Path) -> None:
    config = tmp_path / "sources.toml"
    config.write_text(tiny.read_text(encoding="utf-8") + VARIANTS, encoding="utf-8")
    result = e2e.collapse("run", config, "--runs-dir", tmp_path / "runs", "--set=data.rows=30")
    assert result.code == 2
    assert "data.rows is what the variants statistical differ in" in result.err
    assert "--set variants.statistical.data.rows=" in result.err
    assert not (tmp_path / "runs").exists()


def test_zipf_under_another_tokenizer_says_what_is_missing(tiny: Path, tmp_path: Path) -> None:
    zipf = "--set=data.zipf={ vocabulary = 32, rank = 2, train_tokens = 4096, test_tokens = 1024 }"
    result = e2e.collapse("run", tiny, "--runs-dir", tmp_path, "--data", "zipf", zipf, "--generations", "0")
    assert result.code == 0
    assert "there will be no kl_truth; --set model.tokenizer=words" in " ".join(result.out.split())


@pytest.mark.parametrize("target", ["", "..", "a b", "."])
def test_what_can_be_no_run_is_called_that(runs: Path, target: str) -> None:
    for command in ("report", "forecast", "status"):
        result = e2e.collapse(command, target, "--runs-dir", runs)
        assert result.code == 2
        assert "--name" not in result.err
        assert result.err.count("\n") == 1


def test_a_seed_below_0_is_refused(tiny: Path, tmp_path: Path) -> None:
    result = e2e.collapse("run", tiny, "--runs-dir", tmp_path / "runs", "--seeds", "-1")
    assert result.code == 2
    assert "must be at least 0" in result.err


def test_texts_of_each_model_are_kept_for_people_and_a_finished_run_leaves_them(runs: Path, tiny: Path) -> None:
    """Of all that were made the likeliest and the most surprising are among them; no key and no row knows of the file."""
    folder = RunFolder(runs, "tiny")
    kept = kept_texts.read(folder.path)
    assert kept.torn == 0
    assert set(kept.texts) == {row.where for row in folder.rows()}
    for row in folder.rows():
        texts = kept.texts[row.where]
        assert [text.text for text in texts if text.shown] == [example.text for example in row.examples]
        losses = [text.nll for text in texts if not text.shown]
        assert 2 <= len(losses) <= kept_texts.EACH
        assert None not in losses
        assert losses == sorted(losses)
        histogram = row.histogram
        assert histogram is not None
        ends = histogram.low, histogram.low + histogram.width * len(histogram.counts)
        assert ends[0] - histogram.width <= losses[0] <= losses[-1] <= ends[1] + histogram.width
    before = e2e.snapshot(folder.path)[kept_texts.FILE]
    e2e.run(tiny, runs, "--seeds", "0,1", "--set=tracking.to=tensorboard")
    assert e2e.snapshot(folder.path)[kept_texts.FILE] == before


def texts_to_keep(runs: Path, name: str, folder: Path) -> tuple[KeepingTexts, list[Row]]:
    """Those of a finished run, to be kept in a folder that has none."""
    done, store = RunFolder(runs, name), store_of(runs)
    planned = prepare(done.config(), done, store, None, Execution(jobs=1)).plan
    (folder / "bare").mkdir()
    return KeepingTexts(RunFolder(folder, "bare"), store, done.config(), planned), done.rows()


def test_a_run_that_is_stopped_has_the_texts_of_what_it_measured_and_its_page_shows_them(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same command again adds the others and leaves those that are there."""
    runs, folder, heard = tmp_path / "runs", RunFolder(tmp_path / "runs", "tiny"), 0
    written = Reporting.written

    def stop(self: Reporting, rows: list[Row], *, new: bool) -> None:
        nonlocal heard
        heard += 1
        written(self, rows, new=new)
        if heard == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Reporting, "written", stop)
        assert e2e.collapse("run", tiny, "--runs-dir", runs, "--jobs", "1").code == 130
    before = (folder.path / kept_texts.FILE).read_bytes()
    kept = kept_texts.read(folder.path)
    assert set(kept.texts) == {row.where for row in folder.rows()}
    assert 2 <= len(kept.texts) < 4
    page = (folder.path / "report.html").read_text()
    assert 'id="browser"' in page
    (browsed,) = re.findall(r'id="texts-kept">(.*?)</script>', page)
    assert len(json.loads(browsed)["texts"]) == sum(map(len, kept.texts.values()))
    e2e.run(tiny, runs)
    assert (folder.path / kept_texts.FILE).read_bytes().startswith(before)
    assert set(kept_texts.read(folder.path).texts) == {row.where for row in folder.rows()}
    whole = (folder.path / kept_texts.FILE).read_bytes()
    strange = kept_texts.line_of(
        Where("keep-0", 0, 0), "0" * 64, [kept_texts.KeptText("0", "a", "of another model")], 999
    )
    kept_texts.rewrite(folder.path, [strange])
    e2e.run(tiny, runs)  # all is in the store
    assert sorted((folder.path / kept_texts.FILE).read_bytes().splitlines()) == sorted(whole.splitlines())


def test_an_error_of_ours_is_no_warning(runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name of an input that was changed was hidden so, and the page had no texts."""
    keeping, rows = texts_to_keep(runs, "tiny", tmp_path)

    def broken(*_: object) -> object:
        raise KeyError("prompts")

    monkeypatch.setattr(text_measures, "told", broken)
    with pytest.raises(KeyError):
        keeping.written(rows, new=True)


def test_a_full_disk_is_a_warning_and_said_once(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    keeping, rows = texts_to_keep(runs, "tiny", tmp_path)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(kept_texts, "add", full)
    for row in rows:
        keeping.written([row], new=True)
    (record,) = caplog.records
    assert "No space left on device" in record.getMessage()
    assert "the run is not affected" in record.getMessage()


def test_a_damaged_stage_is_a_warning_and_the_other_models_keep_their_texts(
    runs: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    copy = tmp_path / "runs"
    shutil.copytree(runs, copy)
    damaged = next(
        folder for folder in sorted((copy / "store").glob(e2e.HEX64)) if (folder / "shown.safetensors").is_file()
    )
    file = damaged / "rows.safetensors"
    content = bytearray(file.read_bytes())
    content[-3] ^= 1
    file.write_bytes(content)
    keeping, rows = texts_to_keep(copy, "tiny", tmp_path)
    keeping.written(rows, new=True)
    (record,) = caplog.records
    assert "damaged" in record.getMessage()
    assert 0 < len(kept_texts.read(tmp_path / "bare").texts) < len(rows)


def test_a_run_of_images_keeps_no_texts_and_says_nothing_of_them(tmp_path: Path) -> None:
    """Its samples are in the store under the names that texts have."""
    for stem, count in {"train": 30, "t10k": 10}.items():
        write_set(tmp_path / "images", stem, *random_set(count))
    config = tmp_path / "small.toml"
    config.write_text(
        f'learner = "vae"\n[loop]\ngenerations = 1\npolicies = ["keep-0"]\n[data]\nsource = "{(tmp_path / "images").as_posix()}"\n'
        "[vae]\nlatent = 2\nchannels = [2, 3]\nepochs = 1\nbatch_size = 8\nmeasured = 5\n"
    )
    made = e2e.collapse("run", config, "--runs-dir", tmp_path / "runs", "--jobs", "1")
    assert made.code == 0, made.err
    assert "texts" not in made.out + made.err
    assert not (tmp_path / "runs" / "small" / kept_texts.FILE).exists()
