"""Places that are no local folder, such as `s3://BUCKET/PREFIX`: each has a folder of this machine, in which it is worked on.

The folder says the address, so that whoever is given the one finds the other: `…/elsewhere/s3/BUCKET/PREFIX`.
"""

import os
import re
import shlex
from pathlib import Path

from collapse_cli.errors import ConfigError

CACHE = "COLLAPSE_CACHE"  # an environment variable: the folder below which copies are kept, and what dry runs timed
ELSEWHERE = "elsewhere"
USUAL = Path("runs")  # where --runs-dir is not given
_PROTOCOL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
# what begins like an address and is none: s3:/BUCKET, s3:BUCKET, s3//BUCKET, file:/FOLDER; of one letter it is a drive of Windows
_NEARLY = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/|(s3a?|file)(:|//)", re.IGNORECASE)
_HERE = f"{os.sep}{ELSEWHERE}{os.sep}"
LOCAL = "file"  # a folder that several machines share, worked with as if it had no locks


def is_address(text: str) -> bool:
    """Whether a place is named by an address, `PROTOCOL://…`, and not by a path."""
    return _PROTOCOL.match(text) is not None


def check_path(text: str) -> None:
    """Whether a path can be meant as one, and not as an address that was written wrongly; `./s3:` is always a path.

    Raises:
        ConfigError: when it cannot.
    """
    if _NEARLY.match(text):
        raise ConfigError(
            f"{text[:200]!r} is no address, though it begins like one; write s3://BUCKET/PREFIX or file:///FOLDER, or ./{text[:200]} for "
            "the folder of that name here"
        )


def copy_of(address: str) -> Path:
    """The folder of this machine in which an address is worked on; it need not be there yet.

    Raises:
        ConfigError: for an address that is none.
    """
    found = _PROTOCOL.match(address)
    rest = address[found.end() :].rstrip("/") if found else ""
    protocol = found[1].lower() if found else ""
    parts = rest.removeprefix("/").split("/") if protocol == LOCAL else rest.split("/")
    if not protocol or any(part in ("", ".", "..") or not part.isprintable() or "\\" in part for part in parts):
        raise ConfigError(f"{address[:200]!r} is no address of a place for runs; write it as s3://BUCKET/PREFIX")
    if protocol == LOCAL and not rest.startswith("/"):
        raise ConfigError(
            f"{address[:200]!r} is no address of a folder; write it as file:///FOLDER, with three slashes"
        )
    if "@" in parts[0]:
        raise ConfigError(
            "an address must not hold a key or password: run folders and logs would show it; use the environment"
        )
    return copies().joinpath(protocol, *parts)


def address_of(path: Path) -> str:
    """The address that is worked on in a folder; "" for a folder that is where it is."""
    if _HERE not in str(path):
        return ""
    try:
        protocol, *parts = path.relative_to(copies()).parts
    except ValueError:
        return ""
    return f"{protocol}://{'/' if protocol == LOCAL else ''}{'/'.join(parts)}" if parts else ""


def shown(path: Path) -> str:
    """A folder as a person knows it: by its address, where it is a copy of what is elsewhere."""
    return address_of(path) or str(path)


def runs_option(runs: Path) -> str:
    """What a command needs to look into a folder of runs, as ` --runs-dir s3://BUCKET/runs`; "" for the folder that it takes itself."""
    return "" if runs == USUAL else f" --runs-dir {shlex.quote(shown(runs))}"


def copies() -> Path:
    """The folder of this machine below which all copies are."""
    return cache() / ELSEWHERE


def cache() -> Path:
    """The user's folder on this machine, of which nothing depends but time."""
    usual = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "collapse"
    return Path(os.path.realpath(os.environ.get(CACHE) or usual))
