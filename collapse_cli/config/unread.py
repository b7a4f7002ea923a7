"""Which options mean something to the experiment at hand: what nothing reads is refused, with the reason.

`READS` says it by learner, `SOURCES` by kind of data, `KINDS` by kind of experiment; `CONDITIONS` are options that another
option switches off. Only what the user gave is looked at: a resolved tree holds a value for every option.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from collapse_cli import families
from collapse_cli.config.experiment import Experiment
from collapse_cli.config.families import Families
from collapse_cli.config.foreign import server_of
from collapse_cli.config.names import leaves
from collapse_cli.config.policies import FRESH, Policy, Rule
from collapse_cli.config.pool import OWN_SECTIONS
from collapse_cli.config.tree import MADE_TOKENIZERS, DataConfig
from collapse_cli.families import FAMILIES, KNOWN
from collapse_cli.families.section import Parsed

ALWAYS = ("kind", "learner", "loop.seeds", "data.source", "store", "tracking", "ray", "expect", "variants")
KINDS = {
    "generational": ("loop", "mix", "select", "pool", "lineages"),
    "mixture": ("mixture",),
}
READS = {name: family.reads for name, family in FAMILIES.items()}
ROWS = ("data.rows", "data.eval_rows")
FILES = tuple(
    f"data.{name}"
    for name in ("train", "valid", "test", "text", "format", "prompt", "completion", "template", "template_sha256")
)
SOURCES = {
    "text": (
        *ROWS,
        *(f"data.{name}" for name in ("block_size", "line_bos", "sha256", "segment")),
        *FILES,
    ),
    "pydoc": (*ROWS, "data.segment", "data.block_size", "data.line_bos", "data.sha256"),
    "zipf": (*ROWS, "data.segment", "data.block_size", "data.line_bos", "data.sha256", "data.zipf"),
    "world": (*ROWS, "data.segment", "data.block_size", "data.sha256", "data.world"),
    "images": (*ROWS, "data.segment", "data.sha256"),
    "blobs": (*ROWS, "data.segment", "data.reserve", "data.blobs"),
    "regression": (*ROWS, "data.segment", "data.reserve", "data.regression"),
}


@dataclass(frozen=True)
class Scope:
    """What decides which options there are: the kind of an experiment, its learner and the source of its data."""

    kind: str
    learner: str
    source: str

    @classmethod
    def of(cls, tree: Mapping[str, Any]) -> "Scope":
        """That of a tree, read or not yet checked."""
        data = tree.get("data")
        source = data.get("source") if isinstance(data, Mapping) else None
        kind, learner = str(tree.get("kind", "generational")), str(tree.get("learner", families.DEFAULT))
        return cls(kind, learner, str(source or DataConfig().source))

    @property
    def data(self) -> str:
        """Which entry of `SOURCES` the data are."""
        if self.source in ("pydoc", *KNOWN, "blobs", "regression"):
            return self.source
        return "images" if families.of(self.learner).rows == "images" else "text"

    def foreign(self, key: str) -> str:
        """Why an option is of other learners, sources or kinds; empty where it is not."""
        own = (*ALWAYS, *KINDS.get(self.kind, ()), *READS.get(self.learner, ()), *SOURCES[self.data])
        if within(key, own) or self.kind not in KINDS or self.learner not in READS or not _known(key):
            return ""
        kinds = [kind for kind, keys in KINDS.items() if within(key, keys)]
        if kinds:
            is_a = "a mixture has one generation and a grid" if self.kind == "mixture" else "this one has generations"
            return f"it belongs to experiments of kind = {kinds[0]}, and {is_a}"
        if key in FILES and self.data != "text":
            return f"data.source = {self.source} has no files of text to choose from"
        sources = [source for source, keys in SOURCES.items() if within(key, keys)]
        if key.startswith("data.") and sources:
            return f"data.source = {self.source} does not have it; it belongs to {_listed(sources)}"
        learners = [learner for learner, keys in READS.items() if within(key, keys)]
        sections = self.learner if self.learner in Experiment.model_fields else ", ".join(READS[self.learner])
        return f"it belongs to the learner {_listed(learners)}; this one is {self.learner}, whose options are in {sections}"


def makes_tokenizer(experiment: Experiment) -> bool:
    """Whether the tokenizer is made from the training text, rather than given or the model's own."""
    if experiment.model.tokenizer:
        return experiment.model.tokenizer in MADE_TOKENIZERS
    if not families.of(experiment.learner).begins_with_a_model:
        return True
    return experiment.model.from_scratch


def _uses(experiment: Experiment, *rules: Rule) -> bool:
    return any(policy.rule in rules for policy in experiment.loop.policies)


def _samples(policy: Policy) -> bool:
    """Whether any generation of the policy takes rows that a model made."""
    return any(policy.needs_samples(generation) for generation in range(1, len(policy.shares) + 1))


def _grid(experiment: Experiment) -> families.Grid | None:
    """What the family of a mixture has; None of what is no mixture."""
    return families.of(experiment.learner).grid if experiment.kind == "mixture" else None


def _in_memory(experiment: Experiment) -> bool:
    """Whether the cells of a mixture draw rows of their own, and leave no models."""
    grid = _grid(experiment)
    return grid is not None and grid.in_memory


def _labels_real(experiment: Experiment) -> bool:
    grid = _grid(experiment)
    return grid is not None and grid.labels_real


def _no_server(experiment: Experiment) -> bool:
    return not any(map(server_of, experiment.foreign_sources))


Condition = Callable[[Experiment], bool]
# Where the second holds, nothing reads the options of the first, because of the third. A value that is the default is let pass.
CONDITIONS: tuple[tuple[tuple[str, ...], Condition, str], ...] = (
    (
        ("model.source", "model.revision", "model.sha256", "model.base"),
        lambda experiment: bool(experiment.model.config),
        "model.config is given, so the model starts from scratch; to start from that model, say --model",
    ),
    (
        ("model.revision",),
        lambda experiment: Path(experiment.model.source).exists() or experiment.model.source.endswith(".json"),
        "only models of the Hub have revisions, and model.source is here",
    ),
    (
        ("model.vocab_size",),
        lambda experiment: not makes_tokenizer(experiment),
        "the tokenizer is not made from the training text, so it has its own size; --set model.tokenizer=bpe makes one",
    ),
    (
        ("model.vocab_size",),
        lambda experiment: experiment.data.source == "zipf" and experiment.model.tokenizer in ("", "words"),
        "the tokens are the words of the language: --set data.zipf.vocabulary=…",
    ),
    (
        ("model.vocab_size",),
        lambda experiment: experiment.data.source == "world" and experiment.model.tokenizer in ("", "words"),
        "the tokens are the words of the world",
    ),
    (
        ("eval.block_size",),
        lambda experiment: experiment.data.source == "world",
        "the rows of data.source = world are whole documents, of data.block_size tokens at most",
    ),
    (
        ("model.tokenizer_sha256",),
        makes_tokenizer,
        "the tokenizer is made from the training text",
    ),
    (
        ("sample.prompt_tokens",),
        lambda experiment: experiment.sample.prompts == "none",
        "sample.prompts = none: nothing is continued",
    ),
    (
        ("sample.prompts",),
        lambda experiment: (
            _in_memory(experiment)
            or (
                "regression" in families.of(experiment.learner).sources and experiment.data.regression.inputs == "fresh"
            )
        ),
        "each generation labels new inputs; --set data.regression.inputs=same labels those of a corpus again",
    ),
    (
        ("sample.prompts",),
        _labels_real,
        "the generator of a mixture labels real rows",
    ),
    (
        ("sample.decode.length_penalty",),
        lambda experiment: experiment.sample.decode.beams == 1,
        "sample.decode.beams = 1: there are no beams to rank",
    ),
    (
        ("train.epochs",),
        lambda experiment: experiment.train.steps > 0,
        "train.steps says how long a model is trained",
    ),
    (
        ("train.min_lr",),
        lambda experiment: experiment.train.schedule == "constant",
        "train.schedule = constant: the learning rate does not fall",
    ),
    *(
        (
            (f"train.{name}",),
            lambda experiment, loss=loss: experiment.train.loss != loss,
            f"only train.loss = {loss} reads it",
        )
        for loss, name in (("truncated", "truncate"), ("focal", "focusing"), ("smoothed", "smoothing"))
    ),
    (
        ("train.replay",),
        lambda experiment: experiment.kind == "mixture" or experiment.loop.generations == 0,
        "rows of generation 0 are replayed in later generations, and there are none",
    ),
    (
        ("train.anchor",),
        lambda experiment: experiment.kind == "mixture" or experiment.loop.generations == 0,
        "generation 0 has no anchor, and there is no later one",
    ),
    (
        ("train.anchor_to", "train.anchor_weight"),
        lambda experiment: experiment.train.anchor == "none",
        "train.anchor = none: nothing holds a model to another one",
    ),
    (
        ("train.anchor_temperature",),
        lambda experiment: experiment.train.anchor != "distill",
        "only train.anchor = distill reads it",
    ),
    (
        ("train.anchor_rows",),
        lambda experiment: experiment.train.anchor != "ewc",
        "only train.anchor = ewc reads it",
    ),
    (
        ("train.adapter_alpha", "train.adapter_modules"),
        lambda experiment: not experiment.train.adapter,
        "train.adapter = 0: all weights are trained, and there is no adapter",
    ),
    (
        ("eval.context", "eval.stride"),
        lambda experiment: experiment.eval.protocol == "block",
        "eval.protocol = block; blocks are eval.block_size tokens, and --set eval.protocol=sliding has a context and a stride",
    ),
    (
        ("eval.block_size",),
        lambda experiment: experiment.eval.protocol == "sliding" and experiment.train.select == "last",
        "eval.protocol = sliding has no blocks: --set eval.context=…",
    ),
    (
        ("eval.samples",),
        lambda experiment: experiment.kind == "mixture",
        "a mixture does not measure samples",
    ),
    (
        ("mix.size",),
        lambda experiment: not _uses(experiment, "keep", "keep-rows", "fresh"),
        "of the policies only keep-P, keep-rows-N and fresh-P have a size to choose",
    ),
    (
        ("mix.weights",),
        lambda experiment: (
            not (any(policy.mixes for policy in experiment.loop.policies) or experiment.select.short == "real")
        ),
        "no policy of this run mixes real and synthetic rows",
    ),
    (
        ("select", "pool.foreign", "pool.rule"),
        lambda experiment: not any(_samples(policy) for policy in experiment.loop.policies),
        "no policy here takes rows that a model made",
    ),
    (
        ("pool.public_sha256",),
        lambda experiment: not experiment.pool.public,
        "pool.public names no text",
    ),
    (
        ("select", "mix.weights", "pool.foreign", "pool.rule"),
        lambda experiment: experiment.kind == "generational" and experiment.loop.generations == 0,
        "generation 0 is trained on real rows alone, and there is no later one",
    ),
    (
        ("pool.weights",),
        lambda experiment: (
            experiment.loop.generations == 0 and not (experiment.pool.public or experiment.pool.public_rows)
        ),
        "generation 0 is trained on private real rows alone here, and there is no later one",
    ),
    (
        ("data.reserve",),
        lambda experiment: experiment.kind == "mixture" or not _uses(experiment, *FRESH),
        "only the policies fresh-P and accumulate-fresh-P take rows of the reserve",
    ),
    (
        ROWS,
        _in_memory,
        "the cells of this mixture draw their own rows: --set mixture.rows=[…]",
    ),
    (
        ("data.blobs.separation",),
        lambda experiment: experiment.data.blobs.centers == 1,
        "data.blobs.centers = 1: there is nothing to separate",
    ),
    (
        ("data.regression.beta",),
        lambda experiment: experiment.data.regression.spectrum == "iso",
        "data.regression.spectrum = iso has no slope; --set data.regression.spectrum=pow has",
    ),
    (
        ("data.regression.flipped",),
        lambda experiment: experiment.kind == "mixture",
        "labels of a mixture are right but for their noise; a loop over generations has wrong ones",
    ),
    (
        ("loop.init",),
        lambda experiment: families.of(experiment.learner).starts_anew(experiment),
        "this learner is fitted anew each time, wherever it starts",
    ),
    (
        ("mixture.real_data",),
        lambda experiment: not experiment.mixture.iterations,
        "only iterative mixing reads it, and mixture.iterations is empty",
    ),
    (
        ("store.keep_models",),
        _in_memory,
        "the models of this mixture are never written",
    ),
    (
        ("foreign",),
        lambda experiment: not experiment.foreign_sources,
        "no text of someone else's is named (pool.foreign, mixture.synthetic)",
    ),
    (
        tuple(f"foreign.{name}" for name in ("chat", "extra", "at_once", "timeout", "retries")),
        _no_server,
        "only servers are asked, and the sources here are files",
    ),
    (
        ("foreign.text",),
        lambda experiment: all(map(server_of, experiment.foreign_sources)),
        "only files have columns, and the sources here are servers",
    ),
    (
        ("mixture.generator_rows",),
        lambda experiment: bool(experiment.mixture.synthetic),
        "mixture.synthetic says where synthetic rows come from, so no generator is fitted",
    ),
    (
        ("sample", "train.target"),
        lambda experiment: not experiment.samples,
        "the synthetic rows are read from files (mixture.synthetic), and nothing is sampled",
    ),
    (
        ("tracking.uri",),
        lambda experiment: "mlflow" not in experiment.tracking.to,
        "only MLflow reads it: --set tracking.to=mlflow",
    ),
    (
        ("tracking.project",),
        lambda experiment: not {"mlflow", "wandb"} & set(experiment.tracking.to),
        "only MLflow and W&B read it: --set tracking.to=mlflow or wandb",
    ),
    *(condition for family in FAMILIES.values() for condition in family.unread),
)


def unread(key: str, experiment: Experiment, *, value_given: bool = True) -> str:
    """Why nothing reads an option in an experiment; empty where something does.

    Args:
        key: dotted, of a leaf of the tree.
        value_given: whether its value is another than the default: what is switched off may be written down as off.
    """
    if why := Scope(experiment.kind, experiment.learner, experiment.data.source).foreign(key):
        return why
    if value_given:
        return next(
            (why for keys, switched_off, why in CONDITIONS if within(key, keys) and switched_off(experiment)), ""
        )
    return ""


def first_unread(given: Mapping[str, Any], experiments: Iterable[Experiment]) -> tuple[str, str] | None:
    """The first option of a tree that means nothing to any of the experiments it is given for, and why; None without one."""
    chosen = list(experiments)
    for key, value in leaves(given):
        if value == {} or within(key, ("variants", "expect", "lineages")):
            continue
        other = value != _default(key)
        why = [unread(key, experiment, value_given=other) for experiment in chosen]
        if why and all(why):
            return key, why[0]
    return None


def first_replaced(given: Mapping[str, Any], experiments: Iterable[Experiment]) -> tuple[str, str] | None:
    """The first option of a tree in whose place every lineage of every experiment has another value, and why; None without one.

    Options of `data` are those of the common test text as well, so that they are read all the same; but for the segment.
    """
    lineages = [(one, one.of_lineages()) for one in experiments]
    if any("" in each for _, each in lineages):
        return None
    for key, value in leaves(given):
        own = (*OWN_SECTIONS, *Families.model_fields)
        if not within(key, own) or (within(key, ("data",)) and key != "data.segment") or value == _default(key):
            continue
        if all(
            (key == "data.segment" and one.pool.real == "segments") or _value(own, key) != _value(one, key)
            for one, each in lineages
            for own in each.values()
        ):
            return key, f"every lineage has its own ({_others(key, lineages[0][1])}); leave it out, or set it for them"
    return None


def _others(key: str, lineages: Mapping[str, Experiment]) -> str:
    names = list(lineages)
    values = [f"lineages.{name}.{key} = {_value(lineages[name], key)}"[:100] for name in names[:2]]
    return ", ".join(values) + (f" and {len(names) - 2} more" if len(names) > 2 else "")


def within(key: str, names: Iterable[str]) -> bool:
    """Whether a dotted key is one of `names`, or in a section that is."""
    return any(key == name or key.startswith(f"{name}.") for name in names)


def first_foreign(given: Mapping[str, Any], scope: Scope) -> tuple[str, str] | None:
    """The first option of a tree that an experiment of that scope does not have, and why; None without one."""
    keys = [key for key, value in leaves(given) if value != {} and not within(key, ("variants", "expect", "lineages"))]
    return next(((key, why) for key in keys if (why := scope.foreign(key))), None)


def _known(key: str) -> bool:
    """Whether there is such an option, or section, at all; another is refused by its own name."""
    section: Any = Experiment
    for part in key.split("."):
        fields = getattr(section, "model_fields", None)
        if fields is None:
            return True  # within a table
        if part not in fields:
            return False
        section = fields[part].annotation
    return True


def _listed(names: list[str]) -> str:
    return " or ".join(names) if names else "no learner"


def _default(key: str) -> Any:
    """The default of an option, as a configuration file would have it."""
    return _value(Experiment(), key)


def _value(experiment: Experiment, key: str) -> Any:
    """The value of an option, as a configuration file would have it."""
    value: Any = experiment
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else getattr(value, part, None)
    if isinstance(value, Parsed):
        return str(value)
    return [str(item) if isinstance(item, Parsed) else item for item in value] if isinstance(value, tuple) else value
