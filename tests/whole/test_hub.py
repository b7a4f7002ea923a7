"""Models by their Hub id without a network, and other forms in which a model may be given."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support import e2e
from support.waiting import PATIENCE

from collapse_cli.data.dataset import hub_revision

COMMIT = "27dcfa74d334bc871f3234de431e71c6eeba5dd6"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return e2e.write_model(tmp_path_factory.mktemp("model") / "opt")


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny experiment, without a word about the model."""
    path = e2e.write_experiment(tmp_path_factory.mktemp("hub"))
    text = path.read_text()
    path.write_text(text[: text.index("[model]")] + text[text.index("[data]") :])
    return path


@pytest.fixture
def cache(model: Path, tmp_path: Path) -> Path:
    """A Hub cache that holds `facebook/opt-125m` (in truth a tiny random OPT)."""
    home = tmp_path / "hf"
    repository = home / "hub" / "models--facebook--opt-125m"
    shutil.copytree(model, repository / "snapshots" / COMMIT)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    return home


@pytest.fixture(autouse=True)
def no_memory_of_the_hub() -> None:
    """What an earlier test asked the Hub is asked again."""
    hub_revision.cache_clear()


def test_offline_and_uncached_says_all_ways_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`collapse run` alone: at once (nothing is waited for that is not asked), one line, and all that a user without the Hub can do."""
    asked: list[object] = []
    monkeypatch.setattr(socket.socket, "connect", lambda self, place: asked.append(place))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *place, **_: asked.append(place))
    monkeypatch.setattr(time, "sleep", asked.append)
    result = e2e.collapse("run", "--runs-dir", tmp_path / "runs")
    assert asked == []
    assert result.code == 2
    assert result.err.count("\n") == 1
    for word in ("facebook/opt-125m", "--model", "--data", "HF_HOME", "HF_ENDPOINT", "--preset quick"):
        assert word in result.err
    assert not (tmp_path / "runs").exists(), "nothing need be made to say so"


def test_no_model_but_data_at_hand(model: Path, tmp_path: Path) -> None:
    """With a local model, the data are what is missing, and the line says so."""
    short = ["--set=data.block_size=16", "--set=sample.prompt_tokens=16", "--set=sample.new_tokens=16"]
    result = e2e.collapse("run", "--model", model, "--runs-dir", tmp_path / "runs", *short)
    assert result.code == 2
    assert result.err.count("\n") == 1
    for word in ("wikitext", "--data", "--preset quick"):
        assert word in result.err


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ALL_PROXY", "socks5://127.0.0.1:1"),  # the library for it is not among ours
        ("HTTPS_PROXY", "nonsense://127.0.0.1"),
        ("HF_TOKEN", "ключ"),
    ],
)
def test_settings_of_the_network_that_cannot_be_used_are_said(tmp_path: Path, name: str, value: str) -> None:
    """A traceback before, and also where HF_HUB_OFFLINE said that no network is wanted."""
    clean = {key: text for key, text in os.environ.items() if "proxy" not in key.lower()}
    command = [sys.executable, "-m", "collapse_cli", "run", "--model", "nobody/nothing", "--data", "pydoc"]
    for offline in ("0", "1") if name == "ALL_PROXY" else ("0",):
        done = subprocess.run(
            [*command, "--runs-dir", str(tmp_path)],
            env={**clean, "HF_HUB_OFFLINE": offline, "HF_HOME": str(tmp_path / "hf"), name: value},
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        assert done.returncode == 2, done.stderr
        assert "Traceback" not in done.stderr
        assert "the Hub cannot be reached" in done.stderr
        if "proxy" in name.lower():
            assert "the Hub cannot be asked with the proxy" in done.stderr


@pytest.mark.parametrize("cached", [False, True])
def test_a_hub_that_cannot_be_reached(config: Path, cache: Path, tmp_path: Path, cached: bool) -> None:
    """Nothing says offline, but nobody answers: the cache is used where it is filled, else the line comes in seconds."""
    if not cached:
        shutil.rmtree(cache)
    environment = {**os.environ, "HF_HOME": str(cache), "HF_ENDPOINT": "http://127.0.0.1:9"}
    for name in ("HF_HUB_OFFLINE", "HF_HUB_CACHE"):
        environment.pop(name, None)
    command = ["run", str(config), "--model", "facebook/opt-125m", "--generations", "0", "--runs-dir", str(tmp_path)]
    made = subprocess.run(
        [sys.executable, "-m", "collapse_cli", *command],
        env=environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    if cached:
        assert made.returncode == 0, made.stderr
        assert json.loads((tmp_path / "tiny" / "run.json").read_text())["config"]["model"]["revision"] == COMMIT
    else:
        assert made.returncode == 2
        assert made.stderr.count("\n") == 1, made.stderr
        assert "HF_ENDPOINT" in made.stderr


def test_a_cached_model_is_used_offline(
    config: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The id, the commit behind it and the hash of its weights are in `run.json`; training starts from its weights."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache / "hub"))
    e2e.run(config, tmp_path, "--model", "facebook/opt-125m")
    recorded = json.loads((tmp_path / "tiny" / "run.json").read_text())["config"]["model"]
    assert recorded["source"] == "facebook/opt-125m"
    assert recorded["revision"] == COMMIT
    assert len(recorded["sha256"]) == len(recorded["tokenizer_sha256"]) == 64
    snapshot = cache / "hub" / "models--facebook--opt-125m" / "snapshots" / COMMIT
    e2e.run(config, tmp_path, "--model", str(snapshot), "--name", "folder")
    assert e2e.results(tmp_path, "folder") == e2e.results(tmp_path), "the id and its folder are the same model"
    again = e2e.run(config, tmp_path, "--model", "facebook/opt-125m")
    assert again["computed"] == 0
    other = e2e.collapse("run", config, "--runs-dir", tmp_path, "--model", "facebook/opt-350m", "--name", "other")
    assert other.code == 2
    assert "facebook/opt-350m" in other.err


def test_eval_of_a_cached_model(config: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`collapse eval ID` scores it as `collapse eval FOLDER` does."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache / "hub"))
    text = config.parent / "text"
    snapshot = cache / "hub" / "models--facebook--opt-125m" / "snapshots" / COMMIT
    by_id, by_folder = (
        e2e.collapse("eval", target, "--data", text, "--json", "--set", "data.block_size=16").json
        for target in ("facebook/opt-125m", snapshot)
    )
    assert by_id["perplexity"] == by_folder["perplexity"]
    assert 100 < by_id["perplexity"] < 1000, "not that of a random model with 290 tokens"


def test_a_folder_of_torch_weights(config: Path, model: Path, tmp_path: Path) -> None:
    """`pytorch_model.bin`, as facebook/opt-125m itself has, gives what `model.safetensors` gives."""
    import torch
    from safetensors.torch import load_file

    folder = tmp_path / "bin"
    shutil.copytree(model, folder)
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    runs = tmp_path / "runs"
    e2e.run(config, runs, "--model", str(folder), "--name", "bin", "--generations", "0")
    e2e.run(config, runs, "--model", str(model), "--name", "safetensors", "--generations", "0")
    where = ("keep-0", 0, 0)
    assert e2e.metrics(runs, "bin")[where]["nll"] == pytest.approx(
        e2e.metrics(runs, "safetensors")[where]["nll"], rel=1e-6
    )
    stored = runs / e2e.metrics(runs, "bin")[where]["model_dir"]
    assert not list(stored.glob("*.bin")), "a pickle in the store"


def test_a_config_file_starts_from_scratch(config: Path, model: Path, tmp_path: Path) -> None:
    """`--model config.json`: that shape, weights of the seed's own, and a BPE trained on the text."""
    runs = tmp_path / "runs"
    settings = {"model__vocab_size": 280}
    bare = tmp_path / "config.json"
    fields = json.loads((model / "config.json").read_text())
    del fields["vocab_size"]
    bare.write_text(json.dumps(fields))
    made = e2e.run(config, runs, "--model", str(bare), "--generations", "0", "--seeds", "0,1", **settings)
    assert len({row["perplexity"] for row in made["rows"]}) == 2
    stored = json.loads((runs / made["rows"][0]["model_dir"] / "config.json").read_text())
    assert (stored["hidden_size"], stored["vocab_size"]) == (16, 280)
    recorded = json.loads((runs / "tiny" / "run.json").read_text())["config"]["model"]
    assert recorded["tokenizer"] == "bpe"
    assert recorded["config"]["hidden_size"] == 16
    assert recorded["sha256"] == ""
