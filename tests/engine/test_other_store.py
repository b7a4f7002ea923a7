"""A store that is no local folder is one class: here one whose stages are archives, as an object storage would keep them.

A stage is brought to a folder of this machine when it is asked for, and is an archive again once it is published.
"""

import io
import json
import tarfile
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from support import e2e

from collapse_cli.engine import sealed, store
from collapse_cli.engine.record import RECORD, record_of
from collapse_cli.engine.stage import Finished, Stage
from collapse_cli.engine.store import Store, store_at
from collapse_cli.files import sha256_of


class ArchiveStore:
    """Each finished stage is one object, bytes under its key; only what is at work, or was asked for, lies in folders."""

    def __init__(self, objects: dict[str, bytes], here: Path) -> None:
        """`objects`: the storage, wherever it is; `here`: a folder of this machine."""
        self.objects, self.here = objects, here
        self.at_work: set[str] = set()

    address = "archives"

    def begin(self) -> None:
        self.here.mkdir(parents=True, exist_ok=True)

    def there(self) -> bool:
        return self.here.is_dir()

    def record(self, key: str) -> dict[str, Any]:
        with tarfile.open(fileobj=io.BytesIO(self.objects[key])) as archive:
            file = archive.extractfile(RECORD)
            assert file is not None
            found: dict[str, Any] = json.loads(file.read())
            return found

    def has(self, key: str, *, whole: bool = True) -> bool:
        return key in self.objects

    def sound(self, key: str) -> bool:
        return self.has(key)

    def fault(self, key: str) -> str:
        return "" if self.has(key) else "it is missing"

    def get(self, key: str) -> Finished:
        folder, record = self.here / "brought" / key, self.record(key)
        if not folder.exists():
            with tarfile.open(fileobj=io.BytesIO(self.objects[key])) as archive:
                archive.extractall(folder, filter="data")
        return Finished(record["kind"], key, folder, record["facts"], record["seconds"])

    def holds(self, key: str) -> bool:
        return key in self.objects

    def keys(self) -> list[str]:
        return sorted(self.objects)

    def size(self, key: str) -> int:
        return len(self.objects[key])

    def name_of(self, key: str) -> str:
        return f"store/{key[:2]}/{key}"

    def place_of(self, key: str) -> str:
        return f"{self.address}/{key}"

    @contextmanager
    def locked(self, key: str) -> Iterator[bool]:
        assert key not in self.at_work
        self.at_work.add(key)
        yield True
        self.at_work.remove(key)

    def attempt(self, key: str) -> Path:
        folder = self.here / "attempts" / key
        folder.mkdir(parents=True)
        return folder

    def scratch(self, key: str) -> Path:
        folder = self.here / "scratch" / key
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def publish(self, stage: Stage, facts: Mapping[str, Any], seconds: float) -> Finished:
        folder = self.here / "attempts" / stage.key
        written = {path.relative_to(folder).as_posix(): sha256_of(path) for path in folder.rglob("*") if path.is_file()}
        (folder / RECORD).write_text(sealed.sealed(record_of(stage, facts, seconds, written)))
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w") as writing:
            for name in [RECORD, *written]:
                writing.add(folder / name, name)
        self.objects[stage.key] = archive.getvalue()
        return self.get(stage.key)

    def set_aside(self, stage: Stage) -> None:
        assert stage.key not in self.objects, "nothing is ever damaged here"

    def prune(self, key: str) -> int:
        return 0  # models are kept whole

    def remove(self, key: str) -> int:
        return len(self.objects.pop(key))

    def unfinished(self) -> list[str]:
        return []

    def is_unfinished(self, key: str) -> bool:
        return False

    def leftover_size(self, key: str) -> int:
        return 0

    def clear(self, key: str) -> int:
        return 0

    def drop_copies(self, planned: Collection[str], *, dry_run: bool = False) -> tuple[int, int]:
        return 0, 0

    def tidy(self, keys: Iterable[str]) -> None:
        return


@pytest.fixture(scope="module")
def in_folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose store is the usual one."""
    folder = tmp_path_factory.mktemp("folders")
    e2e.run(e2e.write_experiment(folder), folder / "runs")
    return folder


def test_a_run_and_what_looks_at_it_need_no_other_class(
    in_folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same rows; finished stages cost nothing, however the local folder was emptied; eval loads the models."""
    objects: dict[str, bytes] = {}
    others: list[ArchiveStore] = []

    def archives(address: Path) -> Store:
        others.append(ArchiveStore(objects, tmp_path / f"here-{len(others)}"))
        return others[-1]

    monkeypatch.setattr(store, "FolderStore", archives)
    runs = tmp_path / "runs"
    first = e2e.run(in_folders / "tiny.toml", runs)
    assert not (runs / "store").exists(), "nothing of a stage lies where the usual store would be"
    assert e2e.results(runs) == e2e.results(in_folders / "runs")
    assert objects.keys() == e2e.stages(in_folders / "runs").keys()
    assert first["computed"] == len(objects)

    again = e2e.run(in_folders / "tiny.toml", runs)
    assert (again["computed"], again["rows"]) == (0, first["rows"])

    scored = e2e.collapse("eval", "tiny", "--runs-dir", runs, "--json")
    assert scored.code == 0, scored.err
    assert {row["difference"] for row in scored.json} == {0.0}
    assert e2e.collapse("status", "tiny", "--runs-dir", runs).code == 0


def test_the_usual_store_is_a_folder(tmp_path: Path) -> None:
    """An address is what another process makes the same store of."""
    usual = store_at(tmp_path / "store")
    usual.begin()
    assert store_at(usual.address).keys() == []
    assert Path(usual.address).is_dir()
