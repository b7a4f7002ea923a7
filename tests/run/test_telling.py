"""What a process elsewhere says of an error, and what becomes of it in the run's own process."""

import errno
import io
import json
from pathlib import Path

import pytest
from support.kinds import kind

from collapse_cli.engine.executors.messages import WorkerError, hear
from collapse_cli.engine.folder_store import FolderStore
from collapse_cli.engine.stage import Stage
from collapse_cli.errors import InputError
from collapse_cli.run import worker

FULL = OSError(errno.ENOSPC, "No space left on device", "/runs/store")


def heard(error: Exception, store: Path, node: str = "") -> None:
    """Tell of an error there, and hear of it here."""
    said = io.StringIO()
    worker.Telling(said, node=node).failed(error)
    (line,) = said.getvalue().splitlines()
    message = json.loads(line)
    assert message["event"] in worker.LAST
    hear(message, Stage(kind("eval"), {}), FolderStore(store), worker.Telling(io.StringIO()))


def test_a_full_disk_says_on_which_node(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No space left") as raised:
        heard(FULL, tmp_path, "the node n7")
    assert (raised.value.errno, raised.value.filename) == (errno.ENOSPC, "/runs/store on the node n7")
    with pytest.raises(OSError, match="No space left") as raised:
        heard(FULL, tmp_path)
    assert raised.value.filename == "/runs/store"


def test_memory_that_ran_out_is_no_fault_of_ours(tmp_path: Path) -> None:
    with pytest.raises(MemoryError, match="4 GB on the node n7"):
        heard(MemoryError("4 GB"), tmp_path, "the node n7")


def test_a_users_mistake_is_the_sentence_that_it_was_and_a_fault_has_its_traceback(tmp_path: Path) -> None:
    with pytest.raises(WorkerError, match=r"^lower train\.lr$"):
        heard(InputError("lower train.lr"), tmp_path, "the node n7")
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        heard(ZeroDivisionError(), tmp_path)
