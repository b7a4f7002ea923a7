"""The language model as a learner: text becomes rows of tokens, a fitted model continues its prompts."""

import math
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from collapse_cli import metrics
from collapse_cli.config.experiment import Experiment
from collapse_cli.config.tree import MADE_TOKENIZERS, EvalConfig, SampleConfig, TrainConfig
from collapse_cli.data.dataset import Dataset
from collapse_cli.errors import InputError
from collapse_cli.families.section import for_key
from collapse_cli.learners import model_inputs, text_inputs
from collapse_cli.learners import text_measures as measures
from collapse_cli.learners.continuations import answered, cut_prompts
from collapse_cli.learners.device_processes import DeviceProcesses, order_of, shared_threads
from collapse_cli.learners.protocol import (
    ALL,
    ALL_ROWS,
    CORPUS,
    TOKENIZER,
    VALID,
    Arrays,
    Comparable,
    Facts,
    Fewer,
    Hints,
    Outcome,
    Resolved,
    Shard,
    Tell,
    Verb,
)
from collapse_cli.learners.settings import Part
from collapse_cli.lm import (
    adapter,
    anchors,
    architecture,
    devices,
    divergence,
    folders,
)
from collapse_cli.lm import edit as editing
from collapse_cli.lm import model as models
from collapse_cli.lm import sample as sampling
from collapse_cli.lm import score as scoring
from collapse_cli.lm import text as texts
from collapse_cli.lm import train as training

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from collapse_cli.lm.objective import Anchor


@dataclass(frozen=True)
class Base:
    """What a model starts from: a config, with so many tokens where its tokenizer is made; or the hash of its weights."""

    config: Mapping[str, Any] = field(default_factory=dict)
    vocab_size: int = 0
    sha256: str = ""


class LanguageModelSettings(text_inputs.TextSettings):
    """`data` and `tokenizer` of the stage of real data; the others by the work at hand (`LanguageModel.params`)."""

    model = Part(Base)
    base = Part(int)  # the seed of its weights
    train = Part(TrainConfig)
    sample = Part(SampleConfig)
    target = Part(str)
    eval = Part(EvalConfig)


class LanguageModel:
    """Any causal language model of transformers. Implements `Learner`, `Sizable`, `Comparable`, `Divisible` and `Editing`."""

    examines: ClassVar[bool] = True
    block: ClassVar[int] = 1

    def __init__(self, params: Mapping[str, Any], hints: Hints, tell: Tell) -> None:
        self.settings, self.hints, self._tell = LanguageModelSettings(params), hints, tell
        self._loaded: PreTrainedModel | None = None
        self._folder: Path | None = None  # what was loaded
        self._adapted: PeftModel | None = None  # what was fitted, where that is an adapter

    # --- what is looked up before anything runs -----------------------------------------------------------------------

    @classmethod
    def resolve(cls, config: Experiment) -> Resolved:
        """As `model_inputs.resolve`."""
        return model_inputs.resolve(config)

    @classmethod
    def with_tokenizer_of(cls, config: Experiment, encoded: Path | None) -> Experiment:
        return text_inputs.with_tokenizer_of(config, encoded)

    @classmethod
    def about(cls, scored: Mapping[str, Any], own: Mapping[str, Any]) -> Facts:
        """No measure refers to the text that the model was trained on."""
        return dict(scored)

    @classmethod
    def sized(cls, config: Experiment, size: int) -> Experiment:
        """The configuration with a model of `size` layers.

        Raises:
            InputError: for a model that is not from scratch.
        """
        model = config.model
        if not model.config:
            raise InputError(
                f"mixture.size is the layers of a model from scratch, but {model.source} has its own; give model.config, "
                "or leave mixture.size out"
            )
        name = "n_layer" if model.config.get("model_type") == "gpt2" else "num_hidden_layers"
        others = _without(model.config, "n_layer", "num_hidden_layers")
        return config.model_copy(update={"model": model.model_copy(update={"config": {**others, name: size}})})

    @classmethod
    def trials(cls, config: Experiment) -> int:
        return 1

    @classmethod
    def passes(cls, config: Experiment, rows: int) -> float:
        train = config.train
        return train.steps * train.batch_size / max(1, rows) if train.steps else float(train.epochs)

    @classmethod
    def in_one_pass(cls, config: Experiment, fewer: Fewer = ALL) -> Experiment:
        train, sample = config.train, config.sample
        in_epochs = train.select == "valid" or train.replay  # neither goes by steps
        less: dict[str, Any] = {"epochs": 1, "steps": 0 if in_epochs else fewer.steps}
        if (
            less["steps"] and train.schedule == "cosine-epoch"
        ):  # nor does this, but a step takes as long by another schedule
            less["schedule"] = "cosine"
        if fewer.batch and not train.replay:  # which has a share of each batch
            less["batch_size"] = min(train.batch_size, fewer.batch)
        shorter = {
            name: min(getattr(sample, name), most)
            for name in ("prompt_tokens", "new_tokens")
            if (most := getattr(fewer, name))
        }
        if shorter and not config.select.on:  # what is chosen of is whole
            decode = sample.decode
            least = min(decode.min_new_tokens, shorter.get("new_tokens", sample.new_tokens))
            shorter["decode"] = decode.model_copy(update={"min_new_tokens": least})
            sample = sample.model_copy(update=shorter)
        return config.model_copy(update={"train": train.model_copy(update=less), "sample": sample})

    @classmethod
    def written_in(cls, config: Experiment) -> Mapping[str, Any]:
        return text_inputs.written_in(config)

    @classmethod
    def drawn(cls, config: Experiment) -> bool:
        """Text is what it is, for all seeds."""
        return False

    @classmethod
    def params(cls, config: Experiment, verb: Verb) -> dict[str, Any]:
        """What a stage depends on that does this part of the work."""
        if verb == "data":
            return text_inputs.data_params(config)
        # such models were sampled, trained and scored wrongly before they were tried over the reach of the work
        tried = {"tried": "over the reach"} if config.model.length_matters else {}
        return cls._work_params(config, verb) | tried

    @classmethod
    def _work_params(cls, config: Experiment, verb: Verb) -> dict[str, Any]:
        match verb:
            case "train":
                return {"model": cls.model_params(config), "train": _without(for_key(config.train), "target")}
            case "sample":
                return {"sample": _without(for_key(config.sample), "max_duplicates"), "target": config.train.target}
            case "select":  # rows are scored as they are
                return {}
            case "eval":
                return {"eval": _without(for_key(config.eval), "block_size", "samples")}
            case "between":  # tokens are scored in blocks
                sample, scored = for_key(config.sample), for_key(config.eval)
                return {
                    "sample": {name: sample[name] for name in ("prompts", "prompt_tokens")},
                    "eval": {"dtype": scored["dtype"]},
                }
        # examine: how long prompts and samples are, not how they were drawn
        return {"sample": _without(for_key(config.sample), "max_duplicates", "decode")}

    @staticmethod
    def model_params(config: Experiment) -> dict[str, Any]:
        """What the base model depends on."""
        model = config.model
        if model.config:
            return {
                "config": model.config,
                "vocab_size": model.vocab_size if model.tokenizer in MADE_TOKENIZERS else 0,
            }
        return {"sha256": model.sha256}

    # --- the verbs ----------------------------------------------------------------------------------------------------

    def encode(self, folder: Path, *, seed: int) -> Facts:
        """Text to blocks of tokens, with the tokenizer beside them; counts of tokens, words and bytes."""
        return text_inputs.encode(folder, self.settings, self.hints, self._tell)

    def fit(self, data: Dataset, *, seed: int, scratch: Path) -> Facts:
        """Train on the rows, all weights or an adapter, on as many devices as the hints say; `train_loss` and more."""
        count = self.hints.devices
        if count == 1:
            return self.fit_together(data, seed=seed, scratch=scratch)
        devices.check(count)
        with DeviceProcesses(count) as others, shared_threads(count):

            def join() -> devices.Group:
                return others.join(order_of(self.settings.whole, self.hints, self._folder, data, seed, scratch))

            try:
                return self.fit_together(data, seed=seed, scratch=scratch, join=join)
            except devices.GroupError as error:
                raise others.fault(str(error)) from None

    def fit_together(
        self, data: Dataset, *, seed: int, scratch: Path, join: Callable[[], devices.Group] | None = None
    ) -> Facts:
        """What one device does of `fit`.

        Args:
            join: called when all is ready, to find the others; None: there are none.
        """
        settings, width = self.settings.train, data.arrays["tokens"].shape[1]
        if settings.adapter:
            self._adapted = self._with_adapter(settings, seed)
            self._loaded = self._adapted.base_model.model
        valid_file = self.hints.real(VALID)
        replay = Dataset.load(self.hints.real(CORPUS)) if settings.replay else None
        longest = max(int(each.arrays["lengths"].max(initial=0)) for each in (data, replay) if each is not None)
        model, anchor = self._model, self._anchor(settings, longest, seed, scratch)
        with nullcontext() if join is None else join() as group:
            return training.fit(
                model,
                data,
                settings,
                seed=seed,
                scratch=scratch,
                valid=Dataset.load(valid_file) if valid_file.exists() else None,
                replay=replay,
                anchor=anchor,
                group=group,
                tell=lambda done, total: self._tell(
                    done * settings.batch_size * width, total * settings.batch_size * width, "tokens"
                ),
            )

    def sample(self, prompts: Dataset, *, seed: int, scratch: Path) -> Outcome:
        """The new tokens of each prompt, or prompt and new tokens (`start` says where these begin); of dialogues rows of their form.

        Beside them the shares of duplicates, of special tokens and, of dialogues, of answers that end.
        """
        return self.sampled(prompts, self.continue_part(prompts, ALL_ROWS, seed=seed, scratch=scratch))

    def continue_part(self, prompts: Dataset, shard: Shard, *, seed: int, scratch: Path) -> Arrays:
        """`tokens` (rows, new_tokens) and `lengths`: what continues those prompts that a shard has."""
        settings, tokenizer = self.settings.sample, self._tokenizer
        end, decode = self._end, settings.decode
        if self.hints.about.get("dialogues") and decode.min_new_tokens < 0:  # answers end where they do
            decode = decode.model_copy(update={"min_new_tokens": 0})
        pad = tokenizer.pad_token_id
        if pad is None or pad >= self._vocabulary:  # added to the tokenizer, not to the model
            pad = end or 0
        start = texts.bos_id(tokenizer)
        if settings.prompts == "none" and start is None:
            raise InputError("sample.prompts = none needs a BOS or end-of-text token, and the tokenizer has neither")
        # of all rows, so that they are as wide whichever are continued here
        cut = cut_prompts(prompts, settings, start)
        new = sampling.continue_rows(
            self._model,
            cut,
            settings.new_tokens,
            decode,
            dtype=settings.dtype,
            end=end,
            pad=pad,
            seed=seed,
            scratch=scratch,
            tell=lambda done, total: self._tell(done, total, "tokens"),
            rows=shard.rows(len(cut)),
        )
        return dict(new.arrays)

    def sampled(self, prompts: Dataset, found: Arrays) -> Outcome:
        """As `sample`, of what continues all prompts. The model is not loaded for that."""
        settings, tokenizer = self.settings.sample, self._tokenizer
        end, start = self._end, texts.bos_id(tokenizer)
        dialogues = self.hints.about.get("dialogues")
        cut, new = cut_prompts(prompts, settings, start), Dataset(found, np.zeros(len(prompts), np.int32))
        counted = new.take(np.flatnonzero(~prompts.arrays["extra"]))
        tokens, lengths = counted.arrays["tokens"], counted.arrays["lengths"]
        # padding and the like, and ids of the model's that the tokenizer does not have
        unknown = set(range(self._vocabulary)) - set(tokenizer.get_vocab().values())
        odd = {*tokenizer.all_special_ids, *unknown} - {start, end}
        facts = {
            "sample_tokens": int(lengths.sum()),
            "duplicate_share": metrics.duplicate_share(tokens),
            "special_token_share": metrics.share_with(tokens, lengths, odd),
        }
        begin = np.zeros(len(new), np.int32)
        if dialogues:
            facts["ended_share"] = (
                float(np.mean(tokens[np.arange(len(tokens)), lengths - 1] == end)) if len(tokens) else 0.0
            )
            return Outcome(answered(cut, new, dialogues["most"]), facts)
        if self.settings.target == "full":
            new, begin = texts.join(cut, new), cut.arrays["lengths"]
        return Outcome(Dataset({**new.arrays, "start": begin}, new.origin), facts)

    def score(self, data: Dataset) -> np.ndarray:
        """(rows,) mean negative log-likelihood per predicted token, in nats."""
        nll, predicted = scoring.score_blocks(self._model, data)
        losses: np.ndarray = nll / np.maximum(predicted, 1)
        return losses

    # --- beside models of other lineages ------------------------------------------------------------------------------

    @property
    def unseen_nll(self) -> float:
        """Each token has a probability."""
        return math.inf

    def continued(self, prompts: Dataset) -> Dataset:
        """What of each row is continued: its first tokens, or the BOS token."""
        return cut_prompts(prompts, self.settings.sample, texts.bos_id(self._tokenizer))

    def token_losses(self, rows: Dataset) -> np.ndarray:
        """(rows, width - 1) float64 nats, NaN where nothing is predicted; in blocks, whatever the protocol of the settings."""
        each = np.full((len(rows), max(0, rows.arrays["tokens"].shape[1] - 1)), np.nan)
        scoring.score_blocks(self._model, rows, dtype=self.settings.eval.dtype, each=each)
        return each

    def continuation_losses(self, prompts: Dataset, new: Dataset) -> tuple[np.ndarray, np.ndarray]:
        """(rows,) summed losses in nats, and the tokens of the continuations."""
        ends = np.zeros(len(new), np.int64)
        nll, _ = scoring.score_continuations(self._model, prompts, new, ends, dtype=self.settings.eval.dtype)
        return nll, new.arrays["lengths"].astype(np.int64)

    def divergences(self, other: Comparable, rows: Dataset) -> np.ndarray:
        """(rows, width - 1) float64 bits; both models are in memory, and a part of the logits of both."""
        assert isinstance(other, LanguageModel), "models of other families have no logits"
        return divergence.divergences(self._model, other._model, rows, dtype=self.settings.eval.dtype)

    def edited(self, rows: Dataset, *, above: float, top: int, seed: int) -> Outcome:
        """Rows with tokens that this model is all too sure of drawn anew, and how many."""
        made, again, changed = editing.edited(
            self._model,
            rows,
            above=above,
            top=top,
            seed=seed,
            tell=lambda done, total: self._tell(done, total, "rows"),
        )
        facts = {
            "changed_rows": int((changed > 0).sum()),
            "tokens": int(rows.arrays["lengths"].sum()),
            "tokens_drawn_anew": int(again.sum()),
            "tokens_changed": int(changed.sum()),
        }
        return Outcome(made, facts)

    def measure(self, test: Dataset, first: Dataset | None = None) -> Outcome:
        """Perplexity and its relatives under the protocol of the settings; values of each row (block or window)."""
        return self.measured(test, first, self.score_part(test, ALL_ROWS))

    def score_part(self, test: Dataset, shard: Shard) -> Arrays:
        """As `text_measures.score_part`."""
        return measures.score_part(self._model, test, self.settings.eval, self.hints.about, self._tell, shard.rows)

    def measured(self, test: Dataset, first: Dataset | None, found: Arrays) -> Outcome:
        """As `measure`, of what was found of all rows. The model is not loaded for that."""
        encoded, about = self.hints.real(), self.hints.about
        return measures.measured(found, test, first, self.settings.eval, encoded, about, self._vocabulary)

    def look_at_real(self, folder: Path) -> Facts:
        """Features of real continuations, by this model."""
        encoded = self.hints.real()
        real = measures.real_features(self._model, self._tokenizer, self.settings.sample, encoded, self._tell)
        real.save(folder / measures.REAL)
        return {"rows": len(real)}

    def examine(
        self, samples: Dataset, shown: Dataset, prompts: Dataset, *, real: Path, first: Dataset | None
    ) -> Outcome:
        """Repetition, diversity and more of what another model made, with this one for a reference."""
        found = self.examine_part(samples, prompts, ALL_ROWS)
        return self.examined(samples, shown, prompts, real=real, first=first, found=found)

    def examine_part(self, samples: Dataset, prompts: Dataset, shard: Shard) -> Arrays:
        """As `text_measures.examine_part`."""
        settings = self.settings.sample
        return measures.examine_part(
            self._model, self._tokenizer, samples, prompts, settings, self.hints, self._tell, shard.rows
        )

    def examined(
        self,
        samples: Dataset,
        shown: Dataset,
        prompts: Dataset,
        *,
        real: Path,
        first: Dataset | None,
        found: Arrays,
    ) -> Outcome:
        """As `examine`, of what was found of all samples. The model is not loaded for that."""
        return measures.examined(
            found,
            self._tokenizer,
            samples,
            shown,
            prompts,
            self.settings.sample,
            self.hints,
            Dataset.load(real / measures.REAL),
            first,
            self._vocabulary,
        )

    def save(self, folder: Path) -> None:
        """An ordinary transformers folder, or an ordinary folder of peft's; tokenizer included."""
        if self._adapted is None:
            self._model.save_pretrained(folder)
        else:
            base, hints = self._base, self.hints
            assert base is not None
            of_hub = hints.model_id if base == Path(hints.model) else ""
            named, revision = (of_hub, hints.revision) if of_hub else (str(base.resolve()), "")
            adapter.save(self._adapted, folder, named, revision, folders.hash_weights(base))
        self._tokenizer.save_pretrained(folder)

    def load(self, folder: Path) -> None:
        """It is read when it is used: what an adapter is merged into is no model to train it further on."""
        self._folder, self._loaded = folder, None

    @property
    def _end(self) -> int | None:
        """The token that ends a text; of dialogues an answer."""
        dialogues = self.hints.about.get("dialogues")
        end: int | None = dialogues["end"] if dialogues else self._tokenizer.eos_token_id
        return end

    @property
    def _vocabulary(self) -> int:
        """How many tokens the model has, which its folder says too."""
        if self._loaded is None and self._folder is not None and (base := self._base) is not None:
            return architecture.vocabulary(architecture.config_of(base))
        return architecture.vocabulary(self._model.config)

    @property
    def _base(self) -> Path | None:
        """The folder of the whole model below what was loaded: of an adapter, the model it lies on; None for one from scratch."""
        if self._folder is None:
            return Path(self.hints.model) if self.hints.model else None
        return self._below(self._folder) or self._folder

    def _below(self, folder: Path) -> Path | None:
        """Of an adapter's folder, that of the model it lies on; None of a whole model's."""
        if not folders.is_adapter(folder):
            return None
        named = self.hints.bases.get(str(folder)) or self.hints.model
        return Path(named) if named else folders.base_of(folder, "the model")

    def _anchor(self, settings: TrainConfig, width: int, seed: int, scratch: Path) -> "Anchor | None":
        """What the model is held by while it is trained on rows of `width` tokens at most."""
        if settings.anchor == "none":
            return None
        held = self.hints.anchor
        other = models.load(held, self._below(held)) if held else self._from_base()
        return anchors.anchor_of(
            settings,
            self._model,
            other,
            width=width,
            rows=lambda: Dataset.load(self.hints.real(CORPUS)),
            seed=seed,
            scratch=scratch,
        )

    def _with_adapter(self, settings: TrainConfig, seed: int) -> "PeftModel":
        """An adapter to train: that which was loaded, else a new one, on what was loaded or on the base model."""
        base = self._base
        assert base is not None, "an adapter on random weights"
        if self._folder is not None and folders.is_adapter(self._folder):
            return adapter.gone_on(models.load(base), self._folder)
        return adapter.begun(models.load(base), settings, seed)

    @property
    def _model(self) -> "PreTrainedModel":
        """The loaded model; before any was loaded, the base model."""
        if self._loaded is None:
            folder = self._folder
            self._loaded = self._from_base() if folder is None else models.load(folder, self._below(folder))
        return self._loaded

    def _from_base(self) -> "PreTrainedModel":
        """The base model, before any training."""
        start = self.settings.model
        if start.config:
            return models.build(
                model_inputs.base_config(start.config, self._tokenizer, start.vocab_size), self.settings.base
            )
        given = Path(self.hints.model)
        return models.load(given, self.hints.bases.get(str(given)))

    @property
    def _tokenizer(self) -> "PreTrainedTokenizerBase":
        return texts.load_tokenizer(self.hints.real(TOKENIZER))


def _without(section: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in section.items() if name not in names}
