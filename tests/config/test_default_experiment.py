"""`collapse run` with nothing named: OPT-125m and WikiText-2 by their Hub ids, here out of caches, and its recipe."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support import e2e, nature
from support.waiting import PATIENCE

from collapse_cli import config
from collapse_cli.config.policies import Policy
from collapse_cli.findings.expectations import judge

COMMITS = {"model": "27dcfa74d334bc871f3234de431e71c6eeba5dd6", "dataset": "b08601e04326c79dfdd32d625aee71d232d685c3"}
SHORT = ["data.block_size=16", "sample.prompt_tokens=16", "sample.new_tokens=16", "train.epochs=1", "data.eval_rows=20"]


@pytest.fixture(scope="module")
def caches(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Hugging Face home as two downloads leave it: a (tiny, random) facebook/opt-125m, a (short) Salesforce/wikitext."""
    import datasets

    home = tmp_path_factory.mktemp("home")
    repository = home / "hub" / "models--facebook--opt-125m"
    e2e.write_model(repository / "snapshots" / COMMITS["model"])
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMITS["model"])

    place = home / "datasets" / "Salesforce___wikitext" / "wikitext-2-raw-v1" / "0.0.0" / COMMITS["dataset"]
    source = home / "source"
    source.mkdir()
    for split, rows in (("train", 120), ("validation", 30), ("test", 40)):
        lines = [f" The old dog sees {i} red houses . \n" if i % 3 else "" for i in range(rows)]
        datasets.Dataset.from_dict({"text": lines}).to_parquet(str(source / f"{split}.parquet"))
    files = {path.stem: str(path) for path in source.iterdir()}
    made = datasets.load_dataset("parquet", data_files=files, cache_dir=str(home / "made"))
    shutil.copytree(Path(made["train"].cache_files[0]["filename"]).parent, place)
    for path in place.glob("parquet-*"):
        path.rename(path.with_name(path.name.replace("parquet-", "wikitext-")))
    facts = json.loads((place / "dataset_info.json").read_text())
    facts |= {"dataset_name": "wikitext", "config_name": "wikitext-2-raw-v1"}
    for split in facts["splits"].values():
        split["dataset_name"] = "wikitext"
    (place / "dataset_info.json").write_text(json.dumps(facts))
    return home


def test_it_runs_from_filled_caches_without_a_network(caches: Path, tmp_path: Path) -> None:
    """Model and data are found in the caches, with the blank lines that WikiText on the Hub has, and the run succeeds."""
    environment = {**os.environ, "HF_HOME": str(caches), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-m", "collapse_cli", "run", "--generations", "1", "--policy", "keep-10", "--json"]
    command += ["--runs-dir", str(tmp_path), *(f"--set={setting}" for setting in SHORT)]
    made = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=PATIENCE)
    assert made.returncode == 0, made.stderr
    recorded = json.loads((tmp_path / "opt125m-wikitext2" / "run.json").read_text())["config"]
    assert (recorded["model"]["source"], recorded["data"]["source"]) == ("facebook/opt-125m", "wikitext2")
    assert recorded["model"]["revision"] == COMMITS["model"]
    rows = json.loads(made.stdout)["rows"]
    assert [(row["policy"], row["generation"]) for row in rows] == [("keep-10", 0), ("keep-10", 1)]
    assert rows[1]["real_rows"] == round(0.1 * rows[1]["train_rows"])
    said = {"protocol": "block", "dtype": "float32", "line_bos": True, "context": 16, "stride": 16}
    assert rows[0]["protocol"] == said


def test_it_has_the_recipe_of_the_paper() -> None:
    """The settings of the Nature experiment, where paper or code state them."""
    path = config.preset_path("opt125m-wikitext2")
    recipe = config.load(config.read_toml(path), path.name)
    assert recipe.model.source == "facebook/opt-125m"
    assert recipe.data.source == "wikitext2"
    assert recipe.loop == config.tree.LoopConfig(
        generations=9, policies=tuple(Policy("keep", share) for share in (0.0, 10.0, 20.0)), init="base"
    )
    assert (recipe.data.block_size, recipe.data.line_bos, recipe.data.rows) == (64, True, 0)
    assert (recipe.sample.prompts, recipe.sample.prompt_tokens, recipe.sample.new_tokens) == ("real", 64, 64)
    assert recipe.sample.decode == config.tree.DecodeConfig(beams=5)
    training = recipe.train.model_dump(include={"epochs", "lr", "batch_size", "weight_decay", "schedule", "target"})
    assert training == {
        "epochs": 5,
        "lr": 2e-5,
        "batch_size": 128,
        "weight_decay": 0.01,
        "schedule": "cosine-epoch",
        "target": "continuation",
    }


PUBLISHED = {
    "opt125m-wikitext2": ("keep-0", 5, nature.NO_REAL, nature.NO_REAL_RUNS),
    "nature-keep-10": ("keep-10", 10, nature.TENTH_REAL, nature.TENTH_REAL_RUNS),
}


@pytest.mark.parametrize("preset", PUBLISHED)
def test_the_papers_own_curve_is_inside_what_the_preset_expects(preset: str) -> None:
    """All ten generations of figure 10 with the epochs they were trained for; 58 at generation 9, once expected, fails."""
    policy, epochs, means, runs = PUBLISHED[preset]
    path = config.preset_path(preset)
    recipe = config.load(config.read_toml(path), path.name)
    assert recipe.train.epochs == epochs
    assert [(one.policy, one.generation) for one in recipe.expect] == [(policy, g) for g in range(10)]
    tree = recipe.model_dump(mode="json")
    found = judge(nature.rows(means, policy), tree)
    assert [one.verdict for one in found] == ["inside"] * 10
    assert [one.value for one in found] == list(means)
    for end in (0, 1):  # every single run as well
        ends = (means[0], *(run[end] for run in runs))
        assert [one.verdict for one in judge(nature.rows(ends, policy), tree)] == ["inside"] * 10
    off = judge(nature.rows((*means[:9], 1.05 * means[9] if epochs == 10 else 58.0), policy), tree)
    assert off[9].verdict == "outside"


def test_both_settings_of_the_paper_differ_in_policy_epochs_and_what_is_expected_only() -> None:
    first, second = (
        config.load(config.read_toml(config.preset_path(name)), name).model_dump(mode="json") for name in PUBLISHED
    )
    first["train"]["epochs"], first["expect"], first["loop"]["policies"] = 10, second["expect"], ["keep-10"]
    assert first == second
