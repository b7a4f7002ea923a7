"""Runs compared, read from their folders: what each policy or cell came to, and paired differences between them.

What is compared: perplexities with what was called (`perplexities.py`), or the measure that stands first of any other
experiment (`measures.py`). Reads run folders only; imports neither torch nor learners.
"""

from collections.abc import Sequence
from typing import Any

from collapse_cli import families
from collapse_cli.errors import ConfigError
from collapse_cli.findings.compare import measures, perplexities
from collapse_cli.findings.compare.base import Compared, Comparer, Comparison
from collapse_cli.records.rundir import RunFolder

__all__ = ["Comparison", "compare"]


def compare(runs: Sequence[RunFolder]) -> Comparison[Any, Any]:
    """Compare runs; one alone gives the differences between its policies.

    Raises:
        ConfigError: when there is no such run, one is named twice, has measured nothing, or is of another learner or kind
            than the others, or no generation is common.
    """
    paths = [run.path.resolve() for run in runs]
    for index, path in enumerate(paths):
        if path in paths[:index]:
            raise ConfigError(f"the run {runs[index].name!r} is named twice; name each run once")
    names = _labels(runs)
    configs = [run.config() for run in runs]
    kinds = [f"{config.learner} ({config.kind})" for config in configs]
    if len(set(kinds)) > 1:
        whose = ", ".join(f"{name} is of {kind}" for name, kind in zip(names, kinds, strict=True))
        raise ConfigError(f"runs of different learners have no measure in common: {whose}")
    read = [Compared(name, config, run.rows()) for name, config, run in zip(names, configs, runs, strict=True)]
    diagnosed = configs[0].kind == "generational" and families.of(configs[0].learner).diagnosed
    comparer: Comparer = perplexities if diagnosed else measures
    measured = [comparer.generations(run) for run in read]
    for run, generations in zip(runs, measured, strict=True):
        if not generations:
            why = (
                "has measured nothing yet"
                if not run.damaged()
                else "has no row left: all lines of its metrics.jsonl are damaged"
            )
            raise ConfigError(f"the run {run.name!r} in {run.runs} {why}; give its command again")
    common = set.intersection(*measured)
    if not common:
        raise ConfigError(f"the runs {', '.join(names)} have no generation in common; nothing can be compared")
    return comparer.compared(read, max(common))


def _labels(runs: Sequence[RunFolder]) -> list[str]:
    """The runs' names, with their folder where two have the same."""
    names = [run.name for run in runs]
    return [name if names.count(name) == 1 else str(run.path) for name, run in zip(names, runs, strict=True)]
