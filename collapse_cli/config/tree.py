"""The sections of an experiment, each with its options: defaults < preset or file < command line. Frozen; an unknown key is an error."""

import json
import math
from typing import Annotated, Any, Literal

from pydantic import Field, PrivateAttr, field_validator, model_validator

from collapse_cli.config.families import BlobsConfig, RegressionConfig
from collapse_cli.config.policies import Policy
from collapse_cli.config.pool import Segment
from collapse_cli.config.weights import FORMS, Weights
from collapse_cli.families import KNOWN
from collapse_cli.families.section import Section, UserPath, added

LOWEST_RANK = 1e9  # of beams that ended: one that must not win has this below 0
NATS_A_TOKEN = 30.0  # of a very unlikely text
SMALLEST_RANK = 1e30  # what a log-probability can be divided by in single precision
MADE_TOKENIZERS = ("bpe", "words")  # values of model.tokenizer for which one is made from the training text


class LoopConfig(Section):
    """The generational loop."""

    generations: int = Field(default=9, ge=0, le=1_000_000)
    """The last generation: 9 means generations 0..9, ten models, nine of them fitted on a mixed corpus."""
    policies: tuple[Policy, ...] = Field(
        default=(Policy("keep", 0.0), Policy("keep", 10.0), Policy("keep", 20.0)), min_length=1, max_length=1000
    )
    """How each generation's corpus is mixed: keep-P, fresh-P, keep-rows-N, accumulate, accumulate-fresh-P, accumulate-subsample. P may be a
    schedule, a share for each generation, of which the last one stays: keep-50-20-10."""
    seeds: tuple[Annotated[int, Field(ge=0)], ...] = Field(default=(0,), min_length=1, max_length=10_000)
    """One complete repetition of the experiment for each seed."""
    init: Literal["base", "gen0", "previous"] = "base"
    """The weights a generation's training starts from: the base model, generation 0's, or the previous one's."""
    block: int = Field(default=0, ge=0)
    """Generations of a stage. 1: each has stages of its own; 0: as many as suit the learner. Numbers do not depend on it."""


class ModelConfig(Section):
    """The model of generation 0 before any training."""

    source: UserPath = "facebook/opt-125m"
    """A Hub id, a transformers folder with weights, the folder of a LoRA adapter, a .gguf file, or a config .json file to start
    from scratch."""
    base: UserPath = added("")
    """Of an adapter: the folder, .gguf file or Hub id of the model that it lies on. Empty: what its adapter_config.json names."""
    revision: str = ""
    """Of a Hub id: a commit, branch or tag. Empty: the newest; the commit found is recorded here."""
    config: dict[str, Any] = Field(default_factory=dict)
    """A transformers config (`model_type` and its fields) to start from scratch; replaces `source`."""
    tokenizer: UserPath = ""
    """A folder or Hub id; `bpe` trains one on the training text, `words` takes its most frequent words as tokens. Empty:
    the model's own; from scratch `bpe`, or `words` where `data.source` is zipf or world."""
    vocab_size: int = Field(default=512, ge=3)
    """Entries of the byte-level BPE or the list of words that is made. With zipf and world, their words and one more."""
    sha256: str = ""
    """Hash of the weights and config that are started from. Filled in when found; if given, it must match."""
    tokenizer_sha256: str = ""
    """Hash of the tokenizer's files. Filled in when found; if given, it must match."""
    length_matters: bool = False
    """Whether what the model does changes with the length of a row, or with those beside it, within the lengths of this
    experiment (windows, chunks, rotations, states). Filled in when found; if given, it must match."""

    @property
    def from_scratch(self) -> bool:
        """Whether the base model has random weights."""
        return bool(self.config) or self.source.endswith(".json")


class ZipfConfig(Section):
    """The language of the source `zipf`: bigrams whose probabilities are known exactly, so that a model's error is."""

    vocabulary: int = Field(default=256, ge=8, le=1024)
    """Words; each is a token."""
    exponent: float = Field(default=1.0, ge=0, le=3)
    """The k-th word makes up a share of the text proportional to 1 / k ** exponent."""
    rank: int = Field(default=8, ge=1, le=1024)
    """Dimensions in which a word depends on the one before; a model with fewer hidden ones cannot express it."""
    dependence: float = Field(default=2.0, ge=0, le=4)
    """How strongly a word depends on the one before: standard deviation of the log-weights. 0: not at all."""
    seed: int = Field(default=0, ge=0, lt=2**63)
    """Of the language and its text; that of a run (`loop.seeds`) does not touch them."""
    train_tokens: int = Field(default=131_072, ge=16)
    """Words of training text."""
    test_tokens: int = Field(default=16_384, ge=16)
    """Words of test text, and as many of validation text."""


class WorldConfig(Section):
    """The documents of the source `world`: plain English about invented things, with all frequencies and facts known exactly."""

    breeds: int = Field(default=80, ge=2, le=100)
    """Breeds of dogs, from the golden retriever on."""
    breed_exponent: float = Field(default=1.3, ge=0, le=3)
    """The k-th breed makes up a share proportional to 1 / k ** exponent of all that are mentioned."""
    people: int = Field(default=40, ge=2, le=1000)
    """People. Each was born somewhere on some day and has a trade: three facts."""
    people_exponent: float = Field(default=1.0, ge=0, le=3)
    """The same of people."""
    towns: int = Field(default=16, ge=2, le=200)
    """Towns. Each lies on some river and was founded in some year: two facts."""
    town_exponent: float = Field(default=0.8, ge=0, le=3)
    """The same of towns."""
    rivers: int = Field(default=8, ge=1, le=20)
    """Rivers, through one town or several."""
    trades: int = Field(default=6, ge=1, le=20)
    """Trades."""
    association: float = Field(default=0.7, ge=0.5, lt=1)
    """Probability that who practises a trade is of the sex that is usual for it: `himself` behind one half of them, `herself` behind the other."""
    seed: int = Field(default=0, ge=0, lt=2**63)
    """Of the world and its text; that of a run (`loop.seeds`) does not touch them."""
    train_documents: int = Field(default=1500, ge=1, le=10_000_000)
    """Documents of training text."""
    test_documents: int = Field(default=400, ge=1, le=10_000_000)
    """Documents of test text, and as many of validation text."""


class DataConfig(Section):
    """The original, real corpus."""

    source: UserPath = Field(default="wikitext2", min_length=1)
    """`wikitext2`, `pydoc`, `zipf`, `world`, a Hub dataset id (`id:config` where it has configs), a file, or a folder. Of
    learners of numbers: `blobs`, `regression`, `digits`, `mnist` (the Hub's), or a folder of MNIST's IDX files."""
    train: UserPath = ""
    """The file (or Hub split) that serves as training text, or a folder of files in `source` (`.`: all). Empty: the one whose name says so."""
    valid: UserPath = ""
    """The file or split that serves as validation text. Empty: the one whose name says so, if any."""
    test: UserPath = ""
    """The file or split that serves as test text. Empty: the one whose name says so."""
    text: str = "text"
    """The column that holds the text, for formats with columns; with `format = "chat"` the one that holds the messages."""
    format: Literal["auto", "text", "chat", "pairs"] = added("auto")
    """What rows with columns are: texts; chats (lists of messages); or pairs of a prompt and a completion. auto: by the names of the
    columns: `text`; `messages`, `conversations`; `prompt`/`completion`, `instruction`/`output`, `question`/`answer` and the like."""
    prompt: str = added("")
    """Of pairs, the column that holds the prompts. Empty: found by its name."""
    completion: str = added("")
    """Of pairs, the column that holds the completions. Empty: found by its name."""
    template: Literal["auto", "tokenizer", "chatml", "plain", "none"] = added("auto")
    """How chats and pairs are written: by the tokenizer's own chat template (`tokenizer`), as ChatML, as plain lines
    behind `User:` and `Assistant:`, or, of pairs, joined as they are (`none`). auto: by its own; of pairs without one joined, with a tokenizer that is made plain."""
    template_sha256: str = added("")
    """Hash of the chat template. Filled in when found; if given, it must match."""
    block_size: int = Field(default=64, ge=2)
    """Tokens in a row of the corpus; of `world`, whose rows are whole documents, at most."""
    line_bos: bool = False
    """Put the BOS token before every line, as OPT's tokenizer does when lines are tokenized one by one."""
    rows: int = Field(default=0, ge=0)
    """Rows of the original training corpus, drawn with a fixed seed; the rest is the reserve of fresh-P. 0: all."""
    eval_rows: int = Field(default=0, ge=0)
    """Rows of the test and the validation corpus, evenly spaced. 0: all."""
    sha256: str = ""
    """Hash of the text of all splits. Filled in when loaded; if given, it must match."""
    reserve: int = Field(default=0, ge=0)
    """Of sources that are drawn (`blobs`, `regression`): real rows beyond `rows`, for fresh-P and accumulate-fresh-P."""
    segment: Segment = added(Segment())
    """A part of the original corpus, such as "2/4": the second of four parts that lie next to each other. Empty: all of it."""
    zipf: ZipfConfig = ZipfConfig()
    """Of the source `zipf`; without meaning for others."""
    world: WorldConfig = WorldConfig()
    """Of the source `world`; without meaning for others."""
    blobs: BlobsConfig = BlobsConfig()
    """Of the source `blobs`."""
    regression: RegressionConfig = RegressionConfig()
    """Of the source `regression`."""
    _scored: "DataConfig | None" = PrivateAttr(default=None)

    @property
    def scored(self) -> "DataConfig | None":
        """Of a lineage with text of its own, the data whose test text all lineages are measured on; None: its own."""
        return self._scored

    def places(self) -> dict[str, str]:
        """The arguments of `data.dataset.load_text` that find its text."""
        where = {name: getattr(self, name) for name in ("source", "train", "valid", "test", "prompt", "completion")}
        where |= {"column": self.text, "form": self.format}
        if self.source in KNOWN:
            where["language"] = getattr(self, self.source).model_dump_json()
        if self.scored is not None:
            where["scored"] = json.dumps(self.scored.places())
        return where

    def measured_on(self, scored: "DataConfig") -> "DataConfig":
        """These data, with the test text of others."""
        own = self.model_copy()
        own._scored = scored
        return own


class DecodeConfig(Section):
    """How the next token is chosen."""

    beams: int = Field(default=5, ge=1)
    """Beams of beam search; 1: greedy, or sampling when temperature is above 0."""
    temperature: float = Field(default=0.0, ge=0)
    """Above 0: sample from the softmax at this temperature."""
    top_k: int = Field(default=0, ge=0)
    """Sample among the k most probable tokens. 0: among all."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Sample among the fewest tokens that hold this probability."""
    min_p: float = added(0.0, ge=0, lt=1)
    """Sample among the tokens that are at least this times as probable as the likeliest one. 0: among all."""
    repetition_penalty: float = Field(default=1.0, gt=0)
    """Divides the scores of tokens already in the prompt or the sample. 1: none."""
    length_penalty: float = 1.0
    """Beams that ended are ranked by log-probability / tokens ** this. Above 0 favours long samples."""
    min_new_tokens: int = Field(default=-1, ge=-1)
    """No end-of-text token before this many new tokens. -1: `sample.new_tokens`, so all samples are equally long."""

    @model_validator(mode="after")
    def _one_way(self) -> "DecodeConfig":
        if self.temperature > 0 and self.beams > 1:
            raise ValueError("beams above 1 and a temperature above 0 exclude each other: set beams = 1 to sample")
        if self.temperature == 0 and (self.top_k > 0 or self.top_p < 1 or self.min_p > 0):
            raise ValueError(
                "top_k, top_p and min_p choose among sampled tokens: set temperature = 1.0 (and beams = 1)"
            )
        return self


class SampleConfig(Section):
    """How a generation's synthetic rows are made."""

    prompts: Literal["real", "previous", "none"] = "real"
    """What the model continues: rows of the original training corpus, of the previous corpus, or nothing."""
    prompt_tokens: int = Field(default=64, ge=1)
    """Tokens of a prompt: the first ones of its row."""
    new_tokens: int = Field(default=64, ge=1)
    """Tokens to sample for each row."""
    decode: DecodeConfig = DecodeConfig()
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Arithmetic of sampling; auto: bfloat16 where the machine has instructions for it."""
    max_duplicates: float = Field(default=0.2, ge=0, le=1)
    """Warn when more than this share of a generation's synthetic rows repeat another."""

    @model_validator(mode="after")
    def _ranks_are_numbers(self) -> "SampleConfig":
        """Beams are ranked by numbers of single precision, among which -1e9 stands for what must not win."""
        power, most = self.decode.length_penalty, math.log(max(2, self.new_tokens))
        low, high = 1 - math.log(LOWEST_RANK / NATS_A_TOKEN) / most, math.log(SMALLEST_RANK) / most
        if self.decode.beams > 1 and not low <= power <= high:
            raise ValueError(
                f"decode.length_penalty must be between {low:.2g} and {high:.2g} with new_tokens = {self.new_tokens}, "
                f"it is {power:g}: beyond, beams cannot be told apart"
            )
        return self


class MixConfig(Section):
    """How a corpus is put together."""

    size: Literal["constant", "growing"] = "constant"
    """Rows of a generation's corpus under keep-P, keep-rows-N and fresh-P: as many as the original, or (g+1) times as many."""
    rows: int = added(0, ge=0)
    """Rows that each generation puts together, or adds where the policy accumulates. 0: as many as the original corpus has."""
    weights: Weights = added(Weights())
    """How much a real and a synthetic row count in the loss of a fit: `equal`, `golden` (what makes the error of a mean
    smallest, from how many of each the corpus has), or real:synthetic, as in `2:1`."""

    @model_validator(mode="after")
    def _one_size(self) -> "MixConfig":
        if self.rows and self.size == "growing":
            raise ValueError(
                "rows and size = growing exclude each other: one says how many rows each corpus has, the other that they grow"
            )
        return self

    @field_validator("weights", mode="before")
    @classmethod
    def _no_table(cls, value: object) -> object:
        if not isinstance(value, str | Weights):
            raise ValueError(f"must be {FORMS}")
        return value


class TrainConfig(Section):
    """How a generation is fitted."""

    epochs: int = Field(default=5, ge=1)
    """Passes over the corpus."""
    lr: float = Field(default=2e-5, gt=0)
    """Learning rate of AdamW, the highest that the schedule reaches."""
    batch_size: int = Field(default=128, ge=1)
    """Rows of one optimizer step, whatever fits into memory at once."""
    weight_decay: float = Field(default=0.01, ge=0)
    """Weight decay of AdamW."""
    schedule: Literal["constant", "linear", "cosine", "cosine-epoch"] = "cosine"
    """Learning rate over steps; cosine-epoch changes it once an epoch, as the Nature code does."""
    min_lr: float = Field(default=0.0, ge=0)
    """The learning rate that the schedules linear and cosine end with."""
    warmup: float = Field(default=0.0, ge=0, lt=1)
    """Share of the steps over which the learning rate rises from 0."""
    clip: float = Field(default=1.0, ge=0)
    """Largest norm of the gradient. 0: no clipping."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Arithmetic of training (weights and optimizer stay float32); auto: bfloat16 where the machine has it."""
    target: Literal["continuation", "full"] = "continuation"
    """What the next generation is trained on: the new tokens alone, or the prompt with them."""
    select: Literal["last", "valid"] = "last"
    """Weights to keep: the last, or those of the epoch with the lowest loss on real validation text."""
    steps: int = added(0, ge=0, le=100_000_000)
    """Optimizer steps, whatever the size of the corpus, which is gone through as often as they last. 0: as `epochs` says."""
    loss: Literal["cross-entropy", "truncated", "focal", "smoothed"] = added("cross-entropy")
    """What a token costs; truncated: nothing where the model is sure of it already, focal: less the surer, smoothed: labels smoothed."""
    truncate: float = added(0.9, gt=0, le=1)
    """The loss truncated: tokens count up to this probability."""
    focusing: float = added(2.0, ge=0)
    """The loss focal: the exponent of 1 - p that -log p is multiplied by. 0: cross-entropy."""
    smoothing: float = added(0.1, ge=0, lt=1)
    """The loss smoothed: the share of a label that goes evenly to all tokens of the vocabulary."""
    adversarial: float = added(0.0, ge=0, le=1)
    """Train also on embeddings moved up the loss, by this share of the length of a row's embeddings. 0: no. Costs a second pass."""
    replay: float = added(0.0, ge=0, lt=1)
    """Share of each batch, in whole rows, that is rows of the original corpus again, beside those of the corpus; after generation 0."""
    adapter: int = added(0, ge=0)
    """Rank of a LoRA adapter, which is trained in place of the weights. 0: all weights are trained. The adapter lies on the base
    model; of a model from scratch on generation 0, which is trained whole."""
    adapter_alpha: float = added(0.0, ge=0)
    """LoRA's alpha: what an adapter adds is multiplied by alpha / rank. 0: the rank, so by 1."""
    adapter_modules: tuple[str, ...] = added(())
    """Which layers have an adapter, by the ends of their names: `["q_proj", "v_proj"]`. Empty: all linear layers but the head."""

    anchor: Literal["none", "kl", "distill", "ewc", "l2"] = added("none")
    """What holds a model to another one, after generation 0; kl: KL(model ‖ anchor) is added to the loss, distill: the cross-entropy of
    the anchor's softened predictions and its own, ewc: the squared way of the weights, each by its Fisher information, l2: all alike."""
    anchor_to: Literal["gen0", "base", "previous"] = added("gen0")
    """The anchor: generation 0's model, the base model, or the previous generation's."""
    anchor_weight: float = added(1.0, gt=0)
    """What the anchor's part of the loss is multiplied by; per predicted token for kl, distill and ewc."""
    anchor_temperature: float = added(2.0, gt=0)
    """The anchor distill: what the logits of both models are divided by."""
    anchor_rows: int = added(256, ge=1)
    """The anchor ewc: how many rows of the original corpus the Fisher information is estimated on; all, where there are fewer."""

    @property
    def replayed_rows(self) -> int:
        """How many rows of a full batch are replayed."""
        return round(self.replay * self.batch_size)

    @model_validator(mode="after")
    def _ends_where_epochs_do(self) -> "TrainConfig":
        if self.steps:
            for wrong, option in (
                (self.select == "valid", "select = valid"),
                (self.schedule == "cosine-epoch", "schedule = cosine-epoch"),
                (bool(self.replay), f"replay = {self.replay:g}"),
            ):
                if wrong:
                    raise ValueError(
                        f"{option} goes by whole epochs, and steps = {self.steps} may end within one; leave one out"
                    )
        return self

    @model_validator(mode="after")
    def _replays_whole_rows(self) -> "TrainConfig":
        if self.replay and not 0 < self.replayed_rows < self.batch_size:
            left = "no row of it" if self.replayed_rows == 0 else "all of it, and none of the corpus"
            raise ValueError(
                f"replay = {self.replay:g} of a batch of {self.batch_size} is {left}: "
                + ("raise" if self.replayed_rows == 0 else "lower")
                + " replay, or raise batch_size"
            )
        return self

    @field_validator("adapter_modules", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return [name.strip() for name in value.split(",") if name.strip()] if isinstance(value, str) else value


class EvalConfig(Section):
    """How a generation is measured."""

    protocol: Literal["block", "sliding"] = "block"
    """Non-overlapping blocks, or a sliding window of full context in which every token is scored once."""
    block_size: int = Field(default=0, ge=0)
    """Tokens of a block. 0: `data.block_size`."""
    context: int = Field(default=0, ge=0)
    """Tokens of the sliding window. 0: what the model can take."""
    stride: int = Field(default=0, ge=0)
    """Tokens the window moves. 0: half of it."""
    samples: bool = True
    """Measure what each generation samples, too; the last one is then sampled for that alone."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Arithmetic of scoring. bfloat16 is faster where the machine has instructions for it, and moves the third digit."""


class StoreConfig(Section):
    """What is kept on disk."""

    keep_models: Literal["all", "ends", "none"] = "all"
    """Weights to keep once nothing needs them: all, generation 0 and the last one, or none."""


class Expectation(Section):
    """A published number that a run can be held against."""

    what: str = Field(min_length=1)
    """A field of `metrics.jsonl`, such as `perplexity`."""
    policy: str = ""
    """Of which policy. Empty: the first."""
    lineage: str = added("")
    """Of which lineage; `*`: the mean over all. Empty: the first."""
    generation: int = Field(default=0, ge=0)
    """Of which generation."""
    cell: dict[str, float] = Field(default_factory=dict)
    """Of which cell of a mixture: fields of its row, such as `share = 0.1`; what is left out must not vary."""
    value: float | None = None
    """What was published. Left out: what theory says, as `collapse theory` does."""
    tolerance: float = Field(default=0.1, gt=0)
    """Relative: up to how far from `value` a measured one is inside."""
    factor: float | None = Field(default=None, gt=1)
    """Instead of the tolerance: up to how many times more or less a measured one may be. For what differs by factors."""
    within: float | None = Field(default=None, gt=0)
    """Instead of the tolerance: up to how far, absolutely. For logarithms, and for values near 0."""
    source: str = Field(min_length=1)
    """Where it was published, or which theorem it is."""
    note: str = ""
    """What the reader should know, such as that a setting is unconfirmed."""


class TrackingConfig(Section):
    """Where the rows of `metrics.jsonl` are mirrored to while they are made; nothing of it changes a number."""

    to: tuple[Literal["mlflow", "wandb", "tensorboard"], ...] = ()
    """Trackers that mirror the run; each wants its extra, as in `pip install 'collapse-cli[mlflow]'`. Empty: none."""
    uri: UserPath = ""
    """MLflow's store or server. Empty: MLFLOW_TRACKING_URI where that is set, else `mlflow.db` in the runs folder."""
    project: str = Field(default="collapse", min_length=1)
    """MLflow's experiment and the W&B project."""

    @field_validator("to", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return [name.strip() for name in value.split(",") if name.strip()] if isinstance(value, str) else value


class RayConfig(Section):
    """By what `--executor ray` computes stages. Nothing of it is in a key."""

    address: str = ""
    """`HOST:PORT` of the head of a cluster that runs, or `auto`. Empty: RAY_ADDRESS where that is set, else Ray is started on this machine."""
    threads: int = Field(default=0, ge=0, le=100_000)
    """CPUs that a stage asks for, and the threads that it uses. 0: as many as without Ray on this machine."""
    gpus: float | None = Field(default=None, ge=0, le=1000)
    """GPUs that a stage which works with a model asks for; below 1, several share one. Left out: 1 where this machine has one."""

    @field_validator("gpus")
    @classmethod
    def _whole_above_one(cls, value: float | None) -> float | None:
        if value is not None and value > 1 and value != int(value):
            raise ValueError(f"above 1 it must be a whole number, it is {value}")
        return value
