"""Text that someone else's model wrote: how a source of it is named, and how it is read or asked for."""

import json
import re
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Annotated, Any
from urllib.parse import unquote, urlsplit

from pydantic import AfterValidator, field_validator

from collapse_cli.errors import ConfigError
from collapse_cli.families.section import Section, UserPath, added

ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
OWN_WORDS = (
    "model",
    "prompt",
    "messages",
    "max_tokens",
    "max_completion_tokens",
    "temperature",
    "top_p",
    "seed",
    "stream",
    "n",
    "echo",
)
KEY = "COLLAPSE_SERVER_KEY"  # the environment variable that holds a server's key; no other place may


@dataclass(frozen=True)
class CompletionServer:
    """An OpenAI-style server of completions.

    Attributes:
        address: as far as `/v1`, without a slash at its end.
        model: its name there; "" for the only one that the server has.
    """

    address: str
    model: str = ""

    @property
    def host(self) -> str:
        return urlsplit(self.address).hostname or ""

    @property
    def here(self) -> bool:
        """Whether it runs on this machine, so that no text leaves it."""
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    @property
    def identity(self) -> str:
        """What its answers hang on, for keys: the model's name, or the address where none is given."""
        return self.model or self.address

    def __str__(self) -> str:
        return f"{self.address}#{self.model}" if self.model else self.address


def server_of(source: str) -> CompletionServer | None:
    """The server that a source names, as `http://127.0.0.1:8000/v1#MODEL`; None for a file or a folder.

    Raises:
        ConfigError: for an address that is none, is of another kind, or holds a password.
    """
    if not ADDRESS.match(source):
        return None
    shown = re.sub(r"//[^/@]*@", "//…@", source)[:120]
    try:
        parts = urlsplit(source)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise ConfigError(f"{shown!r} is no address of a server: {error}") from None
    if parts.scheme.lower() not in ("http", "https"):
        raise ConfigError(f"{shown!r}: servers are asked by http or https; a file is named by its path")
    if parts.username is not None or parts.password is not None:
        raise ConfigError(
            f"{shown!r} holds a password, which would be written into run.json; a server's key is given in the environment "
            f"variable {KEY}"
        )
    if not host or parts.query or not re.fullmatch(r"[A-Za-z0-9.:_-]+", host):
        raise ConfigError(f"{shown!r} is no address of a server; it should look like http://127.0.0.1:8000/v1#MODEL")
    model = unquote(parts.fragment)
    if not model.isprintable():
        raise ConfigError(f"{shown!r}: the name of the model holds signs that cannot be shown")
    address = f"{parts.scheme.lower()}://{parts.netloc.lower()}{parts.path.rstrip('/')}"
    for end in ("/completions", "/chat"):  # as copied from a manual
        address = address.removesuffix(end)
    return CompletionServer(address, model)


def identity_of(source: str) -> str:
    """Of a server, what its answers hang on; of a file "": its hash says that."""
    server = server_of(source)
    return server.identity if server else ""


def _checked(source: str) -> str:
    if not source.strip():
        raise ValueError("names no source (it is empty); give a file, a folder or a server's address")
    server = server_of(source)
    return source if server is None else str(server)


Source = Annotated[UserPath, AfterValidator(_checked)]
"""A file, a folder, or a server."""


def one_or_many(value: object) -> object:
    """A list of sources, of which one alone may be given as it is, and several on a command line between commas."""
    return [name.strip() for name in value.split(",") if name.strip()] if isinstance(value, str) else value


class ForeignConfig(Section):
    """Text that someone else's model wrote (`pool.foreign`, `mixture.synthetic`): how its files are read and its servers asked."""

    text: str = added("text")
    """Of files: the column that holds the text, for formats with columns."""
    sha256: tuple[str, ...] = added(())
    """Hash of the text of each source in turn, empty for a server. Filled in when read; if given, it must match."""
    chat: bool = added(False)
    """Of servers, where real rows are plain text: ask `/chat/completions`, the prompt as what a user says, in place of `/completions`.
    Where they are chats or pairs, that is done always: what stands before the last answer is sent turn by turn."""
    extra: dict[str, Any] = added({})
    """Of servers: what to send besides, for servers that take more than OpenAI's: `{ top_k = 40, ignore_eos = true }`."""
    at_once: int = added(4, ge=1, le=256)
    """Of servers: how many requests are open at a time."""
    timeout: float = added(120.0, gt=0, le=86_400)
    """Of servers: seconds that an answer is waited for."""
    retries: int = added(5, ge=0, le=100)
    """Of servers: how often a request is sent again after a limit on requests, an error of the server or a lost connection."""

    @field_validator("extra", mode="after")
    @classmethod
    def _not_ours(cls, value: dict[str, Any]) -> dict[str, Any]:
        for name in value:
            if name in OWN_WORDS:
                raise ValueError(
                    f"holds {name!r}, which other options say: sample.decode, sample.new_tokens, the source itself"
                )
            if re.search("key|token$|secret|password|authorization", name, re.IGNORECASE):
                raise ValueError(f"holds {name!r}, which would be written into run.json; a key is given in {KEY}")
        try:
            json.dumps(value, allow_nan=False)
        except (TypeError, ValueError):
            raise ValueError("holds something that cannot be sent as JSON, such as a date") from None
        return value


NOT_OF_RESULTS = ("text", "at_once", "timeout", "retries")  # by which no row differs, once the hash of a file is known
