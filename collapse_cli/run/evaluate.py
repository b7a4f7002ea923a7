"""`collapse eval`: measure again the models of a run, or any causal language model."""

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from collapse_cli import families, learners
from collapse_cli.config import Experiment, merge, with_options
from collapse_cli.config.families import DRAWN
from collapse_cli.config.names import leaves
from collapse_cli.config.unread import first_unread, within
from collapse_cli.data.dataset import Dataset, load_text
from collapse_cli.engine import scheduler
from collapse_cli.engine.executors.local import LocalExecutor
from collapse_cli.engine.remote_addresses import is_address
from collapse_cli.engine.stage import Finished, Generation, Plan, Product, Stage
from collapse_cli.engine.store import Store, store_at
from collapse_cli.errors import ConfigError, InputError
from collapse_cli.experiment.kinds import plan
from collapse_cli.experiment.stages.base import ROWS, TEST
from collapse_cli.experiment.stages.together import block_of, inputs_of, kept_model
from collapse_cli.findings.evaluated import Evaluated, value_of
from collapse_cli.learners.family import State
from collapse_cli.records import elsewhere
from collapse_cli.records.row import Row
from collapse_cli.records.rundir import RunFolder
from collapse_cli.records.runs import store_of
from collapse_cli.run import early_checks
from collapse_cli.run.observers.computed import Computed

OTHER = (
    "source",
    "train",
    "valid",
    "test",
    "text",
    "format",
    "prompt",
    "completion",
    "template",
    *families.KNOWN,
)  # of data: make it other text
OF_TEXT = ("data", "eval")  # sections that decide how models of a run are scored
OF_MODEL = (*OF_TEXT, "model.base", "model.revision", "model.sha256", "model.tokenizer", "model.tokenizer_sha256")
NOT_SCORED = {"data.rows": "only the test text is scored", "eval.samples": "only models are scored, not samples"}


def find_run(target: str, runs: Path) -> RunFolder | None:
    """The run that `target` names, by name or by folder; None when it is none."""
    path = Path(target)
    if is_address(target):
        raise ConfigError(f"{target!r}: a run that is elsewhere is named, and its place given with --runs-dir")
    if (path / "run.json").is_file():
        return RunFolder(path.resolve().parent, path.resolve().name)
    if "/" not in target:
        elsewhere.bring(runs, target)
    if "/" not in target and (runs / target / "run.json").is_file():
        return RunFolder(runs, target)
    return None


def check_target(target: str, folder: RunFolder | None, data: str | None, settings: Mapping[str, Any]) -> None:
    """Check what is to be evaluated, as far as that goes before torch is imported.

    Args:
        folder: the run that `target` names; None: it is taken for a model.

    Raises:
        ConfigError, InputError: for the first thing that is wrong.
    """
    for key, _ in leaves(settings):
        if not within(key, OF_TEXT if folder else OF_MODEL):
            of = "a run's models are scored" if folder else "a model is scored"
            raise ConfigError(f"--set {key}=… has no effect on eval: only options of data.… and eval.… say how {of}")
        if key in NOT_SCORED:
            raise ConfigError(f"--set {key}=… has no effect on eval: {NOT_SCORED[key]}")
    if folder is None and target.endswith(".json"):
        raise ConfigError(f"{target} is a config file without weights; give a model folder or a Hub id")
    config = _changed(folder.config() if folder else Experiment(), None if folder else target, data, settings)
    if (unread := first_unread(settings, [config])) is not None:
        key, why = unread
        raise ConfigError(f"--set {key}=… has no effect on eval: {why}")
    if folder is None:
        early_checks.check_model(config.model)
    if families.of(config.learner).text and (folder is None or data is not None or "data" in settings):
        early_checks.check_tokenizer(config.model.tokenizer)
        early_checks.check_text(config.data)


def evaluate_run(
    folder: RunFolder, data: str | None, settings: Mapping[str, Any], tell: Callable[[int, int], None]
) -> list[Evaluated]:
    """Score every generation's model of a run again.

    Args:
        data: other text to score; None: the run's own test text, under which the result must agree with the log.
        tell: how many models are done, and of how many.

    Returns:
        Each generation's model, beside what was logged (nothing of other text, or under another protocol).
    """
    store = store_of(folder.runs)
    config = folder.config()
    changed = _changed(config, None, data, settings)
    same = changed == config
    original = plan(config, learners.Hints())
    texts = _data_stages(original)
    if not texts:
        raise InputError(
            f"the run {folder.name!r} keeps no models: a mixture of {config.learner} is computed in memory; give the run's command "
            "with another --runs-dir to compute it again"
        )
    logged = {row.where: row for row in folder.rows()}
    models = {logged[made.where].model_key if made.where in logged else made.train.key for made in original.generations}
    if not any(store.has(key) for key in models):
        if config.store.keep_models == "none" and any(store.has(key, whole=False) for key in models):
            raise InputError(f"the run {folder.name!r} keeps no models: store.keep_models = none")
        if any(store.has(key, whole=False) for key in models):  # the command would find its stages and make nothing
            raise InputError(
                f"the models of the run {folder.name!r} are not kept in {store.address}: another run shares them, and its "
                "store.keep_models did not keep them; give the run's command with another --runs-dir to compute them again"
            )
        raise InputError(
            f"no model of the run {folder.name!r} is in {store.address}; where its folder was moved, move it back beside its store; "
            "else give the run's command again to compute them again"
        )
    if same and all(store.sound(stage.key) for stage in texts):
        planned = original  # nothing need be looked up: the data are in the store as the run used them
    else:
        other = any(getattr(changed.data, name) != getattr(config.data, name) for name in OTHER)
        planned = _planned_again(changed, original, store, other=other)
    with tempfile.TemporaryDirectory(prefix="collapse-") as temporary:
        encoded = _data(planned, store if same else store_at(temporary))
        own = {stage.key: store.get(stage.key).facts for stage in texts if store.sound(stage.key)}
        again: dict[tuple[str, int | None], dict[str, Any] | None] = {}
        name = "perplexity" if families.of(config.learner).text else "test_loss"
        evaluated = []
        for done, (made, new) in enumerate(zip(original.generations, planned.generations, strict=True), 1):
            row = logged.get(made.where)
            key = row.model_key if row else made.train.key
            if (key, made.part) not in again:
                beside = {what: stage.key for what, stage in inputs_of(made).items() if what in ("first", "model_base")}
                for used in (key, *beside.values()):
                    _check(store, used, f"what the model of {made.where.policy_first} needs")
                there = all(
                    store.has(used) for used in (key, *(beside[what] for what in beside if what == "model_base"))
                )
                again[key, made.part] = (
                    _again(store, key, made, new, encoded, own.get(_data_of(made), {})) if there else None
                )
            measured = again[key, made.part]
            now = None if measured is None else Row.at(made.where, measured)
            came = row is not None or store.has(key, whole=False)
            logged_value = value_of(row, name) if row and same else None
            evaluated.append(Evaluated(made.where, key, name, logged_value, now, came))
            tell(done, len(planned.generations))
    return evaluated


def _planned_again(changed: Experiment, original: Plan, store: Store, *, other: bool) -> Plan:
    """The plan whose stages score the models of a run as `changed` says: on `other` text, in the tokens that they were made for.

    Lineages are scored on the same text, each in its own tokens.
    """
    learner = learners.learner_class(changed.learner)
    several = changed.lineage_names != ("",) and families.of(changed.learner).text
    if not several:
        if other:
            changed = learner.with_tokenizer_of(changed, _encoded(original, "", store))
        resolved = learner.resolve(changed)
        return plan(resolved.config, resolved.hints)
    lineages = changed.of_lineages()
    if other:  # whatever text a lineage was trained on
        changed = changed.model_copy(update={"pool": changed.pool.model_copy(update={"real": "common"})})
        lineages = {
            name: learner.with_tokenizer_of(
                own.model_copy(update={"data": changed.data}), _encoded(original, name, store)
            )
            for name, own in lineages.items()
        }
    found = {name: learner.resolve(own) for name, own in lineages.items()}
    hints = learners.Hints(lineages={name: one.hints for name, one in found.items()})
    return plan(changed.with_lineages({name: one.config for name, one in found.items()}), hints)


def _encoded(original: Plan, lineage: str, store: Store) -> Path | None:
    """The folder of the real data of a lineage; None where the store has it no longer."""
    made = next(made for made in original.generations if made.where.lineage == lineage)
    key = _data_of(made)
    _check(store, key, "the run's text")
    return store.get(key).folder if store.has(key) else None


def _data_of(made: Generation) -> str:
    """The key of the real data that a model was made from; "" where it has none of its own."""
    stage = inputs_of(made).get("data")
    return stage.key if stage else ""


def _check(store: Store, key: str, what: str) -> None:
    """Refuse a stage that is in the store but is not what was written."""
    if store.has(key) and not store.sound(key):
        raise InputError(
            f"{what} is damaged in the store ({store.place_of(key)}: {store.fault(key)}); move that folder away and give "
            "the run's command again"
        )


def evaluate_model(target: str, data: str | None, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Score a model folder or Hub id on a text's test split; `wikitext2` unless another is named."""
    config = _changed(Experiment(), target, data, settings)
    if config.eval.protocol == "sliding":  # which knows no blocks; the shortest ones leave the least text out of counts
        config = with_options(config, {"data": {"block_size": 2}, "eval": {"block_size": 0}}, "the settings")
    else:  # the blocks that are scored decide, and need not be those of a corpus to train on
        size = config.eval.block_size or config.data.block_size
        config = with_options(config, {"data": {"block_size": size}, "eval": {"block_size": size}}, "the settings")
    learner = learners.learner_class(config.learner)
    resolved = learner.resolve(config)
    if config.eval.protocol == "sliding" and not config.eval.context and resolved.positions is None:
        raise ConfigError(
            f"{target} takes any number of tokens at once: say how many the window has, --set eval.context=…"
        )
    planned = plan(resolved.config, resolved.hints)
    with tempfile.TemporaryDirectory(prefix="collapse-") as temporary:
        encoded = _data(planned, store_at(temporary))
        first = planned.generations[0].eval
        text = next(iter(encoded.values()))
        facts = _score(Path(resolved.hints.model), first.params, text, text.facts, None, resolved.hints.bases)
    notes = list(dict.fromkeys([*resolved.notes, *load_text(**resolved.hints.text).notes, *text.facts["notes"]]))
    return {"model": target, "data": config.data.source, "notes": notes, **facts}


def _changed(config: Experiment, model: str | None, data: str | None, settings: Mapping[str, Any]) -> Experiment:
    """The experiment whose plan has the stages that score what is asked for."""
    other: dict[str, Any] = {}
    if model is not None:  # nothing is sampled
        other = {"model": {"source": model}, "sample": {"prompt_tokens": 1, "new_tokens": 1}}
    wanted = settings.get("data", {})
    source = wanted.get("source", data) if isinstance(wanted, Mapping) else data
    if source is not None and source in DRAWN and source == config.data.source:
        pass  # drawn as the run drew it
    elif source is not None:
        found = dict.fromkeys(("train", "valid", "test", "sha256", "prompt", "completion", "template_sha256"), "")
        other["data"] = {"source": source, **found, "rows": 0, "format": "auto", "template": "auto"}
    elif isinstance(wanted, Mapping) and wanted.keys() & set(OTHER):
        other["data"] = {
            "sha256": "",
            "template_sha256": "",
            "rows": config.data.rows if config.data.source in DRAWN else 0,
        }
    return with_options(config, merge(other, settings), "the settings")


def _data_stages(planned: Plan) -> list[Stage]:
    """Of real data; one for all seeds, or one each where they are drawn. None where a mixture is done in memory."""
    return [stage for stage in planned.stages.values() if stage.of.product is Product.DATA]


def _data(planned: Plan, store: Store) -> dict[str, Finished]:
    stages = _data_stages(planned)
    store.begin()
    scheduler.run(stages, LocalExecutor(store), Computed())
    return {stage.key: store.get(stage.key) for stage in stages}


def _again(
    store: Store, key: str, old: Generation, new: Generation, data: Mapping[str, Finished], own: Mapping[str, Any]
) -> dict[str, Any] | None:
    """One model measured again; None where its stage keeps none, as one of a large block or of a mixture in memory."""
    inputs = inputs_of(new)
    if "data" not in inputs:
        return None
    encoded = data[inputs["data"].key]
    beside = inputs_of(old).get("first")
    rows = store.get(beside.key).file(ROWS) if beside and store.has(beside.key, whole=False) else None
    first = Dataset.load(rows) if rows is not None and rows.exists() else None
    if old.part is None:
        folder, below = store.get(key).folder, old.eval.inputs.get("model_base")
        bases = {str(folder): store.get(below.key).folder} if below else {}
        return _score(folder, new.eval.params, encoded, own, first, bases)
    block, model = block_of(new), kept_model(old, store.get(key))
    params = {"learner": block.learner, **block.verbs["eval"]}
    return None if model is None else _score(model, params, encoded, own, first)


def _score(
    model: Path | State,
    params: Mapping[str, Any],
    data: Finished,
    own: Mapping[str, Any],
    first: Dataset | None,
    bases: Mapping[str, Path] | None = None,
) -> dict[str, Any]:
    """Measures of a model that lies in a folder, or is a state in memory.

    Args:
        own: facts of the data that it was made of.
        bases: as `Hints.bases`.
    """
    about = learners.learner_class(params["learner"]).about(data.facts, own)
    hints = learners.Hints(encoded=data.folder, about=about, bases=bases or {})
    if families.of(params["learner"]).by_test_row:
        first = None  # which was of other rows perhaps
    test = Dataset.load(data.file(TEST))
    if isinstance(model, Path):
        learner = learners.create(params["learner"], params, hints, learners.silent)
        learner.load(model)
        return learner.measure(test, first).facts
    family = learners.family_class(params["learner"])(params, hints, learners.silent)
    family.restore(model)
    return family.measure(test, first).facts
