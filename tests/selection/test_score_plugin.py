"""A score of the user's own: what it is given, what it may return, and all that is refused in one line."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from collapse_cli.errors import ConfigError, InputError, UserError
from collapse_cli.selection.scores import plugin

SOURCE = """
import numpy as np

def lengths(rows):
    return [len(row) for row in rows]

def first(rows):
    rows[:] = rows * 0 + 7  # it may do with them what it likes
    return np.arange(len(rows))

def short(rows): return [1.0] * (len(rows) - 1)
def square(rows): return np.ones((len(rows), 2))
def number(rows): return 3.0
def words(rows): return ["good"] * len(rows)
def nothing(rows): return None
def odd(rows): return [float("nan"), *[1.0] * (len(rows) - 1)]
def endless(rows): return [float("inf")] * len(rows)
def fails(rows): raise RuntimeError("no\\nluck")
def leaves(rows): raise SystemExit(3)
value = 3
"""
ROWS = ["a", "bb", "ccc"]


def written(folder: Path, module: str, source: str) -> Path:
    """A module of the user's."""
    file = folder / f"{module}.py"
    file.write_text(source)
    return file


@pytest.fixture
def user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of the user's with a module, `mine_of_user.scores`."""
    (tmp_path / "mine_of_user").mkdir()
    (tmp_path / "mine_of_user" / "__init__.py").touch()
    written(tmp_path / "mine_of_user", "scores", SOURCE)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path / "mine_of_user"
    for name in [name for name in sys.modules if name.partition(".")[0] == "mine_of_user"]:
        del sys.modules[name]


def test_rows_go_in_and_numbers_come_out(user: Path) -> None:
    assert plugin.values("mine_of_user.scores:lengths", ROWS).tolist() == [1, 2, 3]
    x = np.ones((4, 2))
    assert plugin.values("mine_of_user.scores:first", x).tolist() == [0, 1, 2, 3]
    assert (x == 1).all(), "its rows are its own"
    assert plugin.values("mine_of_user.scores:lengths", []).shape == (0,)


@pytest.mark.parametrize(
    ("function", "what"),
    [
        ("short", "must return 3 numbers, one for each row; it returned 2"),
        ("square", "must return 3 numbers, one for each row; it returned 3 x 2"),
        ("number", "it returned one number"),
        ("nothing", "it returned nothing (None)"),
        ("words", "must return a number for each row, it returned list"),
        ("odd", "returned nan for row 0, and 1 such values in all"),
        ("endless", "returned inf for row 0, and 3 such values in all"),
        ("fails", "failed on 3 rows (RuntimeError: no luck, "),
        ("leaves", "failed on 3 rows (SystemExit: 3, "),
        ("absent", "mine_of_user.scores has no function absent"),
        ("value", "mine_of_user.scores has no function value"),
    ],
)
def test_what_it_must_not_do_is_said_in_one_line(user: Path, function: str, what: str) -> None:
    with pytest.raises(UserError) as told:
        plugin.values(f"mine_of_user.scores:{function}", ROWS)
    assert what in str(told.value)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("mine_of_user.other:f", "there is no module mine_of_user.other in this environment"),
        ("no_such_package_here.scores:f", "cannot be imported (ModuleNotFoundError: No module named"),
        ("no_such_module_here:f", "there is no module no_such_module_here"),
        ("mine_of_user.scores:", "names no score"),
        (":f", "names no score"),
        ("../scores:f", "names no score"),
        ("sys:exit", "sys has no source file"),
        ("mine_of_user.scores:absent", "mine_of_user.scores has no function absent; give the name of one that it has"),
    ],
)
def test_a_name_of_nothing_is_refused_before_anything_runs(user: Path, name: str, what: str) -> None:
    with pytest.raises(ConfigError) as told:
        plugin.find(name)
    assert what in str(told.value)
    assert "\n" not in str(told.value)


def test_a_module_that_cannot_be_imported_says_where(user: Path) -> None:
    written(user, "broken", "f = 1\nraise ValueError('not today')\n")
    with pytest.raises(ConfigError, match=r"cannot be imported \(ValueError: not today, broken\Wpy:2\)"):
        plugin.load("mine_of_user.broken:f")
    written(user, "wrong", "def f(:\n")
    with pytest.raises(ConfigError, match="cannot be imported \\(SyntaxError"):
        plugin.load("mine_of_user.wrong:f")


def test_its_file_is_known_by_content_and_must_not_change(user: Path) -> None:
    name = "mine_of_user.scores:lengths"
    before = plugin.find(name)
    assert before.file.parent == user
    assert before.sha256[:12] in before.note
    assert "your own code" in before.note
    plugin.values(name, ROWS, before.sha256)
    written(user, "scores", SOURCE + "\n# another\n")
    assert plugin.find(name).sha256 != before.sha256
    with pytest.raises(ConfigError, match="has changed since this run was planned"):
        plugin.values(name, ROWS, before.sha256)


def test_an_error_of_numpy_is_an_error_of_the_plugin(user: Path) -> None:
    written(user, "numpys", "import numpy as np\ndef f(rows): return np.linalg.inv(np.zeros((2, 2)))\n")
    with pytest.raises(InputError, match=r"failed on 3 rows \(LinAlgError: Singular matrix, "):
        plugin.values("mine_of_user.numpys:f", ROWS)


UNRULY = """
import os, sys
import numpy as np

class Odd:
    def __float__(self): raise RuntimeError("no\\nnumber")

class Mute(Exception):
    def __str__(self): raise RuntimeError("no words")

def odd(rows): return [Odd()] * len(rows)
def huge(rows): return [10**400] * len(rows)
def complexes(rows): return np.full(len(rows), 1 + 2j)
def hidden(rows): return np.ma.masked_array(np.ones(len(rows)), np.arange(len(rows)) == 1)
def mute(rows): raise Mute
def forks(rows):
    os.fork()
    return [1.0] * len(rows)
def wanders(rows):
    print("printed by the user's code")
    os.chdir("/")
    return np.arange(len(rows)).astype(object)
"""


@pytest.mark.parametrize("function", ["odd", "huge", "complexes", "hidden", "mute"])
def test_whatever_is_returned_that_is_no_number_is_refused_in_one_line(user: Path, function: str) -> None:
    written(user, "unruly", UNRULY)
    with pytest.raises(UserError, match=f"mine_of_user.unruly:{function}") as caught:
        plugin.values(f"mine_of_user.unruly:{function}", ROWS)
    assert "\n" not in str(caught.value)


def test_what_it_prints_and_where_it_goes_disturbs_nobody(user: Path, capsys: pytest.CaptureFixture[str]) -> None:
    written(user, "unruly", UNRULY)
    here = Path.cwd()
    assert plugin.values("mine_of_user.unruly:wanders", ROWS).tolist() == [0, 1, 2]
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", "printed by the user's code\n")  # stdout is for results, as of `--json`
    assert Path.cwd() == here


def test_what_it_sets_for_torch_is_set_back(user: Path) -> None:
    """The next model may be trained in this process, or, with `--jobs`, in another one."""
    import torch

    source = "import torch\ntorch.set_grad_enabled(False)\ndef f(rows):\n    torch.set_default_dtype(torch.float64)\n    return [1] * len(rows)"
    written(user, "setting", source)
    before = torch.get_num_threads()
    plugin.values("mine_of_user.setting:f", ROWS)
    assert (torch.is_grad_enabled(), torch.get_default_dtype()) == (True, torch.float32)
    assert torch.get_num_threads() == before


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_process_that_it_forks_does_not_go_on_with_the_run(user: Path, tmp_path: Path) -> None:
    written(user, "unruly", UNRULY)
    plugin.values("mine_of_user.unruly:forks", ROWS)
    with (tmp_path / "went_on").open("a") as file:  # each process that comes here leaves its mark
        file.write(f"{os.getpid()}\n")
    os.wait()
    assert (tmp_path / "went_on").read_text() == f"{os.getpid()}\n"


def test_a_file_that_changes_while_a_process_lives_is_read_again(user: Path) -> None:
    """One process may make several runs, as a notebook does: what is recorded is the hash of what ran."""
    file = written(user, "edited", "def one(rows): return [1.0] * len(rows)\n")
    assert plugin.values("mine_of_user.edited:one", ROWS).tolist() == [1, 1, 1]
    times = file.stat()
    file.write_text("def one(rows): return [2.0] * len(rows)\n")  # as long as before
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))  # nor do its times show it
    now = plugin.find("mine_of_user.edited:one").sha256
    assert plugin.values("mine_of_user.edited:one", ROWS, now).tolist() == [2, 2, 2]
