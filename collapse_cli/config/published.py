"""Whether the published values that a configuration holds are those of the experiment that it describes."""

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from collapse_cli.config.names import leaves
from collapse_cli.config.reading import load, presets, read_toml, variant_experiments

# what a run chooses without being another experiment, and what is looked up for each machine and copy
CHOSEN = (
    "kind",
    "loop.generations",
    "loop.policies",
    "loop.seeds",
    "loop.block",
    "store",
    "tracking",
    "ray",
    "expect",
    "variants",
)
LOOKED_UP = (
    *("model.revision", "model.sha256", "model.tokenizer", "model.tokenizer_sha256", "model.vocab_size"),
    *("model.length_matters", "data.sha256", "data.train", "data.valid", "data.test", "data.text", "train.dtype", "sample.dtype"),
    "foreign.sha256",
)  # fmt: skip
NAMES = ("model.source", "data.source")
MOST = 4  # options that are named
MISSING = object()


def not_as_published(tree: Mapping[str, Any]) -> str:
    """What to say where published values came from a preset, and the run is another experiment; "" where it is not.

    A preset's values stay where `--model`, `--data` or `--set` make another experiment of it, and a configuration of
    one's own may have been copied from one.

    Args:
        tree: a run's configuration, which nobody vouches for.
    """
    wanted = _published(tree.get("expect"))
    if not wanted:
        return ""
    candidates = [(name, _differences(own, tree)) for name, own, there in _shipped() if there == wanted]
    if not candidates:
        return ""
    name, changed = min(candidates, key=lambda candidate: len(candidate[1]))
    if not changed:
        return ""
    rest = len(changed) - MOST
    named = ", ".join(changed[:MOST]) + (f" and {rest} more option{'s' if rest > 1 else ''}" if rest > 0 else "")
    copies = ", unless those are the same under other names" if {*changed} <= {*NAMES} else ""
    return f"the published values are of the preset {name}; this run differs from it in {named}, so it need not give them{copies}"


@lru_cache(maxsize=1)
def _shipped() -> list[tuple[str, dict[str, Any], str]]:
    """Each experiment of each preset that holds published values: the preset's name, its leaves, and those values."""
    shipped = []
    for name, path in presets().items():
        tree = read_toml(path)
        for experiment in variant_experiments(tree, name).values() or [load(tree, name)]:
            plain = experiment.model_dump(mode="json")
            if there := _published(plain["expect"]):
                shipped.append((name, dict(leaves(plain)), there))
    return shipped


def _published(entries: object) -> str:
    """The values of `expect` that somebody published, as text; "" where all are theory's, which follow the configuration."""
    if not isinstance(entries, list | tuple):
        return ""
    names = ("what", "policy", "generation", "cell", "value")
    held = [entry for entry in entries if isinstance(entry, Mapping)]
    if all(entry.get("value") is None for entry in held):
        return ""
    told = [
        [entry.get(name) for name in names] + ([lineage] if (lineage := entry.get("lineage")) else []) for entry in held
    ]
    return json.dumps(told, default=str)


def _differences(own: Mapping[str, Any], tree: Mapping[str, Any]) -> list[str]:
    """The options of a preset that have other values in `tree`; those that it does not have are no differences."""
    different = []
    for key, value in own.items():
        if any(key == name or key.startswith(f"{name}.") for name in (*CHOSEN, *LOOKED_UP)):
            continue
        there: Any = tree
        for part in key.split("."):
            there = there.get(part, MISSING) if isinstance(there, Mapping) else MISSING
        if there is not MISSING and there != value and not (key == "model.source" and there == ""):
            different.append(key)
    return sorted(different, key=lambda key: (key not in NAMES, key))
