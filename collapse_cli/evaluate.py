"""`collapse eval`: measure again the models of a run, or any causal language model."""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from collapse_cli import learners
from collapse_cli.config import Experiment, load, merge
from collapse_cli.data import Dataset, InputError
from collapse_cli.executors import LocalExecutor
from collapse_cli.kinds import BODIES, plan
from collapse_cli.preparation import Silent
from collapse_cli.rundir import STORE, RunFolder
from collapse_cli.stage import Finished, Plan, Stage
from collapse_cli.store import Store

AGREEMENT = 1e-4  # relative; a larger difference from what was logged is one


def find_run(target: str, runs: Path) -> RunFolder | None:
    """The run that `target` names, by name or by folder; None when it is none."""
    path = Path(target)
    if (path / "run.json").is_file():
        return RunFolder(path.resolve().parent, path.resolve().name)
    if "/" not in target and (runs / target / "run.json").is_file():
        return RunFolder(runs, target)
    return None


def evaluate_run(folder: RunFolder, data: str | None, settings: Mapping[str, Any], tell: Any) -> list[dict[str, Any]]:
    """Score every generation's model of a run again.

    Args:
        data: other text to score; None: the run's own test text, under which the result must agree with the log.

    Returns:
        A row per generation: `logged` and `again` perplexity and their relative `difference` (None on other text or
        under another protocol), the other measures, and `pruned` where the weights are gone.
    """
    store = Store(folder.runs / STORE)
    config = folder.config()
    changed = _changed(config, None, data, settings)
    same = changed == config
    original = plan(config, {})
    if same and store.has(_data_stage(original).key):
        planned = original  # nothing need be looked up: the text is in the store as the run used it
    else:
        learner, tree = learners.learner_class(config.learner), changed.model_dump(mode="json")
        if data is not None:
            tree = learner.with_tokenizer_of(tree, store.folder(_data_stage(original).key))
        resolved = learner.resolve(tree)
        planned = plan(Experiment.model_validate(resolved.tree), resolved.hints)
    with tempfile.TemporaryDirectory(prefix="collapse-") as temporary:
        encoded = _data(planned, store if same else Store(Path(temporary)))
        logged = {(row["policy"], row["seed"], row["generation"]): row for row in folder.rows()}
        found: dict[str, dict[str, Any] | None] = {}
        rows = []
        for done, (one, new) in enumerate(zip(original.generations, planned.generations, strict=True), 1):
            old = logged.get((one.policy, one.seed, one.generation))
            key = old["model_key"] if old else one.train.key
            if key not in found:
                found[key] = _score(store.folder(key), new.eval.params, encoded) if store.has(key) else None
            again = found[key]
            row = {"policy": one.policy, "seed": one.seed, "generation": one.generation, "model_key": key}
            row |= {"logged": old["perplexity"] if old and same else None, "pruned": again is None}
            row |= again or {}
            row["difference"] = abs(again["perplexity"] / old["perplexity"] - 1) if again and old and same else None
            rows.append(row)
            tell(done, len(planned.generations))
    return rows


def evaluate_model(target: str, data: str | None, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Score a model folder or Hub id on a text's test split; `wikitext2` unless another is named."""
    config = _changed(Experiment(), target, data, settings)
    learner = learners.learner_class(config.learner)
    resolved = learner.resolve(config.model_dump(mode="json"))
    if "model" not in resolved.hints:
        raise InputError(f"{target} is a config without weights; give a model folder")
    planned = plan(Experiment.model_validate(resolved.tree), resolved.hints)
    with tempfile.TemporaryDirectory(prefix="collapse-") as temporary:
        encoded = _data(planned, Store(Path(temporary)))
        first = planned.generations[0].eval
        facts = _score(Path(resolved.hints["model"]), first.params, encoded)
    return {"model": target, "data": config.data.source, "notes": encoded.facts["notes"], **facts}


def disagreements(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Rows whose perplexity is not what was logged."""
    return [row for row in rows if row["difference"] is not None and not row["difference"] <= AGREEMENT]


def _changed(config: Experiment, model: str | None, data: str | None, settings: Mapping[str, Any]) -> Experiment:
    tree = config.model_dump(mode="json")
    if model is not None:
        tree["model"] = {"source": model}
        tree["sample"] |= {"prompt_tokens": 1, "new_tokens": 1}  # nothing is sampled
    if data is not None:
        tree["data"] |= {"source": data, "train": "", "valid": "", "test": "", "sha256": "", "rows": 0}
    return load(merge(tree, settings), "the settings")


def _data_stage(planned: Plan) -> Stage:
    return next(iter(planned.stages.values()))


def _data(planned: Plan, store: Store) -> Finished:
    stage = _data_stage(planned)
    store.root.mkdir(parents=True, exist_ok=True)
    LocalExecutor(store, BODIES).run([stage], Silent())
    return store.get(stage.key)


def _score(model: Path, params: Mapping[str, Any], data: Finished) -> dict[str, Any]:
    hints = {"encoded": data.folder, "about": data.facts}
    learner = learners.create(params["learner"], params, hints, lambda done, total, unit: None)
    learner.load(model)
    learner.measure(Dataset.load(data.folder / "test.safetensors"))
    return learner.facts
