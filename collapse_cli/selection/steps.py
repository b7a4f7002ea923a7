"""The steps of the section `select`, one after the other: from candidates to the rows that enter a corpus, and the audit of it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from collapse_cli.config.selection import Step
from collapse_cli.data.dataset import Dataset
from collapse_cli.engine.stage import seed_for
from collapse_cli.errors import InputError
from collapse_cli.learners.protocol import Facts
from collapse_cli.selection import audit as audits
from collapse_cli.selection import rules
from collapse_cli.selection.audit import Audit
from collapse_cli.selection.score import Material, Scored, change_of, score_of


@dataclass(frozen=True)
class Survivors:
    """What is left after all steps.

    Attributes:
        rows: those that stay, changed where a step changes rows.
        chosen: (rows,) which candidate each is; one that was drawn twice stands there twice.
        facts: about the candidates, the steps and the rows, as JSON: fields of `metrics.jsonl`.
    """

    rows: Dataset
    chosen: np.ndarray
    facts: Facts


def survivors(
    candidates: Dataset, steps: Sequence[Step], wanted: int, turn: np.ndarray, material: Material
) -> Survivors:
    """At most `wanted` of the candidates.

    Args:
        turn: (candidates,) who comes first where no rule says.

    Raises:
        UserError: for a score that does not suit the rows, or is of the wrong length.
    """
    rows, chosen = candidates, np.arange(len(candidates))
    audit = Audit.of(len(candidates), len(material.held))
    choosing = [number for number, step in enumerate(steps, 1) if not step.do]
    for number, step in enumerate(steps, 1):
        if not len(rows):
            break
        own = replace(material, seed=seed_for(material.seed, "step", number))
        if step.do:
            rows, facts = change_of(step, own).change(rows)
            audit.steps.append({"name": step.name, "rows": len(rows), "kept": len(rows), "facts": facts})
            continue
        last = number == choosing[-1]
        stay = _choose(step, number, rows, chosen, wanted, turn[chosen], own, audit, last=last)
        rows, chosen = rows.take(stay), chosen[stay]
    if not choosing:
        rows, chosen = rows.take(np.arange(min(wanted, len(rows)))), chosen[:wanted]
    return Survivors(rows, chosen, _facts(candidates, audit, material))


def _choose(
    step: Step,
    number: int,
    rows: Dataset,
    chosen: np.ndarray,
    wanted: int,
    turn: np.ndarray,
    material: Material,
    audit: Audit,
    *,
    last: bool,
) -> np.ndarray:
    """Which of the rows stay after one step; what there is to say goes into the audit."""
    score = score_of(step, material)
    scored = _checked(score.score(rows), len(rows), step)
    choice = rules.choose(step, scored.values, wanted, turn, material.seed, last=last)
    stays = np.ones(0)
    if len(material.held):
        stays = choice.keeps(_checked(score.score(material.held), len(material.held), step).values)
        audit.held *= stays
    audit.score[chosen] = scored.values
    audit.left_at[np.setdiff1d(chosen, chosen[choice.rows])] = number
    audit.steps.append(
        {
            "name": step.name,
            "rule": step.rule,
            "unit": step.kind.unit,
            "rows": len(rows),
            "kept": len(choice.rows),
            "without_score": int(np.isnan(scored.values).sum()),
            "before": audits.quantiles(scored.values),
            "after": audits.quantiles(scored.values[choice.rows]),
            "false_rejects": audits.false_rejects(stays),
            "facts": scored.facts,
        }
    )
    return choice.rows


def _checked(scored: Scored, rows: int, step: Step) -> Scored:
    """A score that has one number for each row.

    Raises:
        InputError: for another number of them.
    """
    if scored.values.shape != (rows,):
        raise InputError(
            f"select: {step.name} gives {len(np.atleast_1d(scored.values)):,} numbers for {rows:,} rows; it must give one for each"
        )
    return scored


def _facts(candidates: Dataset, audit: Audit, material: Material) -> Facts:
    """Fields of `metrics.jsonl` that need no count of what stays."""
    thrown, kept = audits.examples(candidates, audit, material.text)
    return {
        "select_held_out": len(audit.held),
        "select_false_rejects": audits.false_rejects(audit.held),
        "selection": {"steps": audit.steps, "thrown": thrown, "kept": kept},
    }
