"""The trackers that a run is mirrored to: TensorBoard, MLflow, Weights & Biases."""

from collections.abc import Sequence

from collapse_cli import tracking
from collapse_cli.records.row import Row


class Mirroring:
    """Hands each row on, those that were there before too: the mirrors may have missed them, and know what they have."""

    def __init__(self, mirrors: tracking.Mirrors) -> None:
        self.mirrors = mirrors

    def written(self, rows: Sequence[Row], *, new: bool) -> None:
        for row in rows:
            self.mirrors.add(row)
