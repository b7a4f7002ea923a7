"""`--data world`: a run on text whose truth is known, from its options to what is said of each sentence."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import e2e
from support.scripts import script

from collapse_cli.data.dataset import Dataset
from collapse_cli.data.world.things import Things
from collapse_cli.data.world.world import World
from collapse_cli.metrics.truth import BANDS
from collapse_cli.records.rundir import RunFolder

WORLD = World(Things(breeds=6, people=4, towns=3, rivers=2, trades=2))
SETTINGS: dict[str, Any] = {
    "data__world": "{ breeds = 6, people = 4, towns = 3, rivers = 2, trades = 2, train_documents = 60, test_documents = 20 }",
    "data__block_size": 90,
    "data__rows": 40,
    "model__config__max_position_embeddings": 128,
    "train__target": "full",
    "sample__prompt_tokens": 2,
    "sample__new_tokens": 20,
    "sample__decode__min_new_tokens": 0,
}
ARGUMENTS = ("--data", "world", "--policy", "keep-0")
NAMED = {name.replace("__", "."): value for name, value in SETTINGS.items()}
SETS = [f"--set={name}={value}" for name, value in NAMED.items()]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A finished run of two generations, and its configuration."""
    folder = tmp_path_factory.mktemp("world")
    config = folder / "tiny.toml"
    text = e2e.TINY.replace('tokenizer = "bpe"\nvocab_size = 290\n', "").replace('"{source}"', '"pydoc"')
    config.write_text(text.format() + "\n", encoding="utf-8")
    e2e.run(config, folder / "runs", *ARGUMENTS, **SETTINGS)
    return config, folder / "runs"


def test_a_row_of_tokens_is_a_document_between_the_tokens_of_its_ends(made: tuple[Path, Path]) -> None:
    words = WORLD.words
    end = len(words)
    rows = e2e.real_rows(made[1], "tiny")
    documents = set(WORLD.grammar.documents(60, 0))
    assert len(rows) == 40
    for tokens, length in zip(rows.arrays["tokens"], rows.arrays["lengths"], strict=True):
        ids = tokens[:length].tolist()
        assert ids[0] == ids[-1] == end
        assert not set(ids[1:-1]) & {end}
        spelled = " ".join(words[one] for one in ids[1:-1]).replace(" .", ".").replace(" ,", ",")
        assert spelled in documents
    test = e2e.real_rows(made[1], "tiny", "test.safetensors")
    chosen = np.linspace(0, 19, 12).round().astype(int)
    truth = np.array([WORLD.log_probability(text) for text in WORLD.grammar.documents(20, 2)])
    np.testing.assert_allclose(test.arrays["log_truth"], truth[chosen])


def test_a_model_is_never_better_than_the_truth(made: tuple[Path, Path]) -> None:
    rows = e2e.metrics(made[1])
    test = e2e.real_rows(made[1], "tiny", "test.safetensors")
    assert len(rows) == 2
    for row in rows.values():
        assert row["entropy_rate"] == pytest.approx(WORLD.entropy_rate)
        assert row["kl_truth"] > 0
        # cross-entropy less the true one, of the same documents
        loss = row["nll"] + test.arrays["log_truth"].sum() / row["predicted_tokens"]
        assert row["kl_truth"] == pytest.approx(loss, rel=1e-5)
        assert row["predicted_tokens"] == test.arrays["lengths"].sum() - len(test)


def test_what_the_samples_say_is_in_the_rows(made: tuple[Path, Path]) -> None:
    for row in e2e.metrics(made[1]).values():
        assert list(row["breed_counts"]) == list(WORLD.things.shares["breed"])
        assert row["breeds_left"] == sum(count > 0 for count in row["breed_counts"].values())
        assert len(row["facts_true_by_band"]) == len(row["facts_left_by_band"]) == BANDS
        assert row["compared_rows"] == 20
        assert 0 <= row["sentences_accepted"] <= 1
        assert row["association_truth"] == 0.7
        assert len(json.dumps(row)) < 20_000
        for example in row["examples"]:
            assert example["prompt"] in {*(text.split(" ")[0] for text in WORLD.grammar.documents(60, 0))}
            assert "</s>" not in example["text"]
            said = " ".join(one["text"] for one in example["sentences"])
            assert "".join(said.split()) == "".join((example["prompt"] + example["text"]).split())


def test_the_next_corpus_has_whole_documents_too(made: tuple[Path, Path]) -> None:
    (sampled,) = (
        key
        for key, stage in e2e.stages(made[1]).items()
        if stage["kind"] == "sample" and stage["params"]["generation"] == 1
    )
    rows = Dataset.load(e2e.folder_of(made[1], sampled) / "rows.safetensors").arrays
    assert (rows["tokens"][:, 0] == len(WORLD.words)).all()
    assert (rows["start"] == 2).all()
    assert rows["lengths"].max() <= 22


def test_the_same_world_is_the_same_run_and_another_is_not(made: tuple[Path, Path]) -> None:
    config, runs = made
    assert e2e.run(config, runs, *ARGUMENTS, **SETTINGS)["computed"] == 0
    refused = e2e.collapse("run", config, "--runs-dir", runs, *ARGUMENTS, *SETS, "--set=data.world.seed=1")
    assert refused.code == 2
    assert "--name" in refused.err


def test_a_models_folder_is_measured_again(made: tuple[Path, Path]) -> None:
    row = e2e.metrics(made[1])["keep-0", 0, 0]
    sets = [f"--set=data.world={SETTINGS['data__world']}", "--set=data.block_size=90", "--set=data.eval_rows=12"]
    result = e2e.collapse("eval", made[1] / row["model_dir"], "--data", "world", "--json", *sets)
    assert result.code == 0, result.err
    again = json.loads(result.out)
    assert again["kl_truth"] == pytest.approx(row["kl_truth"], rel=1e-5)


def test_other_tokens_are_held_to_the_same_truth(tmp_path: Path, made: tuple[Path, Path]) -> None:
    settings = SETTINGS | {"model__tokenizer": "bpe", "model__vocab_size": 400, "data__block_size": 128}
    e2e.run(made[0], tmp_path, *ARGUMENTS, "--generations", "0", **settings)
    (row,) = e2e.metrics(tmp_path).values()
    assert row["kl_truth"] > 0
    assert row["breeds_left"] >= 0


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("data.line_bos=true", "data.line_bos"),
        ("data.world.breeds=1", "data.world.breeds must be at least 2"),
        ("data.world.association=1", "data.world.association"),
        ("data.zipf.seed=1", "data.zipf.seed"),
        ("data.train=a.txt", "data.source = world has no files"),
        ("data.block_size=8", "data.block_size"),
        ("train.target=continuation", "train.target = full"),
        ("sample.decode.min_new_tokens=-1", "sample.decode.min_new_tokens"),
        ("sample.prompt_tokens=7", "sample.prompt_tokens"),
        ("eval.protocol=sliding", "eval.protocol = block"),
        ("eval.block_size=16", "eval.block_size"),
    ],
)
def test_what_does_not_go_with_it_is_refused(tmp_path: Path, made: tuple[Path, Path], setting: str, said: str) -> None:
    key = setting.partition("=")[0]
    others = [f"--set={name}={value}" for name, value in NAMED.items() if not f"{key}.".startswith(f"{name}.")]
    result = e2e.collapse("run", made[0], "--runs-dir", tmp_path, *ARGUMENTS, *others, "--set", setting)
    assert result.code == 2
    assert said in result.err
    assert "Traceback" not in result.err
    assert len(result.err.strip().splitlines()) == 1


def test_the_tables_of_its_page_are_of_its_rows(made: tuple[Path, Path], tmp_path: Path) -> None:
    statements = script("docs/results/statements.py")
    lines = statements.sections(RunFolder(made[1], "tiny"), tmp_path / "breeds.png")
    assert (tmp_path / "breeds.png").stat().st_size > 5000
    row = e2e.metrics(made[1])["keep-0", 0, 0]
    counts = row["breed_counts"]
    (first,) = (line for line in lines if line.startswith("| golden retriever |"))
    cells = [cell.strip() for cell in first.split("|")[2:-1]]
    share = 100 * counts["golden retriever"] / max(1, sum(counts.values()))
    assert cells[0] == f"{100 * WORLD.things.shares['breed']['golden retriever']:.1f}%"
    assert cells[1] == f"{share:.1f}%"
    (left,) = (line for line in lines if line.startswith("| breeds left"))
    assert f"| {row['breeds_left']} |" in left
    assert any("`kl_truth`" in line for line in lines)
    assert sum(line.startswith("- ") for line in lines) == 5 * 2


def test_a_learner_that_never_ends_a_text_is_refused(tmp_path: Path) -> None:
    config = tmp_path / "ngram.toml"
    config.write_text(
        'learner = "ngram"\n[data]\nsource = "world"\n[sample]\nprompts = "none"\ndecode = { beams = 1, temperature = 1.0 }\n'
    )
    result = e2e.collapse("run", config, "--runs-dir", tmp_path / "runs")
    assert result.code == 2
    assert "the learner ngram never ends a text" in result.err
    assert len(result.err.strip().splitlines()) == 1
