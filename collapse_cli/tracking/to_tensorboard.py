"""TensorBoard: event files below the run's folder."""

import itertools
import os
import time
from pathlib import Path
from typing import Any

from collapse_cli.records.row import Row
from collapse_cli.tracking.mirrored import About, clean, histogram_of, metrics_of


class TensorBoard:
    """A folder of `tensorboard/` for each policy, lineage and seed, written anew from the truth each time; steps are generations.

    Written without a thread, so that an error comes when it happens. Scalars are float32, as TensorBoard's are.
    """

    def __init__(self, about: About) -> None:
        self._root = about.folder / "tensorboard"
        self._files: dict[Path, Any] = {}
        for old in sorted(self._root.rglob("events.out.tfevents.*")):
            old.unlink()
        self._write_text(about)

    def add(self, row: Row) -> None:
        from tensorboard.compat.proto.histogram_pb2 import HistogramProto
        from tensorboard.compat.proto.summary_pb2 import Summary

        values = [Summary.Value(tag=key, simple_value=value) for key, value in metrics_of(row).items()]
        if (binned := histogram_of(row)) is not None:
            edges, counts = binned
            middles = [(low + high) / 2 for low, high in itertools.pairwise(edges)]
            sums = [sum(n * x**power for n, x in zip(counts, middles, strict=True)) for power in (0, 1, 2)]
            histogram = HistogramProto(
                min=edges[0],
                max=edges[-1],
                num=sums[0],
                sum=sums[1],
                sum_squares=sums[2],
                bucket_limit=edges,  # TensorBoard takes a bucket to begin where the one before it ends
                bucket=[0, *counts],
            )
            values.append(Summary.Value(tag="sample_histogram", histo=histogram))
        arm, seed = row.where.arm, f"seed-{row.where.seed}"
        folder = self._root / clean(f"{arm.policy}-{seed}")
        if arm.lineage:
            folder = self._root / clean(arm.policy) / clean(f"{arm.lineage}-{seed}")
        self._write(folder, Summary(value=values), row.where.generation)

    def close(self, status: str) -> None:
        for file in self._files.values():
            file.close()

    def _write_text(self, about: About) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
        from tensorboard.compat.proto.tensor_pb2 import TensorProto

        text = "".join(f"    {key} = {value}\n" for key, value in {**about.params, **about.tags}.items())
        value = Summary.Value(
            tag="config/text_summary",
            metadata=SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name="text")),
            tensor=TensorProto(dtype="DT_STRING", string_val=[text.encode("utf-8", "replace")]),
        )
        self._write(self._root, Summary(value=[value]), 0)

    def _write(self, folder: Path, summary: Any, step: int) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.summary.writer.record_writer import RecordWriter

        if folder not in self._files:
            folder.mkdir(parents=True, exist_ok=True)
            now = time.time_ns()
            # the file stays open: it is written while the run lasts, and closed by `close`
            file = (folder / f"events.out.tfevents.{now // 10**9:010d}.{os.getpid()}.{now % 10**9:09d}").open("wb")
            self._files[folder] = file
            RecordWriter(file).write(Event(wall_time=time.time(), file_version="brain.Event:2").SerializeToString())
        file = self._files[folder]
        RecordWriter(file).write(Event(wall_time=time.time(), step=step, summary=summary).SerializeToString())
        file.flush()
