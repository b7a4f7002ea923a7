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
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from held import Peak

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
CONFIGS = Path(__file__).resolve().parents[1] / "configs"
TEXT, TOKENIZER = SHARED / "wikitext-2", SHARED / "opt-tokenizer"
ONE = ("--seeds", "0")
FIRST = ("--seeds", "0", "--generations", "1")
ON_TEXT = ("--data", str(TEXT), "--set", "data.train=valid.txt", "--set", "data.test=test.txt")
Command = Callable[[Path], Sequence[str]]  # the arguments of `collapse run`, given a folder for what they name


def preset(name: str, *cuts: str) -> Command:
    return lambda folder: ["--preset", name, *cuts]


def changed(name: str, exchanged: Mapping[str, str], variants: Collection[str] = (), *cuts: str) -> Command:
    """A preset whose models and texts are not here: others in their place.

    Args:
        exchanged: what stands in its file, and what is to stand there; `{folder}` is where models and texts are, which `made` makes.
        variants: of those that it has, the ones that are kept; all, where none are named.
    """

    def command(folder: Path) -> Sequence[str]:
        text = "\n".join(_parts(CONFIGS / f"{name}.toml", variants))
        for there, instead in exchanged.items():
            if there not in text:
                raise SystemExit(f"{name}: {there!r} no longer stands in its file")
            text = text.replace(there, instead.replace("{folder}", str(folder)))
        make(folder, text)
        (folder / f"{name}.toml").write_text(text)
        return [str(folder / f"{name}.toml"), *cuts]

    return command


def _parts(path: Path, variants: Collection[str]) -> Iterator[str]:
    """The lines of a preset, without variants that are not wanted and without expectations."""
    wanted = True
    for line in path.read_text().splitlines():
        if line.startswith("["):
            dotted = line.strip("[]").split(".")
            wanted = dotted[-1] != "expect" and (dotted[0] != "variants" or not variants or dotted[1] in variants)
        if wanted:
            yield line


def make(folder: Path, text: str) -> None:
    """The models with random weights, and the texts, that a changed preset names."""
    for name in MODELS:
        if str(folder / name) in text:
            save(name, folder / name)
    if str(folder / "science") in text:
        for source, column in (("science", "support"), ("sums", "answer")):
            for split, read in (("train", "valid.txt"), ("test", "test.txt")):
                lines = [line for line in (TEXT / read).read_text().splitlines() if len(line) > 200][:600]
                (folder / source).mkdir(exist_ok=True)
                written = "".join(json.dumps({column: line}) + "\n" for line in lines)
                (folder / source / f"{split}.jsonl").write_text(written)


# the least of each kind that has its parts: in the place of models that nobody here can load
MODELS: Mapping[str, Mapping[str, Any]] = {
    "opt": {
        "model_type": "opt",
        "hidden_size": 128,
        "word_embed_proj_dim": 128,
        "ffn_dim": 512,
        "num_hidden_layers": 4,
        "num_attention_heads": 2,
    },
    "opt-125m": {
        "model_type": "opt",
        "hidden_size": 768,
        "word_embed_proj_dim": 768,
        "ffn_dim": 3072,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
    },
    "llama": {
        "model_type": "llama",
        "hidden_size": 128,
        "intermediate_size": 384,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "tie_word_embeddings": True,
    },
    "qwen": {
        "model_type": "qwen2",
        "hidden_size": 128,
        "intermediate_size": 384,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "tie_word_embeddings": True,
    },
    # 30 layers, thin
    "thin": {
        "model_type": "llama",
        "hidden_size": 192,
        "intermediate_size": 512,
        "num_hidden_layers": 30,
        "num_attention_heads": 3,
        "num_key_value_heads": 3,
        "tie_word_embeddings": True,
    },
}


def save(name: str, folder: Path) -> None:
    """A model with random weights, as a pretrained one is saved, with OPT's tokenizer."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from collapse_cli.lm.text import load_tokenizer

    torch.manual_seed(0)
    fields = {"vocab_size": 50272, "max_position_embeddings": 1024, "bos_token_id": 2, "eos_token_id": 2}
    config = AutoConfig.for_model(**{**fields, **MODELS[name]})
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    load_tokenizer(TOKENIZER).save_pretrained(folder)


def thin(folder: Path) -> Sequence[str]:
    """A model of 30 layers that no table knows, fine-tuned on WikiText."""
    save("thin", folder / "thin")
    tree = f"""
[loop]
generations = 1
policies = ["keep-0"]
seeds = [0]

[model]
source = "{folder / "thin"}"

[data]
source = "{TEXT}"
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


def sets(**values: object) -> tuple[str, ...]:
    """`--set` of each; `__` stands for a dot."""
    return tuple(
        part for name, value in values.items() for part in ("--set", f"{name.replace('__', '.')}={json.dumps(value)}")
    )


OF_OPT = {'"facebook/opt-125m"': '"{folder}/opt"'}
OF_OPT_125M = {'"facebook/opt-125m"': '"{folder}/opt-125m"'}
OF_A_GENERATION = ("--generations", "1", "--policy", "keep-0")
QUICK = preset("quick", *ONE, *OF_A_GENERATION)
CASES: Mapping[str, Command] = {
    # whole, or with fewer seeds and generations
    "smoke": preset("smoke"),
    "strong-weighted": preset("strong-weighted"),
    "strong-ridge": preset("strong-ridge"),
    "strong-projections": preset("strong-projections"),
    "strong-iterative": preset("strong-iterative"),
    "ngram-zipf": preset("ngram-zipf"),
    "generational-regression": preset("generational-regression"),
    "verifier": preset("verifier"),
    "budgets": preset("budgets", *ONE),
    "exchange": preset("exchange"),
    "nature-gaussian": preset("nature-gaussian", *ONE),
    "nature-gmm": preset("nature-gmm", "--generations", "50"),
    "nature-gmm-full": preset("nature-gmm-full", "--generations", "6"),
    "nature-vae": preset("nature-vae", "--generations", "1", "--policy", "keep-0", *sets(vae__epochs=10)),
    "strong-mlp": preset("strong-mlp", *ONE),
    "quick": QUICK,
    "world": preset("world", *ONE, *OF_A_GENERATION),
    "ecosystem": preset("ecosystem", *FIRST, *sets(data__rows=240, train__epochs=3)),
    "error-sources": preset("error-sources", *FIRST),
    "remedies": preset("remedies", *FIRST, *sets(data__rows=200)),
    "strong-gpt2": preset("strong-gpt2", *sets(mixture__rows=[500], mixture__share=[0.0, 0.5, 1.0])),
    "wikitext2-small": preset(
        "wikitext2-small", *FIRST, "--policy", "keep-0", *sets(data__rows=256, data__eval_rows=128, train__epochs=2)
    ),
    # with other images, models and texts, and less of everything: their own are not here
    "nature-vae-full": preset(
        "nature-vae-full", "--data", "digits", "--generations", "1", "--policy", "keep-0", *sets(vae__epochs=10)
    ),
    "opt125m-wikitext2": changed(
        "opt125m-wikitext2",
        OF_OPT,
        (),
        *OF_A_GENERATION,
        *ON_TEXT,
        *sets(data__rows=64, data__eval_rows=64, train__epochs=2),
    ),
    "nature-keep-10": changed(
        "nature-keep-10",
        OF_OPT,
        (),
        *ONE,
        "--generations",
        "1",
        *ON_TEXT,
        *sets(data__rows=64, data__eval_rows=64, train__epochs=2),
    ),
    "hodel-west": changed(
        "hodel-west",
        OF_OPT,
        ("one", "two"),
        "--generations",
        "1",
        *ON_TEXT,
        *sets(data__rows=32, data__eval_rows=64, train__epochs=2),
    ),
    "vu": changed(
        "vu",
        {
            '"facebook/opt-350m"': '"{folder}/opt"',
            '"allenai/sciq"': '"{folder}/science"',
            '"openai/gsm8k:main"': '"{folder}/sums"',
            '"rojagtap/bookcorpus"': f'"{TEXT / "valid.txt"}"',
            "rows = 4166": "rows = 32",
            "rows = 8334": "rows = 64",
            "batch_size = 125": "batch_size = 32",
        },
        ("opt-a05",),
        "--generations",
        "1",
        *sets(data__eval_rows=32),
    ),
    "kovac": changed(
        "kovac",
        {
            '"HuggingFaceTB/SmolLM2-1.7B"': '"{folder}/llama"',
            '"Qwen/Qwen2.5-1.5B"': '"{folder}/qwen"',
            '"unsloth/Llama-3.2-1B"': '"{folder}/opt"',
            '"tiiuae/Falcon3-1B-Base"': '"{folder}/thin"',
            '"Salesforce/wikitext:wikitext-103-raw-v1"': f'"{TEXT}"\ntrain = "valid.txt"\ntest = "test.txt"',
        },
        (),
        *FIRST,
        "--policy",
        "accumulate-fresh-50",
        *sets(data__rows=128, data__eval_rows=64),
    ),
    "strong-gpt2-full": changed(
        "strong-gpt2-full",
        {'"openai-community/gpt2"': f'"{TOKENIZER}"', "n_layer = 12": "n_layer = 2", "n_embd = 768": "n_embd = 96"},
        ("share",),
        *ON_TEXT,
        *sets(
            mixture__rows=[32],
            mixture__share=[0.0, 1.0],
            train__epochs=2,
            train__batch_size=16,
            data__eval_rows=32,
            data__block_size=128,
            sample__new_tokens=127,
        ),
    ),
    # the weights that the head of its file says how to get, in the current folder
    "smollm2-wikitext2": preset(
        "smollm2-wikitext2",
        *OF_A_GENERATION,
        *sets(data__rows=16, data__eval_rows=16, train__epochs=1, sample__prompt_tokens=32, sample__new_tokens=16),
    ),
    # no presets: a model that no table knows, and one of 125 million parameters
    "thin": thin,
    "opt-125m": changed(
        "opt125m-wikitext2",
        OF_OPT_125M,
        (),
        *OF_A_GENERATION,
        *ON_TEXT,
        *sets(data__rows=32, data__eval_rows=32, train__epochs=1, train__batch_size=16),
    ),
    # otherwise than a stage at a time on one device
    "quick, --shards 2": lambda folder: [*QUICK(folder), "--shards", "2"],
    "quick, --devices 2": lambda folder: [*QUICK(folder), "--devices", "2"],
    "quick, --executor ray": lambda folder: [*QUICK(folder), "--executor", "ray"],
    "strong-weighted, --executor ray": preset("strong-weighted", "--executor", "ray", "--seeds", "0,1,2"),
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
    began = time.perf_counter()
    with (
        subprocess.Popen(
            [sys.executable, *command, *arguments, "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process,
        Peak(process.pid) as peak,
    ):
        said, errors = process.communicate()
    if process.returncode:
        raise SystemExit(f"{' '.join(arguments)}: {errors.strip()}")
    took = time.perf_counter() - began
    if command is IN_PROCESSOR_TIME:
        took = float(errors.split("PROCESSOR")[-1])
    return json.loads(said), peak.bytes, took


def stage_seconds(runs: Path) -> Mapping[str, float]:
    """Of all stages of each kind that a run made, one after another, by their records."""
    seconds = defaultdict[str, float](float)
    for path in (runs / "store").rglob("stage.json"):
        record = json.loads(path.read_text())
        seconds[record["kind"]] += record["seconds"]
    return seconds


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
        kinds, disk = stage_seconds(runs), on_disk(runs)
        computed = sum(kinds.values())
        said_kinds = defaultdict[str, float](float)
        for kind, cost in (each for plan in plans for each in plan["kinds"].items()):
            said_kinds[kind.partition(",")[0]] += cost["seconds"]
        for kind in said_kinds:  # where a row is wrong, which kind of stage it is
            told = f"  {name}: {kind} {said_kinds[kind]:.1f} s said, {kinds[kind]:.1f} taken"
            print(told, file=sys.stderr, flush=True)
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
