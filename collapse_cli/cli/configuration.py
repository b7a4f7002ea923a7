"""The experiment that a command line asks for."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from collapse_cli import config
from collapse_cli.config.policies import Policy
from collapse_cli.records.names import RULE_OF_NAMES, can_be_named
from collapse_cli.records.rundir import RunFolder


@dataclass(frozen=True)
class Requested:
    """What a command line asks for.

    Attributes:
        name: of the run; where none is given, that of the file or preset.
        replaced: a note on policies of the configuration that the command line's replace; "" where it replaces none.
    """

    experiment: config.Experiment
    name: str
    replaced: str


def requested(
    file: Path | None,
    preset: str | None,
    loop: Mapping[str, Any],
    seeds: str | None,
    model: str | None,
    data: str | None,
    name: str | None,
    settings: Sequence[str],
) -> Requested:
    """The experiment of a command line.

    Raises:
        ConfigError: for the first thing that is wrong.
    """
    if file is not None and preset is not None:
        if not os.path.lexists(file):
            config.read_toml(file)  # says what it may have meant
        raise config.ConfigError(f"both a file ({file}) and a preset ({preset}) are named; name one of them")
    if file is not None and name is None and os.path.lexists(file) and not can_be_named(file.stem):
        raise config.ConfigError(
            f"{file}: a run has the name of its file, and {file.stem[:120]!r} cannot be one: {RULE_OF_NAMES}; give it another "
            "with --name"
        )
    chosen = preset or config.DEFAULT_PRESET
    path = file or config.preset_path(chosen)
    where = str(path) if file else f"preset {chosen}"
    tree = config.read_toml(path)
    if file:
        config.refuse_unread(tree, tree, where)
    made = config.load(tree, where)  # its own mistakes under its name
    given: dict[str, Any] = {key: value for key, value in loop.items() if value is not None}
    if seeds is not None:
        given["seeds"] = config.parse_seeds(seeds)
    own = made.loop.policies
    tree = config.merge(tree, {"loop": given} if given else {})
    config.refuse_options(tree, loop, model)
    if model is not None:
        tree["model"] = {"source": model}
    if data is not None:
        names = dict.fromkeys(("train", "valid", "test", "sha256"), "")
        tree = config.merge(tree, {"data": {"source": data, **names}})
    over = config.given_tree(given, model, data, config.parse_settings(settings))
    config.refuse_conflicts(tree.get("variants", {}), over)
    tree = config.merge(tree, over)
    flags = [f"loop.{name}" for name in given]
    flags += [key for key, value in (("model.source", model), ("data.source", data)) if value is not None]
    config.refuse_unread(over, tree, "the command line", flags)
    made = config.load(tree, "the command line")
    others = [str(policy) for policy in own if policy not in made.loop.policies] if "policies" in given else []
    now = ", ".join(map(str, made.loop.policies))
    return Requested(made, name or path.stem, f"only {now}, without {', '.join(others)} of {where}" if others else "")


def notes(asked: Requested, folder: RunFolder) -> list[str]:
    """What a run will hold, where that is not just what the command line names."""
    if asked.experiment.variants:
        return []
    if not folder.exists():
        return [f"policies: {asked.replaced}; to run all, give each a --policy"] if asked.replaced else []
    old, new = folder.config().loop, asked.experiment.loop
    lines = []
    for what, before, now in (("policies", old.policies, new.policies), ("seeds", old.seeds, new.seeds)):
        kept = [str(value) for value in before if value not in now]
        added = [str(value) for value in now if value not in before]
        if kept and added:
            lines.append(f"the run {folder.name} keeps its {what} {', '.join(kept)}; {', '.join(added)} will be added")
    names: dict[Policy, str] = {}  # as the run will call them: by the first name
    lines += [
        f"{policy} is the same policy as {name}, and in the run {folder.name} it is called {name}"
        for policy in (*old.policies, *new.policies)
        if (name := names.setdefault(policy, str(policy))) != str(policy)
    ]
    return list(dict.fromkeys(lines))
