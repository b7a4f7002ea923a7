"""The configuration: the typed tree (`tree.py`), and how it is read (`reading.py`)."""

from collapse_cli.config.reading import (
    DEFAULT_PRESET,
    ConfigError,
    load,
    merge,
    nearest,
    parse_settings,
    preset_path,
    presets,
    read_toml,
    refuse_conflicts,
    refuse_options,
    variant_experiments,
)
from collapse_cli.config.section import Section
from collapse_cli.config.tree import Expectation, Experiment

__all__ = [
    "DEFAULT_PRESET",
    "ConfigError",
    "Expectation",
    "Experiment",
    "Section",
    "load",
    "merge",
    "nearest",
    "parse_settings",
    "preset_path",
    "presets",
    "read_toml",
    "refuse_conflicts",
    "refuse_options",
    "variant_experiments",
]
