"""Several devices of one machine that train one model: each has the whole model and computes its rows of every batch.

Gradients are summed over the devices before a step is made (Li et al. 2020, arXiv 2006.15704), so all make the same step, with the
same batches in the same order and one mean over all predicted tokens of a batch. `torch.nn.parallel.DistributedDataParallel` takes
the mean of the devices' means and one pass of each device a step; rows of unequal lengths, batches in parts, a second pass on
perturbed embeddings and devices without rows need the sum, so torch's collectives are used as they are.
"""

from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from collapse_cli.errors import ConfigError, how_many
from collapse_cli.lm.arithmetic import OwnRows
from collapse_cli.lm.model import device as kind_of_device

if TYPE_CHECKING:
    from torch.distributed import Work

BUCKET_BYTES = 32 << 20  # of gradients that are summed in one go
HERE = "127.0.0.1"  # nobody else can reach what the devices say to one another
JOINING = timedelta(minutes=2)  # for the others, when all have said that they are ready
WAITING = timedelta(days=100)  # one scores validation rows, or writes a checkpoint; who is gone is noticed at once


class GroupError(RuntimeError):
    """Another device of the group is gone."""


def check(count: int) -> None:
    """Whether this machine can train a model on so many devices.

    Raises:
        ConfigError: when it cannot.
    """
    if count == 1:
        return
    kind = kind_of_device().type
    if kind == "mps":
        raise ConfigError(f"--devices {count}: a Mac's GPU is one device; leave --devices out")
    if not torch.distributed.is_available() or not torch.distributed.is_gloo_available():
        raise ConfigError(
            f"--devices {count}: this build of torch cannot train on several devices (it has no gloo); leave it out"
        )
    if kind == "cuda":
        there = torch.cuda.device_count()
        if count > there:
            raise ConfigError(
                f"--devices {count}: this machine has {how_many(there, 'GPU')}, and each device of a training is one; "
                f"{'leave it out' if there == 1 else f'ask for {there} at most'}"
            )
        if not torch.distributed.is_nccl_available():
            raise ConfigError(f"--devices {count}: this build of torch has no NCCL, which GPUs need; leave it out")


class Group:
    """The devices that train one model together, and which of them this process is.

    Attributes:
        rank: from 0, the one that writes checkpoints and tells of progress.
        count: how many there are.
    """

    def __init__(self, rank: int, count: int, place: Path, kind: str = "cpu") -> None:
        """Wait until all have joined.

        Args:
            place: a file in a folder that only this user can read, by which they find each other; not there before the first has joined.
            kind: what the models are on, `cpu` or `cuda`.

        Raises:
            GroupError: when one of them is gone before.
        """
        self.rank, self.count = rank, count
        try:
            self._host, self._own = self._joined(place, kind)
        except RuntimeError as error:
            raise GroupError(str(error)) from None

    def _joined(self, place: Path, kind: str) -> tuple[Any, Any]:
        """What tensors of the host are summed by, and those of the model."""
        torch_distributed: Any = torch.distributed  # which does not say the types of what is used here
        rank, count = self.rank, self.count
        store = torch_distributed.FileStore(str(place), count)
        store.set_timeout(JOINING)
        # nothing of the environment is read (MASTER_ADDR, MASTER_PORT, GLOO_SOCKET_IFNAME), and ports are what is free
        gloo, below = torch_distributed.ProcessGroupGloo, torch_distributed.PrefixStore
        options = gloo._Options()
        options._timeout, options._threads = WAITING, 2
        options._devices = [gloo.create_device(hostname=HERE)]
        host = gloo(below("host", store), rank, count, options)
        if kind != "cuda":
            return host, host
        nccl = torch_distributed.ProcessGroupNCCL
        return host, nccl(below("gpus", store), rank, count, nccl.Options())

    def __enter__(self) -> "Group":
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the others, who notice it where they wait for this device."""
        self._host = self._own = None

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def part(self, number: int, rows: int) -> OwnRows:
        """Which of the rows of the `number`th batch of a step are this device's: as many as any other's, give or take one.

        Who has one more, or where there are fewer rows than devices one at all, changes from batch to batch.
        """
        turn = (self.rank + number) % self.count
        return OwnRows(rows * turn // self.count, rows * (turn + 1) // self.count, rows)

    def add(self, *tensors: torch.Tensor) -> None:
        """Each becomes its sum over all devices."""
        self._wait(lambda: [self._group(tensor).allreduce([tensor]) for tensor in tensors])

    def add_all(self, tensors: Sequence[torch.Tensor]) -> None:
        """The same of many of one kind, in few goes."""
        self._wait(lambda: [self._group(bucket[0]).allreduce_coalesced(bucket) for bucket in _buckets(tensors)])

    def take(self, *tensors: torch.Tensor) -> None:
        """Each becomes what the first device has in its place."""
        whole = [tensor.contiguous() for tensor in tensors]
        self._wait(lambda: [self._group(tensor).broadcast(tensor, 0) for tensor in whole])
        for tensor, taken in zip(tensors, whole, strict=True):
            if taken is not tensor:
                tensor.copy_(taken)

    def agree(self, numbers: Sequence[float]) -> bool:
        """Whether all devices have the same numbers, to the last bit on CPUs."""
        own = torch.tensor(numbers, dtype=torch.float64)
        first = own.clone()
        self.take(first)
        same = torch.equal(own, first) if self._own is self._host else torch.allclose(own, first, rtol=1e-6)
        differing = torch.tensor([int(not same)])
        self.add(differing)
        return not int(differing)

    def _group(self, tensor: torch.Tensor) -> Any:
        return self._host if tensor.device.type == "cpu" else self._own

    def _wait(self, begin: "Callable[[], Sequence[Work]]") -> None:
        try:
            for work in begin():
                work.wait()
        except RuntimeError as error:
            raise GroupError(str(error)) from None


def _buckets(tensors: Sequence[torch.Tensor]) -> Iterator[list[torch.Tensor]]:
    bucket: list[torch.Tensor] = []
    held = 0
    for tensor in tensors:
        size = tensor.numel() * tensor.element_size()
        if bucket and held + size > BUCKET_BYTES:
            yield bucket
            bucket, held = [], 0
        bucket.append(tensor)
        held += size
    if bucket:
        yield bucket
