"""Our training, sampling and scoring beside transformers' own, in turn, and both beside the roof of this machine.

    make bench                                                 # the model of wikitext2-small, all parts
    make bench BENCH='--model opt125m --dtypes bfloat16 --json FILE'
    .venv/bin/python benchmarks/engine.py --parts sample --decodes 'beams 5; greedy' --rounds 5

Tables go to stdout, progress to stderr, and the JSON document behind the tables or into a file. The plain side runs in
a process of its own, each time at the batch size that a short trial found best. On a shared machine quote the ratios,
which are medians of pairs measured one after the other. Weights are random; shapes and vocabulary are real.
"""

import argparse
import json
import multiprocessing
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import arm
import growth
import plain
import roof
import torch
from common import DECODES, SHAPES, WIDTH, on_gpu
from compare import Comparison, Plan
from report import Report, about_machine

from collapse_cli.lm import model as models
from collapse_cli.process import quiet_libraries

PARTS = ("roof", "train", "sample", "score", "growth", "arm")
# By model: seconds of a turn, rows, rows of an optimizer step, window and stride, rows of the table of growth.
DEFAULTS = {
    "quick": {"seconds": 4.0, "rows": 256, "batch": 64, "context": 128, "growth_rows": 128},
    "small": {"seconds": 6.0, "rows": 64, "batch": 64, "context": 128, "growth_rows": 32},
    "opt125m": {"seconds": 20.0, "rows": 64, "batch": 128, "context": 1024, "growth_rows": 16},
}
ON_GPU = {"rows": 4096, "growth_rows": 1024}


def numbers(text: str) -> list[int]:
    """`8,16,32` as a list."""
    return [int(word) for word in text.split(",")]


def parse() -> argparse.Namespace:
    """The command line, with what it leaves open filled in for the model and the machine."""
    gpu = on_gpu()
    sizes = [64, 128, 256, 512, 1024] if gpu else [8, 16, 32, 64]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=SHAPES, default="small")
    parser.add_argument("--parts", default=",".join(PARTS), help="some of %(default)s")
    fast = ["bfloat16"] if models.has_fast_bf16() else []
    parser.add_argument("--dtypes", default=",".join(["float32", *fast]), help="default: what this machine is fast at")
    parser.add_argument("--decodes", default=None, help=f"some of: {'; '.join(DECODES)} (separated by ;)")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each side")
    parser.add_argument("--seconds", type=float, help="about how long a turn of a side takes")
    parser.add_argument("--rows", type=int, help="our side samples and scores multiples of so many rows")
    parser.add_argument("--growth-rows", type=int, help="rows of the table of growth")
    parser.add_argument("--batch", type=int, help="rows of an optimizer step")
    parser.add_argument("--sizes", type=numbers, default=sizes, help="batch sizes tried for beams and scoring")
    large = sizes if gpu else [*sizes, 128]
    parser.add_argument("--large-sizes", type=numbers, default=large, help="batch sizes tried for one beam")
    train_sizes = [32, *sizes] if gpu else [16, 32, 64]
    parser.add_argument("--train-sizes", type=numbers, default=train_sizes, help="rows Trainer has on the device")
    parser.add_argument("--trial-tokens", type=int, default=WIDTH if gpu else 16, help="new tokens of a trial")
    parser.add_argument("--context", type=int, help="tokens of the sliding window; it moves by half of it")
    parser.add_argument("--rates", type=Path, action="append", default=[], help="earlier JSON, for the part arm")
    parser.add_argument("--whole-arm", action="store_true", help="really run one arm of the Nature experiment")
    parser.add_argument("--made-up", action="store_true", help="the arm without the Hub: random weights, made-up text")
    parser.add_argument("--arm-rows", type=int, default=arm.ROWS, help="rows of that arm, to make it shorter")
    parser.add_argument("--arm-generations", type=int, default=arm.GENERATIONS - 1, help="its last generation")
    parser.add_argument("--arm-jobs", type=int, default=0, help="how many of its stages at a time")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the JSON there instead of printing it")
    given = parser.parse_args()
    for name, value in DEFAULTS[given.model].items():
        if getattr(given, name) is None:
            setattr(given, name, ON_GPU.get(name, value) if gpu else value)
    given.parts, given.dtypes = given.parts.split(","), given.dtypes.split(",")
    given.decodes = list(DECODES) if given.decodes is None else [name.strip() for name in given.decodes.split(";")]
    for what, asked, known in (
        ("part", given.parts, PARTS),
        ("dtype", given.dtypes, ("float32", "bfloat16")),
        ("decode", given.decodes, DECODES),
    ):
        for name in asked:
            if name not in known:
                parser.error(f"there is no {what} {name!r}; known: {', '.join(known)}")
    if not any(given.batch % size == 0 for size in given.train_sizes):
        parser.error(f"--batch {given.batch} is a multiple of none of --train-sizes")
    return given


def plan_of(given: argparse.Namespace) -> Plan:
    """How much the comparisons measure."""
    return Plan(
        shape=given.model,
        rounds=given.rounds,
        seconds=given.seconds,
        rows=given.rows,
        batch=given.batch,
        train_sizes=given.train_sizes,
        sizes=given.sizes,
        large_sizes=given.large_sizes,
        trial_tokens=given.trial_tokens,
        context=given.context,
        stride=given.context // 2,
    )


def compared(given: argparse.Namespace, comparison: Comparison, report: Report) -> list[dict[str, Any]]:
    """The rows of training, sampling and scoring; the document is kept after each."""
    works: list[Callable[[], dict[str, Any]]] = []
    if "train" in given.parts:
        works += [partial(comparison.train, dtype) for dtype in given.dtypes]
    if "sample" in given.parts:
        works += [partial(comparison.sample, dtype, name) for name in given.decodes for dtype in given.dtypes]
    if "score" in given.parts:
        works += [comparison.score_blocks, comparison.score_sliding]
    rows: list[dict[str, Any]] = []
    for done, work in enumerate(works, 1):
        row = work()
        best = report.document.get("roof", {}).get("best_gflops", {}).get(row["dtype"])
        row["share_of_roof"] = round(row["ours_gflops"] / best, 3) if best else None
        rows.append(row)
        speeds = f"{row['ours_tokens_per_s']:,.0f} and {row['plain_tokens_per_s']:,.0f} tokens/s"
        print(f"{done} of {len(works)}: {row['part']} {row['what']}, {row['dtype']}: {speeds}", file=sys.stderr)
        report.keep({"rows": rows})
    return rows


def show_roof(found: dict[str, Any], report: Report) -> None:
    """The products and the copy."""
    lines = [
        [" × ".join(map(str, row["size"])), row["dtype"], f"{row['plain']:,.0f}", f"{row['engine']:,.0f}"]
        for row in found["products_gflops"]
    ]
    report.table("Roof: GFLOP/s of matrix products", ["rows × inner × columns", "dtype", "torch", "engine"], lines)
    best = [[dtype, f"{rate:,.0f} GFLOP/s"] for dtype, rate in found["best_gflops"].items()]
    report.table("Roof", ["what", "best"], [*best, ["copy, read and write", f"{found['copy_gbytes']:,.1f} GB/s"]])


def show_rows(model: str, rows: list[dict[str, Any]], report: Report) -> None:
    """Ours, plain, ratio and share of the roof."""
    lines = []
    for row in rows:
        share = "–" if row["share_of_roof"] is None else f"{row['share_of_roof']:.1%}"
        lines.append(
            [
                f"{row['part']}, {row['what']}",
                row["dtype"],
                f"{row['ours_tokens_per_s']:,.0f}",
                f"{row['plain_tokens_per_s']:,.0f}",
                str(row["plain_batch"]),
                f"{row['ratio']:.2f}",
                share,
            ]
        )
    columns = ["what", "dtype", "ours, tokens/s", "plain, tokens/s", "best batch", "ratio", "ours, share of roof"]
    report.table(f"{model}: ours beside transformers", columns, lines)


def show_growth(model: str, dtype: str, rows: list[dict[str, Any]], report: Report) -> None:
    """Seconds a row over what grows."""
    lines = [
        [
            row["what"],
            f"{row['value']:,}",
            str(row["rows"]),
            f"{row['seconds_per_row']:.4f}",
            f"{row['against_first']:.2f}",
            f"{row['exponent']:.2f}",
        ]
        for row in rows
    ]
    columns = ["what grows", "value", "rows", "seconds a row", "against the first", "exponent of seconds (1: linear)"]
    report.table(f"{model}: growth of our sampling, {dtype}", columns, lines)


def show_arm(model: str, rows: list[dict[str, Any]], report: Report) -> None:
    """Minutes of a whole arm."""
    if not rows:
        print("arm: rates of train, of sample with beams 5 and of score are needed (or --rates)", file=sys.stderr)
        return
    names = ("side", "dtype", "train", "sample", "score", "total")
    lines = [[str(row[name]) for name in names] for row in rows]
    title = f"One Nature arm (generations 0..9) with {model}: minutes, extrapolated from the rates"
    report.table(title, list(names), lines)


def main() -> None:
    """Measure, print tables and one JSON document."""
    given = parse()
    quiet_libraries()
    asked = {name: value for name, value in vars(given).items() if name not in ("json", "rates")}
    report = Report(given.json, about_machine() | {"model": given.model, "settings": asked})
    spawn = multiprocessing.get_context("spawn")
    threads = torch.get_num_threads()
    with ProcessPoolExecutor(1, spawn, initializer=plain.start, initargs=(threads,)) as pool:
        comparison = Comparison(plan_of(given), pool)
        if "roof" in given.parts:
            found = roof.measure(given.model, given.dtypes, partial(comparison.remote, plain.multiply))
            show_roof(found, report)
            report.keep({"roof": found})
        rows = compared(given, comparison, report)
        if rows:
            show_rows(given.model, rows, report)
    if "growth" in given.parts:
        dtype = given.dtypes[-1]
        grown = growth.measure(given.model, dtype, given.growth_rows, given.rounds)
        show_growth(given.model, dtype, grown, report)
        report.keep({"growth": {"dtype": dtype, "rows": grown}})
    if "arm" in given.parts:
        earlier = [row for file in given.rates for row in json.loads(file.read_text(encoding="utf-8")).get("rows", [])]
        minutes = arm.estimate([*earlier, *rows])
        show_arm(given.model, minutes, report)
        report.keep({"arm": minutes})
    if given.whole_arm:
        whole = arm.run(
            made_up=given.made_up, rows=given.arm_rows, generations=given.arm_generations, jobs=given.arm_jobs
        )
        report.table("One Nature arm, run", ["what", "minutes"], arm.lines(whole))
        report.keep({"whole_arm": whole})
    report.finish({})


if __name__ == "__main__":
    main()
