"""A mistake of the command line, such as an unknown option, in one line with what may have been meant."""

import difflib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from collapse_cli.config import presets
from collapse_cli.config.names import nearest
from collapse_cli.config.options import options
from collapse_cli.errors import written

MOST_SAID = 300  # characters of what the parser says
ROOT_FLAGS = {"version": "--version", "help": "--help", "-v": "--version", "-V": "--version"}
NUMBERS = {r"\bvalid integer\b": "a whole number", r"\bvalid (float|number)\b": "a number"}
LIMITS = {
    r"greater than or equal to (-?[\d.]+)|x>=(-?[\d.]+)": "at least",
    r"less than or equal to (-?[\d.]+)|x<=(-?[\d.]+)": "at most",
}


def sentence(mistake: Any, arguments: Sequence[str]) -> str:
    """What the user reads.

    Args:
        mistake: what typer raised: a usage error of click's, or of the one that typer carries.
        arguments: the command line, to tell what was given.
    """
    message, context = str(mistake.format_message()), getattr(mistake, "ctx", None)
    command, name = getattr(context, "command", None), _name(context)
    return f"{_plainly(message, mistake, command, name, arguments)} ({name} --help)"


def _plainly(message: str, mistake: Any, command: Any, name: str, arguments: Sequence[str]) -> str:
    """The message of the parser in this project's words; as it is where it is none of those known here."""
    if match := re.match(r"No such command '(.*?)'(\.|$)", message, re.DOTALL):
        return f"there is no command {written(match[1])}{_meant_command(match[1], getattr(command, 'commands', {}))}"
    if match := re.match(r"No such option:? '?(-[^ '(]*)", message, re.DOTALL):
        return f"there is no option {match[1][:80]}{_meant_option(match[1], command, getattr(mistake, 'ctx', None))}"
    if match := re.match(r"Got unexpected extra arguments?(?:\(s\))? \((.*)\)", message, re.DOTALL):
        spaced = "; write KEY=VALUE without spaces" if "=" in arguments else ""
        return f"`{name}` does not take {written(match[1])}{spaced}"
    if match := re.match(r"Option '?(-[\w-]+)'? requires an argument", message):
        return f"{match[1]} needs a value after it"
    if match := re.match(r"Missing argument '?(RUN[^']*?)[.']*$", message):
        return f"{match[1]} is missing: the name of a run, or its folder; `collapse list` shows the runs"
    if match := re.match(r"Missing argument '?(\w+)", message):
        meaning = (getattr(getattr(mistake, "param", None), "help", None) or "").rstrip(".")
        return f"{match[1].upper()} is missing{': ' if meaning else ''}{meaning}"
    if match := re.match(r"Invalid value for '?(--?[\w-]+).*?: (.*)", message, re.DOTALL):
        return _wrong_value(match[1], match[2].rstrip("."), arguments)
    return f"{message[:MOST_SAID]}…" if len(message) > MOST_SAID else message


def _name(context: Any) -> str:
    """The command as it is typed: `collapse theory ridge`."""
    parts: list[str] = []
    while context is not None and getattr(context, "parent", None) is not None:
        parts.insert(0, str(context.info_name))
        context = context.parent
    return " ".join(("collapse", *parts))


def _given(option: str, arguments: Sequence[str]) -> str | None:
    """What stands after an option; None where it cannot be told."""
    for place, argument in enumerate(arguments):
        if argument.startswith(f"{option}="):
            return argument.partition("=")[2]
        if argument == option and place + 1 < len(arguments):
            return arguments[place + 1]
    return None


def _wrong_value(option: str, why: str, arguments: Sequence[str]) -> str:
    """An option's value that is not what it should be."""
    given = _given(option, arguments)
    it_is = "" if given is None else f", it is {written(given)}"
    for pattern, kind in NUMBERS.items():
        if re.search(pattern, why):
            return f"{option} must be {kind}{it_is}"
    for pattern, kind in LIMITS.items():
        if match := re.search(pattern, why):
            return f"{option} must be {kind} {match[1] or match[2]}{it_is}"
    if match := re.search(r"'.*' is not one of (.+)$", why, re.DOTALL):
        choices = re.findall(r"'([^']+)'", match[1])
        return f"{option} must be one of {', '.join(choices)}{it_is}{nearest((given or '').lower(), choices)}"
    return f"{option}: {why}"


def _meant_command(word: str, known: Mapping[str, Any]) -> str:
    """What a word in place of a command may have meant."""
    if "run" in known and word in ROOT_FLAGS:
        return f" (did you mean {ROOT_FLAGS[word]}?)"
    if "run" in known and word in presets():
        return f" (did you mean `collapse run --preset {word}`?)"
    return nearest(word, known)


def _meant_option(option: str, command: Any, context: Any) -> str:
    """Which option of the command, or of a configuration, an unknown one is near; else whose option it is."""
    known = [flag for parameter in getattr(command, "params", []) for flag in getattr(parameter, "opts", [])]
    flags = [flag for flag in known if flag.startswith("--")]
    near = difflib.get_close_matches(option[:40], flags, n=1, cutoff=0.7) if len(option) > 3 else []
    if near:
        return f" (did you mean {near[0]}?)"
    if "--version" in flags:  # before any command
        if option in ROOT_FLAGS:
            return f" (did you mean {ROOT_FLAGS[option]}?)"
        of = _that_have(option, command)
        return f"; it belongs after a command: `collapse {of[0]} {option} …`" if of else ""
    parent = getattr(context, "parent", None)
    of = _that_have(option, getattr(parent, "command", None))
    other = f"; it is an option of `{_name(parent)} {of[0]}`" if of else ""
    if "--set" not in flags:
        return other
    last = option.lstrip("-").replace("-", "_").rpartition(".")[2]
    keys = [
        key for key in (known.key for known in options()) if last == key.rpartition(".")[2] or key == option.lstrip("-")
    ]
    if other and not keys:
        return other
    of_all = "any option of an experiment is --set KEY=VALUE"
    few = f"{of_all}: {' or '.join(f'--set {key}=…' for key in keys[:3])}"
    return f"; {few}" if keys else f"; {of_all}; `collapse options` lists them"


def of_copies(name: str) -> str:
    """What to do about a file or folder that is in the folder of copies, or has to be made for it; "" of others."""
    from collapse_cli.engine.remote_addresses import CACHE, copies

    path, folder = Path(name), copies()
    if folder not in (path, *path.parents) and path not in folder.parents:
        return ""
    return f"where this machine keeps copies of what is elsewhere; mend that, or name another folder for them with {CACHE}=FOLDER"


def _that_have(option: str, group: Any) -> list[str]:
    """The names of the commands of a group that have an option."""
    return [
        name
        for name, command in getattr(group, "commands", {}).items()
        if any(option in getattr(parameter, "opts", []) for parameter in getattr(command, "params", []))
    ]
