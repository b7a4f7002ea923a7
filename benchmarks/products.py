"""How this processor multiplies fastest: float32 through oneDNN or in torch's own way, bfloat16, and dropout, ours and torch's.

    .venv/bin/python benchmarks/products.py                             # GFLOP/s of products by shape; dropout
    .venv/bin/python benchmarks/products.py --model quick --rows 640    # training, scoring, sampling through either, in turn
    .venv/bin/python benchmarks/products.py --attention                 # fused, beside plain products, by shape
    .venv/bin/python benchmarks/products.py --model quick --tokens 2048,4096,8192 --sequences 320,640,1280     # at once, in turn
    ONEDNN_MAX_CPU_ISA=AVX2 ATEN_CPU_CAPABILITY=avx2 MKL_ENABLE_INSTRUCTIONS=AVX2 ...      # held to AVX2

One thread. Products are timed by the clock, best of some; the engine's work by seconds of the processor.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial

import torch
from common import DECODES, WIDTH
from ours import sample, score_blocks, train
from torch.nn import functional

from collapse_cli.lm import arithmetic, attention, score
from collapse_cli.lm import sample as sampling

SHAPES = (
    (16, 64, 256),
    (80, 768, 768),
    (640, 64, 256),
    (640, 96, 256),
    (2048, 768, 3072),
    (2048, 3072, 768),
    (4096, 768, 3072),
    (160, 768, 50272),
)
ATTENTIONS = (  # rows, heads, tokens, d
    (64, 2, 64, 32),
    (16, 3, 90, 32),
    (128, 2, 32, 32),
    (32, 2, 128, 32),
    (16, 12, 64, 64),
    (16, 3, 45, 32),
)
LEAST = 0.15  # seconds that a product is tried for


def best(work: Callable[[], object]) -> float:
    """Seconds of the fastest of several calls."""
    work()
    seconds: list[float] = []
    end = time.perf_counter() + LEAST
    while time.perf_counter() < end or len(seconds) < 3:
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


@torch.no_grad()
def products() -> None:
    """Print GFLOP/s by shape: forward, by the rows and by the weights, and forward with packed weights and in bfloat16."""
    onednn, own = arithmetic._onednn, functional.linear
    columns = ["forward: oneDNN", "packed", "torch", "bf16, torch", "bf16, packed"]
    columns += ["by rows: oneDNN", "torch", "by weights: oneDNN", "torch"]
    print("| rows × inner → columns | " + " | ".join(columns) + " |")
    print("|---|" + "---:|" * len(columns))
    for rows, inner, out in SHAPES:
        left, weight, bias = torch.randn(rows, inner), torch.randn(out, inner), torch.randn(out)
        slope, flops = torch.randn(rows, out), 2 * rows * inner * out / 1e9
        short = [each.bfloat16() for each in (left, weight, bias)]
        packed = torch.ops.mkldnn._reorder_linear_weight(weight, rows)
        seconds = [
            best(partial(onednn, left, weight, bias)),
            best(partial(onednn, left, packed, bias)),
            best(partial(own, left, weight, bias)),
            best(partial(own, *short)),
        ]
        try:
            both = torch.ops.mkldnn._reorder_linear_weight(short[1], rows)
            seconds.append(best(partial(onednn, short[0], both, short[2])))
        except RuntimeError:  # not without AVX-512
            seconds.append(float("inf"))
        other, small = (left, slope) if out > inner else (slope, left)
        seconds += [
            best(partial(onednn, slope, weight.T)),
            best(partial(torch.matmul, slope, weight)),
            best(partial(onednn, other.T, small.T)),
            best(partial(torch.matmul, slope.T, left)),
        ]
        cells = " | ".join(f"{flops / each:,.0f}" for each in seconds)
        print(f"| {rows} × {inner} → {out} | {cells} |", flush=True)


def dropouts() -> None:
    """Print how many times as fast our dropout is."""
    for shape in ((2048, 64), (4096, 768), (32, 12, 64, 64)):
        for dtype in (torch.float32, torch.bfloat16):
            rows = torch.randn(shape).to(dtype)
            ours, torchs = (best(partial(each, rows, 0.1)) for each in (arithmetic.dropout, functional.dropout))
            print(f"dropout of {shape}, {dtype}: {torchs / ours:.1f} times as fast as torch's")


def ways(model: str, rows: int, rounds: int, works: list[str]) -> None:
    """Print the seconds of the engine's work through oneDNN and in torch's own way, in turn."""
    todo: dict[str, Callable[[], object]] = {
        "train": lambda: train(model, "float32", min(32, rows), rows),
        "score": lambda: score_blocks(model, rows),
        "sample": lambda: sample(model, "float32", DECODES["temperature 1"], rows, 24),
    }
    for work in works:
        todo[work]()
        pairs: list[str] = []
        for turn in range(rounds):
            took: dict[bool, float] = {}
            for through_onednn in (True, False) if turn % 2 else (False, True):
                arithmetic.prefers_onednn = lambda answer=through_onednn: answer  # type: ignore[assignment]
                start = time.process_time()
                todo[work]()
                took[through_onednn] = time.process_time() - start
            pairs.append(f"{took[True]:.2f} and {took[False]:.2f} s ({took[True] / took[False]:.2f})")
        print(f"{model}, {work}, {rows} rows, through oneDNN and torch's own way: {'; '.join(pairs)}", flush=True)


def attentions() -> None:
    """Print seconds of the processor of plain products over those of torch's fused attention, causal: forward, and with gradients."""
    print("| rows, heads, tokens, d | forward | forward, masked | with gradients | with gradients, masked |")
    print("|---|---:|---:|---:|---:|")
    for shape in ATTENTIONS:
        rows, heads, width, d = shape
        given = torch.randn(3, rows, width, heads, d).transpose(2, 3)
        segments = (torch.arange(width) > width // 2).long().expand(rows, -1)
        cells = []
        for grown in (False, True):
            for parts in (None, segments):
                took: dict[int, list[float]] = {0: [], 1 << 30: []}
                for turn in range(16):
                    for limit in took if turn % 2 else reversed(took):
                        attention.MATH_WIDTH, attention.prefers_fused = limit, lambda: False  # type: ignore[assignment]
                        query, key, value = (each.clone().requires_grad_(grown) for each in given)
                        start = time.process_time()
                        with torch.set_grad_enabled(grown):
                            causal = attention.Causal(parts, width)
                            seen = causal(torch.nn.Identity(), query, key, value, 1.0, 0.0)
                            if grown:
                                seen.sum().backward()  # type: ignore[no-untyped-call]
                        took[limit].append(time.process_time() - start)
                fused, plain = (statistics.median(seconds[2:]) for seconds in took.values())
                cells.append(f"{plain / fused:.2f}")
        print(f"| {', '.join(map(str, shape))} | {' | '.join(cells)} |", flush=True)


def at_once(model: str, rows: int, rounds: int, work: str, counts: list[int]) -> None:
    """Print tokens/s by seconds of the processor with so many tokens scored, or sequences sampled, at once; in turn."""
    took: dict[int, list[float]] = {count: [] for count in counts}
    for turn in range(-1, rounds):
        for count in counts if turn % 2 else counts[::-1]:
            score.TOKENS_AT_ONCE = sampling.ALWAYS = sampling.MOST_SEQUENCES["cpu"] = count
            start = time.process_time()
            if work == "score":
                score_blocks(model, rows)
            else:
                sample(model, "float32", DECODES["temperature 1"], rows)
            if turn >= 0:
                took[count].append(rows * WIDTH / (time.process_time() - start))
    for count, speeds in took.items():
        ratios = sorted(speed / first for speed, first in zip(speeds, took[counts[0]], strict=True))
        beside = f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f}) times {counts[0]}"
        print(f"{model}, {work}, {count:,} at once: {statistics.median(speeds):,.0f} tokens/s, {beside}", flush=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=("quick", "small", "opt125m"), help="the engine's work with its model")
    parser.add_argument("--rows", type=int, default=640)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--works", default="train,score,sample")
    parser.add_argument("--attention", action="store_true", help="attention alone")
    parser.add_argument("--tokens", help="scored at once, such as 2048,4096")
    parser.add_argument("--sequences", help="sampled at once, such as 320,640")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    print(f"kernels: {torch.backends.cpu.get_cpu_capability()}\n")
    if asked.attention:
        attentions()
    elif asked.model and (asked.tokens or asked.sequences):
        for work, counts in (("score", asked.tokens), ("sample", asked.sequences)):
            if counts:
                at_once(asked.model, asked.rows, asked.rounds, work, [int(count) for count in counts.split(",")])
    elif asked.model:
        ways(asked.model, asked.rows, asked.rounds, asked.works.split(","))
    else:
        products()
        dropouts()


if __name__ == "__main__":
    main()
