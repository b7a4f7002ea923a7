"""From files and the command line to an experiment: TOML, `--set`, merging, and what is said of mistakes."""

import difflib
import os
import re
import stat
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from collapse_cli.config.experiment import Experiment
from collapse_cli.config.families import Families
from collapse_cli.config.names import TOO_LONG, merge, nearest
from collapse_cli.config.policies import SAID_BY_POLICIES, looks_like_a_policy
from collapse_cli.errors import ConfigError, written
from collapse_cli.families.section import Section

LARGEST_FILE, DEEPEST = 1_000_000, 20  # bytes of a configuration, and tables or lists within each other
OF_THE_COMMAND = ("jobs", "executor", "shards", "devices", "runs_dir", "dry_run")  # which no configuration has
VARIANT = r"[a-z0-9][a-z0-9-]{0,39}"  # a run's name can end in it


def presets() -> dict[str, Path]:
    """The shipped configurations by name: files of `configs/`, in the checkout or in the installed package."""
    here = Path(__file__).resolve().parents[1]
    folder = here / "configs" if (here / "configs").is_dir() else here.parent / "configs"
    return {path.stem: path for path in sorted(folder.glob("*.toml"))}


DEFAULT_PRESET = "opt125m-wikitext2"  # what runs when no configuration is named


def preset_path(name: str) -> Path:
    """The file of a preset.

    Raises:
        ConfigError: for an unknown name, with the nearest known one.
    """
    known = presets()
    if name not in known:
        raise ConfigError(f"there is no preset {name!r}{nearest(name, known)}; `collapse presets` lists them")
    return known[name]


def read_toml(path: Path) -> dict[str, Any]:
    """A configuration file as a tree.

    Raises:
        ConfigError: when it is missing, no ordinary file, too large, changing, not UTF-8, or not TOML.
    """
    content = _read(path)
    try:
        return tree_of(content.decode("utf-8-sig"))  # Windows' editors put a byte order mark first
    except UnicodeDecodeError:
        raise ConfigError(f"{path} is not a TOML file in UTF-8") from None
    except ConfigError as error:
        raise ConfigError(f"{path} is not TOML that can be read: {error}") from None


def _meant(name: str) -> str:
    """What a name in the place of a configuration file may have meant."""
    if name in presets():
        return f"; the preset of that name is --preset {name}"
    if "=" in name:
        return f"; an option of the configuration is --set {name}"
    if looks_like_a_policy(name):
        return f"; a policy is --policy {name}"
    return nearest(name, presets(), "--preset")


def _read(path: Path) -> bytes:
    """The bytes of an ordinary file, all of one time; a pipe or a device is not waited for."""
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except FileNotFoundError:
        raise ConfigError(f"there is no configuration file {str(path)!r}{_meant(str(path))}") from None
    except IsADirectoryError:
        raise ConfigError(f"{path} is a folder, not a TOML file") from None
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(f"the configuration file {str(path)!r} cannot be read: {why}") from None
    if stat.S_ISDIR(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise ConfigError(f"{path} is a folder, not a TOML file")
    with os.fdopen(descriptor, "rb") as file:
        before = os.fstat(descriptor)
        if not stat.S_ISREG(before.st_mode):
            raise ConfigError(f"{path} is a pipe or a device; a configuration must be an ordinary file")
        content = file.read(LARGEST_FILE + 1)
        after = os.fstat(descriptor)
    if len(content) > LARGEST_FILE or before.st_size > LARGEST_FILE:
        raise ConfigError(
            f"{path} has {max(before.st_size, len(content)):,} bytes; a configuration has at most {LARGEST_FILE:,}; is it a data file? (--data)"
        )
    if (before.st_mtime_ns, before.st_size) != (after.st_mtime_ns, after.st_size) or len(content) != after.st_size:
        raise ConfigError(f"{path} changed while it was read; give the command again")
    return content


def tree_of(text: str) -> dict[str, Any]:
    """TOML as a tree of bounded depth.

    Raises:
        ConfigError: saying what is wrong, without where.
    """
    try:
        tree = tomllib.loads(text)
    except RecursionError:
        raise ConfigError("its tables or lists are nested too deeply") from None
    except ValueError as error:  # no TOML, or whole numbers of thousands of digits
        digits = "integer string conversion" in str(error)
        raise ConfigError("a whole number in it has thousands of digits" if digits else str(error)) from None
    level: list[Any] = [tree]
    for _ in range(DEEPEST):
        level = [inner for outer in level for inner in (outer.values() if isinstance(outer, dict) else outer)]
        level = [inner for inner in level if isinstance(inner, dict | list)]
    if level:
        raise ConfigError("its tables or lists are nested too deeply")
    return tree


def load(tree: Mapping[str, Any], where: str) -> Experiment:
    """The experiment of a configuration tree.

    Raises:
        ConfigError: for the first thing that is wrong with it; `where` says what the user gave.
    """
    try:
        experiment = Experiment.model_validate(tree)
    except ValidationError as error:
        raise ConfigError(f"{where}: {_first_fault(error)}") from None
    variant_experiments(tree, where)
    if not experiment.variants:  # which have lineages of their own
        _check_lineages(experiment, where)
    return experiment


def _check_lineages(experiment: Experiment, where: str) -> None:
    """Whether each lineage is an experiment.

    Raises:
        ConfigError: naming the lineage and the option.
    """
    for name in experiment.lineage_names:
        try:
            experiment.lineage(name)
        except ValidationError as error:
            raise ConfigError(f"{where}: lineages.{name}: {_first_fault(error)}") from None


def with_options(experiment: Experiment, options: Mapping[str, Any], where: str) -> Experiment:
    """An experiment with some options other than they are, given as a tree.

    Raises:
        ConfigError: as `load`.
    """
    return load(merge(experiment.model_dump(mode="json"), options), where)


def variants_of(experiment: Experiment, where: str) -> dict[str, Experiment]:
    """The experiment of each of its variants, by name; none where it has none.

    Raises:
        ConfigError: as `variant_experiments`.
    """
    return variant_experiments(experiment.model_dump(mode="json"), where) if experiment.variants else {}


def variant_experiments(tree: Mapping[str, Any], where: str) -> dict[str, Experiment]:
    """The experiment of each variant of a configuration tree, by name in the order given; none where it has none.

    Raises:
        ConfigError: for a variant that is no experiment, or whose name cannot be part of a run's name.
    """
    rest = {key: value for key, value in tree.items() if key != "variants"}
    experiments = {}
    for name, over in tree.get("variants", {}).items():
        here = f"{where}: variants.{name}"
        if not re.fullmatch(VARIANT, name):
            raise ConfigError(f"{here}: a variant's name is lower-case letters, digits and '-', at most 40 of them")
        if "variants" in over:
            raise ConfigError(f"{here}: a variant has no variants of its own")
        experiments[name] = load(merge(rest, over), here)
    return experiments


def _first_fault(error: ValidationError) -> str:
    fault = error.errors()[0]
    key = ".".join(str(part) for part in fault["loc"])
    if fault["type"] == "extra_forbidden":
        return _unknown(key)
    if fault["type"] == "string_unicode":
        return f"{key or 'a key'} is not UTF-8: {written(fault['input'])}"
    given = "" if isinstance(fault["input"], dict | BaseModel) else f", it is {written(fault['input'])}"
    limits = {"ge": 0, "gt": 0, "le": 0, "lt": 0} | fault.get("ctx", {})
    words = {
        "int": "must be a whole number",
        "float": "must be a number",
        "finite_number": "must be a finite number",
        "bool": "must be true or false",
        "string": "must be text",
        "tuple": "must be a list",
        "dict": "must be a table",
        "model_type": "must be a table",
        "too_short": "must not be empty",
        "too_long": f"has more than {limits.get('max_length'):,} entries" if "max_length" in limits else "is too long",
        "string_too_short": "must not be empty",
        "greater_than_equal": f"must be at least {limits['ge']:g}",
        "greater_than": f"must be above {limits['gt']:g}",
        "less_than_equal": f"must be at most {limits['le']:g}",
        "less_than": f"must be below {limits['lt']:g}",
        "literal_error": f"must be {limits.get('expected')}",
    }
    kind = fault["type"]
    if kind == "another_type":
        return f"{key} {fault['msg']}"
    must = words.get(kind) or words.get(kind.split("_")[0])
    if must is not None:
        return f"{key} {must}{given}"
    message = fault["msg"].removeprefix("Value error, ")
    return f"{key}: {message}" if key else message


def _unknown(key: str) -> str:
    """An unknown key, and where its name is known, or the nearest of its section, or of all; else what the section has."""
    known = _known_keys()
    if len(key) > TOO_LONG:
        return f"unknown key {written(key)}; `collapse options` lists those that there are"
    if (option := key.rpartition(".")[2].replace("-", "_")) in OF_THE_COMMAND:
        return f"unknown key {key!r}; it says how a run is computed, which is an option of the command: --{option.replace('_', '-')}"
    if key in SAID_BY_POLICIES:
        return f"unknown key {key!r}; a policy says that, as in --policy {SAID_BY_POLICIES[key]}"
    section, _, name = key.rpartition(".")
    beside = [other for other in known if other.rpartition(".")[0] == section]
    elsewhere = [other for other in known if other.rpartition(".")[2] == name]
    if name == "seed" and not section:  # that of a made language has just this name
        elsewhere = ["loop.seeds"]
    near = elsewhere[:1] or difflib.get_close_matches(key, beside, n=1, cutoff=0.75)
    near = near or difflib.get_close_matches(key, known, n=1, cutoff=0.75)
    if near:
        return f"unknown key {key!r} (did you mean {near[0]!r}?)"
    there = ", ".join(other.rpartition(".")[2] for other in beside)
    return f"unknown key {key!r}" + (f"; {section or 'a configuration'} has {there}" if beside else "")


def _known_keys(section: type[BaseModel] = Experiment, prefix: str = "") -> list[str]:
    keys = []
    fields = section.model_fields.items()
    for name, field in sorted(fields, key=lambda item: item[0] in Families.model_fields):  # those of all runs first
        keys.append(prefix + name)
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            keys.extend(_known_keys(field.annotation, f"{prefix}{name}."))
    return keys
