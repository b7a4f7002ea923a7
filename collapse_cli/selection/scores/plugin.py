"""A score of the user's own, `"package.module:function"`: rows in, numbers out.

Its module is imported in the environment that collapse runs in, and may do all that the user may do. Rows of text come as a list of
str, rows of numbers as an array (rows, ...). The function must return as many finite numbers.
"""

import hashlib
import importlib
import importlib.util
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from importlib.abc import SourceLoader
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

import numpy as np

from collapse_cli.config.selection import Step
from collapse_cli.data.dataset import Dataset
from collapse_cli.errors import ConfigError, InputError
from collapse_cli.selection.row_contents import numbers
from collapse_cli.selection.score import Material, Scored

Rows = Sequence[str] | np.ndarray
LONGEST = 200  # characters of what an exception says
HELD = "__collapse_sha256__"  # on a module: the hash of the source that it was made of


@dataclass(frozen=True)
class Plugin:
    """A function of the user's.

    Attributes:
        name: `package.module:function`.
        file: the source that it stands in.
        sha256: of that file's content. What it imports itself is not in it, which `note` says.
    """

    name: str
    file: Path
    sha256: str

    @property
    def note(self) -> str:
        """What the user should know: whose code is run, and what would not be noticed."""
        return (
            f"select: the score {self.name} is your own code: it is run here, with your rights, from {self.file} "
            f"({self.sha256[:12]}…); a change of that file makes the stages anew, a change of what it imports does not"
        )


def find(name: str) -> Plugin:
    """The plug-in of a name. The packages are imported, its module is not yet.

    Raises:
        ConfigError: when the name is no `module:function`, or there is no such module.
    """
    module, _, function = name.partition(":")
    if not all(part.isidentifier() for part in (*module.split("."), function)):
        raise ConfigError(f"select: {name!r} names no score; a score of your own is package.module:function")
    try:
        spec = importlib.util.find_spec(module)
    except Exception as error:  # a package on the way, which is the user's and may do anything
        raise ConfigError(f"select: {name}: the packages of {module} cannot be imported ({_said(error)})") from None
    if spec is None:
        raise ConfigError(
            f"select: {name}: there is no module {module} in this environment; install it beside collapse, or put its folder "
            "into PYTHONPATH"
        )
    if not spec.origin or not Path(spec.origin).is_file():
        raise ConfigError(f"select: {name}: {module} has no source file, so that a change of it could not be noticed")
    file = Path(spec.origin)
    source = file.read_bytes()
    if not re.search(rb"\b%s\b|import\s*\(?\s*\*|__getattr__|globals\(|setattr\(" % function.encode(), source):
        raise _no_function(name)  # known before anything is computed, though the module is not imported yet
    return Plugin(name, file, hashlib.sha256(source).hexdigest())


def _no_function(name: str) -> ConfigError:
    module, _, function = name.partition(":")
    return ConfigError(f"select: {name}: {module} has no function {function}; give the name of one that it has")


def load(name: str, sha256: str = "") -> Callable[[Any], Any]:
    """The function of a plug-in.

    Args:
        sha256: that its file must have; "" for any.

    Raises:
        ConfigError: when it cannot be imported, is not there, is no function, or has changed since the run was planned.
    """
    plugin = find(name)
    if sha256 not in ("", plugin.sha256):
        raise ConfigError(
            f"select: {name}: {plugin.file} has changed since this run was planned ({sha256[:12]}… then, {plugin.sha256[:12]}… "
            "now); give the run's command again"
        )
    module, _, function = name.partition(":")
    try:
        with _at_home():
            loaded = _imported(module, plugin)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a module that ends the process as it is imported is the user's to mend, too
        raise ConfigError(f"select: {name}: {module} cannot be imported ({_said(error)})") from None
    found = getattr(loaded, function, None)
    if not callable(found):
        raise _no_function(name)
    call: Callable[[Any], Any] = found
    return call


class _Held(SourceFileLoader):
    """Imports a module from bytes that were read already, neither from its file again nor from Python's cache of it."""

    def __init__(self, module: str, file: str, source: bytes) -> None:
        super().__init__(module, file)
        self._source = source

    def get_code(self, fullname: str) -> CodeType:
        return self.source_to_code(self._source, self.path)


def _imported(module: str, plugin: Plugin) -> ModuleType:
    """The module of just the file that was hashed: not one that this process, or Python's cache, holds of what the file once was."""
    held = sys.modules.get(module)
    if held is not None and getattr(held, HELD, "") == plugin.sha256:
        return held
    spec = importlib.util.find_spec(module)
    if spec is None or not isinstance(spec.loader, SourceLoader):  # built by a compiler: Python reads it once
        return importlib.import_module(module)
    source = plugin.file.read_bytes()
    if hashlib.sha256(source).hexdigest() != plugin.sha256:
        raise ImportError("it is being changed")
    spec.loader = _Held(module, str(plugin.file), source)
    made = importlib.util.module_from_spec(spec)
    sys.modules[module] = made
    try:
        spec.loader.exec_module(made)
    except BaseException:
        del sys.modules[module]
        raise
    setattr(made, HELD, plugin.sha256)
    return made


@contextmanager
def _at_home() -> Iterator[None]:
    """Around code of the user's: what it prints goes where notes go; this folder, and what torch and numpy go by, are afterwards what they
    were, since later stages may be of another process; and a process that it forked and that would go on from here, writing what this
    one writes, ends.
    """
    process, folder, torch = os.getpid(), Path.cwd(), _torch_goes_by()
    try:
        with redirect_stdout(sys.stderr), np.errstate():
            yield
    finally:
        if os.getpid() != process:
            os._exit(1)
        os.chdir(folder)
        if (now := _torch_goes_by()) != torch:
            _let_torch_go_by(torch or {**now, **AS_IMPORTED})


AS_IMPORTED = {"set_grad_enabled": True, "set_default_dtype": "float32"}


def _torch_goes_by() -> dict[str, Any]:
    """Of torch, where it is loaded, which a light run does not do, by the function that sets it."""
    torch = sys.modules.get("torch")
    if torch is None:
        return {}
    dtype = str(torch.get_default_dtype()).removeprefix("torch.")
    return {
        "set_grad_enabled": torch.is_grad_enabled(),
        "set_default_dtype": dtype,
        "set_num_threads": torch.get_num_threads(),
    }


def _let_torch_go_by(given: dict[str, Any]) -> None:
    torch = sys.modules["torch"]
    for name, value in given.items():
        getattr(torch, name)(getattr(torch, value) if isinstance(value, str) else value)


def values(name: str, rows: Rows, sha256: str = "") -> np.ndarray:
    """(rows,) float64: what the plug-in says of each row.

    Raises:
        ConfigError: as `load` does.
        InputError: when it fails, or returns anything but a finite number for each row.
    """
    function = load(name, sha256)
    given = rows.copy() if isinstance(rows, np.ndarray) else list(rows)
    try:
        with _at_home():
            returned = function(given)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise InputError(f"select: {name} failed on {len(rows):,} rows ({_said(error)})") from None
    if returned is None:
        raise InputError(f"select: {name} must return a number for each row, it returned nothing (None)")
    try:
        # of an array of numbers the kind is known; what else it is, numpy finds out by code of the user's: `__float__`, `__array__`
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # as of complex numbers, which would lose a part
            numbers = np.array(np.ma.filled(np.ma.asarray(returned, dtype=np.float64), np.nan))
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise InputError(
            f"select: {name} must return a number for each row, it returned {type(returned).__name__} ({_said(error)})"
        ) from None
    if numbers.shape != (len(rows),):
        shape = " x ".join(map(str, numbers.shape)) or "one number"
        raise InputError(f"select: {name} must return {len(rows):,} numbers, one for each row; it returned {shape}")
    if odd := np.flatnonzero(~np.isfinite(numbers)).tolist():
        raise InputError(
            f"select: {name} returned {numbers[odd[0]]} for row {odd[0]:,}, and {len(odd):,} such values in all; "
            "each must be a finite number"
        )
    return numbers


def _said(error: BaseException) -> str:
    """An exception on one line: its type, what it says, and where it came from in the user's code."""
    try:
        text = " ".join(str(error).split())[:LONGEST]
    except Exception:  # an exception of the user's may have no words either
        text = ""
    trace, where = error.__traceback__, ""
    while trace is not None:
        if trace.tb_frame.f_code.co_filename != __file__ and "importlib" not in trace.tb_frame.f_code.co_filename:
            where = f", {Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}"
        trace = trace.tb_next
    return f"{type(error).__name__}{': ' if text else ''}{text}{where}"


class OwnScore:
    """The score of a step that names a plug-in. It is given rows as text, or as numbers, a row's label at its end."""

    def __init__(self, step: Step, material: Material) -> None:
        self.step, self.text = step, material.text

    def score(self, rows: Dataset) -> Scored:
        given = numbers(rows) if self.text is None else self.text(rows)
        return Scored(values(self.step.by, given, self.step.plugin_sha256))
