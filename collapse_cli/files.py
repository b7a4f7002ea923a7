"""Local files, read as bytes: whole, once, and only where they are files."""

import errno
import io
import logging
import os
import re
import stat
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from collapse_cli.errors import InputError

log = logging.getLogger(__name__)
PATIENCE = 1.0  # seconds that a lock is waited for before that is said; whoever holds one needs it for milliseconds
_UMASK = os.umask(0o077)  # it can only be asked for by setting it, which is best done while there is one thread
os.umask(_UMASK)
KINDS = {
    stat.S_ISDIR: "a folder",
    stat.S_ISFIFO: "a named pipe",
    stat.S_ISSOCK: "a socket",
    stat.S_ISCHR: "a device",
    stat.S_ISBLK: "a device",
}

NOT_UTF8 = "rename it, or set LANG=C.UTF-8 if it is UTF-8 and your system says otherwise"


def at_home(path: str) -> str:
    """A path of the user's as a shell reads it without quotes: `~` or `~name` at its beginning is a home folder.

    Where there is no such user it stays as it is, as in a shell; `./~name` is always the file of that name.
    """
    try:
        return str(Path(path).expanduser()) if path.startswith("~") else path
    except (RuntimeError, ValueError):  # no such user; a NUL in the name
        return path


def unread(source: str) -> str:
    """What to say of an address in the place of a file or folder to read; "" of what is none."""
    # where a path was made of it, two slashes are one
    if not re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", source):
        return ""
    return " (an address: runs alone can be elsewhere, and what they read is on this machine; bring it here first, and name the copy)"


def is_utf8(path: str | Path) -> bool:
    """Whether a path can be written in UTF-8; others cannot be given to the libraries that read and write models."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True


@contextmanager
def opened(path: Path, *, growing: bool = False) -> Iterator[io.BufferedReader]:
    """A file opened for reading. What is no regular file is refused and never waited for.

    Args:
        growing: others may add to it meanwhile.

    Raises:
        InputError: when it cannot be opened, is no regular file, or is another file, or of another size or time, at the end.
    """
    try:
        number = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise InputError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    before = os.fstat(number)
    if not stat.S_ISREG(before.st_mode):
        os.close(number)
        kind = next((name for test, name in KINDS.items() if test(before.st_mode)), "no regular file")
        raise InputError(f"{path} is {kind}, not a file")
    with os.fdopen(number, "rb") as file:
        try:
            yield file
        except OSError as error:
            raise InputError(f"{path} cannot be read: {error.strerror or error}") from None
        after = os.fstat(number)
        if not growing and (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
            raise InputError(f"{path} changed while it was read; give the command again when it is complete")


def read_bytes(path: Path, most: int | None = None, *, growing: bool = False) -> bytes:
    """The content of a file.

    Args:
        most: how many bytes are still reasonable; None: any number.
        growing: as `opened` has it.

    Raises:
        InputError: as `opened` does, and for a larger file.
    """
    with opened(path, growing=growing) as file:
        content = file.read() if most is None else file.read(most + 1)
    if most is not None and len(content) > most:
        raise InputError(f"{path} has more than {most:,} bytes, which is too many for a file of this kind")
    return content


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file's content, as hexadecimal digits.

    Raises:
        InputError: as `opened` does.
    """
    import hashlib  # not loaded for the help pages

    with opened(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def what_is(path: Path) -> str:
    """What stands at a path: `file`, `folder`, `other` (a named pipe, a socket, a device), or nothing: "".

    Raises:
        InputError: for a link that leads nowhere or in a circle, and where it cannot be found out.
    """
    try:
        mode = path.stat().st_mode
    except ValueError:  # a NUL in the name
        return ""
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR) and path.is_symlink():
            raise InputError(f"{path} is a link to {path.readlink()}, which is not there") from None
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG):
            return ""
        if error.errno == errno.ELOOP:
            raise InputError(f"{path} is a link that leads back to itself") from None
        raise InputError(f"{path} cannot be read: {error.strerror}") from None
    return "file" if stat.S_ISREG(mode) else "folder" if stat.S_ISDIR(mode) else "other"


def check_ordinary(path: Path) -> None:
    """Whether a path is a file, or nothing.

    Raises:
        InputError: for anything else: it would be waited for, or what is written there would be lost.
    """
    if (kind := what_is(path)) not in ("file", ""):
        raise InputError(f"{path} is {'a folder' if kind == 'folder' else 'a pipe or a device'}, not a file")


def is_special(path: Path) -> bool:
    """Whether a path is neither a file nor a folder nor nothing: a named pipe, a socket or a device."""
    try:
        return what_is(path) == "other"
    except InputError:
        return False


def in_folder(folder: Path) -> list[Path]:
    """All that a folder holds, by name.

    Raises:
        InputError: when it cannot be read.
    """
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        raise InputError(f"{folder} cannot be read: {error.strerror}") from None


def holder_of(path: Path) -> str:
    """Which process holds the lock of a file, in words, as far as the system tells."""
    try:
        inode = path.stat().st_ino
        held = [line.split() for line in Path("/proc/locks").read_text(encoding="ascii").splitlines()]
    except (OSError, ValueError):  # no Linux
        return "another process"
    # 1: FLOCK  ADVISORY  WRITE 4711 08:01:1835020 0 EOF; with -> before it where a process waits
    for _, kind, *rest in held:
        if kind != "->" and len(rest) > 3 and rest[3].rpartition(":")[2] == str(inode) and int(rest[2]) > 0:
            return f"process {rest[2]}"
    return "another process"


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock of a file; who holds it is said where that is waited for.

    Raises:
        InputError: as `check_locks`.
    """
    from filelock import FileLock, Timeout  # which takes longer to load than many a command to be done

    check_locks(path)
    lock = FileLock(path)
    try:
        lock.acquire(timeout=PATIENCE)
    except Timeout:
        log.warning("waiting for %s, which holds the lock %s; Ctrl-C ends the wait", holder_of(path), path)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def is_locked(path: Path) -> bool:
    """Whether a process holds the lock of a file, as far as can be told. Nothing is written, and no file is made."""
    from filelock import FileLock, Timeout

    if not path.is_file():
        return False
    try:
        with FileLock(path, blocking=False):
            return False
    except (Timeout, OSError):
        return True


def check_locks(path: Path) -> None:
    """Refuse a file system that has no locks: whoever waited for one there would wait for ever.

    Raises:
        InputError: as said.
    """
    try:
        import fcntl
    except ImportError:  # Windows has locks of its own
        return
    if is_special(path):
        raise InputError(
            f"{path} must be a file, and something else is there: move it away, and give the command again"
        )
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:  # another process holds it
            return
        except OSError as error:
            raise InputError(
                f"the file system of {path.parent} has no locks ({error.strerror}), and without them two runs would spoil "
                "each other; choose another --runs-dir"
            ) from None
        fcntl.flock(file, fcntl.LOCK_UN)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Errors of a file that is open say which one it is, as those of opening it do: a full disk shows when it is written."""
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno is not None:
            error.filename = str(path)
        raise


def put(path: Path, content: bytes) -> None:
    """Replace a file whole, or make it and its folder: of what can be fetched again, so that it need not have reached the disk."""
    attempt = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with naming(path):
            attempt.write_bytes(content)
        attempt.replace(path)
    finally:
        attempt.unlink(missing_ok=True)


def let_others_read(path: Path) -> None:
    """Give a file the permissions that any file of this process has: safetensors gives its own to their owner alone, and a folder of runs may be
    a group's.
    """
    now = stat.S_IMODE(path.stat().st_mode)
    if (wanted := now | (0o666 & ~_UMASK)) != now:
        with suppress(OSError):  # a file system that has none
            path.chmod(wanted)


def write_atomically(path: Path, text: str) -> None:
    """Replace a file whole: a reader, or a kill, meets the old text or the new one."""
    attempt = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        with naming(path), attempt.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        attempt.replace(path)
    finally:
        attempt.unlink(missing_ok=True)
