"""`collapse run` and its companions from end to end: what they compute, reuse, write, print and warn about."""

import json
import os
import pty
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import e2e, small
from support.kinds import change_bodies
from support.waiting import PATIENCE

from collapse_cli import families

POLICY_FIELDS = ("train_rows", "real_rows", "synthetic_rows")


@pytest.fixture(scope="module")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, e2e.Result]:
    """The runs folder and the output of `collapse run --preset smoke`."""
    runs = tmp_path_factory.mktemp("smoke")
    return runs, e2e.collapse("run", "--preset", "smoke", "--runs-dir", runs)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The configuration of the tiny experiment; its run, two generations long, lies in `runs` beside it."""
    config = e2e.write_experiment(tmp_path_factory.mktemp("tiny"))
    e2e.run(config, config.parent / "runs", loop__generations=2)
    return config


@pytest.fixture(scope="module")
def runs(tiny: Path) -> Path:
    return tiny.parent / "runs"


@pytest.fixture
def fresh(tiny: Path, tmp_path: Path) -> Path:
    """An empty runs folder."""
    return tmp_path / "runs"


# --- the smoke preset -------------------------------------------------------------------------------------------------


def test_smoke_ends_well(smoke: tuple[Path, e2e.Result]) -> None:
    """Six rows, the fields of the contract, and a run folder that says success."""
    runs, result = smoke
    assert (result.code, result.err) == (0, "")
    rows = e2e.metrics(runs, "smoke")
    assert set(rows) == {(policy, 0, g) for policy in ("keep-0", "keep-10") for g in range(3)}
    for (_, _, generation), row in rows.items():
        assert families.of("lm").needed <= row.keys()
        assert row["train_rows"] == row["real_rows"] + row["synthetic_rows"] == 200
        assert np.isclose(row["perplexity"], np.exp(row["nll"]))
        assert row["sample_tokens"] == (0 if generation == 0 else 32 * row["synthetic_rows"])
        assert set(row["seconds"]) == {"train", "eval", "examine"} | ({"sample", "mix"} if generation else {"data"})
        assert (runs / row["model_dir"] / "model.safetensors").is_file()
        assert not Path(row["model_dir"]).is_absolute()
    record = json.loads((runs / "smoke" / "run.json").read_text())
    assert record["status"] == "success"
    assert {"config", "versions", "git", "hardware", "command"} <= record.keys()
    assert record["config"]["loop"]["generations"] == 2
    assert len(record["config"]["data"]["sha256"]) == 64


def test_logged_numbers_are_those_of_the_saved_models(smoke: tuple[Path, e2e.Result]) -> None:
    """Each row again, with transformers alone and a plain loop over the test blocks."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from collapse_cli.data.dataset import load_text

    runs, _ = smoke
    text = load_text("pydoc").splits["test"]
    joined = "".join(text)
    models: dict[str, dict[str, float]] = {}
    for row in e2e.metrics(runs, "smoke").values():
        folder = row["model_dir"]
        if folder not in models:
            model = AutoModelForCausalLM.from_pretrained(runs / folder).eval()
            tokenizer = AutoTokenizer.from_pretrained(runs / folder)
            stream = [i for line in text for i in tokenizer(line, add_special_tokens=False)["input_ids"]]
            blocks = [stream[i : i + 32] for i in range(0, len(stream) - 31, 32)]
            chosen = [blocks[int(i)] for i in np.linspace(0, len(blocks) - 1, 50).round()]
            nll = 0.0
            for block in chosen:
                ids = torch.tensor([block])
                with torch.no_grad():
                    odds = model(ids).logits[0, :-1].double().log_softmax(-1)
                nll -= float(odds[torch.arange(31), ids[0, 1:]].sum())
            mean = nll / (50 * 31)
            models[folder] = {
                "perplexity": np.exp(mean),
                "nll": mean,
                "predicted_tokens": 50 * 31,
                "bits_per_byte": mean * len(stream) / len(joined.encode()) / np.log(2),
                "word_perplexity": np.exp(mean * len(stream) / len(joined.split())),
            }
        for name, value in models[folder].items():
            assert row[name] == pytest.approx(value, rel=1e-4), (name, folder)
    assert len(models) == 5


def test_output_without_a_terminal_is_plain(smoke: tuple[Path, e2e.Result]) -> None:
    """No control codes; a line for each stage; the perplexities; where the results are."""
    _, result = smoke
    assert "\x1b" not in result.out
    assert "\r" not in result.out
    assert "[28/28]" in result.out
    assert "keep-10" in result.out
    assert "metrics.jsonl" in result.out


def test_repeated_samples_of_beam_search_are_warned_about(tiny: Path, runs: Path) -> None:
    """Beams make the same sentence again and again: the guard rail says so, on the screen and in the rows."""
    beams = ["--set=sample.decode.beams=2", "--set=sample.decode.temperature=0"]
    result = e2e.collapse("run", tiny, "--runs-dir", runs, "--name", "beams", *beams)
    assert result.code == 0
    rows = e2e.metrics(runs, "beams")
    assert rows["keep-0", 0, 0]["warnings"] == []
    assert any("repeat" in warning for warning in rows["keep-0", 0, 1]["warnings"])
    assert rows["keep-0", 0, 1]["duplicate_share"] > 0.2
    assert "warning: keep-0, seed 0, generation 1" in result.out
    assert not any("repeat" in text for row in e2e.metrics(runs).values() for text in row["warnings"])


# --- reuse ------------------------------------------------------------------------------------------------------------


def test_a_finished_run_computes_nothing_and_says_so(tiny: Path, runs: Path) -> None:
    """Run again: the rows stay as they are, the store is not touched."""
    store, rows = e2e.snapshot(runs / "store"), (runs / "tiny" / "metrics.jsonl").read_text()
    result = e2e.collapse("run", tiny, "--generations", "2", "--runs-dir", runs)
    assert result.code == 0
    assert "nothing to compute" in result.out
    stages = {name: value for name, value in e2e.snapshot(runs / "store").items() if not name.startswith(".")}
    assert stages == {name: value for name, value in store.items() if not name.startswith(".")}
    assert (runs / "tiny" / "metrics.jsonl").read_text() == rows


def test_the_machines_speed_is_measured_only_for_what_is_to_be_computed(
    tiny: Path, runs: Path, fresh: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: list[str] = []
    monkeypatch.setattr("collapse_cli.run.costs.matmul_speed", lambda dtype: measured.append(dtype) or 1e10)
    two = {"loop__generations": 2}
    assert e2e.run(tiny, runs, **two)["computed"] == 0
    assert e2e.run(tiny, runs, "--dry-run", **two)["seconds"] == 0
    assert measured == []
    assert e2e.run(tiny, fresh, "--dry-run", **two)["seconds"] > 0
    assert measured == ["float32"]


def test_a_longer_broader_run_reuses_all_there_is(tiny: Path, fresh: Path) -> None:
    """One more generation, policy or seed costs its own stages and no other; asking for less again costs nothing."""
    first = e2e.run(tiny, fresh)
    before = set(e2e.stages(fresh))
    assert e2e.kinds(before, fresh) == {"data": 1, "train": 3, "eval": 3 + 4 + 1, "sample": 4, "mix": 2}
    assert len(first["rows"]) == 4

    def grow(*arguments: str) -> dict[str, int]:
        nonlocal before
        made = e2e.run(tiny, fresh, *arguments)
        new = set(e2e.stages(fresh)) - before
        before |= new
        assert made["computed"] == len(new)
        return dict(e2e.kinds(new, fresh))

    assert grow("--generations", "2") == {"train": 2, "eval": 2 + 2, "sample": 2, "mix": 2}
    assert grow("--policy", "keep-50") == {"train": 2, "eval": 2 + 3, "sample": 3, "mix": 2}
    assert grow("--seeds", "1") == {"train": 7, "eval": 7 + 9 + 1, "sample": 9, "mix": 6}
    assert grow("--generations", "1", "--policy", "keep-0") == {}
    rows = e2e.metrics(fresh)
    policies = ("keep-0", "keep-10", "keep-50")
    assert set(rows) == {(policy, seed, g) for policy in policies for seed in (0, 1) for g in range(3)}
    assert set(e2e.finished_events(fresh, "tiny").values()) == {1}


def test_every_stage_of_the_plan_has_an_event_that_it_was_computed(tiny: Path, fresh: Path) -> None:
    """In an empty runs folder nothing is cached, the data stage neither."""
    made = e2e.run(tiny, fresh, "--generations", "0")
    assert made["computed"] == len(e2e.plan(fresh)) == 8
    assert made["cached"] == 0
    assert set(e2e.finished_events(fresh, "tiny")) == {stage["key"] for stage in e2e.plan(fresh)}


def test_generation_0_is_trained_once_for_all_policies_of_a_seed(tiny: Path, runs: Path) -> None:
    """Same key, same folder, same numbers under every policy; later generations have models of their own."""
    rows = e2e.metrics(runs)
    assert rows["keep-0", 0, 0]["model_key"] == rows["keep-10", 0, 0]["model_key"]
    assert rows["keep-0", 0, 0]["perplexity"] == rows["keep-10", 0, 0]["perplexity"]
    assert len({row["model_key"] for row in rows.values()}) == 5


def test_the_same_command_elsewhere_gives_the_same_numbers(tiny: Path, runs: Path, fresh: Path) -> None:
    """Keys, rows and weights do not depend on where a run is made."""
    e2e.run(tiny, fresh, "--name", "other", loop__generations=2)
    assert e2e.results(fresh, "other") == e2e.results(runs)
    here, there = e2e.stages(runs), e2e.stages(fresh)
    mine = {stage["key"] for stage in e2e.plan(runs)}
    assert {key: there[key]["files"] for key in mine} == {key: here[key]["files"] for key in mine}


def test_seeds_differ(tiny: Path, runs: Path) -> None:
    """Another seed is another experiment, generation 0 included."""
    e2e.run(tiny, runs, "--name", "seeds", "--seeds", "0,1", "--policy", "keep-0")
    rows = e2e.metrics(runs, "seeds")
    for generation in (0, 1):
        assert rows["keep-0", 0, generation]["perplexity"] != rows["keep-0", 1, generation]["perplexity"]


# --- policies ---------------------------------------------------------------------------------------------------------


def test_keep_10_has_exactly_a_tenth_of_real_rows_drawn_anew(tiny: Path, runs: Path) -> None:
    """4 of 40 rows, all of the original corpus, another set in each generation; the rest was made by the parent."""
    original, drawn = e2e.as_set(e2e.real_rows(runs, "tiny").arrays["tokens"]), []
    rows = e2e.metrics(runs)
    for generation in (1, 2):
        corpus = e2e.corpus(runs, "tiny", "keep-10", 0, generation)
        real = corpus.arrays["tokens"][corpus.origin == 0]
        assert len(corpus) == e2e.ROWS
        assert len(real) == e2e.ROWS // 10
        assert set(corpus.origin.tolist()) == {0, generation}
        assert e2e.as_set(real) <= original
        made = e2e.as_set(corpus.arrays["tokens"][corpus.origin > 0])
        assert len(made & original) < 3, "synthetic rows are real rows"
        drawn.append(e2e.as_set(real))
        row = rows["keep-10", 0, generation]
        assert tuple(row[name] for name in POLICY_FIELDS) == (40, 4, 36)
    assert drawn[0] != drawn[1]


def test_keep_0_is_synthetic_only(runs: Path) -> None:
    """Full replacement: not one real row from generation 1 on."""
    rows = e2e.metrics(runs)
    assert [rows["keep-0", 0, g]["real_rows"] for g in range(3)] == [40, 0, 0]
    assert set(e2e.corpus(runs, "tiny", "keep-0", 0, 2).origin.tolist()) == {2}


def test_keep_100_is_sampled_to_be_measured_only(tiny: Path, runs: Path) -> None:
    """As a control it has the measures of samples, too."""
    e2e.run(tiny, runs, "--name", "control", "--policy", "keep-100")
    for row in e2e.metrics(runs, "control").values():
        assert (row["sample_rows"], row["sample_tokens"], row["synthetic_rows"]) == (e2e.ROWS, 0, 0)


def test_keep_100_trains_on_real_rows_only_and_samples_nothing(tiny: Path, runs: Path) -> None:
    """The control: every generation sees the original corpus, each under a seed of its own."""
    e2e.run(
        tiny, runs, "--name", "keep-100", "--policy", "keep-100", loop__generations=2, eval__samples=str(False).lower()
    )
    assert {stage["kind"] for stage in e2e.plan(runs, "keep-100")} == {"data", "mix", "train", "eval"}
    original = sorted(e2e.real_rows(runs, "keep-100").arrays["tokens"].tolist())
    rows = e2e.metrics(runs, "keep-100")
    for generation in (1, 2):
        corpus = e2e.corpus(runs, "keep-100", "keep-100", 0, generation)
        assert set(corpus.origin.tolist()) == {0}
        assert sorted(corpus.arrays["tokens"].tolist()) == original
        row = rows["keep-100", 0, generation]
        assert tuple(row[name] for name in (*POLICY_FIELDS, "sample_tokens")) == (40, 40, 0, 0)
    assert len({row["perplexity"] for row in rows.values()}) == 3


def test_accumulate_keeps_all_rows_ever_made(tiny: Path, runs: Path) -> None:
    """The original corpus and one synthetic corpus of its size a generation."""
    e2e.run(tiny, runs, "--name", "accumulate", "--policy", "accumulate", loop__generations=2)
    rows = e2e.metrics(runs, "accumulate")
    assert [tuple(rows["accumulate", 0, g][name] for name in POLICY_FIELDS) for g in range(3)] == [
        (40, 40, 0),
        (80, 40, 40),
        (120, 40, 80),
    ]
    first, second = (e2e.corpus(runs, "accumulate", "accumulate", 0, g) for g in (1, 2))
    assert np.bincount(second.origin).tolist() == [40, 40, 40]
    assert np.array_equal(second.arrays["tokens"][:80], first.arrays["tokens"])


def test_accumulate_subsample_draws_from_all_rows_ever_made(tiny: Path, runs: Path) -> None:
    """As many rows as the original corpus, real and synthetic ones of every generation among them."""
    name = "accumulate-subsample"
    e2e.run(tiny, runs, "--name", name, "--policy", name, loop__generations=2)
    corpus = e2e.corpus(runs, name, name, 0, 2)
    assert len(corpus) == e2e.ROWS
    assert set(corpus.origin.tolist()) == {0, 1, 2}
    row = e2e.metrics(runs, name)[name, 0, 2]
    assert row["real_rows"] == int((corpus.origin == 0).sum())


def test_fresh_10_takes_rows_never_seen(tiny: Path, runs: Path) -> None:
    """4 rows of the reserve each generation, no row twice, none of the original corpus."""
    e2e.run(tiny, runs, "--name", "fresh", "--policy", "fresh-10", loop__generations=2)
    reserve = e2e.as_set(e2e.real_rows(runs, "fresh", "reserve.safetensors").arrays["tokens"])
    original = e2e.as_set(e2e.real_rows(runs, "fresh").arrays["tokens"])
    seen: set[tuple[int, ...]] = set()
    for generation in (1, 2):
        corpus = e2e.corpus(runs, "fresh", "fresh-10", 0, generation)
        real = e2e.as_set(corpus.arrays["tokens"][corpus.origin == 0])
        assert (len(corpus), len(real)) == (40, 4)
        assert real <= reserve
        assert not real & (original | seen)
        seen |= real


# --- what papers chose silently ---------------------------------------------------------------------------------------

VARIANTS = {
    "plain": {},
    "init-gen0": {"loop__init": "gen0"},
    "init-previous": {"loop__init": "previous"},
    "prompts-previous": {"sample__prompts": "previous"},
    "prompts-none": {"sample__prompts": "none"},
    "full": {"train__target": "full"},
    "growing": {"mix__size": "growing"},
}


@pytest.fixture(scope="module")
def variants(tiny: Path, runs: Path) -> dict[str, dict[tuple[str, int, int], dict[str, Any]]]:
    """The rows of keep-10, two generations long, under each option."""
    for name, settings in VARIANTS.items():
        e2e.run(tiny, runs, "--name", f"v-{name}", "--policy", "keep-10", loop__generations=2, **settings)
    return {name: e2e.metrics(runs, f"v-{name}") for name in VARIANTS}


def test_options_change_later_generations_and_not_generation_0(variants: dict[str, Any]) -> None:
    """No two of them give the same model at generation 2; all share generation 0."""
    assert len({rows["keep-10", 0, 0]["model_key"] for rows in variants.values()}) == 1
    last = [rows["keep-10", 0, 2]["perplexity"] for rows in variants.values()]
    assert len(set(last)) == len(VARIANTS)
    assert np.isfinite(last).all()


def test_init_starts_from_the_weights_it_names(variants: dict[str, Any], runs: Path) -> None:
    """`gen0` and `previous` are one at generation 1 and part at generation 2."""
    gen0, previous, base = (variants[name] for name in ("init-gen0", "init-previous", "plain"))
    where, then = ("keep-10", 0, 1), ("keep-10", 0, 2)
    assert gen0[where]["model_key"] == previous[where]["model_key"] != base[where]["model_key"]
    assert gen0[then]["perplexity"] != previous[then]["perplexity"]
    trained = e2e.stages(runs)
    assert trained[gen0[then]["model_key"]]["inputs"]["init"] == gen0["keep-10", 0, 0]["model_key"]
    assert trained[previous[then]["model_key"]]["inputs"]["init"] == previous[where]["model_key"]
    assert "init" not in trained[base[then]["model_key"]]["inputs"]


def test_target_full_trains_on_prompts_too(variants: dict[str, Any], runs: Path) -> None:
    """Rows are twice as long and begin with a row of the original corpus."""
    corpus = e2e.corpus(runs, "v-full", "keep-10", 0, 2)
    synthetic = corpus.take(corpus.origin > 0)
    assert set(synthetic.arrays["lengths"].tolist()) == {2 * e2e.BLOCK}
    original = e2e.as_set(e2e.real_rows(runs, "v-full").arrays["tokens"])
    assert e2e.as_set(synthetic.arrays["tokens"][:, : e2e.BLOCK]) <= original
    assert set(corpus.arrays["lengths"][corpus.origin == 0].tolist()) == {e2e.BLOCK}


def test_prompts_previous_continue_the_parents_corpus(tiny: Path, variants: dict[str, Any], runs: Path) -> None:
    """Under `full` the prompts can be seen: at generation 2 they are rows that generation 1 was trained on."""
    settings = {"train__target": "full", "sample__prompts": "previous", "loop__generations": 2}
    e2e.run(tiny, runs, "--name", "full-previous", "--policy", "keep-10", **settings)
    corpora = [e2e.corpus(runs, "full-previous", "keep-10", 0, g) for g in (1, 2)]
    prompts = corpora[1].arrays["tokens"][corpora[1].origin > 0][:, : e2e.BLOCK]
    assert e2e.as_set(prompts) <= e2e.as_set(corpora[0].arrays["tokens"][:, : e2e.BLOCK])
    assert not e2e.as_set(prompts) & (
        e2e.as_set(e2e.real_rows(runs, "full-previous").arrays["tokens"])
        - e2e.as_set(corpora[0].arrays["tokens"][:, : e2e.BLOCK])
    )


def test_growing_corpora_grow(variants: dict[str, Any]) -> None:
    """(g+1) times the original size, a tenth of it real."""
    rows = variants["growing"]
    found = [tuple(rows["keep-10", 0, g][name] for name in POLICY_FIELDS) for g in range(3)]
    assert found == [(40, 40, 0), (80, 8, 72), (120, 12, 108)]


def test_validation_text_choosing_the_weights_of_synthetic_data_is_warned_about(tiny: Path, runs: Path) -> None:
    """train.select = valid leaks real text into keep-0, not into keep-10."""
    e2e.run(tiny, runs, "--name", "select", train__select="valid")
    rows = e2e.metrics(runs, "select")
    said = {where: any("validation" in text for text in row["warnings"]) for where, row in rows.items()}
    assert [where for where, warned in said.items() if warned] == [("keep-0", 0, 1)]


# --- eval -------------------------------------------------------------------------------------------------------------


def test_eval_of_a_run_agrees_with_its_log(tiny: Path, runs: Path) -> None:
    """By name and by folder, as a table and as JSON."""
    assert e2e.collapse("eval", "tiny", "--runs-dir", runs).code == 0
    by_folder = e2e.collapse("eval", runs / "tiny", "--json")
    assert by_folder.code == 0
    logged = e2e.metrics(runs)
    assert {(row["policy"], row["seed"], row["generation"]) for row in by_folder.json} == set(logged)
    for row in by_folder.json:
        assert row["difference"] < 1e-6
        assert row["perplexity"] == pytest.approx(row["logged"], rel=1e-6)


def test_eval_says_when_the_log_is_wrong(tiny: Path, runs: Path, tmp_path: Path) -> None:
    """One perplexity changed by a tenth of a percent: exit code 1."""
    copy = tmp_path / "runs"
    shutil.copytree(runs / "store", copy / "store")
    shutil.copytree(runs / "tiny", copy / "tiny")
    rows = e2e.read_lines(copy / "tiny" / "metrics.jsonl")
    rows[3]["perplexity"] *= 1.001
    (copy / "tiny" / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    result = e2e.collapse("eval", "tiny", "--runs-dir", copy)
    assert result.code == 1
    assert "of 6 models, 1 gave another perplexity" in result.out
    assert e2e.collapse("eval", "tiny", "--runs-dir", copy, "--json").code == 1


def test_eval_of_a_run_whose_models_are_elsewhere_is_no_success(tiny: Path, runs: Path, tmp_path: Path) -> None:
    """Nothing was scored, so nothing agrees with the log; and no store begins where the run was moved to."""
    shutil.copytree(runs / "tiny", tmp_path / "there" / "tiny")
    result = e2e.collapse("eval", tmp_path / "there" / "tiny")
    assert result.code == 2
    assert (
        f"no model of the run 'tiny' is in {tmp_path}/there/store; where its folder was moved, move it back"
        in result.err
    )
    assert [path.name for path in (tmp_path / "there").iterdir()] == ["tiny"]


def test_eval_of_a_run_on_other_text(tiny: Path, runs: Path) -> None:
    """Nothing logged to agree with, so no disagreement; other numbers."""
    result = e2e.collapse("eval", "tiny", "--runs-dir", runs, "--data", "pydoc", "--json")
    assert result.code == 0
    assert all(row["difference"] is None for row in result.json)
    assert result.json[0]["perplexity"] != e2e.metrics(runs)["keep-0", 0, 0]["perplexity"]
    assert e2e.metrics(runs), "the run's own rows stay"


def test_eval_on_other_text_reads_it_with_the_runs_own_tokenizer(tiny: Path, runs: Path) -> None:
    """Not with one trained on the other text; the model's folder, which holds its tokenizer, gives the same number."""
    model = runs / e2e.metrics(runs)["keep-0", 0, 0]["model_dir"]
    protocol = ["--set=data.block_size=16", "--set=data.eval_rows=12", "--json"]
    folder = e2e.collapse("eval", model, "--data", "pydoc", *protocol)
    again = e2e.collapse("eval", "tiny", "--runs-dir", runs, "--data", "pydoc", "--json")
    assert again.json[0]["perplexity"] == pytest.approx(folder.json["perplexity"], rel=1e-5)


def test_eval_of_a_model_folder(smoke: tuple[Path, e2e.Result]) -> None:
    """A stored model is an ordinary model folder; under the run's protocol it gives the run's number."""
    runs, _ = smoke
    row = e2e.metrics(runs, "smoke")["keep-10", 0, 2]
    same = ["--set=data.block_size=32", "--set=data.eval_rows=50"]
    result = e2e.collapse("eval", runs / row["model_dir"], "--data", "pydoc", "--json", *same)
    assert result.code == 0
    for name in ("perplexity", "bits_per_byte", "word_perplexity", "predicted_tokens"):
        assert result.json[name] == pytest.approx(row[name], rel=1e-6)
    plain = e2e.collapse("eval", runs / row["model_dir"], "--data", "pydoc")
    assert plain.code == 0
    assert "perplexity" in plain.out
    assert "blocks of 64 tokens" in " ".join(plain.out.replace("│", " ").split())


def test_the_sliding_protocol_scores_every_token_once(tiny: Path, runs: Path) -> None:
    """A window of 16 tokens moved by 4, against a slow loop over windows with transformers alone."""
    import torch
    from transformers import AutoModelForCausalLM

    settings = {"eval__protocol": "sliding", "data__eval_rows": 0, "eval__context": 16, "eval__stride": 4}
    e2e.run(tiny, runs, "--name", "sliding", "--generations", "0", **settings)
    row = e2e.metrics(runs, "sliding")["keep-0", 0, 0]
    rows = e2e.real_rows(runs, "sliding", "test.safetensors").arrays
    used = np.arange(rows["tokens"].shape[1]) < rows["lengths"][:, None]
    stream = torch.from_numpy(rows["tokens"][used]).long()
    assert len(stream) % rows["tokens"].shape[1], "a text whose tail is no whole block"
    model = AutoModelForCausalLM.from_pretrained(runs / row["model_dir"]).eval()
    nll, scored = 0.0, 1
    for begin in range(0, len(stream), 4):
        window = stream[begin : begin + 16]
        with torch.no_grad():
            odds = model(window[None]).logits[0, :-1].double().log_softmax(-1)
        for position in range(max(scored, begin + 1), begin + len(window)):
            nll -= float(odds[position - begin - 1, stream[position]])
        scored = max(scored, begin + len(window))
    assert row["predicted_tokens"] == len(stream) - 1
    assert row["nll"] == pytest.approx(nll / (len(stream) - 1), rel=1e-5)
    said = {"protocol": "sliding", "dtype": "float32", "line_bos": False, "context": 16, "stride": 4}
    assert row["protocol"] == said
    assert e2e.collapse("eval", "sliding", "--runs-dir", runs).code == 0


# --- the other commands -----------------------------------------------------------------------------------------------


def test_dry_run_writes_nothing(tiny: Path, runs: Path, fresh: Path) -> None:
    """Neither into a runs folder that is not there nor into one that is."""
    assert e2e.collapse("run", tiny, "--runs-dir", fresh, "--dry-run").code == 0
    assert not fresh.exists()
    before = e2e.snapshot(runs)
    assert e2e.collapse("run", tiny, "--runs-dir", runs, "--dry-run", "--generations", "5").code == 0
    assert e2e.snapshot(runs) == before


def test_dry_run_says_what_a_run_costs(tiny: Path, fresh: Path) -> None:
    """Stages and tokens exactly, disk at most; afterwards nothing is left to do."""
    ask = ["run", tiny, "--runs-dir", fresh, "--dry-run", "--json"]
    before = e2e.collapse(*ask).json
    made = e2e.run(tiny, fresh)
    assert (before["stages"], before["cached"]) == (len(e2e.plan(fresh)), 0)
    assert before["rows"] == e2e.ROWS
    assert before["kinds"]["train"]["tokens"] == 3 * e2e.ROWS * e2e.BLOCK
    sampled = 2 * sum(row["sample_tokens"] for row in made["rows"])  # the last generation is sampled to be measured
    assert before["kinds"]["sample"]["tokens"] == sampled
    real = e2e.ROWS * e2e.BLOCK
    assert before["kinds"]["eval"]["tokens"] == 3 * e2e.TEST_ROWS * e2e.BLOCK + sampled + real
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(fresh / made["rows"][0]["model_dir"], dtype=torch.float32)
    assert before["parameters"] == model.num_parameters()
    used = sum(size for size, _ in e2e.snapshot(fresh / "store").values())
    assert used < before["disk_needed"] < 100 * used
    assert 0 < before["seconds"] < 300
    after = e2e.collapse(*ask).json
    assert (after["cached"], after["seconds"], after["kinds"]["train"]["tokens"]) == (before["stages"], 0, 0)


def test_status(tiny: Path, runs: Path) -> None:
    """Status, stages and rows, by name and by folder."""
    said = e2e.collapse("status", "tiny", "--runs-dir", runs, "--json").json
    assert said["status"] == "success"
    assert said["stages"]["train"] == {"done": 5, "planned": 5}
    assert len(said["rows"]) == 6
    table = e2e.collapse("status", runs / "tiny")
    assert table.code == 0
    assert "success" in table.out
    assert "train 5/5" in table.out


def test_presets_and_doctor(tmp_path: Path) -> None:
    """Both print a table, and JSON that parses."""
    found = e2e.collapse("presets", "--json").json
    assert {"smoke", "quick", "opt125m-wikitext2"} <= set(found)
    assert all(found.values()), "a preset says nothing of itself"
    assert "smoke" in e2e.collapse("presets").out
    facts = e2e.collapse("doctor", "--json", "--runs-dir", tmp_path / "runs").json
    assert {"Python", "torch", "disk", "Hub"} <= set(facts)
    doctor = e2e.collapse("doctor", "--runs-dir", tmp_path / "runs")
    assert doctor.code == 0
    assert "writable" in doctor.out
    assert not (tmp_path / "runs").exists()


def test_gc_removes_what_no_run_reaches(tiny: Path, fresh: Path) -> None:
    """A deleted run's own stages and the leftovers of a killed one go; what another run shares stays."""
    e2e.run(tiny, fresh, "--name", "stays", "--policy", "keep-0")
    mine = set(e2e.stages(fresh))
    e2e.run(tiny, fresh, "--name", "goes", "--policy", "keep-10")
    (fresh / "store" / ".attempts" / ("0" * 64)).mkdir(parents=True)
    (fresh / "store" / ".attempts" / ("0" * 64) / "half").write_text("x" * 1000)
    assert e2e.collapse("gc", "--runs-dir", fresh, "--json").json["stages"] == 0
    shutil.rmtree(fresh / "goes")
    (fresh / "store" / ".scratch" / ("1" * 64)).mkdir(parents=True)
    before = e2e.snapshot(fresh)
    tried = e2e.collapse("gc", "--dry-run", "--runs-dir", fresh, "--json").json
    assert {key: before.get(key) for key in e2e.snapshot(fresh) if ".locks" not in key} == {
        key: value for key, value in before.items() if ".locks" not in key
    }
    said = e2e.collapse("gc", "--runs-dir", fresh, "--json").json
    assert said == tried
    assert (said["stages"], said["leftovers"], said["kept"]) == (7, 1, len(mine))
    assert set(e2e.stages(fresh)) == mine
    assert not (fresh / "store" / ".attempts" / ("0" * 64)).exists()
    assert e2e.run(tiny, fresh, "--name", "stays", "--policy", "keep-0")["computed"] == 0
    assert "0 stages" in e2e.collapse("gc", "--runs-dir", fresh).out


def test_json_goes_to_stdout_alone(tiny: Path, runs: Path) -> None:
    """What a program reads is one JSON document; progress goes to stderr, without control codes."""
    result = e2e.collapse("run", tiny, "--runs-dir", runs, "--json", "--generations", "2")
    assert result.json["computed"] == 0
    assert len(result.json["rows"]) == 6
    assert result.out.count("\n") == 1
    assert "\x1b" not in result.err


def test_a_terminal_gets_bars(tmp_path: Path) -> None:
    """With a terminal the display is live; it ends with the table and the cursor is back."""
    controller, terminal = pty.openpty()
    config = small.write_ngram(tmp_path)
    command = [sys.executable, "-m", "collapse_cli", "run", str(config), "--runs-dir", str(tmp_path), "--name", "tty"]
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "100", "LINES": "40"}
    for name in ("NO_COLOR", "CI", "FORCE_COLOR"):
        environment.pop(name, None)
    process = subprocess.Popen(command, stdin=terminal, stdout=terminal, stderr=terminal, env=environment)
    os.close(terminal)
    out = b""
    try:
        while chunk := os.read(controller, 4096):
            out += chunk
    except OSError:  # how Linux says that the other side is closed
        pass
    finally:
        os.close(controller)
    assert process.wait(timeout=PATIENCE) == 0
    assert b"\x1b[" in out
    assert "━" in out.decode()
    assert "perplexity on real test text" in out.decode()
    assert out.rindex(b"\x1b[?25h") > out.rindex(b"\x1b[?25l"), "the cursor stays hidden"


# --- pruning ----------------------------------------------------------------------------------------------------------


def weights(runs: Path, name: str) -> set[tuple[str, int]]:
    """(policy, generation) of the models of a run whose weights are in the store."""
    return {
        (policy, generation)
        for (policy, _, generation), row in e2e.metrics(runs, name).items()
        if (runs / row["model_dir"] / "model.safetensors").exists()
    }


@pytest.fixture(scope="module")
def pruned(tiny: Path) -> Path:
    """A runs folder with a run that keeps the ends of its weights; the experiment is that of `runs`."""
    folder = tiny.parent / "pruned"
    e2e.run(tiny, folder, loop__generations=2, store__keep_models="ends")
    return folder


def test_ends_keeps_the_first_and_the_last_models(tiny: Path, runs: Path, pruned: Path) -> None:
    """The weights between are gone, their records and all numbers are there."""
    assert weights(pruned, "tiny") == {(policy, g) for policy in ("keep-0", "keep-10") for g in (0, 2)}
    assert e2e.results(pruned) == e2e.results(runs)
    assert len(e2e.stages(pruned)) == len(e2e.plan(pruned))


def test_a_finished_pruned_run_computes_nothing(tiny: Path, pruned: Path) -> None:
    """That weights are gone does not make their stages missing."""
    again = e2e.run(tiny, pruned, loop__generations=2, store__keep_models="ends")
    assert again["computed"] == 0
    assert e2e.collapse("status", "tiny", "--runs-dir", pruned, "--json").json["stages"]["train"]["done"] == 5


def test_eval_of_a_pruned_run(tiny: Path, pruned: Path) -> None:
    """Models without weights are named as such; the others agree with the log."""
    result = e2e.collapse("eval", "tiny", "--runs-dir", pruned, "--json")
    assert result.code == 0
    assert [row["generation"] for row in result.json if row["pruned"]] == [1, 1]
    table = e2e.collapse("eval", "tiny", "--runs-dir", pruned)
    assert table.code == 0
    assert "pruned" in table.out


def test_a_pruned_run_can_be_taken_further(tiny: Path, runs: Path, fresh: Path) -> None:
    """With no weights kept, the next generation has its ancestors computed again, to the same numbers."""
    e2e.run(tiny, fresh, store__keep_models="none")
    assert weights(fresh, "tiny") == set()
    assert e2e.run(tiny, fresh, store__keep_models="none")["computed"] == 0
    evaluated = e2e.collapse("eval", "tiny", "--runs-dir", fresh)
    assert evaluated.code == 2
    assert "keeps no models: store.keep_models = none" in evaluated.err
    e2e.run(tiny, fresh, loop__generations=2, store__keep_models="none")
    assert e2e.results(fresh) == e2e.results(runs)
    assert weights(fresh, "tiny") == set()
    e2e.run(tiny, fresh, "--name", "keeper")
    shared = e2e.collapse("eval", "keeper", "--runs-dir", fresh)
    assert "another run shares them" in shared.err, "and not that its own command makes them again, which it does not"


@pytest.fixture
def interrupt_sampling(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], None]]:
    """Ctrl-C at the first sample stage; call the fixture's value to have no more of it."""

    def interrupt(*_: object) -> dict[str, Any]:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        change_bodies("sample", lambda _: interrupt, patch)
        yield patch.undo


def test_weights_that_an_unfinished_run_needs_are_not_pruned(
    tiny: Path, fresh: Path, interrupt_sampling: Callable[[], None]
) -> None:
    """A second run ends and keeps nothing: generation 0 stays for the first one, which goes on without training it."""
    first = ["run", tiny, "--runs-dir", fresh, "--name", "first", "--policy", "keep-0", "--json"]
    first.append("--set=store.keep_models=none")
    assert e2e.collapse(*first).code == 130
    interrupt_sampling()
    e2e.run(tiny, fresh, "--name", "second", "--policy", "keep-10", store__keep_models="none")
    assert weights(fresh, "second") == {("keep-10", 0)}
    half = e2e.collapse("status", "first", "--runs-dir", fresh, "--json").json
    assert half["status"] == "interrupted"
    assert {kind: entry["done"] for kind, entry in half["stages"].items()} == {
        "data": 1,
        "train": 1,
        "eval": 2,
        "sample": 0,
        "mix": 0,
    }
    done = e2e.collapse(*first).json
    assert done["computed"] == 7
    assert weights(fresh, "first") == weights(fresh, "second") == set()


def test_weights_of_a_run_that_keeps_all_are_not_pruned_by_another(tiny: Path, fresh: Path) -> None:
    """`store.keep_models = none` of one run leaves alone what it shares with one that keeps all."""
    e2e.run(tiny, fresh, "--name", "keeps", "--policy", "keep-0")
    e2e.run(tiny, fresh, "--name", "prunes", "--policy", "keep-0", "--policy", "keep-10", store__keep_models="none")
    assert weights(fresh, "keeps") == {("keep-0", 0), ("keep-0", 1)}
    assert weights(fresh, "prunes") == {("keep-0", 0), ("keep-0", 1), ("keep-10", 0)}, "generation 0 is shared"
