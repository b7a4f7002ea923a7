"""Models of sequence classification, used as they are: of each text, how much more one of their two labels is favoured than the other."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from collapse_cli.errors import InputError, first_line
from collapse_cli.lm import folders
from collapse_cli.lm import text as texts
from collapse_cli.lm.architecture import few, positions
from collapse_cli.lm.memory import halving
from collapse_cli.lm.model import device

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

LABELS = 2
AT_ONCE = 32  # texts
LONGEST = 512  # tokens of a text that are read, where the model says nothing


def find(source: str, what: str) -> tuple[Path, str]:
    """The folder of a classifier, and the hash of its weights, its config and its tokenizer.

    Raises:
        InputError: when there is none, or it is none of two labels.
    """
    folder, _ = folders.find_folder(source, "", what, model=False)
    if not folder.is_dir():
        raise InputError(
            f"{what}: {folder} is a GGUF file, which holds no classifier that transformers reads; give a transformers folder"
        )
    folders.check_ordinary(folder, what)
    weights = [*folder.glob("*.safetensors"), *folder.glob("pytorch_model*")]
    if not weights:
        raise InputError(f"{what}: {folder} has no weights ({' or '.join(folders.WEIGHTS[::2])})")
    folders.check_downloaded([folder / "config.json", *weights], what)
    labels = _config(folder, what).num_labels
    if labels != LABELS:
        raise InputError(
            f"{what}: the model in {folder} has {labels} label{'s' if labels != 1 else ''}; a detector has two, real and synthetic"
        )
    texts.read_tokenizer(folder)
    return folder, folders.hash_files(
        folder, ("config.json", "*.safetensors", "*.safetensors.index.json", "pytorch_model*", *folders.TOKENIZER_FILES)
    )


def _config(folder: Path, what: str) -> "PreTrainedConfig":
    from transformers import AutoConfig

    try:
        config: PreTrainedConfig = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # each architecture fails in its own way
        raise InputError(f"{what}: config.json of {folder} cannot be read: {first_line(error)}") from None
    return config


def odds(
    folder: Path,
    rows: Sequence[str],
    tell: Callable[[int, int], None] = lambda done, total: None,
) -> np.ndarray:
    """(rows,) float64: the logit of the model's second label less that of its first; NaN of a text without a token.

    Of longer texts the beginning is read. A row's number does not depend on the rows beside it, but for rounding.

    Raises:
        InputError: when the model cannot be loaded whole: transformers would fill what is missing with random numbers.
    """
    model, (tokenizer, _) = _load(folder), texts.read_tokenizer(folder)
    longest = min(tokenizer.model_max_length, positions(model) or LONGEST, LONGEST)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
        model.config.pad_token_id = tokenizer.pad_token_id
    if not len(rows):
        return np.zeros(0)
    encoded = tokenizer(list(rows), truncation=True, max_length=longest)
    lengths = np.array([len(ids) for ids in encoded["input_ids"]])
    order = np.argsort(lengths, kind="stable")
    found, at_once = np.full(len(rows), np.nan), AT_ONCE if tokenizer.pad_token_id is not None else 1
    done = int((lengths == 0).sum())  # the first of the order

    def some(size: int) -> np.ndarray:
        chosen = order[done : done + size]
        batch = {name: [values[row] for row in chosen] for name, values in encoded.items()}
        padded = tokenizer.pad(batch, padding=at_once > 1, return_tensors="pt").to(model.device)
        logits = model(**padded).logits.double().cpu().numpy()
        found[chosen] = logits[:, 1] - logits[:, 0]
        return chosen

    with torch.no_grad():
        while done < len(rows):
            chosen, at_once = halving(some, at_once, "a detector")
            done += len(chosen)
            tell(done, len(rows))
    return found


def _load(folder: Path) -> "PreTrainedModel":
    from transformers import AutoModelForSequenceClassification

    try:
        model, loading = AutoModelForSequenceClassification.from_pretrained(
            folder, dtype=torch.float32, local_files_only=True, trust_remote_code=False, output_loading_info=True
        )
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # each architecture and each format of weights fails in its own way
        raise InputError(f"{folder}: the detector cannot be loaded: {first_line(error)}") from None
    if missing := sorted(loading["missing_keys"]):
        raise InputError(
            f"{folder}: weights of the detector are missing ({few(missing)}), such as those of a head that was never trained; "
            "give a model of sequence classification, fitted to tell real text from synthetic"
        )
    loaded: PreTrainedModel = model.to(device()).eval()
    return loaded
