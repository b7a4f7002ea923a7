"""Believable run folders for tests of what reads them: every field of a row, made from seeded numbers, no model at work.

The fields of a row agree with each other: perplexity is the exponential of the NLL, which is the mean over deciles and
unseen tokens; histogram, quantiles and variance are of the same samples; generation 0 is the same under all policies.
"""

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from collapse_cli.config import load

BEGAN = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
COLLAPSE = {"keep-0": 0.15, "keep-10": 0.02, "keep-20": 0.01}
FIRST_NLL = np.array([2.2, 2.6, 3.0, 3.4, 3.7, 4.0, 4.4, 4.8, 5.4, 6.2])  # of a small model, by decile
TAIL_FIRST = np.array([0.0, 0.0, 0.02, 0.3, 0.6, 0.9, 1.4, 1.9, 2.3, 2.6])  # how a small loss is shared by deciles
ROWS, SAMPLES, WIDTH, VOCABULARY = 128, 400, 64, 512
HISTOGRAM_WIDTH = 0.1  # nats
WORDS = (  # noqa: SIM905
    "the of and to a in is that for it as was with be by on not he his but at are this have from or had an they which "
    "one you were all her she there would their we him been has when who will no more if out so up said what its about "
    "than into them can only other time new some could these two may first then do any like my now over such our man"
).split()
Where = tuple[str, int, int]  # policy, seed, generation, as callers name a row


def write_run(
    runs: Path,
    name: str,
    *,
    policies: Sequence[str] = ("keep-0", "keep-10"),
    seeds: Sequence[int] = (0,),
    generations: int = 5,
    collapse: Mapping[str, float] | None = None,
    growth: Callable[[float, int], float] = lambda rate, generation: rate * generation,
    noise: float = 0.01,
    spread: float = 0.03,
    instruments: bool = True,
    truth: bool = False,
    expect: Sequence[Mapping[str, Any]] = (),
    texts: Sequence[str] | None = None,
    warnings: Mapping[Where, Sequence[str]] | None = None,
    missing: Sequence[Where] = (),
    status: str = "success",
    predicted_tokens: int = 8064,
    protocol: Mapping[str, Any] | None = None,
    sha256: str = "fb365b5623ed866b707b861a511a425f85e271ba465a6c784a630b8d18b242a5",
    config: Mapping[str, Any] | None = None,
    entropy: int = 0,
) -> Path:
    """Write `runs/name` as a run would have left it.

    Args:
        generations: the last one, as in the configuration: 5 means generations 0..5.
        collapse: by policy the nats per token that log-perplexity grows by in a generation; else `COLLAPSE`, else 0.
        growth: of (that rate, generation), the nats per token above generation 0; linear unless given.
        noise: standard deviation of each row's log-perplexity around that, nats.
        spread: standard deviation of generation 0's log-perplexity over seeds, nats.
        instruments: whether rows hold the instruments' fields; without them they are those of an old run.
        truth: whether rows hold the fields of a source whose truth is known; sets data.source = zipf.
        expect: published values for the configuration.
        texts: continuations in place of the made-up ones, in turn, in `examples` and `top_8grams`.
        warnings: guard rails by (policy, seed, generation).
        missing: rows (policy, seed, generation) to leave out of metrics.jsonl, as of a run not finished.
        status: of run.json.
        config: leaves of the configuration to set, as a tree.
        entropy: another one gives other numbers.

    Returns:
        The run's folder.
    """
    rates = {policy: (collapse if collapse is not None else COLLAPSE).get(policy, 0.0) for policy in policies}
    scoring = dict(protocol or {"protocol": "block", "line_bos": False, "context": WIDTH, "stride": WIDTH})
    rows, plan, events = [], [_stage("data", name)], [_event("data", name, ("", seeds[0], 0), 0.2, 0)]
    clock = 0.0
    for seed in seeds:
        first: dict[str, Any] = {}
        for generation in range(generations + 1):
            for policy in policies:
                where = (policy, seed, generation)
                plan[0]["for"].append(list(where))
                own = "" if generation == 0 else policy
                stages = _stages(name, own, seed, generation)
                if generation == 0 and policy != policies[0]:
                    for stage in plan:
                        if stage["key"] in {key for _, key in stages}:
                            stage["for"].append(list(where))
                else:
                    plan += [_stage(kind, name, key, where) for kind, key in stages]
                    for kind, key in stages:
                        seconds = {"train": 4.0, "sample": 1.2, "mix": 0.001, "eval": 0.4}[kind]
                        tokens = {"train": 393216, "sample": 65536, "mix": 0, "eval": predicted_tokens}[kind]
                        for event in ("started", "finished"):
                            clock += seconds * (event == "finished")
                            events.append(_event(kind, key, where, seconds, tokens, event, clock))
                if where in missing:
                    continue
                lineage = (entropy, seed, generation, list(policies).index(policy) if generation else 0)
                random = np.random.Generator(np.random.Philox(np.random.SeedSequence(lineage)))
                base = spread * np.random.Generator(np.random.Philox(seed + 1000 * (entropy + 1))).normal()
                rise = growth(rates[policy], generation) + noise * random.normal() if generation else 0.0
                row = _model(where, stages, rise, base, predicted_tokens, scoring)
                row["warnings"] = list((warnings or {}).get(where, ()))
                if instruments:
                    before = first if generation else {}
                    row |= _tails(rise, row["nll"], predicted_tokens, before, random)
                    row |= _samples(rise, before, random)
                    row |= _texts(rise, generation, policy, texts)
                    first = first if generation else row
                if truth:
                    row |= {
                        "entropy_rate": 3.2,
                        "kl_truth": max(0.0, row["nll"] - 3.2),
                        "tail_mass_recall": math.exp(-0.8 * max(rise, 0.0)) * 0.9,
                    }
                rows.append(row)
    tree: dict[str, Any] = {
        "loop": {"generations": generations, "policies": list(policies), "seeds": list(seeds)},
        "model": {"source": "", "config": {"model_type": "opt", "hidden_size": 64}, "tokenizer": "bpe"},
        "data": {"source": "zipf" if truth else "pydoc", "rows": 1024, "eval_rows": ROWS, "sha256": sha256},
        "sample": {"decode": {"beams": 1, "temperature": 0.9}, "dtype": "float32"},
        "train": {"epochs": 6, "lr": 0.005, "batch_size": 32, "dtype": "float32"},
    }
    for section, leaves in (config or {}).items():
        tree[section] = {**tree.get(section, {}), **leaves} if isinstance(leaves, Mapping) else leaves
    if expect:
        tree["expect"] = [dict(entry) for entry in expect]
    record = {
        "name": name,
        "status": status,
        "created": BEGAN.isoformat(),
        "updated": (BEGAN + timedelta(seconds=clock)).isoformat(timespec="seconds"),
        "command": ["collapse", "run", "--name", name],
        "config": load(tree, "tests/support/instrumented.py").model_dump(mode="json"),
        "versions": {"python": "3.11.7", "collapse": "0.1.0", "torch": "2.13.0", "numpy": "2.4.6"},
        "git": {"commit": "c044e3c4400067dfa6c4bb43a627203894c330ea", "dirty": False},
        "hardware": {"system": "Linux", "machine": "x86_64", "cores": 2, "threads": 2, "memory_gib": 16.0, "gpus": []},
    }
    folder = runs / name
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps(record, indent=1), encoding="utf-8")
    (folder / "plan.json").write_text(json.dumps({"stages": plan}, indent=1), encoding="utf-8")
    for file, lines in (("metrics", rows), ("events", events)):
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (folder / f"{file}.jsonl").write_text(text, encoding="utf-8")
    return folder


def _model(
    where: Where,
    stages: Sequence[tuple[str, str]],
    rise: float,
    base: float,
    predicted: int,
    protocol: dict[str, Any],
) -> dict[str, Any]:
    """The fields that rows had before the instruments."""
    policy, seed, generation = where
    key = dict(stages)["train"]
    nll = float(FIRST_NLL.mean()) + base + rise
    real = 1024 if generation == 0 else round(1024 * _kept(policy))
    row: dict[str, Any] = {
        "policy": policy,
        "seed": seed,
        "generation": generation,
        "model_key": key,
        "eval_keys": [dict(stages)["eval"], _key(key, "examine")],
        "model_dir": f"store/{key[:2]}/{key}",
        "sample_tokens": (1024 - real) * WIDTH,
    }
    if generation:
        row |= {"duplicate_share": 0.0, "special_token_share": 0.0}
    seconds = {kind: {"sample": 1.2, "mix": 0.001, "train": 4.0, "eval": 0.4}[kind] for kind, _ in stages}
    return row | {
        "seconds": seconds,
        "train_loss": nll - 0.2,
        "epoch_losses": [nll + 1.0, nll + 0.3, nll - 0.2],
        "steps": 192,
        "train_tokens": 393216,
        "train_rows": 1024,
        "real_rows": real,
        "synthetic_rows": 1024 - real,
        "real_share": real / 1024,
        "perplexity": math.exp(nll),
        "nll": nll,
        "predicted_tokens": predicted,
        "bits_per_byte": nll / math.log(2) / 2,
        "word_perplexity": math.exp(3 * nll),
        "protocol": protocol,
    }


def _tails(
    rise: float, mean: float, predicted: int, first: Mapping[str, Any], random: np.random.Generator
) -> dict[str, Any]:
    """Losses by decile: the tail's first, the head's once the whole has lost 0.4 nats."""
    even = min(1.0, max(0.0, (rise - 0.4) / 0.6))
    share = (1 - even) * TAIL_FIRST / TAIL_FIRST.mean() + even
    nll = FIRST_NLL + rise * share
    unseen = max(1, predicted // 400)
    tokens = [(predicted - unseen) // 10 + (decile < (predicted - unseen) % 10) for decile in range(10)]
    nll_unseen = mean + 1.0
    nll += (mean * predicted - nll_unseen * unseen - float(nll @ np.array(tokens))) / (predicted - unseen)
    row: dict[str, Any] = {
        "nll_by_decile": [float(value) for value in nll],
        "tokens_by_decile": tokens,
        "unseen_tokens": unseen,
        "nll_unseen": nll_unseen,
        "calibration_error": 0.02 + 0.1 * max(rise, 0.0),
        "accuracy": 0.35 * math.exp(-0.5 * max(rise, 0.0)),
        "predictive_entropy": 3.6 * math.exp(-0.2 * max(rise, 0.0)),
    }
    if not first:
        return row
    moved = nll - np.array(first["nll_by_decile"])
    errors = 0.01 + 0.02 * np.arange(10) / 9 + 0.02 * np.abs(moved) * random.uniform(0.8, 1.2, 10)
    row |= {
        "nll_change_by_decile": [float(value) for value in moved],
        "nll_change_by_decile_se": [float(value) for value in errors],
    }
    for part, deciles in (("head", slice(0, 3)), ("tail", slice(7, 10))):
        weights = np.array(tokens[deciles]) / sum(tokens[deciles])
        row[f"{part}_change"] = float((moved[deciles] * weights).sum())
        row[f"{part}_change_se"] = float(np.sqrt(((errors[deciles] * weights) ** 2).sum()))
    return row


def _samples(rise: float, first: Mapping[str, Any], random: np.random.Generator) -> dict[str, Any]:
    """Samples under generation 0's model: a pile at low perplexity and a few far above, more of both as loss grows."""
    lost = max(rise, 0.0)
    odd = random.uniform(size=SAMPLES) < min(0.1, 0.03 * lost)
    nll = random.normal(3.6 - 0.9 * lost, 0.5 * math.exp(-0.3 * lost), SAMPLES) + odd * random.uniform(1, 4, SAMPLES)
    nll = np.maximum(nll, 0.05)
    quantiles = np.quantile(nll, np.arange(1, 100) / 100)
    edges = first.get("sample_log_perplexity_quantiles", quantiles)
    low, high = edges[4], edges[98]
    bins = np.floor(nll / HISTOGRAM_WIDTH).astype(int)
    variance = float(nll.var(ddof=1))
    fourth = float(((nll - nll.mean()) ** 4).mean())
    forget = math.exp(-0.5 * lost)
    entropy = 5.2 * math.exp(-0.25 * lost) + 0.005 * random.normal()
    row: dict[str, Any] = {
        "sample_rows": SAMPLES,
        "compared_rows": SAMPLES // 2,
        "distinct_tokens": SAMPLES * WIDTH // 2,
        "self_bleu_rows": SAMPLES // 2,
        "sample_perplexity": math.exp(float(nll.mean())),
        "sample_log_perplexity_mean": float(nll.mean()),
        "sample_log_perplexity_median": float(np.median(nll)),
        "sample_log_perplexity_std": float(nll.std(ddof=1)),
        "sample_log_perplexity_variance": variance,
        "sample_log_perplexity_variance_se": math.sqrt(max(fourth - variance**2, 0.0) / SAMPLES),
        "sample_log_perplexity_quantiles": [float(value) for value in quantiles],
        "low_share": float((nll < low).mean()),
        "high_share": float((nll > high).mean()),
        "sample_histogram": {
            "low": float(bins.min() * HISTOGRAM_WIDTH),
            "width": HISTOGRAM_WIDTH,
            "counts": np.bincount(bins - bins.min()).tolist(),
        },
        "prompt_overlap_4": 0.1 + 0.4 * (1 - forget),
        "longest_repeat": 3 + 20 * (1 - forget),
        "longest_repeat_max": min(WIDTH - 1, 9 + round(50 * (1 - forget))),
        "exact_duplicate_rate": 0.3 * (1 - forget) ** 2,
        "near_duplicate_rate": 0.5 * (1 - forget) ** 2,
        "self_bleu": 20 + 60 * (1 - forget),
        "unigram_entropy": entropy,
        "unigram_entropy_se": 0.01,
        "next_token_entropy": 0.6 * entropy,
        "type_token_ratio": 0.15 * forget,
        "mauve": 0.95 * forget,
        "vocabulary_coverage": 0.9 * forget,
        "recall_by_decile": [float(1 - (1 - forget) * tail) for tail in np.linspace(0, 1, 10)],
    }
    row |= {f"rep_{n}": 1 - forget * (1 - 0.3 / n) for n in (2, 3, 4)}
    return row | {f"distinct_{n}": min(1.0, 0.12 * n**1.4) * forget for n in (1, 2, 3, 4)}


def _texts(rise: float, generation: int, policy: str, texts: Sequence[str] | None) -> dict[str, Any]:
    """Continuations of the same eight prompts; fewer and fewer words as loss grows. Frequent phrases."""
    kept = max(4, round(len(WORDS) * math.exp(-1.5 * max(rise, 0.0))))
    examples = []
    for index in range(8):
        prompt = np.random.Generator(np.random.Philox(index)).choice(WORDS, 12)
        own = np.random.SeedSequence([index, generation, *(policy.encode() if generation else b"")])
        text = " ".join(np.random.Generator(np.random.Philox(own)).choice(WORDS[:kept], 40))
        if texts:
            text = texts[(index + generation) % len(texts)]
        examples.append({"row": index * 7, "prompt": " ".join(prompt), "text": f" {text}"})
    phrases = []
    for index in range(10):
        ids = [(index + step) % kept for step in range(8)]
        text = texts[index % len(texts)] if texts else " ".join(WORDS[token] for token in ids)
        count = 2 + round(40 * max(rise, 0.0) / (index + 1))
        phrases.append({"tokens": ids, "text": text, "count": count, "samples": max(1, count - 1)})
    phrases.sort(key=lambda phrase: -int(str(phrase["count"])))
    return {"examples": examples, "top_8grams": phrases}


def _kept(policy: str) -> float:
    """The share of real rows under a policy."""
    return int(policy.partition("-")[2]) / 100 if policy.startswith(("keep-", "fresh-")) else 0.5


def _key(*parts: object) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _stages(name: str, policy: str, seed: int, generation: int) -> list[tuple[str, str]]:
    kinds = ("train", "eval") if generation == 0 else ("sample", "mix", "train", "eval")
    return [(kind, _key(name, policy, seed, generation, kind)) for kind in kinds]


def _stage(kind: str, name: str, key: str = "", where: Where | None = None) -> dict[str, Any]:
    return {"kind": kind, "key": key or _key(name, kind), "inputs": {}, "for": [list(where)] if where else []}


def _event(
    kind: str, key: str, where: Where, seconds: float, tokens: int, event: str = "finished", clock: float = 0.0
) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "time": (BEGAN + timedelta(seconds=clock)).isoformat(timespec="seconds"),
        "event": event,
        "kind": kind,
        "key": key if len(key) == 64 else _key(key, kind),
        "for": list(where),
    }
    if event == "finished":
        fields |= {"seconds": seconds, "note": "", "peak_memory_mb": 512}
        if tokens:
            fields |= {"tokens": tokens, "tokens_per_second": round(tokens / seconds, 1)}
    return fields
