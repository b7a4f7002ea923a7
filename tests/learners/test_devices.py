"""One model trained on several devices: processes on this CPU that sum their gradients by gloo, as GPUs do by NCCL.

A device adds its rows' gradients up in float32 before they are summed, so sums are rounded otherwise than on one device: by some
1e-7 of the largest term. Adam divides a gradient by its own size, so a weight moves by that part of the learning rate a step, and a
weight whose gradient is nothing but rounding (a key's bias has no influence) by all of it. `TOLERANCE` is 1% of what a weight moves in
ten steps at most; a device whose rows were lost, counted twice or scaled by its own tokens is off by a hundred times as much. Products
in bfloat16 are rounded to some 1e-3: there weights may differ by the length of three steps, and losses by that.
"""

import errno
import json
import os
import shutil
import signal
import stat
import sys
import tempfile
from collections.abc import Iterator
from contextvars import ContextVar
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from support.tiny import random_rows, tiny_model
from support.training import SETTINGS, altered, folder, identical, weights
from support.waiting import until as wait_until

from collapse_cli.config.tree import TrainConfig
from collapse_cli.data.dataset import MASK, WEIGHTS, Dataset
from collapse_cli.errors import ConfigError, UserError
from collapse_cli.families.section import for_key
from collapse_cli.learners import device_processes, lm
from collapse_cli.learners.device_processes import DeviceError, DeviceProcesses, devices_stay
from collapse_cli.learners.lm import LanguageModel
from collapse_cli.learners.protocol import CORPUS, VALID, Hints, Tell, silent
from collapse_cli.lm import devices, memory, objective, shared_step
from collapse_cli.lm import step as one_step
from collapse_cli.lm.arithmetic import OwnRows
from collapse_cli.lm.devices import Group
from collapse_cli.lm.train import TrainError
from collapse_cli.process import MEGABYTE

TOLERANCE = 1e-2 * SETTINGS.lr
ROWS = random_rows(18, 7, ragged=True)


HOSTILE = {  # what launchers of other programs leave behind: nothing of it is for us
    "MASTER_ADDR": "192.0.2.1",
    "MASTER_PORT": "no number",
    "RANK": "7",
    "LOCAL_RANK": "7",
    "WORLD_SIZE": "0",
    "GLOO_SOCKET_IFNAME": "nowhere0",
    "TORCHELASTIC_RUN_ID": "another's",
    "TORCH_GLOO_LAZY_INIT": "1",
}


@pytest.fixture(scope="module", autouse=True)
def another_programs_environment() -> Iterator[None]:
    """In which the processes start."""
    with pytest.MonkeyPatch.context() as patched:
        for name, value in HOSTILE.items():
            patched.setenv(name, value)
        yield


@pytest.fixture(scope="module", autouse=True)
def staying(another_programs_environment: None) -> Iterator[None]:
    """Processes take part in the trainings of several tests."""
    with devices_stay():
        yield


class Seen(DeviceProcesses):
    """Of one training; the numbers that its processes have in the system."""

    def __init__(self, count: int) -> None:
        super().__init__(count)
        self.pids = [other.process.pid for other in self._others]


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[Seen]:
    """Those of each training on several devices."""
    made: list[Seen] = []

    def make(count: int) -> Seen:
        made.append(Seen(count))
        return made[-1]

    monkeypatch.setattr(lm, "DeviceProcesses", make)
    return made


@pytest.fixture
def none_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """No process of another test."""
    monkeypatch.setattr(device_processes, "_IDLE", ContextVar("none", default=None))


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models of three architectures, and what a stage of real data leaves."""
    made = tmp_path_factory.mktemp("devices")
    for kind in ("opt", "gpt2", "llama"):
        tiny_model(kind, dropout=0.2).save_pretrained(made / f"{kind}-dropout")
        tiny_model(kind).save_pretrained(made / kind)
        tiny_model(kind, seed=1).save_pretrained(made / f"{kind}-other")
    random_rows(9, 7, seed=5, ragged=True).save(made / CORPUS)
    random_rows(6, 7, seed=9).save(made / VALID)
    return made


def trained(
    home: Path,
    scratch: Path,
    devices: int,
    rows: Dataset = ROWS,
    *,
    kind: str = "opt",
    tell: Tell = silent,
    **changes: Any,
) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """The weights that were trained, and the facts but for the number of devices."""
    settings: TrainConfig = altered(SETTINGS, **changes)
    hints = Hints(model=str(home / kind), encoded=home, devices=devices, anchor=home / f"{kind}-other")
    learner = LanguageModel({"model": {"sha256": "0"}, "train": for_key(settings)}, hints, tell)
    torch.manual_seed(devices)  # the global random numbers are others in each process
    facts = learner.fit(rows, seed=4, scratch=scratch)
    assert facts.pop("devices", 1) == devices
    return weights(learner._model), facts


def assert_alike(
    first: tuple[dict[str, torch.Tensor], dict[str, Any]],
    second: tuple[dict[str, torch.Tensor], dict[str, Any]],
    *,
    bf16: bool = False,
) -> None:
    (own, facts), (others, other_facts) = first, second
    assert own.keys() == others.keys()
    for name in own:
        if name.endswith("k_proj.bias"):
            continue
        weight, other = own[name], others[name]
        if name.endswith("c_attn.bias"):  # of queries, keys and values
            weight, other = (bias.view(3, -1)[[0, 2]] for bias in (weight, other))
        away = float((weight - other).abs().max())
        assert away <= (3 * SETTINGS.lr if bf16 else TOLERANCE), f"{name} is {away} away"
    assert facts.keys() == other_facts.keys()
    for name, value in facts.items():
        assert value == pytest.approx(other_facts[name], rel=1e-3 if bf16 else 1e-5), name


def with_weights(rows: Dataset) -> Dataset:
    return Dataset({**rows.arrays, WEIGHTS: np.random.default_rng(1).uniform(0.1, 3.0, len(rows))}, rows.origin)


def with_mask(rows: Dataset) -> Dataset:
    """Some tokens are no assistant's; of two rows none is."""
    mask = np.random.default_rng(2).random(rows.arrays["tokens"].shape) < 0.6
    mask &= np.arange(mask.shape[1]) < rows.arrays["lengths"][:, None]
    mask[[3, 11]] = False
    return Dataset({**rows.arrays, MASK: mask}, rows.origin)


def with_ends(rows: Dataset) -> Dataset:
    """Some are of one token, so that nothing is predicted."""
    lengths = rows.arrays["lengths"].copy()
    lengths[[0, 4, 5, 11]] = 1
    return Dataset({**rows.arrays, "lengths": lengths}, rows.origin)


KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "full rows, l2": {"rows": random_rows(18, 7), "kind": "llama", "anchor": "l2", "clip": 0.0},
    "dropout": {"kind": "opt-dropout"},
    "dropout in attention, truncated": {"kind": "gpt2-dropout", "loss": "truncated", "truncate": 0.03},
    "bfloat16": {"dtype": "bfloat16"},
    "weights, smoothed": {"rows": with_weights(ROWS), "loss": "smoothed"},
    "mask, focal": {"rows": with_mask(ROWS), "loss": "focal"},
    "adversarial, dropout": {"adversarial": 0.1, "kind": "opt-dropout"},
    "rows of one token, one a step": {"rows": with_ends(ROWS), "batch_size": 1},
    "replay, best epoch": {"replay": 0.25, "select": "valid", "lr": 0.1, "schedule": "constant", "epochs": 3},
    "kl, weights": {"anchor": "kl", "rows": with_weights(ROWS)},
    "distill, fewer rows than devices": {"anchor": "distill", "kind": "llama", "batch_size": 2},
    "ewc": {"anchor": "ewc", "anchor_rows": 5},
    "adapter, steps": {"adapter": 2, "kind": "llama", "steps": 7},
}


@pytest.mark.parametrize("what", KINDS)
def test_any_number_of_devices_trains_the_same_model(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """Four rows a batch, ragged, in one or two passes: devices have two rows, one or none."""
    monkeypatch.setattr(one_step, "TOKENS_AT_ONCE", 3 * 7)
    made = [trained(home, folder(tmp_path / f"{count}"), count, **KINDS[what]) for count in (1, 2, 3)]
    for more in made[1:]:
        assert_alike(made[0], more, bf16=what == "bfloat16")


def test_the_same_number_of_devices_gives_the_same_bits(home: Path, tmp_path: Path) -> None:
    once, again = (trained(home, folder(tmp_path / name), 3, kind="gpt2-dropout") for name in ("once", "again"))
    assert identical(once[0], again[0])
    assert once[1] == again[1]


def test_a_device_without_its_rows_would_be_seen(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tolerance is one: the first device leaves out its rows of one batch."""
    part, left = Group.part, list[OwnRows]()

    def without(group: Group, number: int, rows: int) -> OwnRows:
        made = part(group, number, rows)
        left.append(made)
        return made if len(left) > 1 else OwnRows(made.first, made.first, rows)

    whole = trained(home, folder(tmp_path / "one"), 1)
    monkeypatch.setattr(Group, "part", without)
    less = trained(home, folder(tmp_path / "two"), 2)
    assert left[0].last > left[0].first
    with pytest.raises(AssertionError, match=r"is .* away"):
        assert_alike(whole, less)


# --- other numbers of random draws ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["opt", "gpt2"])
def test_where_devices_draw_numbers_of_their_own_it_is_said(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    """Rows that are too wide for plain products: torch's own attention draws dropout where nobody else can."""
    memory.warn_once.cache_clear()
    monkeypatch.setattr(shared_step, "MATH_WIDTH", 6)
    one, two = (trained(home, folder(tmp_path / f"{n}"), n, kind=f"{kind}-dropout") for n in (1, 2))
    if kind == "opt":  # whose attention drops nothing
        assert_alike(one, two)
        assert caplog.messages == []
    else:
        assert not torch.allclose(*(made[0]["transformer.wte.weight"] for made in (one, two)), atol=TOLERANCE)
        assert one[1]["train_loss"] == pytest.approx(two[1]["train_loss"], rel=0.1)
        assert [line.split(":")[0] for line in caplog.messages] == ["resid_pdrop, embd_pdrop, attn_pdrop"]


# --- interruptions ----------------------------------------------------------------------------------------------------


class Killed(BaseException):
    """The first device's process was killed."""


def until(step: int) -> Tell:
    """Ends after a step; 28 tokens are told of at each."""

    def tell(done: int, total: int, unit: str) -> None:
        if done == step * 28:
            raise Killed

    return tell


@pytest.mark.usefixtures("every_step_checkpointed")
@pytest.mark.parametrize(("before", "afters"), [(2, (1, 2, 3)), (1, (3,))])
def test_a_checkpoint_is_taken_up_by_another_number_of_devices(
    home: Path, tmp_path: Path, before: int, afters: tuple[int, ...]
) -> None:
    """Killed after step 4 of 10; what other devices do there is not done again."""
    whole = trained(home, folder(tmp_path / "whole"), before, kind="opt-dropout", select="valid")
    scratch = folder(tmp_path / "scratch")
    with pytest.raises(Killed):
        trained(home, scratch, before, kind="opt-dropout", select="valid", tell=until(4))
    for after in afters:
        there = shutil.copytree(scratch, tmp_path / f"{after}" / "scratch")
        told: list[int] = []
        tell = partial(lambda told, done, *_: told.append(done // 28), told)
        again = trained(home, there, after, kind="opt-dropout", select="valid", tell=tell)
        assert told == [5, 6, 7, 8, 9, 10]
        assert_alike(whole, again)
        if before == after:
            assert identical(whole[0], again[0])


def test_when_memory_runs_out_on_one_device_all_go_on_with_less(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    memory.warn_once.cache_clear()
    whole, tries = trained(home, folder(tmp_path / "one"), 1), []
    summed_losses = objective.summed_losses

    def scarce(*given: Any, **named: Any) -> Any:
        tries.append(len(given[1]))
        if len(tries) == 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return summed_losses(*given, **named)

    monkeypatch.setattr(one_step, "TOKENS_AT_ONCE", 4 * 7)
    monkeypatch.setattr(objective, "summed_losses", scarce)
    assert_alike(whole, trained(home, folder(tmp_path / "three"), 3))
    assert tries[:4] == [1, 1, 1, 1]
    (said,) = caplog.messages
    assert "memory ran out while training; going on with 2 rows at once" in said


# --- processes that fail ----------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("none_there")
@pytest.mark.parametrize(
    ("does", "kind", "message"),
    [
        ("print(json.dumps({'event': 'mistake', 'text': 'so it is'}))", UserError, "so it is"),
        ("print(json.dumps({'event': 'failure', 'text': 'Traceback'}))", RuntimeError, "a device failed:\nTraceback"),
        ("import os; os.kill(os.getpid(), 9)", DeviceError, r"device 2 of 2 was killed by signal 9 while"),
        ("raise SystemExit(7)", DeviceError, r"device 2 of 2 ended with code 7 while"),
    ],
    ids=["a mistake", "a fault of ours", "killed", "ended"],
)
def test_a_device_that_never_begins_is_said(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, does: str, kind: type[Exception], message: str
) -> None:
    monkeypatch.setattr(device_processes, "START", f"import json; {does}")
    with pytest.raises(kind, match=message):
        trained(home, tmp_path, 2)


def test_a_machine_with_fewer_devices_says_how_many_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind, there, message in (
        ("cuda", 2, r"--devices 3: this machine has 2 GPUs, and each device of a training is one; ask for 2 at most"),
        ("cuda", 1, r"--devices 3: this machine has 1 GPU, and each device of a training is one; leave it out"),
        ("mps", 1, r"--devices 3: a Mac's GPU is one device; leave --devices out"),
    ):
        monkeypatch.setattr(devices, "kind_of_device", lambda kind=kind: torch.device(kind))
        monkeypatch.setattr(torch.cuda, "device_count", lambda there=there: there)
        with pytest.raises(ConfigError, match=message):
            devices.check(3)
        devices.check(1)


def test_every_row_of_every_batch_is_of_one_device() -> None:
    """As many as any other's, give or take one; in a step of batches of a row each all devices have their turn."""
    for count in (1, 2, 3, 5):
        groups = [object.__new__(Group) for _ in range(count)]
        for rank, group in enumerate(groups):
            group.rank, group.count = rank, count
        for rows in range(9):
            for number in range(4):
                parts = [group.part(number, rows) for group in groups]
                covered = sorted(row for part in parts for row in range(part.first, part.last))
                assert covered == list(range(rows))
                sizes = [part.last - part.first for part in parts]
                assert max(sizes) - min(sizes) <= 1
        turns = [
            number
            for number in range(count)
            for group in groups
            if group.part(number, 1).last > group.part(number, 1).first
        ]
        assert turns == list(range(count))
        busy = {
            group.rank
            for number in range(count)
            for group in groups
            if group.part(number, 1).last > group.part(number, 1).first
        }
        assert busy == set(range(count))


def test_hints_are_the_same_after_they_were_json(tmp_path: Path) -> None:
    """Folders of adapters, too, which were lost on the way to a worker."""
    own = Hints(model="m", bases={"a": tmp_path}, anchor=tmp_path / "x", encoded=tmp_path)
    hints = Hints(lineages={"ada": own, "bob": Hints()}).with_devices(2)
    again = Hints.from_record(json.loads(json.dumps(hints.record())))
    assert again == hints
    assert [each.devices for each in again.lineages.values()] == [2, 2]


def test_processes_stay_for_the_next_training_as_long_as_they_live(
    home: Path, tmp_path: Path, seen: list[Seen]
) -> None:
    """One that was killed in between is not missed; each training has a meeting place of its own."""
    first = trained(home, folder(tmp_path / "first"), 2)
    assert identical(first[0], trained(home, folder(tmp_path / "second"), 2)[0])
    assert seen[0].pids == seen[1].pids
    assert not list(tmp_path.glob("*/devices-*"))
    os.kill(seen[0].pids[0], signal.SIGKILL)
    until_gone(seen[0].pids)
    assert identical(first[0], trained(home, folder(tmp_path / "third"), 2)[0])
    assert seen[2].pids != seen[0].pids


def test_devices_meet_beside_the_checkpoint_where_only_this_user_can_look(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a kill leaves goes with the checkpoint, and a folder for temporary files that is full or gone matters to nobody."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    there: set[tuple[str, int]] = set()

    def tell(done: int, total: int, unit: str) -> None:
        there.update((path.name[:8], stat.S_IMODE(path.stat().st_mode)) for path in tmp_path.glob("devices-*"))

    def refuse(path: Any, *, dir_fd: int | None = None) -> None:
        raise OSError(errno.ENOTEMPTY, "Directory not empty", path)  # on NFS, of a folder with a file that is open

    monkeypatch.setattr(os, "rmdir", refuse)
    trained(home, tmp_path, 2, tell=tell)
    assert there == {("devices-", 0o700)}


@pytest.mark.skipif(sys.platform != "linux", reason="glibc is asked to give memory back")
def test_a_device_that_waits_for_the_next_training_holds_no_memory_of_the_last(
    home: Path, tmp_path: Path, seen: list[Seen]
) -> None:
    """A model of 25 MB in tensors of a megabyte at most, which with gradients and moments are 100: glibc keeps what was freed, if let."""
    size = {"hidden_size": 256, "word_embed_proj_dim": 256, "ffn_dim": 1024, "num_hidden_layers": 8}
    config = tiny_model("opt").config
    config.update({**size, "init_std": 0.02})
    type(tiny_model("opt"))(config).save_pretrained(home / "opt-large")
    trained(home, folder(tmp_path / "first"), 2)
    process = psutil.Process(seen[0].pids[0])
    before = process.memory_info().rss
    trained(home, folder(tmp_path / "large"), 2, kind="opt-large", epochs=1)
    assert seen[1].pids == seen[0].pids
    most = before + 40 * MEGABYTE
    wait_until(lambda: process.memory_info().rss < most)


def test_no_process_outlives_what_they_stay_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without `devices_stay`, that is a training."""
    monkeypatch.setattr(device_processes, "START", "import sys; sys.stdin.read()")
    with device_processes.devices_stay():
        with Seen(3) as three:
            pass
        with Seen(2) as two:
            assert set(two.pids) < set(three.pids)
        assert not gone(three.pids)
    assert gone(three.pids)
    monkeypatch.setattr(device_processes, "_IDLE", ContextVar("none", default=None))
    with Seen(2) as alone:
        assert not gone(alone.pids)
    assert gone(alone.pids)


# --- after which some of the processes are gone -----------------------------------------------------------------------


def test_a_loss_that_is_not_finite_is_said_by_the_first_device(home: Path, tmp_path: Path, seen: list[Seen]) -> None:
    """The others fail as well, and are not asked."""
    with pytest.raises(
        TrainError, match=r"the loss is (nan|inf) at step \d+ of 25; lower train\.lr .*\((row|the loss|no s)"
    ):
        trained(home, tmp_path, 2, lr=1e38, clip=0.0, warmup=0.0, epochs=5)
    assert gone(seen[0].pids)


@pytest.mark.usefixtures("every_step_checkpointed")
def test_a_killed_device_ends_the_training_in_one_line_and_leaves_nobody(
    home: Path, tmp_path: Path, seen: list[Seen]
) -> None:
    """The third of three, after step 3; then the training goes on with fewer."""

    def tell(done: int, total: int, unit: str) -> None:
        if done == 3 * 28:
            assert not gone(seen[0].pids)
            os.kill(seen[0].pids[1], signal.SIGKILL)

    with pytest.raises(DeviceError) as error:
        trained(home, tmp_path, 3, tell=tell)
    assert str(error.value) == (
        "the process of device 3 of 3 was killed by signal 9 while a model was trained, perhaps because memory ran out; what is finished "
        "is kept: run the same command again, with fewer --devices if it happens again"
    )
    assert len(seen[0].pids) == 2
    assert gone(seen[0].pids)
    assert not list(tmp_path.glob("devices-*"))
    told: list[int] = []
    again = trained(home, tmp_path, 1, tell=lambda done, *_: told.append(done // 28))
    assert told[0] == 4, "from the checkpoint"
    assert_alike(trained(home, folder(tmp_path / "whole"), 1), again)


def gone(pids: list[int]) -> bool:
    """Whether none of the processes is there any more."""
    return not any(map(psutil.pid_exists, pids))


def until_gone(pids: list[int]) -> None:
    """Wait until those that were killed have ended, all of their threads; how they did is still to be asked."""
    for pid in pids:
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
