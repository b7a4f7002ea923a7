"""Believable run folders of other model families and of mixtures, from seeded numbers; no model at work.

Values follow closed forms that the code under test does not know: what is asserted can be worked out again here.
"""

import base64
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from support.rows import cell_of, changed, row_of, write_rows

from collapse_cli.config import load
from collapse_cli.findings.expectations import planned_cells
from collapse_cli.records.row import Row

KEY = "ab" * 32
Tree = dict[str, Any]
Fields = Callable[[Row, np.random.Generator], Mapping[str, Any]]


def tree_of(learner: str, **sections: Any) -> Tree:
    """The resolved configuration of an experiment, as `run.json` has it."""
    source = {"vae": "mnist", "ngram": "zipf", "ridge": "regression", "projections": "regression", "mlp": "digits"}
    tree: Tree = {"learner": learner, "data": {"source": source.get(learner, "blobs"), "rows": 100}, **sections}
    return load(tree, "tests/support/mixed.py").model_dump(mode="json")


def families_rows(tree: Tree, fields: Fields, *, missing: Sequence[tuple[str, int, int]] = ()) -> list[Row]:
    """Rows of a generational run: `fields` of a row that says so far of which model it is, and random numbers."""
    rows = []
    for seed in tree["loop"]["seeds"]:
        for generation in range(tree["loop"]["generations"] + 1):
            for index, policy in enumerate(tree["loop"]["policies"]):
                if (policy, seed, generation) in missing:
                    continue
                lineage = (seed, generation, index if generation else 0)
                random = np.random.Generator(np.random.Philox(np.random.SeedSequence(lineage)))
                real = 100 if generation == 0 else 0
                row = row_of(policy, seed, generation, model_key=KEY, train_rows=100, real_rows=real, warnings=[])
                rows.append(changed(row, seconds={"train": 0.01}, **fields(row, random)))
    return rows


def mixture_rows(tree: Tree, fields: Fields) -> list[Row]:
    """Rows of a mixture: every cell of its grid, every seed."""
    rows = []
    for index, record in enumerate(planned_cells(tree)):
        label = f"n={record['rows']} p2={record['share']:.6g}" + f" #{index}"
        for seed in tree["loop"]["seeds"]:
            random = np.random.Generator(np.random.Philox(np.random.SeedSequence((seed, index))))
            row = cell_of(label, seed, **record, warnings=[], model_key=KEY)
            rows.append(changed(row, seconds={"cell": 0.1}, **fields(row, random)))
    return rows


def write(runs: Path, name: str, tree: Tree, rows: Sequence[Row], *, status: str = "success") -> Path:
    """The run's folder, written."""
    folder = runs / name
    folder.mkdir(parents=True)
    record = {
        "name": name,
        "status": status,
        "created": "2026-11-20T12:00:00+00:00",
        "updated": "2026-11-20T12:10:00+00:00",
        "command": ["collapse", "run", "--name", name],
        "config": tree,
        "versions": {"python": "3.11.7", "numpy": "2.4.6"},
        "git": {"commit": "c044e3c4400067dfa6c4bb43a627203894c330ea", "dirty": False},
        "hardware": {"system": "Linux", "machine": "x86_64", "cores": 2, "threads": 2, "memory_gib": 16.0, "gpus": []},
    }
    event = {"event": "finished", "kind": "train", "seconds": 2.0, "time": "2026-11-20T12:10:00+00:00", "key": KEY}
    (folder / "run.json").write_text(json.dumps(record), encoding="utf-8")
    (folder / "plan.json").write_text(json.dumps({"stages": []}), encoding="utf-8")
    (folder / "events.jsonl").write_text(json.dumps(event) + "\n", encoding="utf-8")
    write_rows(folder, rows)
    return folder


# --- what rows of each family may look like ---------------------------------------------------------------------------


def gaussian(row: Row, random: np.random.Generator) -> dict[str, Any]:
    """A fitted variance that shrinks by 1% a generation under replacement, with 400 trials' noise."""
    g, replaced = row.where.generation, row.where.policy.startswith("keep")
    variance = (0.99**g if replaced else 0.9 + 0.1 * 0.9**g) * float(np.exp(0.01 * random.normal()))
    measures = {"variance": variance, "std": variance**0.5 * 0.99, "log_variance": float(np.log(variance)) - 0.005 * g}
    measures |= {"mean_shift_squared": 0.01 * g, "w2_squared": 0.012 * g, "collapsed_share": min(1.0, 0.0005 * g)}
    errors = {f"{name}_se": 0.01 for name in ("variance", "std", "log_variance", "mean_shift_squared", "w2_squared")}
    return measures | errors | {"test_loss": 1.4 + 0.01 * g, "train_loss": 1.4}


def gmm(row: Row, random: np.random.Generator) -> dict[str, Any]:
    g = row.where.generation
    shrunk = 0.97**g * float(np.exp(0.02 * random.normal()))
    l2 = {"l2_squared": 1e-4 * g * float(np.exp(0.2 * random.normal()))}  # 0 at generation 0
    return l2 | {"component_std_min": 0.9 * shrunk, "component_std_max": shrunk, "iterations": 40.0 + g} | {
        "log_likelihood": -1.9 + 0.02 * g, "test_loss": 1.9 + 0.03 * g, "train_loss": 1.9}  # fmt: skip


def vae(row: Row, random: np.random.Generator) -> dict[str, Any]:
    """Latents that spread less and less; eight pictures, of rings that become one."""
    g = row.where.generation
    spread = 0.9 * 0.93**g * float(np.exp(0.01 * random.normal()))
    measures = {"latent_spread": spread, "latent_spread_scatter": 0.01, "reconstruction": 90.0 + 2 * g, "kl": 25.0 - g}
    return measures | {"test_loss": 115.0 + g, "train_loss": 114.0, "pictures": pictures(g, 28)}


def pictures(generation: int, size: int, count: int = 8) -> dict[str, Any]:
    """Rings of different radii, that become alike."""
    y, x = np.mgrid[:size, :size] / size - 0.5
    radii = 0.25 + (np.arange(count) / count - 0.5) * 0.35 * 0.8**generation
    images = [np.uint8(255 * np.exp(-(((np.hypot(x, y) - radius) / 0.06) ** 2))) for radius in radii]
    rows = [base64.b64encode(image.tobytes()).decode() for image in images]
    return {"height": size, "width": size, "rows": rows}


def ridge(row: Row, random: np.random.Generator) -> dict[str, Any]:
    """An error that grows by a fixed amount a generation under replacement, and is bounded when data accumulate."""
    g = row.where.generation
    grown = 1 + g if row.where.policy.startswith("keep") else sum(1 / (j * j) for j in range(1, g + 2))
    error = 0.05 * grown * float(np.exp(0.05 * random.normal()))
    return {"error": error, "test_loss": error + 0.25, "train_loss": 0.2}


def mlp(row: Row, random: np.random.Generator) -> dict[str, Any]:
    g = row.where.generation
    return {"error": 0.05 * 1.2**g + 0.002 * random.normal(), "accuracy": 0.97 - 0.02 * g, "test_loss": 0.05 * 1.2**g}


FAMILIES: dict[str, Fields] = {
    "gaussian": gaussian,
    "gmm": gmm,
    "vae": vae,
    "ridge": ridge,
    "projections": ridge,
    "mlp": mlp,
}


def cell_error(record: Mapping[str, Any]) -> float:
    """Strong collapse in one formula: s²φ/(1-φ) + p2²c² (ordinary least squares, d = 100, s = 0.5, many rows)."""
    n, p2 = record["rows"], record["share"]
    quality, size = record.get("quality") or 1.0, record.get("size")
    share = p2 if record.get("weight") is None else record["weight"]
    share = share ** (record.get("iterations") or 1)
    floor = quality * share**2 * (1 if size is None else size / (size + 100))
    noise = 25.0 / n * (1 if record.get("weight") is None else 1 + (record["weight"] - p2) ** 2)
    return noise + floor + (0 if size is None else 0.3 * np.exp(-size / 100))


def regression(row: Row, random: np.random.Generator) -> dict[str, Any]:
    error = cell_error(row.coordinates) * float(np.exp(0.03 * random.normal()))
    return {"error": error, "test_loss": error + 0.25, "train_loss": 0.2}
