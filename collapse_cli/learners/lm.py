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
from collapse_cli.data.dataset import Dataset, pinned
from collapse_cli.errors import ConfigError, InputError
from collapse_cli.families.section import for_key
from collapse_cli.learners import text_inputs
from collapse_cli.learners import text_measures as measures
from collapse_cli.learners.continuations import answered, cut_prompts
from collapse_cli.learners.device_processes import DeviceProcesses, order_of, shared_threads
from collapse_cli.learners.protocol import (
    ALL_ROWS,
    CORPUS,
    TOKENIZER,
    VALID,
    Arrays,
    Comparable,
    Facts,
    Hints,
    Outcome,
    Resolved,
    Shard,
    Tell,
    Verb,
)
from collapse_cli.learners.settings import Part
from collapse_cli.lm import adapter, anchors, architecture, chats, devices, divergence, folders, memory, trial
from collapse_cli.lm import edit as editing
from collapse_cli.lm import model as models
from collapse_cli.lm import sample as sampling
from collapse_cli.lm import score as scoring
from collapse_cli.lm import text as texts
from collapse_cli.lm import train as training

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

    from collapse_cli.lm.objective import Anchor


WEIGHT_BYTES, TRAINING_BYTES = 4, 16  # float32 weights; with gradients and Adam's two moments


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
        """Find the model, the tokenizer and the text of a configuration, and check that they fit each other.

        Raises:
            InputError: for whatever is missing or does not fit.
        """
        model, folder, commit = config.model, None, ""
        fields = model.config
        if not fields and model.source.endswith(".json"):
            fields = architecture.read_config(Path(model.source))
        if fields:
            model = model.model_copy(update={"config": fields, "source": ""})
        else:
            folder, commit = folders.find_folder(model.source, model.revision, folders.THE_MODEL)
            found = folders.check_weights(folder, folders.THE_MODEL, model.base)
            sha256 = pinned(model.sha256, "model.sha256", found)
            model = model.model_copy(update={"revision": commit, "sha256": sha256})
        given, folder = folder, folders.whole(folder, folders.THE_MODEL, model.base) if folder else None
        if model.base and given == folder:
            raise ConfigError(
                f"model.base names the model below an adapter, and {given or 'a model from scratch'} is none; leave it out"
            )
        if config.train.adapter and given != folder:
            raise InputError(
                f"the model: {given} is an adapter itself, and train.adapter trains one beside the weights of a whole model; merge it "
                "into its base model first (peft: model.merge_and_unload())"
            )
        own_tokenizer = given if given and texts.has_tokenizer(given) else folder
        reader = text_inputs.find_tokenizer(model, config.data, own_tokenizer)
        model, tokenizer = reader.model, reader.tokenizer
        size = 0 if tokenizer else model.vocab_size
        built = architecture.config_of(folder) if folder else base_config(fields, tokenizer, size)
        made = architecture.outline(built, fields=fields or None)
        adapted = adapter.parameters(built, config.train) if config.train.adapter else 0
        trained = (
            adapted if adapted and not model.from_scratch else made.parameters
        )  # its generation 0 is trained whole
        notes = _check_memory(made.parameters, trained, {"none": 0, "ewc": 2}.get(config.train.anchor, 1))
        if folder:
            models.check_complete(folder)
            if given and given != folder:
                adapter.check(given, built)
            notes = (
                *notes,
                *folders.notes(folder),
                *text_inputs.other_tokens(model.tokenizer, tokenizer, folder),
            )
        text, where = text_inputs.find_text(config.data)
        data = config.data.model_copy(update={"sha256": text.sha256})
        end: int | None = None
        if text_inputs.holds_dialogues(text):
            data, end, without = text_inputs.find_template(config, text, tokenizer)
            notes, data = (*notes, *without), data.model_copy(update={"sha256": text.sha256})
            config = config.model_copy(update={"data": data})
        if folder:
            notes = (*notes, *text_inputs.other_ends(folder, tokenizer, end))
        ids = model.vocab_size if tokenizer is None else texts.text_range(tokenizer)
        _check_fit(config, built, made.positions, ids)
        length_matters = _length_matters(config, built)
        if tokenizer is not None:
            _check_special(config, built, tokenizer)

        train, sample = config.train, config.sample
        if train.select == "valid" and "valid" not in text.splits:
            raise InputError(training.NO_VALIDATION)
        filled = {
            "model": model.model_copy(update={"length_matters": length_matters}),
            "data": data,
            "train": train.model_copy(update={"dtype": models.resolve_dtype(train.dtype)}),
            "sample": sample.model_copy(update={"dtype": models.resolve_dtype(sample.dtype)}),
        }
        return Resolved(
            config.model_copy(update=filled),
            Hints(
                model=str(given or ""),
                tokenizer=reader.folder,
                model_id=model.source if commit else "",
                revision=commit,
                text=where,
                bases={str(given): folder} if folder is not None and given != folder else {},
            ),
            made.parameters,
            made.layer_parameters,
            made.head_parameters,
            layers=made.layers,
            positions=made.positions,
            notes=(*notes, *text.notes),
            adapter_parameters=adapted,
        )

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
    def in_one_pass(cls, config: Experiment, steps: int = 0) -> Experiment:
        return config.model_copy(update={"train": config.train.model_copy(update={"epochs": 1, "steps": steps})})

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
            return models.build(base_config(start.config, self._tokenizer, start.vocab_size), self.settings.base)
        given = Path(self.hints.model)
        return models.load(given, self.hints.bases.get(str(given)))

    @property
    def _tokenizer(self) -> "PreTrainedTokenizerBase":
        return texts.load_tokenizer(self.hints.real(TOKENIZER))


def _without(section: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in section.items() if name not in names}


def base_config(
    fields: Mapping[str, Any], tokenizer: "PreTrainedTokenizerBase | None", vocab_size: int
) -> "PreTrainedConfig":
    """The config of a model from scratch: what the fields leave out, its tokenizer says.

    `vocab_size` is that asked of a BPE that is still to be trained (`tokenizer` is None then).
    """
    if tokenizer is None:
        return architecture.make_config(fields, vocab_size=vocab_size)
    end, pad = tokenizer.eos_token_id, tokenizer.pad_token_id
    return architecture.make_config(
        fields,
        vocab_size=texts.id_range(tokenizer),
        bos_token_id=texts.bos_id(tokenizer),
        eos_token_id=end,
        pad_token_id=pad if pad is not None else end,
    )


def _check_memory(parameters: int, trained: int, beside: int) -> tuple[str, ...]:
    """What to say when training a model of that size will hardly fit into the memory of this machine.

    Args:
        trained: how many of the parameters are trained, or those of an adapter beside them.
        beside: as many numbers again as the model has are held so many times: of an anchor.

    Raises:
        InputError: when not even its weights do.
    """
    total, gib = memory.total_bytes(models.device()), 2.0**30
    if WEIGHT_BYTES * parameters > total:
        raise InputError(
            f"the model has {parameters:,} parameters: its weights alone take {WEIGHT_BYTES * parameters / gib:,.0f} GiB, and this "
            f"machine has {total / gib:,.0f} GiB; take a smaller one (model.vocab_size and the sizes in model.config)"
        )
    own = 0 if trained == parameters else WEIGHT_BYTES * parameters
    wanted = TRAINING_BYTES * trained + own + WEIGHT_BYTES * parameters * beside
    if wanted <= total:
        return ()
    what = f"training {trained:,} parameters"
    what += f" of an adapter beside the {parameters:,} of the model" if own else ""
    held = "" if not beside else ", and its anchor"
    return (
        f"{what} takes {wanted / gib:,.0f} GiB (weights, gradients, two moments of Adam{held}), and this machine has "
        f"{total / gib:,.0f} GiB; memory may run out",
    )


def _check_special(config: Experiment, built: "PreTrainedConfig", tokenizer: "PreTrainedTokenizerBase") -> None:
    """That the special tokens which are used have rows in the model; others may have been added to a tokenizer alone."""
    there = architecture.vocabulary(built)
    used = {"end-of-text": tokenizer.eos_token_id}
    if config.data.line_bos or config.sample.prompts == "none":
        used["begin-of-text"] = texts.bos_id(tokenizer)
    if config.data.template_sha256:
        used["chat template's"] = max(chats.ChatTemplate(tokenizer, config.data.template).used())
    for name, index in used.items():
        if index is not None and index >= there:
            raise InputError(
                f"the tokenizer's {name} token has the id {index:,}, but the model has only {there:,} tokens; use the model's own "
                "tokenizer (model.tokenizer)"
            )


def _lengths(config: Experiment) -> dict[str, int]:
    """How many tokens the model takes at once in each kind of work, by the settings that say so."""
    sample = config.sample
    prompt, what = 1 if sample.prompts == "none" else sample.prompt_tokens, "sample.prompt_tokens"
    if config.data.template_sha256:  # rows are dialogues: a prompt is all but an answer, of one token at least
        prompt, what = config.data.block_size - 1, "data.block_size - 1"
    return {
        "eval.block_size": config.eval.block_size,
        "data.block_size": config.data.block_size,
        "eval.context": config.eval.context,
    } | ({f"{what} + sample.new_tokens": prompt + sample.new_tokens} if config.samples else {})


def _length_matters(config: Experiment, built: "PreTrainedConfig") -> bool:
    """`ModelConfig.length_matters`.

    Raises:
        InputError: when the configuration says that it does, and the model says that it does not.
    """
    matters = trial.length_matters(built, max(_lengths(config).values()))
    if config.model.length_matters and not matters:
        raise InputError(
            "model.length_matters = true, but this model does the same at all lengths; leave the option out"
        )
    return matters


def _check_fit(config: Experiment, built: "PreTrainedConfig", limit: int | None, ids: int) -> None:
    """That the tokenizer's ids (below `ids`) and the lengths of rows (`limit` tokens at most) suit the model."""
    there = architecture.vocabulary(built)
    if ids > there:
        raise InputError(
            f"the tokenizer has ids up to {ids - 1:,}, so it needs {ids:,} tokens, but the model has only {there:,}; "
            + (
                "lower model.vocab_size"
                if config.model.config or config.model.source.endswith(".json")
                else "use the model's own tokenizer"
            )
            + ", or name a tokenizer with a smaller vocabulary (model.tokenizer)"
        )
    stride, context = config.eval.stride, config.eval.context or limit
    if config.eval.protocol == "sliding" and context and stride >= context:
        raise InputError(f"eval.stride is {stride}, but must be less than the context of {context} tokens")
    for name, tokens in _lengths(config).items():
        if limit is not None and tokens > limit:
            raise InputError(f"{name} is {tokens}, but the model takes {limit} tokens at most; lower it")
