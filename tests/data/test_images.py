"""Real images: the digits, MNIST's own files and their damages, and MNIST from the Hub without a network."""

import gzip
import os
import struct
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from support import imagery
from support.idx import idx, random_set, write_set
from support.waiting import PATIENCE

from collapse_cli.data import images
from collapse_cli.data.dataset import HubError, hub_revision, pinned
from collapse_cli.data.images import HUB_ID, load_images, read_idx
from collapse_cli.errors import InputError
from collapse_cli.learners import learner_class, silent


@pytest.fixture(autouse=True)
def no_memory() -> Iterator[None]:
    """What an earlier test loaded is loaded again."""
    load_images.cache_clear()
    hub_revision.cache_clear()
    yield
    load_images.cache_clear()


def test_the_digits_are_scikit_learns_and_every_label_is_in_both_splits() -> None:
    from sklearn.datasets import load_digits

    found, theirs = load_images("digits"), load_digits()
    assert found.x.shape == (1797, 8, 8)
    assert found.x.dtype == np.float32
    np.testing.assert_array_equal(found.x, (theirs.images / 16).astype(np.float32))
    np.testing.assert_array_equal(found.labels, theirs.target)
    assert found.x.min() == 0
    assert found.x.max() == 1
    train, test = found.splits["train"], found.splits["test"]
    assert sorted([*train, *test]) == list(range(1797))
    assert len(test) == 359
    for rows in (train, test):
        assert len(np.unique(found.labels[rows])) == 10
    assert "20%" in found.notes[0]


@pytest.mark.parametrize("zipped", [False, True])
def test_a_folder_with_both_sets_has_their_images_in_their_order(tmp_path: Path, zipped: bool) -> None:
    train, test = random_set(30), random_set(12, seed=1)
    write_set(tmp_path / "m", "train", *train, zipped=zipped)
    write_set(tmp_path / "m", "t10k", *test, zipped=zipped)
    found = load_images(str(tmp_path / "m"))
    for split, (pixels, labels) in (("train", train), ("test", test)):
        rows = found.splits[split]
        np.testing.assert_array_equal(np.rint(found.x[rows] * 255).astype(np.uint8), pixels)
        np.testing.assert_array_equal(found.labels[rows], labels)
    assert found.notes == ()


def test_gzipped_plain_and_elsewhere_have_the_same_hash_and_other_images_another(tmp_path: Path) -> None:
    for name, zipped in (("a", False), ("b", True)):
        write_set(tmp_path / name, "train", *random_set(30), zipped=zipped)
    write_set(tmp_path / "c", "train", *random_set(30, seed=1))
    write_set(tmp_path / "d", "t10k", *random_set(30))
    hashes = {name: load_images(str(tmp_path / name)).sha256 for name in "abcd"}
    assert hashes["a"] == hashes["b"] == hashes["d"]
    assert hashes["a"] != hashes["c"]


@pytest.mark.parametrize(("stem", "absent"), [("train", "t10k"), ("t10k", "train")])
def test_one_set_alone_is_split_and_a_note_says_so(tmp_path: Path, stem: str, absent: str) -> None:
    write_set(tmp_path / "m", stem, *random_set(50))
    found = load_images(str(tmp_path / "m"))
    assert (len(found.splits["train"]), len(found.splits["test"])) == (40, 10)
    assert not set(found.splits["train"]) & set(found.splits["test"])
    assert found.notes == (
        f"m has no {absent} images: 20% of the {stem} images, drawn with a fixed seed, are the test set",
    )


def test_parts_take_a_corpus_and_leave_a_reserve_and_a_longer_corpus_holds_the_shorter() -> None:
    found = load_images("digits")
    small, large, whole = found.parts(100, 50), found.parts(200, 0), found.parts(0, 0)
    assert len(small["train"]) == 100
    assert len(small["reserve"]) == 1338
    assert len(small["test"]) == 50
    assert sorted([*small["train"], *small["reserve"]]) == sorted(found.splits["train"])
    assert set(small["train"]) < set(large["train"])
    np.testing.assert_array_equal(whole["train"], found.splits["train"])
    assert len(whole["reserve"]) == 0
    assert "valid" not in whole
    aside = found.parts(0, 0, valid=0.1)
    assert len(aside["valid"]) == 144
    assert not set(aside["valid"]) & set(aside["train"])
    with pytest.raises(InputError, match=r"data\.rows = 1,500, but there are only 1,438 training images"):
        found.parts(1500, 0)


def damage_magic(data: bytes) -> bytes:
    return bytes((0, 0, 9)) + data[3:]


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (damage_magic, "is not an IDX file of bytes in 3 dimensions: it begins with 00000903, not 00000803"),
        (lambda data: data[:3] + b"\1" + data[4:], "begins with 00000801"),
        (lambda _: b"", "it begins with nothing"),
        (lambda data: data[:9], "ends within its header"),
        (lambda data: data[:-5], "is 5 bytes shorter than its header says (30 x 8 x 8 bytes)"),
        (lambda data: data + b"x", "is longer than its header says"),
        (lambda data: data[:4] + struct.pack(">I", 0) + data[8:], "is empty: its header says 0 x 8 x 8"),
        (lambda data: data[:4] + b"\xff" * 12 + data[16:], "which is more than"),
        (lambda data: data[:4] + struct.pack(">I", 2**25 - 1) + data[8:], "bytes shorter than"),
    ],
)
@pytest.mark.parametrize("zipped", [False, True])
def test_a_damaged_file_is_named_in_one_line(tmp_path: Path, damage: Any, said: str, zipped: bool) -> None:
    write_set(tmp_path / "m", "train", *random_set(30))
    path = tmp_path / "m" / "train-images-idx3-ubyte"
    data = damage(path.read_bytes())
    path.unlink()
    if zipped:
        path = path.with_name(path.name + ".gz")
    path.write_bytes(gzip.compress(data) if zipped else data)
    with pytest.raises(InputError) as caught:
        load_images(str(tmp_path / "m"))
    assert said in str(caught.value)
    assert path.name in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("damage", ["cut", "no gzip", "flipped"])
def test_a_damaged_gzip_is_named_in_one_line(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "train-labels-idx1-ubyte.gz"
    data = bytearray(gzip.compress(idx(random_set(3000)[1])))
    if damage == "cut":
        data = data[: len(data) // 2]
    elif damage == "no gzip":
        data = bytearray(idx(random_set(30)[1]))
    else:
        data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"train-labels-idx1-ubyte\.gz is (damaged|.*shorter|longer)") as caught:
        read_idx(path, 1)
    assert "\n" not in str(caught.value)


def test_files_that_do_not_fit_each_other_are_said(tmp_path: Path) -> None:
    pixels, labels = random_set(30)
    write_set(tmp_path / "labels", "train", pixels, labels[:-1])
    with pytest.raises(InputError, match=r"has 30 images, but train-labels-idx1-ubyte 29 labels"):
        load_images(str(tmp_path / "labels"))
    write_set(tmp_path / "sizes", "train", pixels, labels)
    write_set(tmp_path / "sizes", "t10k", *random_set(5, size=12))
    with pytest.raises(InputError, match=r"training images are \(8, 8\) pixels, test images \(12, 12\)"):
        load_images(str(tmp_path / "sizes"))
    write_set(tmp_path / "half", "train", pixels, labels)
    (tmp_path / "half" / "train-labels-idx1-ubyte").unlink()
    with pytest.raises(InputError, match=r"train-images-idx3-ubyte is there, but train-labels-idx1-ubyte"):
        load_images(str(tmp_path / "half"))
    write_set(tmp_path / "few", "train", pixels[:3], labels[:3])
    with pytest.raises(InputError, match="3 images are too few"):
        load_images(str(tmp_path / "few"))


def test_what_names_no_images_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has none of MNIST's files"):
        load_images(str(tmp_path))
    with pytest.raises(InputError, match=r"'cifar' names no images; give digits, mnist, or a folder"):
        load_images("cifar")
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="is a file; give the folder"):
        load_images(str(tmp_path / "file"))


def test_a_hash_that_was_asked_for_must_be_found() -> None:
    found = load_images("digits").sha256
    assert pinned("", "data.sha256", found) == pinned(found, "data.sha256", found) == found
    with pytest.raises(InputError, match=r"data\.sha256 is 0{12}….*it has changed"):
        pinned("0" * 64, "data.sha256", found)


def test_mnist_without_hub_and_cache_is_a_hub_error() -> None:
    with pytest.raises(HubError, match=HUB_ID) as caught:
        load_images("mnist")
    assert "\n" not in str(caught.value)


def test_mnist_of_the_hub_is_read_as_its_files_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A dataset of pictures as `datasets` gives it, under the Hub's name."""
    import datasets
    from PIL import Image

    sets = {"train": random_set(30), "test": random_set(12, seed=1)}
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(10)})
    tables = datasets.DatasetDict(
        {
            name: datasets.Dataset.from_dict(
                {"image": [Image.fromarray(one) for one in pixels], "label": labels.tolist()}, features
            )
            for name, (pixels, labels) in sets.items()
        }
    )
    asked = []
    monkeypatch.setattr(images, "hub_revision", lambda *_: "abc")
    monkeypatch.setattr(datasets, "load_dataset", lambda *args, **words: asked.append((args, words)) or tables)
    write_set(tmp_path / "m", "train", *sets["train"])
    write_set(tmp_path / "m", "t10k", *sets["test"])
    found = load_images("mnist")
    assert asked == [((HUB_ID,), {"revision": "abc"})]
    assert found.sha256 == load_images(str(tmp_path / "m")).sha256


def test_real_mnist(shared_data: Path) -> None:
    found = load_images(str(shared_data / "mnist"))
    assert found.x.shape == (10_000, 28, 28)
    assert list(found.labels[:5]) == [7, 2, 1, 0, 4]  # the well-known beginning of the test set
    assert abs(found.x.mean() - 0.1325) < 0.0005  # as published widely: 0.1325 of the test set
    assert {name: len(rows) for name, rows in found.splits.items()} == {"train": 8000, "test": 2000}
    assert "no train images" in found.notes[0]


# --- files that are none, names in the way, and what is passed over -----------------------------------------------------


def refused(folder: Path) -> str:
    load_images.cache_clear()
    with pytest.raises(InputError) as caught:
        load_images(str(folder))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_named_pipe_is_refused_and_not_waited_for_or_passed_over(tmp_path: Path) -> None:
    write_set(tmp_path / "m", "train", *random_set(30))
    write_set(tmp_path / "m", "t10k", *random_set(30, seed=1))
    pipe = tmp_path / "m" / "train-images-idx3-ubyte"
    pipe.unlink()
    os.mkfifo(pipe)
    assert "is a named pipe, not a file" in refused(tmp_path / "m")
    pipe.unlink()
    pipe.symlink_to("gone")
    assert "train-images-idx3-ubyte cannot be read: No such file" in refused(tmp_path / "m")
    os.mkfifo(tmp_path / "alone")
    assert "is no folder" in refused(tmp_path / "alone")


def test_a_file_that_is_gzipped_under_a_plain_name_or_named_in_capitals_is_read(tmp_path: Path) -> None:
    write_set(tmp_path / "plain", "train", *random_set(30))
    write_set(tmp_path / "odd", "train", *random_set(30), zipped=True)
    for part in ("images-idx3", "labels-idx1"):
        (tmp_path / "odd" / f"train-{part}-ubyte.gz").rename(tmp_path / "odd" / f"TRAIN-{part}-UBYTE")
    plain, odd = (load_images(str(tmp_path / name)).sha256 for name in ("plain", "odd"))
    assert plain == odd


def test_a_set_that_changes_while_it_is_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_set(tmp_path / "m", "train", *random_set(30))
    path = tmp_path / "m" / "train-images-idx3-ubyte"
    whole = images._array

    def and_then_changed(*args: Any) -> np.ndarray:
        found = whole(*args)
        path.write_bytes(idx(random_set(31, seed=1)[0]))
        return found

    monkeypatch.setattr(images, "_array", and_then_changed)
    assert "train-images-idx3-ubyte changed while it was read" in refused(tmp_path / "m")


def test_memory_follows_what_a_file_holds_not_what_its_header_says(tmp_path: Path) -> None:
    """A file of 16 bytes that says it holds 2 GiB."""
    path = tmp_path / "train-labels-idx1-ubyte.gz"
    path.write_bytes(gzip.compress(bytes((0, 0, 8, 1)) + struct.pack(">I", 2**31) + bytes(8)))
    tracemalloc.start()
    with pytest.raises(InputError, match="bytes shorter than"):
        read_idx(path, 1)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**26


def test_images_that_do_not_fit_into_memory_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from types import SimpleNamespace

    write_set(tmp_path / "m", "train", *random_set(30))
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=7_000))
    assert "GB of memory as numbers" in refused(tmp_path / "m")


def test_what_of_a_folder_is_not_read_is_said(tmp_path: Path) -> None:
    folder = tmp_path / "m"
    write_set(folder, "train", *random_set(30))
    write_set(folder, "t10k", *random_set(12, seed=1))
    assert load_images(str(folder)).notes == ()
    load_images.cache_clear()
    write_set(folder, "train", *random_set(30, seed=2), zipped=True)  # beside the plain ones
    write_set(folder, "emnist", *random_set(5))
    write_set(folder / "raw", "train", *random_set(5))
    for number in range(500):
        (folder / f"{number}.png").touch()
    (folder / "lost").symlink_to("gone")
    (folder / "README.md").touch()
    links, folders, others = load_images(str(folder)).notes
    assert links.endswith("links to files that are not there: lost")
    assert folders.endswith("(only the folder itself is read): raw")
    assert others.endswith("0.png, 1.png, 10.png and 501 more")  # 500 pictures, 2 of emnist, 2 gzipped
    assert "README" not in "".join((links, folders, others))


def test_the_folder_below_that_has_the_images_is_named(tmp_path: Path) -> None:
    write_set(tmp_path / "raw", "train", *random_set(5))
    assert refused(tmp_path).endswith("raw in it has: give that folder")


def test_a_folder_called_as_a_set_that_is_known_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "digits").mkdir()
    assert load_images("digits").notes[-1] == (
        "data.source = digits is scikit-learn's digits, not the folder of that name here, which is ./digits"
    )


@pytest.mark.parametrize("name", ["m [v2]", "a::b", "what?", "*", "~", "two\nlines", "-x", "https:"])
def test_folders_of_images_may_be_called_anything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    write_set(tmp_path / "other", "train", *random_set(30, seed=1))
    write_set(tmp_path / name, "train", *random_set(30))
    assert len(load_images(name).x) == 30


@pytest.mark.parametrize("name", ["x" * 5000, "a\0b", "a/" * 3000])
def test_a_name_that_no_folder_can_have_names_no_images(name: str) -> None:
    with pytest.raises(InputError, match="names no images"):
        load_images(name)


def test_images_that_changed_after_the_plan_are_not_stored_under_its_key(tmp_path: Path) -> None:
    """The key of the stage says which images were asked for; those that a worker finds later may be others."""
    write_set(tmp_path / "m", "train", *random_set(50))
    tree = imagery.experiment_of("vae", str(tmp_path / "m"))
    learner = learner_class("vae")
    resolved = learner.resolve(tree)
    assert any("no t10k images" in note for note in resolved.notes)
    write_set(tmp_path / "m", "train", *random_set(50, seed=1))
    load_images.cache_clear()  # as in another process
    work = learner(learner.params(resolved.config, "data"), resolved.hints, silent)
    with pytest.raises(InputError, match="the images changed after this run was planned"):
        work.encode(tmp_path, seed=0)
    assert not list(tmp_path.glob("*.safetensors"))


def test_files_that_cannot_be_used_are_said_before_torch_is_there(tmp_path: Path) -> None:
    folder = tmp_path / "m"
    write_set(folder, "train", *random_set(30))
    (folder / "train-images-idx3-ubyte").write_bytes(b"no images")
    code = (
        "import sys; from collapse_cli.__main__ import main; "
        f"code = main(['run', '--preset', 'nature-vae', '--data', {str(folder)!r}, '--runs-dir', {str(tmp_path / 'runs')!r}]); "
        "sys.exit(100 if 'torch' in sys.modules else code)"
    )
    made = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE)
    assert made.returncode == 2, made.stderr
    assert "train-images-idx3-ubyte is not an IDX file" in made.stderr
    assert not (tmp_path / "runs").exists()


def test_test_images_that_are_training_images_and_blank_ones_are_said(tmp_path: Path) -> None:
    pixels, labels = random_set(40)
    others, other_labels = random_set(10, seed=1)
    write_set(tmp_path, "train", pixels, labels)
    write_set(tmp_path, "t10k", others, other_labels)
    assert load_images(str(tmp_path)).notes == ()
    load_images.cache_clear()
    write_set(tmp_path, "t10k", np.concatenate([others, pixels[:3]]), np.concatenate([other_labels, labels[:3]]))
    assert [note for note in load_images(str(tmp_path)).notes if note.startswith("3 of 13 test images")]
    load_images.cache_clear()
    pixels[20:] = 0
    write_set(tmp_path, "train", pixels, labels)
    assert [note for note in load_images(str(tmp_path)).notes if "20 of 40 train images" in note]
