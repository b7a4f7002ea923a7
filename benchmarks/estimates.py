"""What `collapse run --dry-run` says that a run takes, beside what it takes: in one go, on one machine.

    python benchmarks/estimates.py [NAME ...] [--jobs N] [--limit SECONDS] [--processor-time]

Of each: the dry run, then the run itself into a folder of its own. Seconds of the whole command and of its stages alone, memory at its peak
(of all processes at one moment: the sum of what each had held at most) and disk, each as said, as found, and said by found. Both see what else this machine does,
but not at the same moment: on a machine that others use, ratios differ from one time to the next. The load average before and after is
printed with each. Names are those of `CASES`: presets, cut where they take more than minutes, and a model of 30 layers that no table knows
(random weights, saved as a pretrained one is), on text of ../shared/data. A run that is said to take more than `--limit` is left out.
`--processor-time`: for a machine that others use, both in seconds of the processor, one stage at a time on one thread.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
ONE = ("--seeds", "0")


def preset(name: str, *cuts: str) -> Callable[[Path], list[str]]:
    return lambda folder: ["--preset", name, *cuts]


def saved_model(folder: Path) -> list[str]:
    """A model of 30 layers, thin, as a pretrained one is saved, fine-tuned on WikiText."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from collapse_cli.lm.text import load_tokenizer

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=50272,
        hidden_size=192,
        intermediate_size=512,
        num_hidden_layers=30,
        num_attention_heads=3,
        num_key_value_heads=3,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        bos_token_id=2,
        eos_token_id=2,
    )
    LlamaForCausalLM(config).save_pretrained(folder / "model")
    load_tokenizer(SHARED / "opt-tokenizer").save_pretrained(folder / "model")
    tree = f"""
[loop]
generations = 1
policies = ["keep-0"]
seeds = [0]

[model]
source = "{folder / "model"}"

[data]
source = "{SHARED / "wikitext-2"}"
train = "valid.txt"
test = "test.txt"
rows = 256
eval_rows = 128

[sample]
decode = {{ beams = 1, temperature = 1.0 }}

[train]
epochs = 2
lr = 5e-4
batch_size = 16
"""
    (folder / "thin.toml").write_text(tree)
    return [str(folder / "thin.toml")]


CASES: Mapping[str, Callable[[Path], Sequence[str]]] = {
    "smoke": preset("smoke"),
    "strong-weighted": preset("strong-weighted"),
    "strong-ridge": preset("strong-ridge"),
    "strong-projections": preset("strong-projections"),
    "ngram-zipf": preset("ngram-zipf"),
    "generational-regression": preset("generational-regression"),
    "nature-gaussian": preset("nature-gaussian"),
    "strong-iterative": preset("strong-iterative"),
    "quick": preset("quick", *ONE, "--generations", "1", "--policy", "keep-0"),
    "world": preset("world", *ONE, "--generations", "1", "--policy", "keep-0"),
    "ecosystem": preset("ecosystem", *ONE, "--generations", "1"),
    "wikitext2-small": preset("wikitext2-small", *ONE, "--generations", "1", "--policy", "keep-0"),
    "nature-vae": preset("nature-vae", "--generations", "1", "--policy", "keep-0", "--set", "vae.epochs=10"),
    "nature-gmm": preset("nature-gmm", "--generations", "50"),
    "strong-mlp": preset("strong-mlp", *ONE),
    "strong-gpt2": preset("strong-gpt2", *ONE, "--set", "mixture.rows=[500,2000]"),
    "thin": saved_model,
}


COMMAND = ("-m", "collapse_cli")
# its clock counts the seconds in which this process computes
IN_PROCESSOR_TIME = (
    "-c",
    "import sys, time; time.perf_counter = time.process_time; from collapse_cli.__main__ import main; code = main(sys.argv[1:]); "
    "print('PROCESSOR', time.process_time(), file=sys.stderr); sys.exit(code)",
)


def collapse(command: Sequence[str], *arguments: str) -> tuple[Any, int, float]:
    """What a command says as JSON, the bytes that its processes held at their peak (at one moment, the sum of what each had held at most), and its seconds.

    Raises:
        SystemExit: when it fails.
    """
    peaks, began = [0], time.perf_counter()
    with subprocess.Popen(
        [sys.executable, *command, *arguments, "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        watched = threading.Thread(target=watch, args=(process, peaks), daemon=True)
        watched.start()
        said, errors = process.communicate()
        watched.join()
    if process.returncode:
        raise SystemExit(f"{' '.join(arguments)}: {errors.strip()}")
    took = time.perf_counter() - began
    if command is IN_PROCESSOR_TIME:
        took = float(errors.split("PROCESSOR")[-1])
    return json.loads(said), max(peaks), took


def watch(process: "subprocess.Popen[str]", peaks: list[int]) -> None:
    """Add what the processes of a command held at each moment: of each, the most so far (`VmHWM`; where the system does not say, what it holds)."""
    while process.poll() is None:
        with suppress(psutil.Error):
            own = psutil.Process(process.pid)
            now = 0
            for one in (own, *own.children(recursive=True)):
                with suppress(psutil.Error, OSError):
                    now += held(one)
            peaks.append(now)
        time.sleep(0.2)


def held(process: psutil.Process) -> int:
    status = Path(f"/proc/{process.pid}/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) << 10
    return int(process.memory_info().rss)


def stage_seconds(runs: Path) -> float:
    """Of all stages that a run made, one after another, by their records."""
    return sum(float(json.loads(path.read_text())["seconds"]) for path in (runs / "store").rglob("stage.json"))


def on_disk(runs: Path) -> int:
    return sum(path.stat().st_size for path in (runs / "store").rglob("*") if path.is_file())


def measure(name: str, jobs: int, limit: float, command: Sequence[str]) -> str:
    """A row of the table."""
    with tempfile.TemporaryDirectory(prefix="estimates-") as folder:
        runs = Path(folder) / "runs"
        asked = ("run", *CASES[name](Path(folder)), "--runs-dir", str(runs), "--jobs", str(jobs))
        load = os.getloadavg()[0]
        said, _, tried = collapse(command, *asked, "--dry-run")
        plans = said.get("runs", [said])
        total = said.get("total", {"seconds": plans[0]["seconds"], "memory_needed": plans[0]["memory_needed"]})
        stages = sum(kind["seconds"] for plan in plans for kind in plan["kinds"].values())
        if total["seconds"] > limit:
            return f"| `{name}` | {total['seconds']:.0f} s | not run | | {stages:.0f} s | | | | | {tried:.1f} s | |"
        _, memory, took = collapse(command, *asked)
        computed, disk = stage_seconds(runs), on_disk(runs)
        said_disk = sum(kind["disk"] for plan in plans for kind in plan["kinds"].values())
        cells = [
            f"`{name}`",
            f"{total['seconds']:.1f} s",
            f"{took:.1f} s",
            f"{total['seconds'] / took:.2f}",
            f"{stages:.1f} s",
            f"{computed:.1f} s",
            f"{stages / computed:.2f}",
            f"{total['memory_needed'] / 1e6:.0f} MB, {memory / 1e6:.0f} MB, {total['memory_needed'] / memory:.2f}",
            f"{said_disk / 1e6:.1f} MB, {disk / 1e6:.1f} MB, {said_disk / max(1, disk):.2f}",
            f"{tried:.1f} s",
            f"{load:.1f}, {os.getloadavg()[0]:.1f}",
        ]
        return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("names", nargs="*", default=[*CASES], metavar="NAME", choices=[*CASES, []])
    parser.add_argument("--jobs", type=int, default=0, help="as that of `collapse run`")
    parser.add_argument(
        "--limit", type=float, default=600.0, help="seconds of a run, as they are said, above which it is not run"
    )
    parser.add_argument(
        "--processor-time", action="store_true", help="seconds of the processor; one stage at a time, one thread"
    )
    asked = parser.parse_args()
    jobs, command = asked.jobs, COMMAND
    if asked.processor_time:
        jobs, command, os.environ["OMP_NUM_THREADS"] = 1, IN_PROCESSOR_TIME, "1"
    print(
        "| run | said | took | ratio | stages: said | took | ratio | memory: said, found, ratio | disk: said, found, ratio | the dry run took | load |"
    )
    print("|---|---:|---:|---:|---:|---:|---:|---|---|---:|---|")
    for name in asked.names:
        print(measure(name, jobs, asked.limit, command), flush=True)


if __name__ == "__main__":
    main()
