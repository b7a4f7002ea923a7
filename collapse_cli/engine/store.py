"""What a store is: finished stages by key, the same for all that use one. `folder_store.py` and `object_store.py` are two;
`store_at` chooses.
"""

from collections.abc import Collection, Iterable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

from collapse_cli.engine.folder_store import FolderStore
from collapse_cli.engine.remote_addresses import address_of, is_address
from collapse_cli.engine.stage import Finished, Stage


class Store(Protocol):
    """Finished stages by key, whole or not there at all; locks; and what stages at work keep.

    Stages are written, and models loaded, in folders: a store that is elsewhere brings a stage to a folder of this machine
    when it is asked for it (`get`), and takes the attempt's folder away when it is published.
    """

    @property
    def address(self) -> str:
        """What `store_at` makes this store of, in another process too."""

    @property
    def here(self) -> Path:
        """The folder of this machine in which stages are made, and to which they are brought."""

    def begin(self) -> None:
        """Make it, where it is not there yet."""

    def there(self) -> bool:
        """Whether it is there; it is not made."""

    # --- finished stages

    def has(self, key: str, *, whole: bool = True) -> bool:
        """Whether the stage is finished and its record is right; a pruned one counts only with `whole=False`.

        Its files are not read; but a stage that `sound` has found damaged is none.
        """

    def sound(self, key: str) -> bool:
        """Whether the stage can be used as an input: finished, not pruned, every file as it was written.

        The files are read once a process.
        """

    def get(self, key: str) -> Finished:
        """The finished stage, its files on this machine.

        Raises:
            FileNotFoundError: when the stage is not in the store, or its record is damaged.
        """

    def holds(self, key: str) -> bool:
        """Whether there is a finished stage of that key, a damaged or a pruned one too."""

    def keys(self) -> list[str]:
        """The keys of all finished stages, the damaged ones too."""

    def size(self, key: str) -> int:
        """Bytes of a finished stage."""

    def name_of(self, key: str) -> str:
        """What a stage is called in rows: its place, beginning with the store's own name."""

    def place_of(self, key: str) -> str:
        """Where a person finds a stage."""

    def fault(self, key: str) -> str:
        """What is known to be damaged of a stage; empty: nothing."""

    # --- stages at work

    def locked(self, key: str) -> AbstractContextManager[bool]:
        """Try to take the lock of a key at once; false when another process holds it. It is released when its holder dies."""

    def is_held(self, key: str) -> bool:
        """Whether a process seems to hold that lock at the moment. Nothing is written: what is to be done under the lock takes it."""

    def attempt(self, key: str) -> Path:
        """An empty folder of this machine to write a stage into; what a killed attempt left is wiped."""

    def scratch(self, key: str) -> Path:
        """The folder for the stage's mid-stage checkpoints: it survives a kill and goes when the stage is published."""

    def publish(self, stage: Stage, facts: Mapping[str, Any], seconds: float) -> Finished:
        """Make the attempt of `stage` visible, whole and at once. Call under its lock."""

    def set_aside(self, stage: Stage) -> None:
        """Take a damaged stage out of the way, and say so. Call under its lock.

        Raises:
            InputError: when it was set aside and computed again before, and is damaged once more.
        """

    # --- what leaves it; each returns the bytes freed and is called under the lock of the key

    def prune(self, key: str) -> int:
        """Drop the weights of a finished model, keep its record."""

    def remove(self, key: str) -> int:
        """Remove a finished stage."""

    def unfinished(self, *, dry_run: bool = False) -> list[str]:
        """The keys that have an attempt or a checkpoint left over, from a kill or from a stage at work right now.

        Args:
            dry_run: write nothing to find that out, as another side's clock may need.
        """

    def is_unfinished(self, key: str) -> bool:
        """Whether a key is among them."""

    def leftover_size(self, key: str) -> int:
        """Bytes of the attempt and the checkpoints of an unfinished stage."""

    def clear(self, key: str) -> int:
        """Remove what an unfinished stage left."""

    def tidy(self, keys: Iterable[str]) -> None:
        """Remove what was left of attempts at those of the stages that are finished by now. Takes their locks itself."""

    def drop_copies(self, planned: Collection[str], *, dry_run: bool = False) -> tuple[int, int]:
        """Remove what this machine keeps beside the store and the store has no longer, and what killed writes left; how many, and their bytes.

        Args:
            planned: stages that a run on this machine may have yet to send.
        """


def store_at(address: str | Path) -> Store:
    """The store at an address: a folder, `PROTOCOL://…`, or the folder in which the latter is worked on."""
    elsewhere = address if isinstance(address, str) and is_address(address) else address_of(Path(address))
    if elsewhere:
        from collapse_cli.engine.object_store import ObjectStore  # fsspec takes longer to load than many a command

        return ObjectStore(elsewhere)
    return FolderStore(Path(address))
