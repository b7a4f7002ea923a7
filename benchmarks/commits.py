"""The engine at two commits, in turn: tokens/s of training, sampling and scoring for models of the OPT, Llama and GPT-2 families.

    .venv/bin/python benchmarks/commits.py --commits 6562778 .              # against the working tree as it is
    .venv/bin/python benchmarks/commits.py --models opt125m --dtype bfloat16 --rounds 3 --rows 64

Each commit is checked out into a temporary folder; each turn is a process of its own with that commit's code and its
own `benchmarks/ours.py`. The figure is the median of the ratios of turns measured one after the other, with the range.
"""

import argparse
import importlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from loop import checked_out
from report import Report, about_machine

VOCABULARY = 8192
SIZE = {"vocab_size": VOCABULARY, "hidden_size": 192, "num_hidden_layers": 4, "num_attention_heads": 4}
PLACES = {"max_position_embeddings": 2048}
GPT2 = {"model_type": "gpt2", "vocab_size": VOCABULARY, "n_embd": 192, "n_layer": 4, "n_head": 4, "n_positions": 2048}
SHAPES: dict[str, dict[str, Any]] = {
    "opt": SIZE | PLACES | {"model_type": "opt", "ffn_dim": 768, "word_embed_proj_dim": 192, "dropout": 0.0},
    "llama": SIZE | PLACES | {"model_type": "llama", "intermediate_size": 512, "num_key_value_heads": 2},
    "gpt2": GPT2 | {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0},
}
PARTS = ("train", "score blocks", "score sliding", "greedy", "top-k 50", "beams 5 penalty 3")


@lru_cache(maxsize=8)
def own_model(configs: Any, shape: str, dtype: str = "float32", purpose: str = "", vocabulary: int = 0) -> Any:
    """As `fresh_model` of common.py, for the shapes of this file; `configs`: the module that makes configurations."""
    import torch

    from collapse_cli.lm import model as models

    made: Any = models.build(configs.make_config(SHAPES[shape]), seed=0)
    return made.to(getattr(torch, dtype)).eval()


def measure(model: str, dtype: str, rows: int, parts: list[str], *, cpu: bool) -> dict[str, float]:
    """Seconds of each of the parts here, after one call that warms up; `cpu`: of the processor, not of the clock."""
    # Those of the checkout at work, which may lack what today's have: so no names of theirs are checked here.
    common: Any = importlib.import_module("common")
    ours: Any = importlib.import_module("ours")
    if cpu:
        common.time.perf_counter = time.process_time
    if model in SHAPES:
        common.SHAPES[model] = {"vocab_size": VOCABULARY}
        common.fresh_model = ours.fresh_model = partial(own_model, getattr(common, "architecture", common.models))
    work: dict[str, Callable[[int], float]] = {
        "train": lambda count: ours.train(model, dtype, 32, count),
        "score blocks": lambda count: ours.score_blocks(model, count),
        "score sliding": lambda count: ours.score_sliding(model, 512, 256, max(2, count // 8)),
    }
    work |= {name: partial(sampled, ours, model, dtype, common.DECODES[name]) for name in PARTS[len(work) :]}
    found = {}
    for part, run in ((part, work[part]) for part in parts):
        run(max(2, rows // 8))
        found[part] = min(run(rows) for _ in range(3))
    return found


def sampled(ours: Any, model: str, dtype: str, decode: Mapping[str, Any], rows: int) -> float:
    """Seconds of sampling."""
    seconds: float = ours.sample(model, dtype, decode, rows)
    return seconds


def turn(checkout: Path, model: str, dtype: str, rows: int, parts: str, *, cpu: bool) -> dict[str, float]:
    """`measure` in a new process with the code of a checkout."""
    # -P: this folder is not searched for modules, so that the checkout's own benchmarks are found.
    command = [sys.executable, "-P", str(Path(__file__)), "--measure", model, "--dtype", dtype, "--rows", str(rows)]
    command += ["--parts", parts]
    environment = os.environ | {"PYTHONPATH": f"{checkout}{os.pathsep}{checkout / 'benchmarks'}"}
    if cpu:
        command.append("--cpu")
        environment["OMP_NUM_THREADS"] = "1"
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)}\nwith {checkout} ended with {done.returncode}:\n{done.stderr[-3000:]}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    """Measure both commits in turn; print a table and the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--commits", nargs=2, default=("6562778", "."), metavar="COMMIT", help="`.`: the working tree")
    parser.add_argument("--models", default="opt,llama,gpt2", help="of opt, llama, gpt2 and the shapes of common.py")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--rows", type=int, default=256, help="rows of 64 tokens in each part")
    parser.add_argument("--parts", default=",".join(PARTS), help="some of: %(default)s")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cpu", action="store_true", help="one thread, processor time: for a machine with other work")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the JSON there instead of printing it")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    parts = asked.parts.split(",")
    if asked.measure:
        print(json.dumps(measure(asked.measure, asked.dtype, asked.rows, parts, cpu=asked.cpu)))
        return
    report = Report(asked.json, about_machine() | {"commits": asked.commits})
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="collapse-commits-") as name:
        folder = Path(name)
        with checked_out(asked.commits[0], folder) as first, checked_out(asked.commits[1], folder) as second:
            for model in asked.models.split(","):
                turns = []
                for index in range(asked.rounds):
                    sides = (first, second) if index % 2 == 0 else (second, first)
                    pair = {
                        side: turn(side, model, asked.dtype, asked.rows, asked.parts, cpu=asked.cpu) for side in sides
                    }
                    turns.append([pair[first], pair[second]])
                lines = []
                for part in parts:
                    ratios = sorted(before[part] / after[part] for before, after in turns)
                    before, after = (
                        statistics.median(side[part] for side in sides) for sides in zip(*turns, strict=True)
                    )
                    ratio = f"{statistics.median(ratios):.3f} ({ratios[0]:.3f} to {ratios[-1]:.3f})"
                    lines.append([part, f"{before:.2f}", f"{after:.2f}", ratio])
                report.table(f"{model}, {asked.dtype}, seconds", ["part", *asked.commits, "times as fast"], lines)
                report.keep({model: turns})
                found[model] = turns
    report.finish(found)


if __name__ == "__main__":
    main()
