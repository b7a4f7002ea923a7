"""What a process has found out about the stages of a store, and what follows from that in any store."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Generic, TypeVar

from collapse_cli.engine.record import RECORD


@dataclass
class Known:
    """Of one stage.

    Attributes:
        which: tells its record from another one of the same stage, which is looked at anew.
        pruned: its weights are gone, and its record says so.
        fault: what is damaged; empty: nothing that was looked at.
        checked: its files were compared with their hashes.
    """

    which: object
    pruned: bool = False
    fault: str = ""
    checked: bool = False


Found = TypeVar("Found", bound=Known)


class Knowing(ABC, Generic[Found]):
    """A store that remembers what it has found out. What methods promise: `store.Store`."""

    def __init__(self) -> None:
        self._known: dict[str, Found] = {}

    def has(self, key: str, *, whole: bool = True) -> bool:
        known = self._look(key)
        return known is not None and not known.fault and not (whole and known.pruned)

    def sound(self, key: str) -> bool:
        if not self.has(key):
            return False
        known = self._known[key]
        if not known.checked:
            self._check(key, known)
        return not known.fault

    def fault(self, key: str) -> str:
        known = self._look(key)
        return known.fault if known is not None else f"{RECORD} is missing"

    @abstractmethod
    def _look(self, key: str) -> Found | None:
        """What is known of a stage, its record read where it is a new one; None where there is no record."""

    @abstractmethod
    def _check(self, key: str, known: Found) -> None:
        """Compare the files of a stage with their hashes, and write down what is damaged."""
