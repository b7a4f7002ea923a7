"""What a browser may ask for. Nothing of an address is decoded or becomes a path: it is one of these forms, or there is no such page."""

import re
from dataclasses import dataclass
from typing import Literal

Kind = Literal["list", "lines", "run", "state", "page", "look"]
MOST_TOGETHER = 20  # runs of one page
_RUN = r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}(?:~[0-9]{1,3})?"
_RUNS = re.compile(rf"/(run|state|page)/({_RUN}(?:,{_RUN}){{0,{MOST_TOGETHER - 1}}})")
_LOOK = re.compile(r"/look/([a-z]+\.(?:css|js))")
_HOST = re.compile(r"(?:127\.0\.0\.1|localhost)(?::[0-9]{1,5})?", re.IGNORECASE)


@dataclass(frozen=True)
class Asked:
    """What is asked for: the list or its lines; the frame around a page, the state of its runs, the page itself; a file of `LOOK`.

    Attributes:
        names: runs, as they were written; whether there are such is for `Runs.find` to say. Of `look` one file's name.
    """

    kind: Kind
    names: tuple[str, ...] = ()


def asked(target: str) -> Asked | None:
    """What the target of a request asks for; None for anything else. What stands after `?` is not read."""
    path = target.partition("?")[0]
    if path == "/":
        return Asked("list")
    if path == "/lines":
        return Asked("lines")
    if match := _RUNS.fullmatch(path):
        kinds: dict[str, Kind] = {"run": "run", "state": "state", "page": "page"}
        return Asked(kinds[match[1]], tuple(match[2].split(",")))
    if match := _LOOK.fullmatch(path):
        return Asked("look", (match[1],))
    return None


def is_ours(hosts: list[str] | None) -> bool:
    """Whether the Host headers of a request are one, and name this machine's own address: a name of somebody else's that
    leads to 127.0.0.1 (DNS rebinding) does not.

    The port may be another one, as through `ssh -L`.
    """
    return hosts is not None and len(hosts) == 1 and _HOST.fullmatch(hosts[0].strip()) is not None


def of_another_page(site: str | None, mode: str | None, destination: str | None) -> bool:
    """Whether a page of somebody else's asks, as a picture, script or frame of its own; a link that is followed is no such thing.

    Args:
        site, mode, destination: the headers Sec-Fetch-Site, -Mode and -Dest, which browsers send and pages cannot change.
    """
    if site in (None, "same-origin", "none"):
        return False
    return (mode, destination) != ("navigate", "document")
