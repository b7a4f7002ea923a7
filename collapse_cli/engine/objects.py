"""Objects at an address, through fsspec: put whole, created only where there is none, listed as they are at the moment.

What is asked of the other side: an object appears whole or not at all; of several who create one, one succeeds (If-None-Match
in S3); who reads or lists after a write sees it. The second is tried out before anything is written (`check`).

A connection that is lost, once there was one, is waited for: what failed is asked again for two minutes.
"""

import errno
import logging
import os
import re
import shutil
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar

from collapse_cli.engine.disk import FULL, disk_errors
from collapse_cli.engine.remote_addresses import LOCAL
from collapse_cli.errors import ConfigError, InputError, UnreachableError, first_line

OUTAGE = 120.0  # seconds for which what does not answer any more is asked again
BETWEEN = 1.0  # seconds between two of these questions
RETRIES = 2  # of s3fs, which nests them; botocore has its own, and so have we
TRIES = 5
AT_ONCE = 8  # files that are brought or sent at the same time
EXTRAS = {"s3": "s3", "s3a": "s3"}  # protocol -> extra of pyproject.toml that brings it
ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")  # of a server that is not Amazon's
CHECKSUMS = ("request_checksum_calculation", "response_checksum_validation")  # of botocore, since 1.36
DENIED = (
    "AccessDenied",
    "InvalidAccessKeyId",
    "SignatureDoesNotMatch",
    "InvalidToken",
    "Forbidden",
    "403",
)
EXPIRED = ("ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired")  # keys that are lent for some hours
CHECK = ".check"  # an object that stays, and is tried to be overwritten
# what is put somewhere else, or removed, at once; `.check-` is of earlier versions
ATTEMPT = re.compile(r"\.(check-|clock-)?[0-9a-f]{32}")
SKEWED = ("RequestTimeTooSkewed", "RequestExpired")
REFUSED = {"PreconditionFailed", "412"}  # there is an object of that name
UNDECIDED = {"ConditionalRequestConflict", "409"}  # one that is being written
PASSING = (  # what servers answer that are there, and cannot answer at the moment
    "InternalError",
    "ServiceUnavailable",
    "SlowDown",
    "RequestTimeout",
    "500",
    "502",
    "503",
    "504",
)
QUERY = re.compile(r"\?[^\s\"']+")  # of an address that was asked: it says nothing to people
Value = TypeVar("Value")
log = logging.getLogger(__name__)


def seconds_of_an_outage() -> float:
    """For how long a lost connection is waited for; the environment variable COLLAPSE_OUTAGE_SECONDS says otherwise."""
    return float(os.environ.get("COLLAPSE_OUTAGE_SECONDS", OUTAGE))


@dataclass(frozen=True)
class ObjectFacts:
    """An object as a listing has it.

    Attributes:
        size: bytes.
        version: differs between one content and the next: the ETag, or time and size.
        written: when it was, in seconds by the other side's clock, which may leave out their parts; nan where it does not say.
    """

    size: int
    version: str
    written: float = float("nan")


class RemoteObjects:
    """All that is below an address. Names are relative to it, with slashes.

    Every method raises `InputError` where the other side cannot be reached, or refuses.
    """

    def __init__(self, address: str) -> None:
        """Nothing is asked for yet.

        Raises:
            ConfigError: when the protocol is not known, or what reads it is not installed.
        """
        import fsspec

        self.address = address.rstrip("/")
        protocol = address.partition("://")[0]
        options: dict[str, Any] = {"use_listings_cache": False, "skip_instance_cache": True}
        if protocol in EXTRAS and any(os.environ.get(name) for name in ENDPOINTS):
            options["config_kwargs"] = _without_new_checksums()
        try:
            self._fs: Any = fsspec.filesystem(protocol, **options)
        except ImportError as error:
            extra = EXTRAS.get(protocol)
            what = f"pip install 'collapse-cli[{extra}]'" if extra else str(error).partition("\n")[0]
            raise ConfigError(f"{address}: what reads {protocol}:// is not installed; {what}") from None
        except ValueError:
            raise ConfigError(
                f"{address}: there is no protocol {protocol!r}; s3://BUCKET/PREFIX and file:///FOLDER are known"
            ) from None
        self._root: str = self._fs._strip_protocol(self.address)
        self._local, self._s3 = protocol == LOCAL, protocol in EXTRAS
        if self._s3:
            self._fs.retries = RETRIES
        self._outage = seconds_of_an_outage()
        self._answered, self._gone = False, False  # ever; not any more, though it was waited for
        self._quiet_until = 0.0  # by the monotonic clock: an outage is told once
        self._thread, self._ends = threading.local(), threading.Event()

    # --- reading

    def find(self, prefix: str) -> dict[str, ObjectFacts]:
        """All objects below a name, by name; hidden ones, of a write that was killed, left out, and folders that somebody made on a page of
        the server's: objects of no bytes whose names end with a slash.
        """
        found = self._below(f"{prefix}/" if prefix else "")
        names = {self._name(path): _about(info) for path, info in found.items() if info["type"] == "file"}
        return {name: about for name, about in names.items() if (name.rpartition("/")[2] or ".")[0] != "."}

    def folders(self, prefix: str) -> list[str]:
        """The last parts of the names right below a name that have something below them."""
        found = self._absent(lambda: self._fs.ls(self._path(prefix), detail=True)) or []
        return sorted(info["name"].rstrip("/").rpartition("/")[2] for info in found if info["type"] == "directory")

    def attempts(self) -> dict[str, ObjectFacts]:
        """Hidden objects right below the address: of writes at work, and of such that were killed."""
        if self._s3:
            found = self._below(".")
        else:
            found = {info["name"]: info for info in self._absent(lambda: self._fs.ls(self._root, detail=True)) or []}
        return {name: _about(info) for path, info in found.items() if ATTEMPT.fullmatch(name := self._name(path))}

    def about(self, name: str) -> ObjectFacts | None:
        """One object; None where there is none."""
        if self._s3:
            info = self._below(name).get(self._path(name))
            return None if info is None else _about(info)
        return self._absent(lambda: _about(self._fs.info(self._path(name))))

    def read(self, name: str) -> bytes | None:
        """The content of an object; None where there is none."""
        whole = {"max_concurrency": 1} if self._s3 else {}  # or it is asked first how long it is
        return self._absent(lambda: bytes(self._fs.cat_file(self._path(name), **whole)))

    def download(self, name: str, path: Path) -> bool:
        """Write an object into a file; false where there is no such object."""

        def fetch() -> bool:
            self._fs.get_file(self._path(name), str(path))
            return True

        return self._absent(fetch) is True

    # --- writing

    def write(self, name: str, content: bytes) -> None:
        """Put an object, in the place of what is there."""

        def put() -> None:
            if self._local:
                self._put_locally(name, lambda attempt: attempt.write_bytes(content), os.replace)
            else:
                self._fs.pipe_file(self._path(name), content)

        self._ask(put)

    def create(self, name: str, content: bytes) -> bool:
        """Put an object where there is none; false where there is one. Of several who try, one succeeds."""

        def put() -> bool | None:
            try:
                if self._local:
                    self._put_locally(name, lambda attempt: attempt.write_bytes(content), os.link)
                else:
                    self._fs.pipe_file(self._path(name), content, mode="create")
            except FileExistsError:
                return False
            except OSError as error:
                if _code(error) not in REFUSED | UNDECIDED:
                    raise
                return None if _code(error) in UNDECIDED else False
            return True

        for _ in range(TRIES):
            made = self._ask(put)
            if made is not None:
                break
            time.sleep(BETWEEN / 4)  # somebody else writes it at this moment
        return made is True or self.read(name) == content  # ours, whose answer was lost on the way, and was sent again

    def upload(self, path: Path, name: str) -> None:
        """Put a file as an object."""

        def put() -> None:
            if self._local:
                self._put_locally(name, lambda attempt: shutil.copyfile(path, attempt), os.replace)
            else:
                self._fs.put_file(str(path), self._path(name))

        self._ask(put)

    def remove(self, names: Iterable[str]) -> None:
        """Remove objects; those that are not there are passed over."""
        for name in names:
            self._absent(partial(self._fs.rm_file, self._path(name)))
            if self._local:
                with suppress(OSError):  # of folders those that are empty now
                    for parent in Path(name).parents[:-1]:
                        Path(self._path(str(parent))).rmdir()

    def check(self) -> None:
        """Find out whether an object that is there can be kept from being overwritten: by one that stays for that.

        Raises:
            ConfigError: where it is overwritten: two processes could not be kept apart.
        """
        if self._local:
            self._fs.makedirs(self._root, exist_ok=True)
        for _ in range(3):  # the first time it is made; and somebody may remove it
            if not self.create(CHECK, uuid.uuid4().hex.encode()):
                return
        with suppress(InputError):
            self.remove([CHECK])
        raise ConfigError(
            f"{self.address}: this server overwrites objects that must not be (it does not know If-None-Match), so that "
            "two processes would spoil each other's work; use another one"
        )

    # --- how

    def _below(self, prefix: str) -> Mapping[str, Mapping[str, Any]]:
        """What is known of objects whose names begin so: one request for each thousand, where there are none, too."""
        if self._s3 and prefix:
            return self._ask(lambda: self._fs.find(self._root, prefix=prefix, detail=True))
        return self._ask(lambda: self._fs.find(self._path(prefix.rstrip("/")), detail=True))

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}" if name else self._root

    def _name(self, path: str) -> str:
        return path[len(self._root) :].lstrip("/")

    def _put_locally(self, name: str, write: Callable[[Path], object], put: Callable[[Path, Path], object]) -> None:
        """Write beside the place, bring it to the disk, and put it there at once."""
        place = Path(self._path(name))
        attempt = Path(self._root) / f".{uuid.uuid4().hex}"
        try:
            attempt.parent.mkdir(parents=True, exist_ok=True)
            with disk_errors(self._root):  # copying names the file that is copied
                write(attempt)
                with attempt.open("rb") as file:
                    os.fsync(file.fileno())
            for _ in range(TRIES):  # a folder that is empty at this moment may be removed
                place.parent.mkdir(parents=True, exist_ok=True)
                with suppress(FileNotFoundError):
                    put(attempt, place)
                    return
            put(attempt, place)
        finally:
            attempt.unlink(missing_ok=True)

    def _absent(self, ask: Callable[[], Value]) -> Value | None:
        """An answer; None where what was asked for is not there."""

        def asked() -> Value | None:
            try:
                return ask()
            except FileNotFoundError as error:
                if _code(error) == "NoSuchBucket":
                    raise
                return None

        return self._ask(asked)

    def _ask(self, ask: Callable[[], Value]) -> Value:
        """An answer, which may be waited for. Errors of the other side in one line of ours; those of this machine's own disk stay."""
        until = 0.0
        while True:
            try:
                answer = ask()
            except (InputError, ConfigError):
                raise
            except Exception as error:
                if isinstance(error, OSError) and (self._local or error.errno in FULL):
                    raise
                said = _in_words(error, self.address, self._root, known=self._answered or not self._s3)
                until = until or time.monotonic() + self._outage
                if not (isinstance(said, UnreachableError) and self._waits(until, first_line(error))):
                    raise said from error
            else:
                self._answered, self._gone = True, False
                return answer

    def _waits(self, until: float, why: str) -> bool:
        """Whether what does not answer is asked once more, some time from now. Who was never reached is not waited for."""
        if not self._answered or self._gone or self._hurried():
            return False
        now = time.monotonic()
        if now > until:
            self._gone = True  # nobody waits for the same once more
            return False
        if now > self._quiet_until:
            self._quiet_until = now + self._outage
            log.warning("%s cannot be reached (%s); it is asked again for %.0f s", self.address, why, self._outage)
        return not self._ends.wait(BETWEEN)

    def _hurried(self) -> bool:
        return self._ends.is_set() or getattr(self._thread, "hurried", False)

    @contextmanager
    def hurried(self) -> Iterator[None]:
        """Wait for no lost connection, in this thread."""
        before, self._thread.hurried = getattr(self._thread, "hurried", False), True
        try:
            yield
        finally:
            self._thread.hurried = before

    def at_once(self, work: Callable[[Value], object], items: Iterable[Value]) -> None:
        """Do the same with several items at the same time; the first error is raised."""
        hurried = self._hurried()

        def done(item: Value) -> None:
            with self.hurried() if hurried else nullcontext():
                work(item)

        with ThreadPoolExecutor(AT_ONCE) as pool:
            try:
                for _ in pool.map(done, items):
                    pass
            except BaseException as error:
                if not isinstance(error, Exception):  # whoever interrupts this does not wait for a server that is away
                    self._ends.set()
                raise


def _without_new_checksums() -> dict[str, str]:
    """Settings for servers that refuse checksums which Amazon's has taken since 2025 (`SignatureDoesNotMatch`, `NotImplemented` …), unless the
    environment says otherwise. Nothing hangs on them: what is brought is compared with its own hash.
    """
    try:
        options = import_module("botocore.config").Config.OPTION_DEFAULTS
    except ImportError:  # which is said of s3fs
        return {}
    known = [name for name in CHECKSUMS if name in options and not os.environ.get(f"AWS_{name.upper()}")]
    return dict.fromkeys(known, "when_required")


def _about(info: Mapping[str, Any]) -> ObjectFacts:
    when = next((info[name] for name in ("mtime", "created", "LastModified") if info.get(name)), "")
    size = int(info.get("size") or 0)
    written = when.timestamp() if isinstance(when, datetime) else when
    written = float(written) if isinstance(written, int | float) else float("nan")
    return ObjectFacts(size, str(info.get("ETag") or f"{when} {size}"), written)


def _code(error: BaseException) -> str:
    """The error code of S3, such as `NoSuchBucket`; "" of other errors."""
    response = getattr(error, "response", None) or getattr(error.__cause__, "response", None)
    code = response.get("Error", {}).get("Code", "") if isinstance(response, dict) else ""
    return str(code)


def _in_words(error: Exception, address: str, root: str, *, known: bool) -> InputError:
    """What went wrong, and what to do; `known`: that the address is right."""
    if (said := _refused(error, root, known=known)) is not None:
        return InputError(f"{address} cannot be used: {said}")
    why = QUERY.sub("", first_line(error))
    return UnreachableError(
        f"{address} cannot be reached ({why}); what is finished is kept: give the same command again when it can be"
        f"{'' if known else ', or correct AWS_ENDPOINT_URL in the environment'}"
    )


def _refused(error: Exception, root: str, *, known: bool) -> str | None:
    """Why the other side, or what speaks for us, refuses; None where it is not reached at all. `known`: it has answered before."""
    kept = "; what is finished is kept: give the same command again" if known else ""
    code, kind, said = _code(error), type(error).__name__, first_line(error)
    if code in PASSING:
        return None
    if code == "NoSuchBucket":
        return f"there is no bucket {root.partition('/')[0]!r}; make it, or name another in --runs-dir"
    if kind == "ParamValidationError" and "bucket name" in str(error):
        return f"no bucket can be called {root.partition('/')[0]!r}; correct it in --runs-dir"
    if isinstance(error, ValueError):  # as of an endpoint or a region that can be none; nobody was asked
        return f"{said.rstrip('.')}; correct --runs-dir, or AWS_ENDPOINT_URL and AWS_DEFAULT_REGION in the environment"
    if kind in ("NoCredentialsError", "PartialCredentialsError", "ProfileNotFound", "TokenRetrievalError"):
        return f"no credentials ({said}); set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, in the environment"
    if code in SKEWED:
        return f"its clock and this machine's are too far apart ({code}); set this machine's clock"
    if code in EXPIRED:
        return f"the credentials have expired ({code}); get new ones{kept}"
    if code in DENIED or isinstance(error, PermissionError):
        return f"the credentials are refused ({code or said}); check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and what they may do{kept}"
    if code or (
        isinstance(error, OSError)
        and error.errno not in (None, errno.EIO)
        and not isinstance(error, ConnectionError | TimeoutError)
    ):
        return f"{said}{f' ({code})' if code else ''}"
    return None
