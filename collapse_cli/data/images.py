"""Real images as data: scikit-learn's digits, MNIST's own files, MNIST from the Hub."""

import gzip
import hashlib
import io
import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from collapse_cli import files
from collapse_cli.data.dataset import HubError, hub_revision
from collapse_cli.data.tables import library
from collapse_cli.errors import InputError
from collapse_cli.process import free_memory

HUB_ID = "ylecun/mnist"
HELD_OUT = 0.2  # share of images without a test set that becomes one
MOST_BYTES = 2**31  # of an IDX file; MNIST's largest has 47 million
UINT8 = 8  # the code of its element type
GZIP = b"\x1f\x8b"  # how a gzipped file begins, whatever it is called
AT_ONCE = 1 << 24  # bytes read together: memory follows what a file holds, not what its header says
BLANK = 0.01  # of all images; MNIST has none
NAMED = 3  # files that a note names of many


@dataclass(frozen=True)
class Images:
    """Grey images with labels, all splits together.

    Attributes:
        x: (rows, height, width) float32 in 0..1.
        labels: (rows,) uint8.
        sha256: hash of the images, the labels and the splits.
        splits: the rows of `train` and `test`.
        notes: what the user should know, such as a test set that had to be held out.
    """

    x: np.ndarray
    labels: np.ndarray
    sha256: str
    splits: Mapping[str, np.ndarray]
    notes: tuple[str, ...] = field(default=())

    def parts(self, rows: int, eval_rows: int, valid: float = 0.0) -> dict[str, np.ndarray]:
        """Which images are the original corpus, `train`; the `reserve`; the `test` rows; and `valid`, if any.

        Args:
            rows: of the corpus, drawn with a fixed seed; the others are the reserve. 0: all.
            eval_rows: of the test set, evenly spaced. 0: all.
            valid: share of the training images that is put aside first, with the same seed.

        Raises:
            InputError: when `rows` are not there.
        """
        training, test = self.splits["train"], self.splits["test"]
        order = np.random.Generator(np.random.Philox(0)).permutation(len(training))
        held = round(len(order) * valid)
        order, aside = order[: len(order) - held], order[len(order) - held :]
        if rows > len(order):
            raise InputError(f"data.rows = {rows:,}, but there are only {len(order):,} training images (0 takes all)")
        if 0 < eval_rows < len(test):
            test = test[np.linspace(0, len(test) - 1, eval_rows).round().astype(int)]
        chosen = order[: rows or len(order)]
        splits = {
            "train": training[np.sort(chosen)],
            "test": test,
            "reserve": training[order[len(chosen) :]],
        }
        return splits | ({"valid": training[np.sort(aside)]} if held else {})


@lru_cache(maxsize=1)
def load_images(source: str) -> Images:
    """Load real images.

    Args:
        source: `digits` (scikit-learn's 1,797 images of 8x8 pixels), `mnist` (from the Hub, or its cache), or a folder
            of MNIST's IDX files: `train-images-idx3-ubyte`, `train-labels-idx1-ubyte` and the same of `t10k`, plain or
            gzipped, in small letters or capitals. Where only one of the two sets is there, a fifth of it is held out as
            test. Files are read once a process: what a run planned with is what it is computed with.

    Raises:
        InputError: for anything that is missing or damaged.
        HubError: when the Hub is out of reach and MNIST not cached.
    """
    if source in ("digits", "mnist"):
        images = _digits() if source == "digits" else _hub()
        if files.what_is(Path(source)) == "folder":
            images = replace(images, notes=(*images.notes, _not_the_folder(source)))
        return images
    kind = files.what_is(Path(source))
    if kind == "folder":
        return _folder(Path(source))
    if kind:
        what = "a file" if kind == "file" else "no folder"
        raise InputError(f"data.source = {source!r} is {what}; give the folder of MNIST's IDX files")
    raise InputError(
        f"data.source = {source!r} names no images{files.unread(source)}; give digits, mnist, or a folder of MNIST's IDX files (--data FOLDER)"
    )


def _not_the_folder(source: str) -> str:
    whose = "scikit-learn's digits" if source == "digits" else "the Hub's MNIST"
    return f"data.source = {source} is {whose}, not the folder of that name here, which is ./{source}"


def _digits() -> Images:
    from sklearn.datasets import load_digits

    digits = load_digits()
    note = f"the digits have no test set: {HELD_OUT:.0%} of them, drawn with a fixed seed, are held out as one"
    return _images(digits.images.astype(np.uint8), digits.target.astype(np.uint8), 16, {}, (note,))


def _images(
    pixels: np.ndarray, labels: np.ndarray, white: int, sizes: Mapping[str, int], notes: tuple[str, ...]
) -> Images:
    """`sizes`: rows of each split, in order; none: a share is held out."""
    needed, free = 4 * pixels.size, free_memory()
    if needed > free:
        raise InputError(
            f"the images take {needed / 1e9:.1f} GB of memory as numbers, and {free / 1e9:.1f} GB are free"
        )
    if sizes:
        ends = np.cumsum(list(sizes.values()))
        splits = {name: np.arange(end - sizes[name], end) for name, end in zip(sizes, ends, strict=True)}
    else:
        order = np.random.Generator(np.random.Philox(0)).permutation(len(pixels))
        held = int(len(pixels) * HELD_OUT)
        if held == 0:
            raise InputError(f"{len(pixels)} images are too few to hold some out as test")
        splits = {"train": np.sort(order[held:]), "test": np.sort(order[:held])}
    value = hashlib.sha256(repr((pixels.shape, white)).encode())
    value.update(np.ascontiguousarray(pixels).data)
    value.update(np.ascontiguousarray(labels).data)
    for name, rows in splits.items():
        value.update(name.encode() + rows.astype("<i8").tobytes())
    x = pixels.astype(np.float32)
    x /= white
    for array in (x, labels, *splits.values()):
        array.setflags(write=False)  # one copy serves all that ask
    return Images(x, labels, value.hexdigest(), splits, notes)


# --- MNIST's own files ------------------------------------------------------------------------------------------------


def _folder(path: Path) -> Images:
    inside = files.in_folder(path)
    used: list[Path] = []
    sets: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for split, stem in (("train", "train"), ("test", "t10k")):
        images = _find(inside, f"{stem}-images", 3)
        labels = _find(inside, f"{stem}-labels", 1)
        if images and labels:
            sets[split] = _pair(images, labels)
            used += [images, labels]
        elif images or labels:
            there = images or labels
            missing = f"{stem}-labels-idx1-ubyte" if images else f"{stem}-images-idx3-ubyte"
            raise InputError(f"{there} is there, but {missing} (or .gz) beside it is not")
    rest = [file for file in inside if file not in used]
    if not sets:
        below = [file for file in rest if _holds_images(file)]
        raise InputError(
            f"{path} has none of MNIST's files: train-images-idx3-ubyte and train-labels-idx1-ubyte, or the same of t10k "
            "(or .gz)" + (f"; {below[0].name} in it has: give that folder" if below else "")
        )
    shapes = {split: images.shape[1:] for split, (images, _) in sets.items()}
    if len(set(shapes.values())) > 1:
        raise InputError(f"{path}: training images are {shapes['train']} pixels, test images {shapes['test']}")
    pixels, labels_ = (np.concatenate(arrays) for arrays in zip(*sets.values(), strict=True))
    notes = (*_passed_over(path, rest), *_odd(path, {split: images for split, (images, _) in sets.items()}))
    if len(sets) == 2:
        return _images(pixels, labels_, 255, {split: len(images) for split, (images, _) in sets.items()}, notes)
    here, absent = ("train", "t10k") if "train" in sets else ("t10k", "train")
    note = f"{path.name} has no {absent} images: {HELD_OUT:.0%} of the {here} images, drawn with a fixed seed, are the test set"
    return _images(pixels, labels_, 255, {}, (note, *notes))


def _odd(path: Path, sets: Mapping[str, np.ndarray]) -> list[str]:
    """Notes on test images that are training images, too, and on images of one grey, as damaged copies are full of."""
    notes = []
    if len(sets) == 2:
        seen = {image.tobytes() for image in sets["train"]}
        count = sum(image.tobytes() in seen for image in sets["test"])
        if count:
            notes.append(
                f"{count:,} of {len(sets['test']):,} test images in {path} also stand among the training images; on them a model "
                "shows what it remembers, not what it learned"
            )
    for split, images in sets.items():
        flat = images.reshape(len(images), -1)
        blank = int((flat.max(1) == flat.min(1)).sum())
        if blank > BLANK * len(images):
            notes.append(f"{blank:,} of {len(images):,} {split} images in {path} are of one grey: is the file damaged?")
    return notes


def _find(inside: Sequence[Path], stem: str, dimensions: int) -> Path | None:
    """The file of a part of a set; one that is none, such as a dangling link, only where there is no other."""
    names = [
        f"{stem}{point}idx{dimensions}-ubyte{packed}"
        for point, packed in (("-", ""), ("-", ".gz"), (".", ""), (".", ".gz"))
    ]
    there = [file for file in inside if file.name.lower() in names and not file.is_dir()]
    return min(
        there,
        key=lambda file: (
            not file.is_file(),
            names.index(file.name.lower()),
            file.name != file.name.lower(),
            file.name,
        ),
        default=None,
    )


def _passed_over(folder: Path, rest: Sequence[Path]) -> tuple[str, ...]:
    """Notes on what of a folder is not read though it looks like images."""
    reasons = {
        "links to files that are not there": [file for file in rest if file.is_symlink() and not file.exists()],
        "folders with images in them (only the folder itself is read)": [file for file in rest if _holds_images(file)],
        "files that are not the first choice, or no part of MNIST": [
            file for file in rest if file.is_file() and _looks_like_images(file)
        ],
    }
    return tuple(f"not read in {folder}: {what}: {_names(paths)}" for what, paths in reasons.items() if paths)


def _looks_like_images(file: Path) -> bool:
    name = file.name.lower()
    suffixes = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".npy", ".npz", ".pt", ".parquet")
    return not name.startswith(".") and (name.removesuffix(".gz").endswith("-ubyte") or name.endswith(suffixes))


def _holds_images(folder: Path) -> bool:
    try:
        return folder.is_dir() and any(_looks_like_images(file) for file in folder.iterdir())
    except OSError:
        return False


def _names(paths: Sequence[Path]) -> str:
    rest = len(paths) - NAMED
    return ", ".join(file.name for file in paths[:NAMED]) + (f" and {rest:,} more" if rest > 0 else "")


def _pair(images: Path, labels: Path) -> tuple[np.ndarray, np.ndarray]:
    pixels, numbers = read_idx(images, 3), read_idx(labels, 1)
    if len(pixels) != len(numbers):
        raise InputError(f"{images} has {len(pixels):,} images, but {labels.name} {len(numbers):,} labels")
    return pixels, numbers


def read_idx(path: Path, dimensions: int) -> np.ndarray:
    """The array of an IDX file of unsigned bytes, gzipped if its name or its beginning says so.

    Raises:
        InputError: when it is not one of so many dimensions, is shorter or longer than its header says, damaged, no
            regular file, or changed while it was read.
    """
    with files.opened(path) as raw:
        packed = path.name.lower().endswith(".gz") or raw.peek(2)[:2] == GZIP
        try:
            return _array(path, gzip.GzipFile(fileobj=raw) if packed else raw, dimensions)
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise InputError(f"{path} is damaged ({str(error).splitlines()[0]}); get it again") from None


def _array(path: Path, file: io.BufferedIOBase, dimensions: int) -> np.ndarray:
    header = file.read(4 + 4 * dimensions)
    if header[:4] != bytes((0, 0, UINT8, dimensions)):
        raise InputError(
            f"{path} is not an IDX file of bytes in {dimensions} dimension{'s' * (dimensions > 1)}: "
            f"it begins with {header[:4].hex() or 'nothing'}, not 0000{UINT8:02x}{dimensions:02x}"
        )
    if len(header) < 4 + 4 * dimensions:
        raise InputError(f"{path} ends within its header; get it again")
    shape = tuple(int(size) for size in np.frombuffer(header, ">u4", offset=4))
    size = math.prod(shape)
    if size == 0:
        raise InputError(f"{path} is empty: its header says {' x '.join(map(str, shape))}")
    if size > MOST_BYTES:
        raise InputError(f"{path} says it holds {size:,} bytes, which is more than {MOST_BYTES:,}")
    body = bytearray()
    while len(body) <= size and (piece := file.read(min(AT_ONCE, size + 1 - len(body)))):
        body += piece
    if len(body) != size:
        how = "longer than" if len(body) > size else f"{size - len(body):,} bytes shorter than"
        raise InputError(f"{path} is {how} its header says ({' x '.join(map(str, shape))} bytes); get it again")
    return np.frombuffer(body, np.uint8).reshape(shape)


# --- MNIST from the Hub -----------------------------------------------------------------------------------------------


def _hub() -> Images:
    what = f"the images {HUB_ID!r}"
    revision = hub_revision(HUB_ID, "dataset", what)
    try:
        tables = library().load_dataset(HUB_ID, revision=revision)
    except (ConnectionError, FileNotFoundError):
        raise HubError(what, "the Hub cannot be reached and they are not cached") from None
    except ValueError as error:
        raise InputError(f"{what}: {str(error).splitlines()[0]}") from None
    read = {split: _table(tables[split], what) for split in ("train", "test")}
    pixels, labels = (np.concatenate(arrays) for arrays in zip(*read.values(), strict=True))
    return _images(pixels, labels, 255, {split: len(images) for split, (images, _) in read.items()}, ())


def _table(table: Any, what: str) -> tuple[np.ndarray, np.ndarray]:
    pixels = np.stack([np.asarray(image, np.uint8) for image in table["image"]])
    if pixels.ndim != 3:
        raise InputError(f"{what} are not grey: {pixels.shape[1:]} numbers an image")
    return pixels, np.asarray(table["label"], np.uint8)
