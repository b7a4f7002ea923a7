"""A disk or quota that is full, in one kind of error."""

import errno
import os
import re
from pathlib import Path

from collapse_cli.process import OUTPUT

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
IN_WORDS = re.compile(r"\(os error (\d+)\)")  # as libraries written in Rust end a message


class disk_errors:  # noqa: N801 - reads as a verb at its use
    """Turn a full disk or quota, however a library words it, into one OSError that names the folder; or the place that it names itself,
    where that is another one.
    """

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is None:
            return
        # safetensors and pyarrow raise errors of their own, with the system's words or number inside
        numbers = [int(number) for number in IN_WORDS.findall(str(error))]
        numbers += [number for number in FULL if os.strerror(number) in str(error)]
        if isinstance(error, OSError) and error.errno is not None:
            if error.filename == OUTPUT:  # which is written while a stage tells how far it is
                return
            numbers.insert(0, error.errno)
        for number in numbers:
            if number in FULL:
                raise OSError(number, os.strerror(number), self._other_place(error) or self.folder) from error

    def _other_place(self, error: BaseException) -> str:
        """The file that an error names outside the folder: of two, as of a copy, the one that is written."""
        named = isinstance(error, OSError) and (error.filename2 or error.filename)
        if not isinstance(named, str) or Path(self.folder) in Path(named).parents:
            return ""
        return named
