"""What tests of the forecast share: series of known laws, and run folders that hold them."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from support.rows import row_of, write_rows

from collapse_cli.config import Experiment
from collapse_cli.findings.forecast.history import History
from collapse_cli.findings.forecast.laws import LAWS
from collapse_cli.metrics import perplexity
from collapse_cli.records.row import Row
from collapse_cli.records.rundir import RunFolder

BY_NAME = {law.name: law for law in LAWS}


TRUE = {
    "constant": (0.0, 1.0),
    "linear": (0.15, 1.0),
    "saturating": (0.9, 3.0),
    "power": (0.3, 0.5),
    "exponential": (0.4, 5.0),
    "overshoot": (0.9, 3.0),
    "jump": (-0.6, 3.0),
}


JUMP = 0.9


def rng_of(seed: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(seed))


def made(
    law: str, seeds: int, generations: int, noise: float, rng: np.random.Generator, *, chain: bool = False
) -> History:
    """A series of a known law; noise independent, or inherited as in a chain with the law's own memory."""
    b, shape = TRUE[law]
    origin = BY_NAME[law].origin
    after = np.arange(generations) - origin
    grown = b * BY_NAME[law].grows(np.maximum(after, 0), np.array([shape]))[0] + JUMP * origin * (after >= 0)
    memory = float(BY_NAME[law].memory(np.array([shape]))[0]) if chain else 0.0
    values = {}
    for seed in range(seeds):
        off = np.zeros(generations)
        for g in range(1, generations):
            off[g] = memory * off[g - 1] + noise * rng.standard_normal()
        level = 4 + 0.1 * rng.standard_normal()
        values[seed] = {g: float(level + grown[g] + off[g]) for g in range(generations)}
    return History(values)


def rows_of(policies: Mapping[str, History | Sequence[float]]) -> list[Row]:
    """Rows as in metrics.jsonl; a plain list is one seed's log-perplexity."""
    same = {"model_key": "k", "predicted_tokens": 10, "protocol": {}, "warnings": []}
    return [
        row_of(policy, seed, generation, nll=nll, perplexity=perplexity(nll), **same)
        for policy, given in policies.items()
        for seed, by in (given if isinstance(given, History) else History({0: dict(enumerate(given))})).values.items()
        for generation, nll in by.items()
    ]


def folder_of(runs: Path, rows: Sequence[Row], status: str = "success", command: Sequence[str] = ()) -> RunFolder:
    path = runs / "one"
    path.mkdir(parents=True)
    config = Experiment().model_dump(mode="json")
    record = {"config": config, "status": status, "created": "", "updated": "", "command": list(command)}
    (path / "run.json").write_text(json.dumps(record), encoding="utf-8")
    write_rows(path, rows)
    return RunFolder(runs, "one")


def ratio(percent: float) -> float:
    """A true R that falls ever more slowly: nats at the generation that is looked at."""
    return 10 / (percent + 4)


def run_of(
    percents: Sequence[float], seeds: int, *, noise: float = 0.01, generations: int = 10, seed: int = 0
) -> dict[str, History]:
    """A run whose plateau under keep-P is `ratio`."""
    rng, histories = rng_of(seed), {}
    for percent in percents:
        grown = ratio(percent) * -np.expm1(-np.arange(generations) / 1.5)
        values = {s: 4 + grown + noise * rng.standard_normal(generations) for s in range(seeds)}
        histories[f"keep-{percent:g}"] = History(
            {s: dict(enumerate(map(float, by_generation))) for s, by_generation in values.items()}
        )
    return histories
