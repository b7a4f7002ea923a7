"""What the section `select` names outside of the run, found before anything is computed: functions of the user's own, and detectors."""

from collections.abc import Callable
from dataclasses import replace

from collapse_cli import families, learners
from collapse_cli.config.experiment import Experiment
from collapse_cli.config.selection import SelectConfig, Step
from collapse_cli.data.dataset import pinned
from collapse_cli.errors import ConfigError
from collapse_cli.learners.protocol import Resolved
from collapse_cli.selection.scores import plugin

VERIFIED = {"verifier": ("world", "regression", "blobs"), "biased-verifier": ("regression",)}


def resolve(found: Resolved) -> Resolved:
    """What a learner has resolved, with the hashes of what its selection names.

    Raises:
        ConfigError, InputError: for a step that the learner or the data cannot have, and for what is named and not there.
    """
    config = found.config
    if not config.select.on:
        return found
    notes: list[str] = list(found.notes)
    hints = found.hints

    def fill(step: Step) -> Step:
        nonlocal hints
        check(step, config)
        if step.own:
            own = plugin.find(step.by)
            notes.append(own.note)
            return step.model_copy(
                update={"plugin_sha256": pinned(step.plugin_sha256, "select.plugin_sha256", own.sha256)}
            )
        if step.detector:
            from collapse_cli.lm import classify

            _, sha256 = classify.find(step.detector, "select.detector")
            hints = replace(hints, detector=step.detector)
            notes.append(
                f"select: the detector {step.detector} is used as it is; which of its labels means synthetic is found out"
            )
            return step.model_copy(
                update={"detector_sha256": pinned(step.detector_sha256, "select.detector_sha256", sha256)}
            )
        if step.model:
            from collapse_cli.selection.scores import named_model

            sha256 = named_model.find(step.model)[1]
            hints = replace(hints, judges={**hints.judges, sha256: step.model})
            return step.model_copy(update={"model_sha256": pinned(step.model_sha256, "select.model_sha256", sha256)})
        return step

    select = filled(config.select, fill)
    return replace(found, config=config.model_copy(update={"select": select}), hints=hints, notes=tuple(notes))


def filled(select: SelectConfig, fill: Callable[[Step], Step]) -> SelectConfig:
    """The section with each of its steps as `fill` has it."""
    if select.steps:
        return select.model_copy(update={"steps": tuple(map(fill, select.steps))})
    step = fill(select.chosen[0])
    return select.model_copy(update={name: getattr(step, name) for name in Step.model_fields})


def check(step: Step, config: Experiment) -> None:
    """Whether a learner and its data can have a step.

    Raises:
        ConfigError: when they cannot.
    """
    text, source = families.of(config.learner).text, config.data.source
    if step.kind.text and not text:
        raise ConfigError(
            f"select: {step.name} takes rows of text, and those of the learner {config.learner} are numbers; name another score"
        )
    if step.detector and not text:
        raise ConfigError(
            f"select.detector names a model that reads text, and the rows of the learner {config.learner} are numbers; leave it out"
        )
    if step.kind.verb and not hasattr(learners.learner_class(config.learner), step.kind.verb):
        raise ConfigError(
            f"select: do = {step.do} cannot be done by the learner {config.learner}; it takes a language model (lm)"
        )
    known = VERIFIED.get(step.by, (source,))
    if source in known or (step.by == "verifier" and not text):  # images have labels
        return
    raise ConfigError(
        f"select: by = {step.by} needs data whose truth is known for each row ({', '.join(known)}"
        f"{', images with labels' if step.by == 'verifier' else ''}); data.source is {source}"
    )
