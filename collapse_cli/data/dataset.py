"""Datasets of rows with their origin, and the sources of real text."""

import hashlib
import json
import logging
import math
import mmap
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np

from collapse_cli import files
from collapse_cli.data import textfiles
from collapse_cli.data.dialogues import as_bytes
from collapse_cli.data.forms import WantedForm
from collapse_cli.data.known import KNOWN
from collapse_cli.data.longtext import whole_lines
from collapse_cli.data.tables import library, read_tables
from collapse_cli.data.textfiles import SPLITS as SPLITS
from collapse_cli.errors import InputError as InputError
from collapse_cli.errors import how_many as how_many

log = logging.getLogger(__name__)

OWN_TEST = "own"  # the split of a text that is scored on another's: its own test text
OWN = ("pydoc", *KNOWN)  # texts that need no file
HUB_NAMES = {"wikitext2": "Salesforce/wikitext:wikitext-2-raw-v1"}
NUMBERS = ("blobs", "regression", "digits", "mnist")  # sources that hold no text
TELLING = 40  # characters of a row that hardly stands in two texts by chance
WEIGHTS = "weights"  # of a corpus to be fitted whose rows do not count alike: (rows,) float64 above 0, 1 on average
UNSCORED = "none"  # of text that is only trained on
MASK = "loss_mask"  # of dialogues: (rows, width) bool, which tokens are predicted in losses and counted, for the assistant says them
PROMPT = "prompt"  # of dialogues: (rows,) int32, how many tokens stand before the last answer
MAPPED = 1 << 24  # bytes of a file of rows, from which on it is not loaded whole where few of its rows are wanted
AT_ONCE = 1 << 16  # rows that are brought into memory together
GATHERED = (
    1 << 10
)  # rows from anywhere in a file that are looked at together; the system has up to 64 kB around each in memory
_KINDS = {
    "int32": "I32",
    "int64": "I64",
    "float32": "F32",
    "float64": "F64",
    "bool": "BOOL",
}  # as safetensors calls them
HELD_OUT = 0.1  # share of a corpus without a test split that becomes one (and as much again for validation)


class HubError(InputError):
    """Something on the Hugging Face Hub is neither reachable nor cached."""

    def __init__(self, what: str, why: str) -> None:
        super().__init__(
            f"{what}: {why}; what you can do: --model FOLDER --data FOLDER for local copies, HF_HOME for a filled cache, "
            "HF_ENDPOINT for a mirror, or --preset quick, which needs no download"
        )


@dataclass(frozen=True)
class Dataset:
    """Rows: named arrays of equal length, and where each row comes from.

    Attributes:
        arrays: for text `tokens` (rows, width) int32 and `lengths` (rows,) int32, the used part of each row; for dialogues `MASK` and
            `PROMPT` as well.
        origin: (rows,) int32; 0 for a real row, g for one made by the model of generation g-1 for generation g.
    """

    arrays: Mapping[str, np.ndarray]
    origin: np.ndarray

    def __post_init__(self) -> None:
        for name, array in self.arrays.items():
            if len(array) != len(self.origin):
                raise ValueError(f"{name} has {len(array)} rows, origin has {len(self.origin)}")

    def __len__(self) -> int:
        return len(self.origin)

    @property
    def predicted(self) -> np.ndarray:
        """(rows,) int64, of text: how many tokens of each row are predicted: those that an assistant says, or all, but never the first."""
        if MASK in self.arrays:
            return np.asarray(self.arrays[MASK][:, 1:].sum(axis=1, dtype=np.int64))
        return np.asarray(np.maximum(self.arrays["lengths"].astype(np.int64) - 1, 0))

    @property
    def counted(self) -> np.ndarray:
        """(rows, width) bool, of text: the tokens that are counted: those that an assistant says, or all that are used."""
        if MASK in self.arrays:
            return self.arrays[MASK]
        used: np.ndarray = np.arange(self.arrays["tokens"].shape[1]) < self.arrays["lengths"][:, None]
        return used

    def answers(self) -> "Dataset":
        """Of dialogues `tokens` and `lengths` of the last answers alone; other rows as they are."""
        if PROMPT not in self.arrays:
            return self
        starts = self.arrays[PROMPT].astype(np.int64)
        lengths = self.arrays["lengths"] - starts
        columns = starts[:, None] + np.arange(max(1, int(lengths.max(initial=1))))
        there = columns < self.arrays["lengths"][:, None]
        tokens = np.take_along_axis(self.arrays["tokens"], np.where(there, columns, 0), axis=1)
        arrays = {"tokens": np.where(there, tokens, 0).astype(np.int32), "lengths": lengths.astype(np.int32)}
        return Dataset(arrays, self.origin)

    def take(self, rows: np.ndarray) -> "Dataset":
        """The rows with these indices, in this order."""
        return Dataset({name: array[rows] for name, array in self.arrays.items()}, self.origin[rows])

    def take_by_trial(self, rows: np.ndarray) -> "Dataset":
        """As `take`, where several trials lie beside each other in every row: of arrays (rows, trials, ...) each has its own.

        Args:
            rows: (wanted, trials) indices; the origins, and arrays without trials, are those of the first.
        """
        trials, first = np.arange(rows.shape[1]), rows[:, 0]
        arrays = {
            name: array[rows, trials] if array.ndim > 1 and array.shape[1] == len(trials) else array[first]
            for name, array in self.arrays.items()
        }
        return Dataset(arrays, self.origin[first])

    def save(self, path: Path) -> None:
        from safetensors.numpy import save_file

        arrays = {name: np.ascontiguousarray(array) for name, array in self.arrays.items()}
        save_file(arrays | {"origin": np.ascontiguousarray(self.origin)}, path)

    def save_rows(self, path: Path, rows: np.ndarray) -> None:
        """As `take(rows).save(path)`, byte for byte, without having all of these rows in memory.

        Args:
            rows: indices; of rows beside each other in order, or all of them drawn, as they come.
        """
        if len(rows) <= AT_ONCE:
            self.take(rows).save(path)
            return
        arrays = {**self.arrays, "origin": self.origin}
        kinds = {name: (_KINDS[array.dtype.name], array.dtype.itemsize) for name, array in arrays.items()}
        order = sorted(arrays, key=lambda name: (-kinds[name][1], name))  # as the library writes them
        header, end = dict[str, object](), 0
        for name in order:
            shape = [len(rows), *arrays[name].shape[1:]]
            begin, end = end, end + kinds[name][1] * math.prod(shape)
            header[name] = {"dtype": kinds[name][0], "shape": shape, "data_offsets": [begin, end]}
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        with path.open("wb") as out:
            out.write(len(text).to_bytes(8, "little") + text)
            for name in order:
                for first in range(0, len(rows), GATHERED):
                    out.write(np.ascontiguousarray(arrays[name][rows[first : first + GATHERED]]).tobytes())
                    _forget(arrays[name])

    @staticmethod
    def load(path: Path) -> "Dataset":
        arrays = Dataset.load_arrays(path)
        return Dataset(arrays, arrays.pop("origin"))

    @staticmethod
    def load_mapped(path: Path) -> "Dataset":
        """As `load`, but rows of a large file come into memory where they are looked at.

        Raises:
            InputError: for a damaged one.
        """
        if path.stat().st_size < MAPPED:
            return Dataset.load(path)
        kinds = {word: name for name, word in _KINDS.items()}
        with path.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            try:
                header = json.loads(file.read(size))
                arrays: dict[str, np.ndarray] = {
                    name: np.asarray(
                        np.memmap(
                            path, kinds[about["dtype"]], "r", 8 + size + about["data_offsets"][0], tuple(about["shape"])
                        )
                    )
                    for name, about in header.items()
                }
                return Dataset(arrays, arrays.pop("origin"))
            except (ValueError, KeyError, TypeError) as error:
                raise InputError(
                    f"{path} is damaged ({error}); remove its folder, and the run's command makes what was in it again"
                ) from None

    @staticmethod
    def load_arrays(path: Path) -> dict[str, np.ndarray]:
        """The arrays of a file in the store.

        Raises:
            InputError: for a damaged one.
        """
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        try:
            arrays: dict[str, np.ndarray] = load_file(path)
        except SafetensorError as error:
            raise InputError(
                f"{path} is damaged ({error}); remove its folder, and the run's command makes what was in it again"
            ) from None
        return arrays

    @staticmethod
    def of_tokens(coded: Sequence[Sequence[int] | np.ndarray], origin: np.ndarray | None = None) -> "Dataset":
        """Token ids of texts, however long each is: `tokens` are 0 behind a row's end, and one column wide at least.

        Args:
            origin: (texts,); None: all are real.
        """
        lengths = np.array([len(ids) for ids in coded], np.int32)
        tokens = np.zeros((len(coded), int(lengths.max(initial=1))), np.int32)
        for row, ids in zip(tokens, coded, strict=True):
            row[: len(ids)] = ids
        return Dataset(
            {"tokens": tokens, "lengths": lengths}, np.zeros(len(coded), np.int32) if origin is None else origin
        )

    @staticmethod
    def concat(parts: Sequence["Dataset"]) -> "Dataset":
        """The rows of all parts, in order; where rows differ in width, the shorter ones are padded with 0."""
        names = parts[0].arrays.keys()
        arrays = {name: _stack([part.arrays[name] for part in parts]) for name in names}
        return Dataset(arrays, np.concatenate([part.origin for part in parts]))


def _forget(array: np.ndarray) -> None:
    """Let the system have the memory of what was looked at of an array in a file; it is read again where it is looked at."""
    base: object = array
    while isinstance(base, np.ndarray):
        base = base.base
    if isinstance(base, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        base.madvise(mmap.MADV_DONTNEED)


def _stack(parts: Sequence[np.ndarray]) -> np.ndarray:
    if parts[0].ndim == 2:
        width = max(part.shape[1] for part in parts)
        parts = [np.pad(part, ((0, 0), (0, width - part.shape[1]))) for part in parts]
    return np.concatenate(parts)


@dataclass(frozen=True)
class Text:
    """Real text by split, and what was done to get it.

    Attributes:
        splits: the rows (lines or documents) of `train`, `test` and, where there is one, `valid`; each ends in a newline. `OWN_TEST`:
            that of a text that is scored on another's. Of chats and pairs each is a `Dialogue`.
        sha256: hash of all rows of all splits.
        notes: what the user should know, such as a test split that had to be cut from the training text.
    """

    splits: Mapping[str, Sequence[str]]
    sha256: str
    notes: tuple[str, ...] = field(default=())


@lru_cache(maxsize=4)
def load_text(
    source: str,
    column: str = "text",
    train: str = "",
    valid: str = "",
    test: str = "",
    language: str = "",
    form: str = "auto",
    prompt: str = "",
    completion: str = "",
    scored: str = "",
) -> Text:
    """Load real text.

    Args:
        source: `pydoc`, `zipf`, `world`, `wikitext2`, a file, a folder, or a Hub dataset id (`id:config` where it has configs).
        column: where formats have columns, the one that holds the text.
        train, valid, test: files in the folder (or splits on the Hub) to use; empty: found by name.
        language: of a source whose truth is known: the options that its text is made from, as JSON.
        form, prompt, completion: what rows with columns are, as `data.textfiles.read_source` has it.
        scored: of a text that is only to train on: the arguments of the text whose test split takes the place of its own, as JSON;
            `UNSCORED`: there is none, and all of the training text is kept.

    Raises:
        InputError: for anything that is missing, empty, unreadable or ambiguous.
    """
    chosen = {"train": train, "valid": valid, "test": test}
    notes: list[str] = []
    kind = files.what_is(Path(source))
    if kind and source in OWN:
        notes.append(
            f"data.source = {source} is collapse's own text, not the {kind} of that name here; for that, say ./{source}"
        )
    elif kind and source in HUB_NAMES:
        notes.append(
            f"data.source = {source} is the {kind} of that name here, not the Hub's text; for that, say {HUB_NAMES[source]}"
        )
    if source in OWN:
        if any(chosen.values()):
            raise InputError(
                f"data.source = {source} has no files to choose from; leave data.train, data.valid and data.test out"
            )
        splits = _pydoc() if source == "pydoc" else _known(source, language)
    elif kind:
        splits, passed_over = textfiles.read_source(
            Path(source), column, chosen, form=form, prompt=prompt, completion=completion
        )
        notes.extend(passed_over)
    elif source in HUB_NAMES or _may_be_hub_id(source):
        splits, passed_over = _hub(HUB_NAMES.get(source, source), WantedForm(form, column, prompt, completion), chosen)
        notes.extend(passed_over)
    else:
        raise no_text(source)
    splits = {name: whole_lines(rows) for name, rows in splits.items()}
    for name, rows in splits.items():
        if not any(row.strip() for row in rows):
            raise InputError(f"{source}: the {textfiles.WORDS[name]} text is empty")
    if scored and (own := splits.pop("test", None)):
        splits[OWN_TEST] = own
    if scored not in ("", UNSCORED):
        splits["test"] = load_text(**json.loads(scored)).splits["test"]
    if "test" not in splits and scored != UNSCORED:
        rows = splits["train"]
        held = int(len(rows) * HELD_OUT)
        if held == 0:
            raise InputError(
                f"{source} has no test text, and with {how_many(len(rows), 'row')} there is too little to put some aside; "
                "give a folder with a training and a test file" + "".join(f"; {note}" for note in notes)
            )
        splits["train"], splits["valid"], splits["test"] = rows[: -2 * held], rows[-2 * held : -held], rows[-held:]
        notes.append(
            f"{source} has no test text: its last {HELD_OUT:.0%} is put aside for it, and the {HELD_OUT:.0%} before for validation"
        )
    if source not in KNOWN:  # whose rows are drawn apart, and are alike by chance alone
        notes.extend(_also_in_training(splits))
    value = hashlib.sha256()
    for name in (*SPLITS, OWN_TEST):
        for row in splits.get(name, ()):
            value.update(name.encode() + b"\0" + as_bytes(row) + b"\0")
    return Text(splits, value.hexdigest(), tuple(notes))


def _also_in_training(splits: Mapping[str, Sequence[str]]) -> list[str]:
    """Notes on test and validation rows that stand in the training text, too. Short rows, such as headings, do not count."""
    notes = []
    for split, word in (("test", "test"), ("valid", "validation")):
        long = [row.strip() for row in splits.get(split, ()) if len(row.strip()) >= TELLING]
        wanted = set(long)
        repeated = {plain for row in splits["train"] if (plain := row.strip()) in wanted} if wanted else set()
        count = sum(row in repeated for row in long)
        if count:
            notes.append(
                f"{word} rows of {TELLING} characters or more that also stand in the training text: {count:,} of {len(long):,}; "
                "on them a model shows what it remembers, not what it learned"
            )
    return notes


def pinned(given: str, name: str, digest: str) -> str:
    """The hash of what was found, which one that the configuration gives must match.

    Raises:
        InputError: when it does not.
    """
    if given not in ("", digest):
        raise InputError(
            f"{name} is {given[:12]}…, but what was found now has {digest[:12]}…: it has changed; "
            f"restore it, or leave {name} out and give the run a --name of its own"
        )
    return digest


def unchanged(planned: str, now: str, what: str) -> None:
    """Whether data still are what the plan, and so the key of their stage, was made for.

    Args:
        planned, found: hashes of the content; `planned` may be empty where nothing was planned.
        what: the data, in words.

    Raises:
        InputError: when they are not.
    """
    if planned not in ("", now):
        raise InputError(
            f"{what} changed after this run was planned ({planned[:12]}… then, {now[:12]}… now); restore what was there, "
            "or give the new data a run of their own with --name"
        )


def _pydoc() -> dict[str, Sequence[str]]:
    """The language reference that every Python carries, split by topic (80 : 10 : 10).

    Topics overlap (`specialnames` holds `customization` and others): of paragraphs that occur more than once only
    the first is kept, longest topic first, so that no test paragraph stands in the training text.
    """
    from pydoc_data.topics import topics

    seen: set[str] = set()
    kept: dict[str, list[str]] = {}
    for name in sorted(topics, key=lambda name: (-len(topics[name]), name)):
        paragraphs = []
        for paragraph in re.split(r"\n\s*\n", topics[name]):
            plain = " ".join(paragraph.split())
            if len(plain) > 60 and plain in seen:
                continue
            seen.add(plain)
            paragraphs.append(paragraph.rstrip() + "\n\n")
        kept[name] = "".join(paragraphs).splitlines(keepends=True)
    size = {name: sum(map(len, lines)) for name, lines in kept.items()}
    share = HELD_OUT * sum(size.values())
    parts: dict[str, list[str]] = {name: [] for name in SPLITS}
    for name in sorted(kept, key=lambda name: hashlib.sha256(name.encode()).digest()):
        for split in ("test", "valid"):
            if size[name] <= share / 2 and sum(size[other] for other in parts[split]) + size[name] <= share:
                parts[split].append(name)
                break
        else:
            parts["train"].append(name)
    return {split: [line for name in sorted(names) for line in kept[name]] for split, names in parts.items()}


def _known(source: str, language: str) -> dict[str, Sequence[str]]:
    try:
        return dict(KNOWN[source].text(json.loads(language)))
    except ValueError as error:
        raise InputError(str(error)) from None


def no_text(source: str) -> InputError:
    """What to say of a source that is nothing here, and cannot be on the Hub."""
    return InputError(
        f"there is no file or folder {source!r} to take text from (data.source, --data){files.unread(source)}"
    )


def refuse_numbers(source: str) -> None:
    """Whether a source can be text by its name.

    Raises:
        InputError: when it is that of numbers or images.
    """
    if source in NUMBERS:
        raise InputError(
            f"data.source = {source} holds numbers, not text: name a text (wikitext2, pydoc, zipf, world, a file, a folder or "
            "a Hub id), or a learner of numbers (--set learner=…)"
        )


def _may_be_hub_id(source: str) -> bool:
    return (
        re.fullmatch(r"[\w.-]+(/[\w.-]+)?(:[\w.-]+)?", source) is not None and textfiles.format_of(Path(source)) is None
    )


def _hub(source: str, asked: WantedForm, chosen: Mapping[str, str]) -> tuple[dict[str, Sequence[str]], list[str]]:
    repo, _, config = source.partition(":")
    what = f"the dataset {source!r}"
    revision = hub_revision(repo, "dataset", what)
    try:
        tables = library().load_dataset(repo, config or None, revision=revision)
    except (ConnectionError, FileNotFoundError):
        raise HubError(what, "the Hub cannot be reached and the dataset is not cached") from None
    except ValueError as error:
        raise InputError(f"{what}: {str(error).splitlines()[0]}") from None
    return read_tables(tables, what, asked, chosen)


@lru_cache(maxsize=16)
def hub_revision(repo: str, kind: str, what: str, revision: str = "") -> str | None:
    """The commit that a Hub id stands for now; None when the Hub is out of reach, so that only the cache is left.

    One quick question is asked; when the Hub does not answer it, the libraries are told to stay offline, so that
    none of them waits and tries again.

    Raises:
        InputError: when the Hub answers that there is no such thing, or that it is not public.
    """
    import huggingface_hub
    from huggingface_hub import constants, errors

    api = huggingface_hub.HfApi()
    ask = api.dataset_info if kind == "dataset" else api.model_info
    try:
        return str(ask(repo, revision=revision or None, timeout=5).sha)
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError, errors.HFValidationError):
        raise InputError(f"{what} is not a file or folder here, and not public on the Hugging Face Hub") from None
    except Exception as error:
        if not isinstance(error, OSError) and type(error).__module__.split(".")[0] not in ("httpx", "httpx2"):
            if not isinstance(error, ImportError | ValueError):
                raise
            # a proxy of a kind that is not known or not installed, a token that no header can hold
            why = str(error).splitlines()[0] if str(error) else type(error).__name__
            log.warning("the Hub cannot be asked with the proxy, token or address in the environment: %s", why[:200])
        constants.HF_HUB_OFFLINE = True  # datasets takes it over when it is imported
        if (loaded := sys.modules.get("datasets")) is not None:
            loaded.config.HF_HUB_OFFLINE = True
        return None
