"""Model folders: where they are found, and whether what they hold is a whole model."""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open

from collapse_cli import files
from collapse_cli.data.dataset import HubError, hub_revision
from collapse_cli.errors import InputError, first_line
from collapse_cli.lm import gguf, places
from collapse_cli.lm.architecture import config_of, few, is_fp8, outline, read_json

WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
    "spiece.model",
)
ADAPTER, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
ADAPTER_FILES = (ADAPTER, ADAPTER_WEIGHTS, "adapter_model.bin")
THE_MODEL = "the model"  # what messages call it that a configuration names
BASE = "base.json"  # beside an adapter of ours: the hash of the model it lies on
OTHER_FORMATS = {
    "*.gguf": "GGUF (llama.cpp)",
    "*.onnx": "ONNX",
    "tf_model.h5": "TensorFlow",
    "flax_model.msgpack": "Flax",
    "consolidated*.pth": "the original checkpoint format of its makers",
    "*.pt": "a bare PyTorch file",
    "*.ckpt": "a training checkpoint",
}
MUCH = 50_000_000  # parameters
VARIANT = re.compile(r"\.[a-z][a-z0-9]*\.(?=(safetensors|bin)$)")  # as in model.fp16.safetensors
POINTER = b"version https://git-lfs"
WHOLE = ("I", "U", "BOOL")  # how its names of whole numbers begin
FP8 = "F8_E4M3"  # and of 8-bit ones, which a config has to say
DATA_TYPES = ("F64", "F32", "F16", "BF16")  # safetensors' names of what weights are that are not quantised


def find_folder(source: str, revision: str, what: str, *, model: bool = True) -> tuple[Path, str]:
    """The folder of a local path or a Hub id (downloaded or taken from the cache), and the Hub's commit, if any.

    Of GGUF it is the file: the one that is named, or the one in a folder.

    Args:
        model: whether weights are wanted, and not a tokenizer alone.

    Raises:
        InputError: when there is neither a folder nor a public Hub repository of that name.
        HubError: when the Hub is out of reach and nothing is cached.
    """
    if places.is_folder(source, what):
        return (model and places.gguf_in(Path(source), what)) or Path(source), ""
    import huggingface_hub

    wanted = hub_revision(source, "model", f"{what} {source!r}", revision)
    offline = wanted is None
    patterns = ["config.json", "generation_config.json", ADAPTER, *TOKENIZER_FILES]
    try:
        there = [] if offline else huggingface_hub.list_repo_files(source, revision=wanted)
        packed = [file for file in there if file.endswith(places.GGUF)]
        if model and packed and not any(file.endswith((".safetensors", ".bin")) for file in there):
            raise InputError(
                f"{what}: {source!r} has only GGUF files ({few(packed)}); download the one that is meant and give that: --model FILE.gguf"
            )
        if any(file.endswith(".safetensors") for file in there):
            patterns += ["*.safetensors", "*.safetensors.index.json"]
        else:  # such as facebook/opt-125m; transformers reads these with torch's restricted unpickler only
            patterns += ["pytorch_model*.bin", "pytorch_model.bin.index.json"]
        folder = huggingface_hub.snapshot_download(
            source,
            revision=wanted or revision or None,
            allow_patterns=None if offline else patterns,
            local_files_only=offline,
        )
    except (FileNotFoundError, ConnectionError):
        raise HubError(f"{what} {source!r}", "the Hub cannot be reached, and it is not cached") from None
    return Path(folder), Path(folder).name


def hash_files(folder: Path, names: Iterable[str]) -> str:
    """SHA-256 over the names and contents of those files of `folder` that are there, in order of name."""
    value = hashlib.sha256()
    for path in sorted({path for name in names for path in folder.glob(name)}):
        with path.open("rb") as file:
            value.update(f"{path.name}\0{hashlib.file_digest(file, 'sha256').hexdigest()}\0".encode())
    return value.hexdigest()


def hash_tokenizer(folder: Path) -> str:
    """The hash of a tokenizer's files, or of the GGUF file that holds it."""
    return gguf.hash_file(folder) if places.is_gguf(folder) else hash_files(folder, TOKENIZER_FILES)


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds an adapter, which lies on the weights of another model."""
    return (folder / ADAPTER).is_file()


def base_of(folder: Path, what: str, given: str = "") -> Path:
    """The folder of the model that an adapter lies on, which its configuration names: a folder (from where we are, or from the adapter's own), or a Hub id.

    Args:
        given: a folder, a GGUF file or a Hub id instead of the one that the adapter names.

    Raises:
        InputError: when there is none, it is an adapter itself, or it is not the one that the adapter was trained beside.
    """
    whose = "model.base" if given else f"{what}: the base model that {folder / ADAPTER} names"
    base = find_folder(given, "", whose)[0] if given else _named_base(folder, what, whose)
    if is_adapter(base):
        raise InputError(f"{whose}, {base}, is an adapter itself; merge that into its own base model first")
    if (folder / BASE).is_file():
        wanted = read_json(folder / BASE).get("sha256")
        if wanted and wanted != hash_weights(base):
            raise InputError(f"{whose}, {base}, is not the one it was trained beside: its weights are others")
    return base


def _named_base(folder: Path, what: str, whose: str) -> Path:
    fields = read_json(folder / ADAPTER)
    name, revision = fields.get("base_model_name_or_path"), fields.get("revision")
    instead = "name it: --set model.base=FOLDER" if what == THE_MODEL else f"put its folder there ({ADAPTER})"
    if not isinstance(name, str) or not name:
        raise InputError(
            f"{what}: {folder}/{ADAPTER} does not name the adapter's base model (base_model_name_or_path); {instead}"
        )
    beside = folder / name
    if not Path(name).exists() and beside.is_dir():
        return find_folder(str(beside), "", whose)[0]
    try:
        return find_folder(name, revision if isinstance(revision, str) else "", whose)[0]
    except InputError as error:
        raise InputError(f"{error}; if it is here, {instead}") from None


def whole(folder: Path, what: str, base: str = "") -> Path:
    """The folder with a model's config and weights: itself, or that of the model an adapter lies on (`base`, as `base_of` takes it)."""
    return base_of(folder, what, base) if is_adapter(folder) else folder


def hash_weights(folder: Path) -> str:
    """The hash of a whole model's config and weights."""
    if places.is_gguf(folder):
        return gguf.hash_file(folder)
    return hash_files(folder, ("config.json", "*.safetensors", "*.safetensors.index.json", "pytorch_model*"))


def check_weights(folder: Path, what: str, base: str = "") -> str:
    """Check that a folder holds a model that can be loaded; returns the hash of its config and weights.

    Of an adapter the model that it lies on is checked, and part of the hash. What only loading can tell (weights that are missing,
    left over or of another shape) is found by `load`.

    Args:
        base: of an adapter, as `base_of` takes it.

    Raises:
        InputError: when the config or the weights are missing, damaged, quantised, or not those of a whole model.
    """
    if places.is_gguf(folder):
        found = gguf.check(folder, what)
        _check_amount(gguf.numbers(folder), folder, what)
        return found
    if any((folder / name).is_file() for name in ADAPTER_FILES):
        return _check_adapter(folder, what, base)
    if not (folder / "config.json").is_file():
        raise places.without("config.json", folder, what)
    check_ordinary(folder, what)
    weights = [*folder.glob("*.safetensors"), *folder.glob("pytorch_model*")]
    settings = [file for name in ("config.json", "generation_config.json") if (file := folder / name).is_file()]
    check_downloaded([*settings, *weights], what)
    if not any((folder / name).is_file() for name in WEIGHTS):
        other = next((name for pattern, name in OTHER_FORMATS.items() if any(folder.glob(pattern))), None)
        variant = next((path.name for path in weights if VARIANT.search(path.name)), None)
        if variant:
            raise InputError(
                f"{what}: {folder} holds the weights of a variant only ({variant}); rename it to "
                f"{VARIANT.sub('.', variant)} to use it"
            )
        parts = next((path.name for path in weights if "-of-" in path.name), None)
        if parts:
            raise InputError(
                f"{what}: {folder} has parts of weights ({parts} …) without their index; fetch {WEIGHTS[1]} as well"
            )
        raise InputError(
            f"{what}: {folder} has no weights ({' or '.join(WEIGHTS[::2])}); "
            + (f"what it holds is {other}: convert it to a transformers folder first" if other else
               f"to start from scratch, give the file itself: --model {folder / 'config.json'}")
        )  # fmt: skip
    shards = _check_shards(folder, what)
    fp8 = is_fp8(read_json(folder / "config.json"))
    headers = {path.name: _read_header(path, what, fp8=fp8) for path in folder.glob("*.safetensors")}
    held = sum(sum(header.values()) for header in headers.values())
    inside: dict[str, Iterable[str]] = {**headers}
    for path in () if held else folder.glob("pytorch_model*.bin"):
        inside[path.name] = kinds = _kinds_in_bin(path, what)
        _check_kinds(kinds, path, what)
    _check_once({name: inside[name] for name in sorted(shards & inside.keys())}, f"{what}: {folder}")
    _check_amount(held, folder, what)
    return hash_weights(folder)


def _check_amount(held: int, folder: Path, what: str) -> None:
    """That a config does not describe a model of far more numbers than there are (0: not known), before that much memory is asked for.

    Raises:
        InputError: when it does; `load` says which weights it misses.
    """
    packed = places.is_gguf(folder)
    wanted = outline(config_of(folder), str(folder), None if packed else read_json(folder / "config.json")).parameters
    if held and wanted > 1.25 * held + MUCH:
        whose = f"the config in {folder}" if packed else f"config.json of {folder}"
        raise InputError(
            f"{what}: {whose} describes a model of {wanted:,} parameters, but the weights are {held:,} numbers; "
            "they are not of the same model, or a part of one is missing"
        )


def _check_adapter(folder: Path, what: str, base: str) -> str:
    check_ordinary(folder, what)
    there = [name for name in ADAPTER_FILES if (folder / name).is_file()]
    if any((folder / name).is_file() for name in WEIGHTS):
        raise InputError(
            f"{what}: {folder} holds an adapter ({there[0]}) beside a whole model, and which of them is meant is not said; move one away"
        )
    if not {ADAPTER, ADAPTER_WEIGHTS} <= set(there):
        raise InputError(
            f"{what}: {folder} holds an adapter ({there[0]}), but not all of it: it takes {ADAPTER} and {ADAPTER_WEIGHTS} (as "
            "peft's save_pretrained writes them)"
        )
    check_downloaded([folder / ADAPTER, folder / ADAPTER_WEIGHTS], what)
    _read_header(folder / ADAPTER_WEIGHTS, what)
    below = check_weights(base_of(folder, what, base), f"the base model of {what}")
    own = hash_files(folder, (ADAPTER_WEIGHTS,))
    settings = {name: value for name, value in read_json(folder / ADAPTER).items() if name != "base_model_name_or_path"}
    text = json.dumps([own, below, settings], sort_keys=True)  # where the base model lies is not what it is
    return hashlib.sha256(text.encode()).hexdigest()


def notes(folder: Path) -> list[str]:
    """Notes on weights that are not read since others, which go first, lie beside them, or that are not read as they are."""
    if places.is_gguf(folder):
        return gguf.notes(folder, THE_MODEL)
    packed = is_fp8(read_json(folder / "config.json"))
    said = [f"{THE_MODEL}: the weights in {folder} are quantised (fp8); they are {gguf.READ_AS}"] if packed else []
    there = [name for name in WEIGHTS if (folder / name).is_file()]
    if len(there) < 2:
        return said
    return [
        *said,
        f"the model: {folder} holds more than one set of weights; {there[0]} is read, {few(there[1:])} is not; if they differ, "
        "remove the wrong ones",
    ]


def check_ordinary(folder: Path, what: str) -> None:
    """That a folder holds nothing that whoever opens it would wait for.

    Raises:
        InputError: when a named pipe, a socket or a device lies in it.
    """
    for path in files.in_folder(folder):
        if files.is_special(path):
            raise InputError(f"{what}: {path} is a named pipe, a socket or a device, not a file; move it away")


def check_downloaded(paths: Iterable[Path], what: str) -> None:
    """That files are what they are called, not the pointers that git leaves in their place, and not empty.

    Raises:
        InputError: when one is.
    """
    for path in paths:
        try:
            with path.open("rb") as file:
                start = file.read(len(POINTER))
        except OSError as error:
            raise InputError(f"{what}: {path} cannot be read: {error.strerror}") from None
        if start == POINTER:
            raise InputError(
                f"{what}: {path} is a git-lfs pointer, not the file itself; run `git lfs pull` there first"
            )
        if not start:
            raise InputError(f"{what}: {path} is empty; fetch it again")


def _check_shards(folder: Path, what: str) -> set[str]:
    """The files that an index of shards names, which are there; none where the weights are in one file.

    Raises:
        InputError: when one is not, or the index cannot be read.
    """
    shards_named: set[str] = set()
    for name in WEIGHTS[1::2]:
        path = folder / name
        if not path.is_file() or (folder / name.removesuffix(".index.json")).is_file():  # a whole file goes first
            continue
        try:
            shards = {str(shard) for shard in json.loads(path.read_text(encoding="utf-8"))["weight_map"].values()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise InputError(f"{what}: {path} is damaged: it should list which file each weight is in") from None
        outside = sorted(shard for shard in shards if Path(shard).name != shard)
        if outside:  # what is read there would be no part of the model's hash
            raise InputError(f"{what}: {path.name} in {folder} names files outside the folder: {few(outside)}")
        gone = sorted(shard for shard in shards if not (folder / shard).is_file())
        if gone:
            raise InputError(f"{what}: {path.name} in {folder} names files that are not there: {few(gone)}; fetch them")
        shards_named |= shards
    return shards_named


def _check_once(inside: Mapping[str, Iterable[str]], what: str) -> None:
    """That no weight is in two of the files that belong together: only one of them would be read, and which is chance.

    Args:
        inside: the names of the weights in each file.

    Raises:
        InputError: when one is.
    """
    where: dict[str, str] = {}
    for file, names in inside.items():
        twice = sorted(name for name in names if name in where)
        if twice:
            raise InputError(
                f"{what} holds weights twice, in {where[twice[0]]} and in {file} ({few(twice)}), as when two checkpoints were "
                "saved into one folder; fetch the model again into an empty one"
            )
        where.update(dict.fromkeys(names, file))


def _read_header(path: Path, what: str, *, fp8: bool = False) -> dict[str, int]:
    """How many numbers each weight of a file has, by its header.

    Raises:
        InputError: when it is damaged or shorter than it says, or its numbers are no plain floating-point numbers.
    """
    try:
        with safe_open(path, "pt") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 - it is no dictionary
            kinds = {name: str(part.get_dtype()) for name, part in slices.items()}
            shapes = {name: part.get_shape() for name, part in slices.items()}
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(f"{what}: {path} is damaged ({error}); fetch it again") from None
    _check_kinds({name: kind for name, kind in kinds.items() if not (fp8 and kind == FP8)}, path, what)
    return {name: int(np.prod(shape, dtype=np.int64)) for name, shape in shapes.items()}


def _kinds_in_bin(path: Path, what: str) -> dict[str, str]:
    """The type of each weight in a file of torch's, under safetensors' names; the weights themselves are not read.

    Raises:
        InputError: when it is damaged, or holds more than weights.
    """
    from transformers.modeling_utils import load_state_dict

    try:
        weights = load_state_dict(path, map_location="meta")  # with torch's restricted unpickler
        kinds = {str(name): weight.dtype for name, weight in weights.items() if isinstance(weight, torch.Tensor)}
    except Exception as error:  # the unpickler and the reader of archives each fail in their own ways
        raise InputError(
            f"{what}: {path} is damaged, or holds program code beside weights, which is never run ({first_line(error)[:80]}); "
            "fetch it again, or give weights as model.safetensors"
        ) from None
    plain = dict(zip((torch.float64, torch.float32, torch.float16, torch.bfloat16), DATA_TYPES, strict=True))
    return {
        name: plain.get(kind, str(kind).removeprefix("torch.") if kind.is_floating_point else f"I ({kind})")
        for name, kind in kinds.items()
    }


def _check_kinds(kinds: Mapping[str, str], path: Path, what: str) -> None:
    """That weights, by their names, are plain floating-point numbers; buffers may be whole numbers.

    Raises:
        InputError: when one is not.
    """
    odd = sorted(name for name, kind in kinds.items() if kind not in DATA_TYPES)
    weights = [name for name in odd if not kinds[name].startswith(WHOLE) or name.endswith("weight")]
    if weights:
        raise InputError(
            f"{what}: {path} holds {kinds[weights[0]]} numbers ({few(weights)}), so the model is quantised; collapse trains "
            f"and scores in {' or '.join(DATA_TYPES[1:])}: give the folder of the model before it was quantised"
        )
