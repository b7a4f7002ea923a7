"""A mistake of the command line, such as an unknown option, in one line with what may have been meant."""

import difflib
import re
from collections.abc import Sequence
from typing import Any

from collapse_cli.config.options import options
from collapse_cli.config.words import nearest, written

MOST_SAID = 300  # characters of what the parser says


def said(mistake: Any, arguments: Sequence[str]) -> str:
    """What the user reads.

    Args:
        mistake: what typer raised: a usage error of click's, or of the one that typer carries.
        arguments: the command line, to tell which command it was for.
    """
    message, context = str(mistake.format_message()), getattr(mistake, "ctx", None)
    command = getattr(context, "command", None)
    name = "collapse theory MODEL" if list(arguments[:1]) == ["theory"] else "collapse"
    if found := re.match(r"No such command '(.*?)'(\.|$)", message, re.DOTALL):
        known = getattr(command, "commands", {})
        return (
            f"there is no command {written(found[1])}{nearest(found[1], known)} ({name.removesuffix(' MODEL')} --help)"
        )
    if found := re.match(r"No such option:? '?(-[^ '(]*)", message, re.DOTALL):
        return f"No such option: {found[1][:80]}{_meant(found[1], command, name)}"
    if message.startswith("Missing argument 'RUN"):
        return (
            f"{message.rstrip('.')}: the name of a run, or its folder; `collapse list` shows the runs ({name} --help)"
        )
    if len(message) > MOST_SAID:
        message = f"{message[:MOST_SAID]}…"
    return f"{message} ({name} --help)"


def _meant(option: str, command: Any, name: str) -> str:
    """Which option of the command, or of a configuration, an unknown one is near."""
    known = [one for parameter in getattr(command, "params", []) for one in getattr(parameter, "opts", [])]
    flags = [one for one in known if one.startswith("--")]
    near = difflib.get_close_matches(option[:40], flags, n=1, cutoff=0.7) if len(option) > 3 else []
    meant = f" (did you mean {near[0]}?)" if near else ""
    if "--set" not in flags or meant:
        return f"{meant} ({name} --help)"
    last = option.lstrip("-").replace("-", "_").rpartition(".")[2]
    keys = [one.key for one in options() if one.key.rpartition(".")[2] == last or one.key == option.lstrip("-")]
    of_all = "any option of an experiment is --set KEY=VALUE"
    return (
        f" ({of_all}: {' or '.join(f'--set {key}=…' for key in keys[:3])})"
        if keys
        else f" ({of_all}; `collapse options`)"
    )
