"""Believable run folders of several lineages: each is one of `instrumented.write_run`, and rows hold what is measured between them."""

import json
import math
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from support.instrumented import write_run


def write_lineages(
    runs: Path,
    name: str,
    lineages: Mapping[str, Mapping[str, float]],
    *,
    policies: Sequence[str] = ("keep-0",),
    seeds: Sequence[int] = (0, 1, 2),
    generations: int = 6,
    between: bool = True,
    config: Mapping[str, Any] | None = None,
    entropy: int = 0,
    **how: Any,
) -> Path:
    """Write `runs/name` as a run of several lineages would have left it.

    Args:
        lineages: by name, `collapse` of `write_run`.
        between: whether rows hold measures between lineages: models become alike, and each knows its own text best.
        how: as `write_run` has it.
    """
    rows: list[dict[str, Any]] = []
    plan: list[dict[str, Any]] = []
    events: list[str] = []
    for index, (lineage, collapse) in enumerate(lineages.items()):
        one = write_run(
            runs / ".lineages",
            f"{name}-{lineage}",
            policies=policies,
            seeds=seeds,
            generations=generations,
            collapse=collapse,
            config=config,
            entropy=entropy * 1000 + index,
            **how,
        )
        lines = (one / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        for line in lines:
            row = json.loads(line)
            place = {key: row.pop(key) for key in ("policy", "seed", "generation")}
            rows.append({**place, "lineage": lineage, **row})
        stages = json.loads((one / "plan.json").read_text(encoding="utf-8"))["stages"]
        plan += [{**stage, "for": [[*where, lineage] for where in stage["for"]]} for stage in stages]
        events += (one / "events.jsonl").read_text(encoding="utf-8").splitlines()
    order = {lineage: index for index, lineage in enumerate(lineages)}
    rows.sort(key=lambda row: (row["seed"], row["generation"], row["policy"], order[row["lineage"]]))
    if between:
        _between(rows, list(lineages))
    record = json.loads((one / "run.json").read_text(encoding="utf-8"))
    record |= {"name": name, "command": ["collapse", "run", "--name", name]}
    record["config"]["lineages"] = {lineage: {} for lineage in lineages}
    record["config"]["pool"]["rule"] = "all"
    shutil.rmtree(runs / ".lineages")
    folder = runs / name
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps(record, indent=1), encoding="utf-8")
    (folder / "plan.json").write_text(json.dumps({"stages": plan}), encoding="utf-8")
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (folder / "events.jsonl").write_text("".join(f"{line}\n" for line in events), encoding="utf-8")
    return folder


def _between(rows: list[dict[str, Any]], lineages: Sequence[str]) -> None:
    """What `experiment/stages` measure between lineages, in believable numbers that agree with each other."""
    there: dict[tuple[str, int, int], list[dict[str, Any]]] = {}
    for row in rows:
        there.setdefault((row["policy"], row["seed"], row["generation"]), []).append(row)
    for (_, seed, generation), models in there.items():
        random = np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, generation, len(lineages)])))
        alike = math.exp(-0.25 * generation)
        best = min(row["nll"] for row in models)
        mixture = best - 0.15 * alike
        for row in models:
            own = row["lineage"]
            apart = {
                other: 0.0
                if other == own
                else 0.05 + 0.3 * alike * (1 + 0.1 * abs(lineages.index(own) - lineages.index(other)))
                for other in lineages
            }
            noise = {other: 0.01 * float(random.normal()) for other in lineages}
            on = {other: row["nll"] + apart[other] + noise[other] for other in lineages}
            distances = {other: 0.6 * apart[other] / 0.35 + noise[other] for other in lineages if other != own}
            cross = {other: math.exp(row["nll"] - 1 + apart[other] + noise[other]) for other in lineages}
            row |= {
                "nll_on": on,
                "bits_per_byte_on": {other: nll / math.log(2) / 2 for other, nll in on.items()},
                "js_distance_to": distances,
                "js_distance": sum(distances.values()) / len(distances),
                "cross_perplexity": cross,
                "cross_bits_per_byte": {other: math.log(value) / math.log(2) / 2 for other, value in cross.items()},
                "others_perplexity": math.exp(
                    sum(math.log(value) for other, value in cross.items() if other != own) / (len(lineages) - 1)
                ),
                "mixture_nll": mixture,
                "mixture_perplexity": math.exp(mixture),
                "mixture_gain": sum(one["nll"] for one in models) / len(models) - mixture,
                "mixture_models": len(models),
                "between": {"dtype": "float32", "test_tokens": 8064, "js_tokens": 4032, "own_text": "corpus"},
            }
