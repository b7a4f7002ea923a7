"""What stands on the command line as a configuration tree: `--set`, `--seeds`, and what they must not say."""

import re
import tomllib
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from collapse_cli import families
from collapse_cli.config.names import leaves, merge
from collapse_cli.config.reading import DEEPEST, LARGEST_FILE, load, tree_of, variant_experiments
from collapse_cli.config.unread import Scope, first_foreign, first_replaced, first_unread
from collapse_cli.errors import ConfigError, written

MOST_SEEDS = 10_000
SHORT_NUMBER = re.compile(
    r"[+-]?(\.[0-9]+|[0-9]+\.)(e[+-]?[0-9]+)?", re.IGNORECASE
)  # as all but TOML write numbers, too
FLAGS = {  # options of the command line with names of their own
    "loop.generations": "--generations",
    "loop.policies": "--policy",
    "loop.seeds": "--seeds",
    "model.source": "--model",
    "data.source": "--data",
}


def parse_settings(settings: Sequence[str]) -> dict[str, Any]:
    """`["train.lr=1e-4", "data.train=valid.txt"]` as a tree; values are read as TOML, else as plain text.

    Raises:
        ConfigError: for one that is no key and value, or hides something; and for a key that is given two values.
    """
    tree: dict[str, Any] = {}
    for setting in settings:
        key, equals, text = setting.partition("=")
        name = f"--set {written(setting)}"
        parts = key.strip().split(".")
        if not equals or not all(part.strip() for part in parts):
            raise ConfigError(f"{name}: write key=value, for example --set train.lr=1e-4")
        if len(parts) > DEEPEST or len(setting) > LARGEST_FILE:
            raise ConfigError(f"{name}: there is no option like that; `collapse options` lists those that there are")
        *parents, last = parts
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
            if not isinstance(node, dict):
                raise ConfigError(f"{name}: {parent} was given a value before")
        value = _value(text, name)
        if last in node and node[last] != value:
            before = "a table" if isinstance(node[last], dict) else written(node[last])
            raise ConfigError(f"--set gives {'.'.join(parts)} two values, {before} and {written(value)}; give one")
        node[last] = value
    return tree


def _value(text: str, name: str) -> Any:
    """The value of a setting."""
    if "\n" in text or "\r" in text:
        raise ConfigError(f"{name} holds a line break; give each option a --set of its own")
    try:
        parsed = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        plain = text.strip()
        return float(plain) if SHORT_NUMBER.fullmatch(plain) else plain
    except (ValueError, RecursionError):
        tree_of_value(text, name)
        raise
    try:  # a comment would end the line, and what stands in it would be hidden
        tomllib.loads(f"value = [{text} ]")
    except (tomllib.TOMLDecodeError, RecursionError):
        raise ConfigError(
            f"{name}: what follows the # would not be read; write text that holds a # in quotes"
        ) from None
    tree_of_value(text, name)
    return parsed["value"]


def tree_of_value(text: str, name: str) -> None:
    """Raises ConfigError where a value is nested too deeply, or a number of thousands of digits."""
    try:
        tree_of(f"value = {text}")
    except ConfigError as error:
        raise ConfigError(f"{name}: {error}") from None


def parse_seeds(text: str) -> list[int]:
    """`0,1,2`, `0-9` or `0-3,7` as numbers.

    Raises:
        ConfigError: for anything else.
    """
    seeds: list[int] = []
    for part in text.split(","):
        ends = re.fullmatch(r"\s*([0-9]{1,19})\s*(?:-\s*([0-9]{1,19})\s*)?", part)
        if re.fullmatch(r"\s*-[0-9]+\s*", part):
            raise ConfigError(f"--seeds {written(text)}: a seed must be at least 0")
        if ends is None:
            raise ConfigError(f"--seeds {written(text)}: write whole numbers from 0 on, such as 0,1,2 or 0-9")
        first = int(ends[1])
        last = first if ends[2] is None else int(ends[2])
        if last < first:
            raise ConfigError(f"--seeds {written(text)}: {part.strip()} counts down; write {last}-{first}")
        if last - first >= MOST_SEEDS or len(seeds) > MOST_SEEDS:
            raise ConfigError(f"--seeds {written(text)}: these are more than {MOST_SEEDS:,} seeds")
        seeds += range(first, last + 1)
    return seeds


def refuse_conflicts(variants: Mapping[str, Any], over: Mapping[str, Any]) -> None:
    """Check that the command line sets nothing that variants set: neither could win without spoiling what they compare.

    Raises:
        ConfigError: naming the option and the variants.
    """
    for key, _ in leaves({name: value for name, value in over.items() if name != "variants"}):
        there = [name for name, changed in variants.items() if any(_same(key, other) for other, _ in leaves(changed))]
        if there:
            raise ConfigError(
                f"{key} is what the variants {', '.join(there)} differ in, so it cannot be set for all; for one of them say "
                f"--set variants.{there[0]}.{key}=…"
            )


def refuse_twice(flags: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    """Check that no option is given by an option of its own name and by `--set` as well.

    Raises:
        ConfigError: naming both.
    """
    there = dict(leaves(settings))
    for key, value in leaves(flags):
        if key in there and there[key] != value:
            raise ConfigError(f"{FLAGS.get(key, key)} and --set {key}=… give {key} two values; give one")


def refuse_options(tree: Mapping[str, Any], loop: Mapping[str, Any], model: str | None) -> None:
    """Check that options of the command line mean something to the experiment that they are given for.

    Args:
        loop: `generations` and `policies` as given; None where they were not.

    Raises:
        ConfigError: naming the option.
    """
    learner, kind = str(tree.get("learner", families.DEFAULT)), tree.get("kind", "generational")
    if kind == "mixture":
        for name, option in (("generations", "--generations"), ("policies", "--policy")):
            if loop.get(name) is not None:
                raise ConfigError(
                    f"{option} means nothing to a mixture, which has one generation and a grid: --set mixture.…"
                )
    if model is not None and not families.of(learner).text:
        raise ConfigError(f"--model means nothing to the learner {learner}; its options are --set {learner}.…")


def refuse_unread(given: Mapping[str, Any], tree: Mapping[str, Any], where: str, flags: Collection[str] = ()) -> None:
    """Check that all that the user gave is read by the experiment, or by one of its variants.

    Args:
        given: the options that the user gave, without those of a preset.
        tree: the whole configuration.
        flags: the keys that were given by an option of the command line with a name of its own.

    Raises:
        ConfigError: naming the option and why nothing reads it.
    """
    # what another learner reads is said before what is wrong with its value
    unread = None if tree.get("variants") else first_foreign(given, Scope.of(tree))
    if unread is None:
        experiment = load(tree, where)
        variants = variant_experiments(tree, where)
        asked = list(variants.values()) or [experiment]
        several = [one for chosen in asked for one in (chosen, *chosen.of_lineages().values())]
        unread = first_unread(given, several) or first_replaced(given, asked)
        tables = [("variants", variants)] if variants else [("lineages", experiment.of_lineages())]
        for section, there in tables:
            for name, changed in given.get(section, {}).items():
                if unread is None and (own := first_unread(changed, [there[name]])) is not None:
                    unread = (f"{section}.{name}.{own[0]}", own[1])
    if unread is not None:
        key, why = unread
        named = f"{FLAGS[key]} ({key})" if key in flags else key
        raise ConfigError(f"{where}: {named} means nothing here: {why}")


def _same(key: str, other: str) -> bool:
    """Whether two dotted keys are equal, or one is a table that holds the other."""
    return key == other or key.startswith(f"{other}.") or other.startswith(f"{key}.")


def given_tree(
    loop: Mapping[str, Any], model: str | None, data: str | None, settings: Mapping[str, Any]
) -> dict[str, Any]:
    """All that the command line gives, as a tree."""
    flags: dict[str, Any] = {"loop": dict(loop)} if loop else {}
    flags |= {"model": {"source": model}} if model is not None else {}
    flags |= {"data": {"source": data}} if data is not None else {}
    refuse_twice(flags, settings)
    return merge(flags, settings)
