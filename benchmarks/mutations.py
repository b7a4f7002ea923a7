"""Which wrong laws would the `expect` tables of the presets notice? A line an entry, a column a mistake.

    .venv/bin/python benchmarks/mutations.py                     # with the standard errors that are kept in docs/results
    .venv/bin/python benchmarks/mutations.py --runs-dir runs     # with those of runs, which are then kept

Theory is changed on purpose (p1 p2 u c2 left out, a generation off, n - 1 for n, ...). An entry notices a mistake where the
right value would be outside what the entry allows about the wrong one: its tolerance or four standard errors of the run,
whichever is wider. Writes docs/results/mutations.md; tests/findings/test_mutations.py asks that every mistake is noticed somewhere.
"""

import argparse
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from collapse_cli import theory
from collapse_cli.config import Experiment, load, preset_path, read_toml, variant_experiments
from collapse_cli.findings.expectations import ERRORS, at_cell, judge, planned_cells
from collapse_cli.findings.predictions import predict_cell, predict_loop
from collapse_cli.records.rundir import RunFolder

PRESETS = (
    "nature-gaussian",
    "generational-regression",
    "strong-ridge",
    "strong-weighted",
    "strong-iterative",
    "strong-projections",
)
RESULTS = Path(__file__).resolve().parent.parent / "docs" / "results"
PAGE, ERRORS_KEPT = RESULTS / "mutations.md", RESULTS / "errors.json"
Tree = Mapping[str, Any]
Errors = dict[str, list[float | None]]
Mistake = Callable[[Tree, Any], float | None]  # tree and entry -> what the wrong law says; None where it does not apply


def with_section(tree: Tree, name: str, **changed: Any) -> dict[str, Any]:
    """A tree in which a section's options are other ones."""
    return {**tree, name: {**tree[name], **changed}}


def loop_value(tree: Tree, entry: Any, *, later: int = 0, policy: str = "") -> float | None:
    """What theory says of an entry of a loop, so many generations later or under another policy."""
    policy = policy or entry.policy or tree["loop"]["policies"][0]
    generation = entry.generation + later
    return predict_loop(tree, entry.what, policy, generation) if generation >= 0 else None


def cell_value(tree: Tree, entry: Any, **changed: Any) -> float | None:
    """What theory says of an entry of a mixture, with other coordinates."""
    return predict_cell(tree, record_of(tree, entry) | changed)


def record_of(tree: Tree, entry: Any) -> dict[str, Any]:
    """The coordinates of an entry's cell."""
    (record,) = (one for one in planned_cells(tree) if at_cell(entry.cell, one))
    return record


def parts_of(tree: Tree, entry: Any) -> dict[str, float]:
    """n, d, p2, c2, s^2, u of least squares."""
    record, section = record_of(tree, entry), tree["data"]["regression"]
    n, d = record["rows"], section["dimensions"]
    return {
        "n": n,
        "d": d,
        "p2": record["synthetic_rows"] / n,
        "c2": record.get("quality", 0.0),
        "s2": section["noise"] ** 2,
        "u": d / (n - d),
    }


def other_policy(tree: Tree, entry: Any) -> float | None:
    """Replace where rows accumulate, and the other way round."""
    policy = entry.policy or tree["loop"]["policies"][0]
    return loop_value(tree, entry, policy="accumulate" if policy == "keep-0" else "keep-0")


def without_cross(tree: Tree, entry: Any) -> float:
    """Ridge without p1 p2 u c2."""
    at = parts_of(tree, entry)
    return at["s2"] * at["u"] + at["p2"] ** 2 * at["c2"]


def share_not_squared(tree: Tree, entry: Any) -> float:
    """Ridge whose floor is p2 c2."""
    at = parts_of(tree, entry)
    return at["s2"] * at["u"] + (at["p2"] + at["p2"] * (1 - at["p2"]) * at["u"]) * at["c2"]


def few_dimensions(tree: Tree, entry: Any) -> float:
    """Ridge with d/n for d/(n - d)."""
    at = parts_of(tree, entry)
    u = at["d"] / at["n"]
    return at["s2"] * u + (at["p2"] ** 2 + at["p2"] * (1 - at["p2"]) * u) * at["c2"]


def nominal_share(tree: Tree, entry: Any) -> float | None:
    """Weighted mixing whose floor is alpha^2 c2 instead of q^2 c2, with q = alpha."""
    at, weight, right = parts_of(tree, entry), record_of(tree, entry).get("weight"), cell_value(tree, entry)
    if right is None or not weight:
        return None
    q = theory.weighted(
        eigenvalues=theory.spectrum("iso", int(at["d"])),
        n=at["n"],
        p2=at["p2"],
        c2=at["c2"],
        lam=tree["ridge"]["lam"],
        noise=at["s2"] ** 0.5,
        alpha=weight,
    ).share
    return float(right + (weight**2 - q**2) * at["c2"])


def geometric(tree: Tree, entry: Any) -> float | None:
    """Iterative mixing with p2^2 in place of g = p2^2 + p1 p2 u."""
    at, record = parts_of(tree, entry), record_of(tree, entry)
    if tree["mixture"]["real_data"] == "fixed" or not at["p2"]:
        return None
    g = at["p2"] ** 2
    end = at["s2"] * at["u"] / (1 - g)
    return end + float(g ** record["iterations"]) * (at["c2"] - end)


def rounds_off(tree: Tree, entry: Any) -> float | None:
    """Iterative mixing, counted one round short."""
    record = record_of(tree, entry)
    if tree["mixture"]["real_data"] == "fixed" or not record["synthetic_rows"] or record["iterations"] < 2:
        return None
    return cell_value(tree, entry, iterations=record["iterations"] - 1)


def other_protocol(tree: Tree, entry: Any) -> float | None:
    """Real rows drawn once where they are drawn anew, and the other way round."""
    kind = "fresh" if tree["mixture"]["real_data"] == "fixed" else "fixed"
    record = record_of(tree, entry)
    return predict_cell(with_section(tree, "mixture", real_data=kind), record) if record["synthetic_rows"] else None


def no_projections(tree: Tree, entry: Any) -> float | None:
    """All dimensions in place of m projections."""
    record = {name: value for name, value in record_of(tree, entry).items() if name != "size"}
    return predict_cell({**tree, "learner": "ridge", "ridge": {"lam": tree["projections"]["lam"]}}, record)


def ever_more_rows(tree: Tree, entry: Any) -> float | None:
    """The plateau in place of the risk at n."""
    record = record_of(tree, entry)
    share = record["synthetic_rows"] / record["rows"]
    return predict_cell(tree, record | {"rows": 10**9, "synthetic_rows": round(share * 10**9)})


MISTAKES: dict[str, dict[str, Mistake]] = {
    "nature-gaussian": {
        "n - 1 for n": lambda tree, entry: loop_value(
            with_section(tree, "gaussian", unbiased=not tree["gaussian"]["unbiased"]), entry
        ),
        "a generation early": lambda tree, entry: loop_value(tree, entry, later=-1),
        "a generation late": lambda tree, entry: loop_value(tree, entry, later=1),
        "the other policy": other_policy,
    },
    "generational-regression": {
        "a generation early": lambda tree, entry: loop_value(tree, entry, later=-1),
        "a generation late": lambda tree, entry: loop_value(tree, entry, later=1),
        "the other policy": lambda tree, entry: other_policy(tree, entry) if entry.generation else None,
        "n - d for n - d - 1": lambda tree, entry: (
            (loop_value(tree, entry) or 0.0)
            * (tree["data"]["rows"] - tree["data"]["regression"]["dimensions"] - 1)
            / (tree["data"]["rows"] - tree["data"]["regression"]["dimensions"])
        ),
    },
    "strong-ridge": {
        "without p1 p2 u c2": without_cross,
        "p2 for p2²": share_not_squared,
        "d/n for d/(n - d)": few_dimensions,
        "the plateau alone": ever_more_rows,
    },
    "strong-weighted": {
        "alpha for q": nominal_share,
        "no weights": lambda tree, entry: predict_cell(
            tree, {name: value for name, value in record_of(tree, entry).items() if name != "weight"}
        ),
        "real rows alone": lambda tree, entry: cell_value(tree, entry, weight=0.0),
        "the plateau alone": ever_more_rows,
    },
    "strong-iterative": {
        "p2² for g": geometric,
        "a round early": rounds_off,
        "the other protocol": other_protocol,
    },
    "strong-projections": {"no projections": no_projections, "ever more rows": ever_more_rows},
}


def experiments(preset: str) -> dict[str, Experiment]:
    """A preset's experiments by the names of their runs."""
    tree = load(read_toml(preset_path(preset)), preset)
    made = variant_experiments(tree.model_dump(mode="json"), preset)
    return {f"{preset}-{name}": one for name, one in made.items()} if made else {preset: tree}


def unnoticed(preset: str, tree: Tree, entry: Any, error: float | None) -> dict[str, bool]:
    """By mistake whether an entry cannot tell it; mistakes that do not apply, or change nothing at all, are left out."""
    mixture = tree["kind"] == "mixture"
    right = cell_value(tree, entry) if mixture else loop_value(tree, entry)
    found: dict[str, bool] = {}
    if right is None:
        return found
    for name, mistake in MISTAKES[preset].items():
        wrong = mistake(tree, entry)
        if wrong is None or abs(wrong - right) <= 1e-9 * abs(right):
            continue
        found[name] = bool(abs(right - wrong) <= max(entry.tolerance * abs(wrong), ERRORS * (error or 0.0)))
    return found


def errors_of(runs: Path) -> Errors:
    """Standard errors of the entries of presets that were run, by the names of the runs."""
    found: Errors = {}
    for preset in PRESETS:
        for run, experiment in experiments(preset).items():
            folder = RunFolder(runs, run)
            if folder.exists():
                found[run] = [one.error for one in judge(folder.rows(), experiment.model_dump(mode="json"))]
    return found


def checked(errors: Errors) -> dict[str, list[tuple[str, dict[str, bool]]]]:
    """By preset: each entry that is held against theory in words, and by mistake whether it cannot tell it."""
    found: dict[str, list[tuple[str, dict[str, bool]]]] = {}
    for preset in PRESETS:
        found[preset] = []
        for run, experiment in experiments(preset).items():
            tree, own = experiment.model_dump(mode="json"), errors.get(run)
            for index, entry in enumerate(experiment.expect):
                if entry.value is None:
                    said = ", ".join(f"{key} {value:g}" for key, value in entry.cell.items())
                    said = said or f"{entry.what.replace('_', ' ')}, {entry.policy}, generation {entry.generation}"
                    name = f"{run.removeprefix(preset).lstrip('-')} {said}".strip()
                    blind = unnoticed(preset, tree, entry, own[index] if own else None)
                    found[preset].append((name, blind))
    return found


def table(errors: Errors) -> str:
    """The page."""
    lines = [
        "# What the rows against theory would notice",
        "",
        "Each row of the tables *measured against theory* beside laws that are wrong on purpose. **yes**: with the standard errors of the run that the results pages show, the right",
        "number would be outside what the row allows about the wrong law. *no*: the row cannot tell the two. An empty place: the mistake changes nothing there.",
        "",
        "    .venv/bin/python benchmarks/mutations.py --runs-dir runs",
    ]
    for preset, rows in checked(errors).items():
        names = list(MISTAKES[preset])
        lines += ["", f"## {preset}", "", f"| row | {' | '.join(names)} |", f"|---|{'---|' * len(names)}"]
        for said, blind in rows:
            cells = ["" if name not in blind else "*no*" if blind[name] else "**yes**" for name in names]
            lines.append(f"| {said} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs-dir", type=Path)
    given = parser.parse_args()
    errors: Errors = json.loads(ERRORS_KEPT.read_text(encoding="utf-8")) if ERRORS_KEPT.exists() else {}
    if given.runs_dir is not None:
        errors |= errors_of(given.runs_dir)
        kept = {run: [None if one is None else float(f"{one:.3g}") for one in own] for run, own in errors.items()}
        ERRORS_KEPT.write_text(json.dumps(kept, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        errors = dict(kept)
    PAGE.write_text(table(errors), encoding="utf-8")
    print(PAGE)


if __name__ == "__main__":
    main()
