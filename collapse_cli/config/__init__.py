"""The configuration: the typed tree (`experiment.py`, its sections in `tree.py`), how it is read from files (`reading.py`) and from the command line
(`command_line.py`), and which options nothing would read (`unread.py`).
"""

from collapse_cli.config.command_line import (
    given_tree,
    parse_seeds,
    parse_settings,
    refuse_conflicts,
    refuse_options,
    refuse_unread,
)
from collapse_cli.config.experiment import Experiment
from collapse_cli.config.names import merge, nearest
from collapse_cli.config.published import not_as_published
from collapse_cli.config.reading import (
    DEFAULT_PRESET,
    load,
    preset_path,
    presets,
    read_toml,
    variant_experiments,
    variants_of,
    with_options,
)
from collapse_cli.config.tree import Expectation
from collapse_cli.errors import ConfigError
from collapse_cli.families.section import Section

__all__ = [
    "DEFAULT_PRESET",
    "ConfigError",
    "Expectation",
    "Experiment",
    "Section",
    "given_tree",
    "load",
    "merge",
    "nearest",
    "not_as_published",
    "parse_seeds",
    "parse_settings",
    "preset_path",
    "presets",
    "read_toml",
    "refuse_conflicts",
    "refuse_options",
    "refuse_unread",
    "variant_experiments",
    "variants_of",
    "with_options",
]
