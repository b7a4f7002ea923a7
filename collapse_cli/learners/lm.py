"""The language model as a learner: text becomes rows of tokens, a fitted model continues its prompts."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from collapse_cli import metrics
from collapse_cli.data import SPLITS, Dataset, InputError, Text, load_text
from collapse_cli.lm import model as models
from collapse_cli.lm import sample as sampling
from collapse_cli.lm import score as scoring
from collapse_cli.lm import text as texts
from collapse_cli.lm import train as training

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

TOKENIZER = "tokenizer"


@dataclass(frozen=True)
class Resolved:
    """A configuration with all that had to be looked up: hashes, revisions, dtypes; and what it says of the model.

    Attributes:
        tree: the configuration, filled in.
        hints: where the model, the tokenizer and the text are on this machine.
        parameters: all weights of the model.
        layer_parameters, head_parameters: those of the layers, and of the output head, for counting FLOPs.
        layers: how many layers there are.
    """

    tree: dict[str, Any]
    hints: dict[str, Any]
    parameters: int
    layer_parameters: int
    head_parameters: int
    layers: int


class LanguageModel:
    """Any causal language model of transformers. Implements `learners.Learner`."""

    def __init__(self, settings: Mapping[str, Any], hints: Mapping[str, Any], tell: Any) -> None:
        self.settings, self.hints, self._tell = settings, hints, tell
        self.facts: dict[str, Any] = {}
        self._loaded: PreTrainedModel | None = None

    # --- what is looked up before anything runs -----------------------------------------------------------------------

    @staticmethod
    def resolve(tree: Mapping[str, Any]) -> Resolved:
        """Find the model, the tokenizer and the text of a configuration, and check that they fit each other.

        Raises:
            InputError: for whatever is missing or does not fit.
        """
        model, data = dict(tree["model"]), dict(tree["data"])
        hints: dict[str, Any] = {}
        if not model["config"] and model["source"].endswith(".json"):
            model["config"] = models.read_config(Path(model["source"]))
        folder = None
        if model["config"]:
            model["source"] = ""
        else:
            folder, commit = models.find_folder(model["source"], model["revision"], "the model")
            model["revision"] = commit
            model["sha256"] = _pinned(model, "model.sha256", models.check_weights(folder, "the model"))
            hints["model"] = str(folder)
        tokenizer = _find_tokenizer(model, folder, hints)
        size = 0 if tokenizer else model["vocab_size"]
        config = models.config_of(folder) if folder else base_config(model["config"], tokenizer, size)
        _check_fit(tree, config, model["vocab_size"] if tokenizer is None else len(tokenizer))

        hints["text"] = {name: data[name] for name in ("source", "train", "valid", "test")} | {"column": data["text"]}
        text = load_text(**hints["text"])
        data["sha256"] = _pinned(data, "data.sha256", text.sha256)
        if tree["train"]["select"] == "valid" and "valid" not in text.splits:
            raise InputError("train.select = valid, but the data have no validation text; say --set data.valid=FILE")
        filled = {
            **tree,
            "model": model,
            "data": data,
            "train": {**tree["train"], "dtype": models.resolve_dtype(tree["train"]["dtype"])},
            "sample": {**tree["sample"], "dtype": models.resolve_dtype(tree["sample"]["dtype"])},
        }
        counts = models.count_parameters(config)
        return Resolved(filled, hints, *counts, layers=int(getattr(config, "num_hidden_layers", 1)))

    @staticmethod
    def data_params(tree: Mapping[str, Any]) -> dict[str, Any]:
        """What the rows of real data depend on."""
        names = ("sha256", "block_size", "line_bos", "rows", "eval_rows")
        bpe = tree["model"]["tokenizer"] == "bpe"
        return {
            "data": {name: tree["data"][name] for name in names}
            | {"eval_block_size": tree["eval"]["block_size"] or tree["data"]["block_size"]},
            "tokenizer": {"bpe": tree["model"]["vocab_size"]} if bpe else {"sha256": tree["model"]["tokenizer_sha256"]},
        }

    @staticmethod
    def model_params(tree: Mapping[str, Any]) -> dict[str, Any]:
        """What the base model depends on."""
        model = tree["model"]
        if model["config"]:
            return {"config": model["config"], "vocab_size": model["vocab_size"] if model["tokenizer"] == "bpe" else 0}
        return {"sha256": model["sha256"]}

    # --- the verbs ----------------------------------------------------------------------------------------------------

    def encode(self, text: Text, folder: Path) -> None:
        """Text to blocks of tokens, with the tokenizer beside them; counts of tokens, words and bytes in `facts`."""
        data, tokenizer_params = self.settings["data"], self.settings["tokenizer"]
        if "bpe" in tokenizer_params:
            tokenizer = texts.train_bpe(text.splits["train"], tokenizer_params["bpe"])
        else:
            tokenizer = texts.load_tokenizer(Path(self.hints["tokenizer"]))
        tokenizer.save_pretrained(folder / TOKENIZER)
        about: dict[str, Any] = {}
        rows: dict[str, Dataset] = {}
        for done, split in enumerate(name for name in SPLITS if name in text.splits):
            stream = texts.encode(tokenizer, text.splits[split], line_bos=data["line_bos"])
            size = data["block_size"] if split == "train" else data["eval_block_size"]
            rows[split] = texts.blocks(stream, size, split)
            joined = "".join(text.splits[split])
            words, bytes_ = len(joined.split()), len(joined.encode())
            about[split] = {"tokens": len(stream), "words": words, "bytes": bytes_, "blocks": len(rows[split])}
            self._tell(done + 1, len(text.splits), "splits")
        rows["train"], rows["reserve"] = _original(rows["train"], data["rows"])
        for split in ("valid", "test"):
            if split in rows and 0 < data["eval_rows"] < len(rows[split]):
                rows[split] = rows[split].take(
                    np.linspace(0, len(rows[split]) - 1, data["eval_rows"]).round().astype(int)
                )
        for split, dataset in rows.items():
            dataset.save(folder / f"{split}.safetensors")
            about.setdefault(split, {})["rows"] = len(dataset)
        spelled = [
            f"the training text spells out {token} {count:,} times; it is read as plain text, not as a special token"
            for token, count in texts.special_tokens_in(tokenizer, text.splits["train"]).items()
        ]
        asked = tokenizer_params.get("bpe", 0)
        fewer = (
            [f"the training text gave a BPE of {len(tokenizer)} tokens, not {asked}"] if len(tokenizer) < asked else []
        )
        self.facts = {
            "splits": about,
            "vocab_size": len(tokenizer),
            "line_bos": data["line_bos"],
            "notes": [*text.notes, *spelled, *fewer],
        }

    def fit(self, data: Dataset, *, seed: int, scratch: Path) -> None:
        """Train on the rows; `train_loss` and more in `facts`."""
        settings, width = self.settings["train"], data.arrays["tokens"].shape[1]
        valid_file = Path(self.hints["encoded"]) / "valid.safetensors"
        self.facts = training.fit(
            self._model,
            data,
            settings,
            seed=seed,
            scratch=scratch,
            valid=Dataset.load(valid_file) if valid_file.exists() else None,
            tell=lambda done, total: self._tell(
                done * settings["batch_size"] * width, total * settings["batch_size"] * width, "tokens"
            ),
        )

    def sample(self, prompts: Dataset, *, seed: int, scratch: Path) -> Dataset:
        """The new tokens of each prompt, or prompt and new tokens; duplicates and special tokens in `facts`."""
        settings, tokenizer = self.settings["sample"], self._tokenizer
        end, start = tokenizer.eos_token_id, texts.bos_id(tokenizer)
        pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else (end or 0)
        if settings["prompts"] == "none":
            if start is None:
                raise InputError(
                    "sample.prompts = none needs a BOS or end-of-text token, and the tokenizer has neither"
                )
            ids, lengths = np.full((len(prompts), 1), start, np.int32), np.ones(len(prompts), np.int32)
        else:
            ids = prompts.arrays["tokens"][:, : settings["prompt_tokens"]]
            lengths = np.minimum(prompts.arrays["lengths"], settings["prompt_tokens"])
        cut = Dataset({"tokens": ids, "lengths": lengths, "stream": prompts.arrays["stream"]}, prompts.origin)
        new = sampling.continue_rows(
            self._model,
            cut,
            settings["new_tokens"],
            settings["decode"],
            dtype=settings["dtype"],
            end=end,
            pad=pad,
            seed=seed,
            scratch=scratch,
            tell=lambda done, total: self._tell(done, total, "tokens"),
        )
        tokens, lengths = new.arrays["tokens"], new.arrays["lengths"]
        # padding and the like, and ids of the model's that the tokenizer does not have
        odd = {*tokenizer.all_special_ids, *range(len(tokenizer), self._model.config.vocab_size)} - {start, end}
        self.facts = {
            "sample_tokens": int(lengths.sum()),
            "duplicate_share": metrics.duplicate_share(tokens),
            "special_token_share": metrics.share_with(tokens, lengths, odd),
        }
        return new if self.settings["target"] == "continuation" else _joined(cut, new)

    def score(self, data: Dataset) -> np.ndarray:
        """(rows,) mean negative log-likelihood per predicted token, in nats."""
        nll, predicted = scoring.score_blocks(self._model, data)
        losses: np.ndarray = nll / np.maximum(predicted, 1)
        return losses

    def measure(self, test: Dataset) -> Dataset:
        """Perplexity and its relatives under the protocol of the settings; per row (block or window) values returned."""
        protocol, about = self.settings["eval"], self.hints["about"]
        width = test.arrays["tokens"].shape[1]
        said: dict[str, Any] = {name: protocol[name] for name in ("protocol", "dtype")} | {
            "line_bos": about["line_bos"]
        }
        if protocol["protocol"] == "block":
            said |= {"context": width, "stride": width}
            nll, predicted = scoring.score_blocks(
                self._model,
                test,
                lambda done, total: self._tell(done * width, total * width, "tokens"),
                dtype=protocol["dtype"],
            )
        else:
            context = protocol["context"] or models.max_positions(self._model.config) or width
            said |= {"context": context, "stride": protocol["stride"] or max(1, context // 2)}
            nll, predicted = scoring.score_sliding(
                self._model,
                test.arrays["tokens"].ravel(),
                context,
                said["stride"],
                lambda done, total: self._tell(done, total, "tokens"),
                dtype=protocol["dtype"],
            )
        size = about["splits"]["test"]
        measures = metrics.text_measures(nll, predicted, size["tokens"], size["words"], size["bytes"])
        self.facts = {**measures, "protocol": said}
        return Dataset({"nll": nll, "predicted": predicted}, np.zeros(len(nll), np.int32))

    def save(self, folder: Path) -> None:
        """An ordinary transformers folder, tokenizer included."""
        self._model.save_pretrained(folder)
        self._tokenizer.save_pretrained(folder)

    def load(self, folder: Path) -> None:
        self._loaded = models.load(folder)

    @property
    def _model(self) -> "PreTrainedModel":
        """The loaded model; before any was loaded, the base model."""
        if self._loaded is None:
            params = self.settings["model"]
            if "config" in params:
                config = base_config(params["config"], self._tokenizer, params["vocab_size"])
                self._loaded = models.build(config, self.settings["base"])
            else:
                self._loaded = models.load(Path(self.hints["model"]))
        return self._loaded

    @property
    def _tokenizer(self) -> "PreTrainedTokenizerBase":
        return texts.load_tokenizer(Path(self.hints["encoded"]) / TOKENIZER)


def base_config(
    fields: Mapping[str, Any], tokenizer: "PreTrainedTokenizerBase | None", vocab_size: int
) -> "PreTrainedConfig":
    """The config of a model from scratch: what the fields leave out, its tokenizer says.

    `vocab_size` is that asked of a BPE that is still to be trained (`tokenizer` is None then).
    """
    if tokenizer is None:
        return models.make_config(fields, vocab_size=vocab_size)
    end, pad = tokenizer.eos_token_id, tokenizer.pad_token_id
    return models.make_config(
        fields,
        vocab_size=len(tokenizer),
        bos_token_id=texts.bos_id(tokenizer),
        eos_token_id=end,
        pad_token_id=pad if pad is not None else end,
    )


def _find_tokenizer(
    model: dict[str, Any], folder: Path | None, hints: dict[str, Any]
) -> "PreTrainedTokenizerBase | None":
    """The tokenizer that `model` names, its hash filled in; None for a BPE that the data stage will train."""
    if not model["tokenizer"] and folder is None:
        model["tokenizer"] = "bpe"
    if model["tokenizer"] == "bpe":
        return None
    if model["tokenizer"]:
        folder, _ = models.find_folder(model["tokenizer"], "", "the tokenizer")
    assert folder is not None
    hints["tokenizer"] = str(folder)
    tokenizer = texts.load_tokenizer(folder)
    found = models.hash_files(folder, models.TOKENIZER_FILES)
    model["tokenizer_sha256"] = _pinned({"sha256": model["tokenizer_sha256"]}, "model.tokenizer_sha256", found)
    return tokenizer


def _pinned(section: Mapping[str, Any], name: str, found: str) -> str:
    if section["sha256"] not in ("", found):
        raise InputError(
            f"{name} is {section['sha256'][:12]}…, but what was found now has {found[:12]}…: it is not the same any more; "
            f"restore it, or leave {name} out and give the run a --name of its own"
        )
    return found


def _check_fit(tree: Mapping[str, Any], config: "PreTrainedConfig", vocabulary: int) -> None:
    if vocabulary > config.vocab_size:
        raise InputError(
            f"the tokenizer has {vocabulary:,} tokens, the model only {config.vocab_size:,}; "
            + ("lower model.vocab_size" if tree["model"]["config"] else "use the model's own tokenizer")
            + ", or name a tokenizer with a smaller vocabulary (model.tokenizer)"
        )
    limit = models.max_positions(config)
    sample, data = tree["sample"], tree["data"]
    prompt = 1 if sample["prompts"] == "none" else sample["prompt_tokens"]
    needs = {
        "data.block_size": data["block_size"],
        "eval.block_size": tree["eval"]["block_size"],
        "eval.context": tree["eval"]["context"],
        "sample.prompt_tokens + sample.new_tokens": prompt + sample["new_tokens"],
    }
    stride, context = tree["eval"]["stride"], tree["eval"]["context"] or limit
    if tree["eval"]["protocol"] == "sliding" and context and stride >= context:
        raise InputError(f"eval.stride is {stride}, but must be less than the context of {context} tokens")
    for name, tokens in needs.items():
        if limit is not None and tokens > limit:
            raise InputError(f"{name} is {tokens}, but the model takes {limit} tokens at most; lower it")


def _original(train: Dataset, rows: int) -> tuple[Dataset, Dataset]:
    """The original corpus (`rows` rows drawn with a fixed seed, or all) and the reserve of never-seen rows."""
    if rows > len(train):
        raise InputError(f"data.rows = {rows:,}, but the training text has only {len(train):,} rows (0 takes all)")
    if rows == 0:
        rows = len(train)
        return train, train.take(np.arange(0))
    order = np.random.Generator(np.random.Philox(0)).permutation(len(train))
    return train.take(np.sort(order[:rows])), train.take(order[rows:])


def _joined(prompts: Dataset, new: Dataset) -> Dataset:
    """Prompt and new tokens of each row, one behind the other."""
    first, second = prompts.arrays["lengths"], new.arrays["lengths"]
    lengths = first + second
    tokens = np.zeros((len(new), int(lengths.max(initial=0))), np.int32)
    columns = np.arange(tokens.shape[1])
    tokens[columns < first[:, None]] = prompts.arrays["tokens"][
        np.arange(prompts.arrays["tokens"].shape[1]) < first[:, None]
    ]
    behind = (columns >= first[:, None]) & (columns < lengths[:, None])
    tokens[behind] = new.arrays["tokens"][np.arange(new.arrays["tokens"].shape[1]) < second[:, None]]
    return Dataset({"tokens": tokens, "lengths": lengths.astype(np.int32)}, new.origin)
