"""What the code of before the house had rooms left in its store, for tests that today's code finds and uses it.

Run as a script this file makes `before.json` anew with the package of another commit:

    git worktree add /tmp/before be2790c
    PYTHONPATH=/tmp/before python tests/support/before.py

A store is committed as its records (`stage.json`: what a stage was made of, what it found out, the hashes of its files), a run
as its plan and its rows; no weights, no data. Texts and images are made here, so that keys depend on no machine.
"""

import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from support.idx import write_set

BEFORE = Path(__file__).parent / "before.json"
WORDS = ("the", "a", "cat", "dog", "bird", "runs", "sees", "likes", "old", "new", "red", "house", "tree", "of", "under")
# fields of rows: times, places of this machine, and what rows have had since
NOT_COMPARED = ("seconds", "model_dir", "digest", "real_share")

OPT = """
[model]
tokenizer = "bpe"
vocab_size = 290
config = { model_type = "opt", hidden_size = 16, word_embed_proj_dim = 16, ffn_dim = 16, num_hidden_layers = 1, num_attention_heads = 2, max_position_embeddings = 32, dropout = 0.1 }
[sample]
prompt_tokens = 16
new_tokens = 16
dtype = "float32"
decode = { beams = 1, temperature = 1.0, top_k = 20, repetition_penalty = 1.1 }
[train]
epochs = 1
lr = 1e-2
batch_size = 8
dtype = "float32"
"""
DATA = """
[data]
source = "FOLDER"
block_size = 16
rows = 40
eval_rows = 12
"""
EXPERIMENTS: dict[str, str] = {
    "lm": '[loop]\ngenerations = 1\npolicies = ["keep-10", "fresh-50"]\n' + OPT + DATA,
    "lm-growing": '[loop]\ngenerations = 1\npolicies = ["keep-25"]\ninit = "previous"\n[mix]\nsize = "growing"\n'
    + OPT.replace("beams = 1, temperature = 1.0, top_k = 20, repetition_penalty = 1.1", "beams = 2")
    + DATA,
    "lm-mixture": 'kind = "mixture"\n[mixture]\nrows = [16]\nshare = [0.0, 0.5]\nsize = [1, 2]\ngenerator_rows = [16]\n'
    + OPT
    + DATA,
    "ngram": 'learner = "ngram"\n[loop]\ngenerations = 2\npolicies = ["keep-0", "accumulate"]\n[model]\ntokenizer = "bpe"\n'
    'vocab_size = 290\n[ngram]\norder = 3\n[sample]\nprompts = "none"\nnew_tokens = 16\ndecode = { beams = 1, temperature = 1.0 }\n'
    + DATA,
    "ngram-zipf": 'learner = "ngram"\n[loop]\ngenerations = 1\npolicies = ["keep-10"]\n[data]\nsource = "zipf"\nblock_size = 16\n'
    "zipf = { vocabulary = 16, rank = 2, train_tokens = 4096, test_tokens = 1024 }\n"
    '[sample]\nprompts = "none"\nnew_tokens = 16\ndecode = { beams = 1, temperature = 1.0 }\n',
    "gaussian": 'learner = "gaussian"\n[loop]\ngenerations = 3\nseeds = [0, 1]\npolicies = ["keep-0", "keep-10", "accumulate", '
    '"accumulate-subsample"]\n[data]\nsource = "blobs"\nrows = 20\nblobs = { dimensions = 1 }\n[gaussian]\ntrials = 3\n',
    "gaussian-stages": 'learner = "gaussian"\n[loop]\ngenerations = 2\npolicies = ["keep-0", "keep-50"]\nblock = 1\n'
    '[data]\nsource = "blobs"\nrows = 20\nblobs = { dimensions = 2 }\n',
    "gmm": 'learner = "gmm"\n[loop]\ngenerations = 3\npolicies = ["keep-0", "accumulate"]\n[data]\nsource = "blobs"\nrows = 60\n',
    "ridge": 'learner = "ridge"\n[loop]\ngenerations = 3\npolicies = ["keep-0", "accumulate"]\n'
    '[data]\nsource = "regression"\nrows = 20\nregression = { dimensions = 5, inputs = "same" }\n',
    "ridge-mixture": 'kind = "mixture"\nlearner = "ridge"\n[loop]\nseeds = [0, 1]\n[data]\nsource = "regression"\n'
    "regression = { dimensions = 5 }\n[mixture]\nrows = [20, 40]\nshare = [0.25, 0.5]\nquality = [0.5]\nweight = [0.1, 0.5]\n",
    "ridge-iterated": 'kind = "mixture"\nlearner = "ridge"\n[data]\nsource = "regression"\nregression = { dimensions = 5 }\n'
    '[mixture]\nrows = [20]\nshare = [0.5]\nquality = [0.5]\niterations = [1, 3]\nreal_data = "fixed"\n',
    "projections": 'kind = "mixture"\nlearner = "projections"\n[data]\nsource = "regression"\nregression = { dimensions = 8 }\n'
    "[mixture]\nrows = [30]\nshare = [0.0, 0.5]\nquality = [1.0]\nsize = [4, 16]\n",
    "mlp": 'kind = "mixture"\nlearner = "mlp"\n[data]\nsource = "FOLDER"\n[mlp]\nsteps = 3\nwidth = 5\nbatch_size = 8\n'
    "[mixture]\nrows = [20]\nshare = [0.0, 0.5]\ngenerator_rows = [10]\n",
    "vae": 'learner = "vae"\n[loop]\ngenerations = 1\npolicies = ["keep-0", "keep-10"]\n[data]\nsource = "FOLDER"\nrows = 20\n'
    "eval_rows = 10\n[vae]\nlatent = 2\nchannels = [2, 3]\nepochs = 1\nbatch_size = 8\nmeasured = 5\n",
}


@dataclass(frozen=True)
class Before:
    """What the code of before left of one experiment.

    Attributes:
        toml: the experiment; FOLDER stands for the folder that `write_data` fills.
        stages: of its `plan.json`, in order.
        records: `stage.json` by key.
        rows: of its `metrics.jsonl`, without what is not compared.
    """

    toml: str
    stages: list[dict[str, Any]]
    records: dict[str, dict[str, Any]]
    rows: list[dict[str, Any]]


def write_data(folder: Path) -> Path:
    """Texts and images, the same on every machine."""
    folder.mkdir(parents=True)
    for split, lines in {"train": 150, "valid": 30, "test": 31}.items():
        picked = [
            [WORDS[(7 * line + 11 * place + line * place * place) % len(WORDS)] for place in range(12)]
            for line in range(lines)
        ]
        (folder / f"{split}.txt").write_text(
            "".join(" ".join(words).capitalize() + ".\n" for words in picked), encoding="utf-8"
        )
    for stem, count in {"train": 60, "t10k": 20}.items():
        pixels = np.uint8(np.arange(count * 64).reshape(count, 8, 8) ** 2 % 251)
        write_set(folder, stem, pixels, np.uint8(np.arange(count) % 10))
    return folder


def write_experiment(folder: Path, toml: str) -> Path:
    """A configuration file, and the texts and images it may name."""
    path = folder / "small.toml"
    path.write_text(toml.replace("FOLDER", write_data(folder / "data").as_posix()), encoding="utf-8")
    return path


def compared(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name not in NOT_COMPARED}


def read() -> dict[str, Before]:
    """By experiment."""
    return {name: Before(**made) for name, made in json.loads(BEFORE.read_text(encoding="utf-8")).items()}


def make(name: str, folder: Path) -> Before:
    """Run an experiment with whatever package is imported, from the command line."""
    config = write_experiment(folder, EXPERIMENTS[name])
    command = [
        sys.executable,
        "-m",
        "collapse_cli",
        "run",
        str(config),
        "--runs-dir",
        str(folder / "runs"),
        "--jobs",
        "1",
    ]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=folder)
    run = folder / "runs" / "small"
    stages = json.loads((run / "plan.json").read_text())["stages"]
    store = folder / "runs" / "store"
    records = {
        stage["key"]: json.loads((store / stage["key"][:2] / stage["key"] / "stage.json").read_text())
        for stage in stages
    }
    rows = [compared(json.loads(line)) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return Before(EXPERIMENTS[name], stages, records, rows)


if __name__ == "__main__":
    records: dict[str, Any] = json.loads(BEFORE.read_text(encoding="utf-8")) if sys.argv[1:] else {}
    for chosen in sys.argv[1:] or EXPERIMENTS:
        print(chosen, flush=True)
        with tempfile.TemporaryDirectory() as temporary:
            records[chosen] = vars(make(chosen, Path(temporary)))
        BEFORE.write_text(json.dumps(records) + "\n", encoding="utf-8")
