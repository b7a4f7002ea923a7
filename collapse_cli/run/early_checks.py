"""What can be said of a command before torch is imported, which takes seconds: a mistake costs its reader no wait.

What is found here is not all that can be wrong; what is looked up later is checked again where it is used.
"""

import importlib.util
import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from collapse_cli import files, tracking
from collapse_cli.config import Experiment, nearest
from collapse_cli.config.families import DRAWN
from collapse_cli.config.foreign import KEY, server_of
from collapse_cli.config.selection import BY
from collapse_cli.config.tree import MADE_TOKENIZERS, DataConfig, ModelConfig
from collapse_cli.config.unread import within
from collapse_cli.data.dataset import (
    HUB_NAMES,
    OWN,
    UNSCORED,
    HubError,
    hub_revision,
    load_text,
    no_text,
    refuse_numbers,
)
from collapse_cli.data.images import load_images
from collapse_cli.data.known import KNOWN
from collapse_cli.data.textfiles import format_of
from collapse_cli.data.world.world import SHORTEST
from collapse_cli.errors import ConfigError, InputError, UserError
from collapse_cli.families import FAMILIES
from collapse_cli.foreign import written
from collapse_cli.lm import places
from collapse_cli.records.rundir import RunFolder

IMAGES = ("digits", "mnist")  # which no folder need be given for
WEIGHTS = ("*.safetensors", "*.safetensors.index.json", "pytorch_model*")
MOST_MODELS = 5_000_000  # of a plan: one of more is a slip of the finger, and takes minutes to write down


def check_experiment(config: Experiment, folder: RunFolder) -> None:
    """Check an experiment, and the run folder it is to go into, as far as that goes without the libraries of a learner.

    Raises:
        ConfigError, InputError: for the first thing that is wrong.
    """
    if config.learner not in FAMILIES:
        known = ", ".join(FAMILIES)
        raise InputError(f"there is no learner {config.learner!r}{nearest(config.learner, FAMILIES)}; known: {known}")
    family = FAMILIES[config.learner]
    tracking.check_installed(config)
    check_policies(config)
    check_select(config)
    lineages = config.of_lineages()
    for name, own in lineages.items() if family.text else ():
        with of_lineage(config, name):
            place_of_text(own.data.source)  # before the Hub is asked for anything
            check_documents(own)
    folder.check_same_settings(config)
    for name, own in lineages.items():
        with of_lineage(config, name):
            if family.begins_with_a_model:
                check_adapter(own)
                check_anchor(own)
                check_model(own.model)
            if family.text:
                check_tokenizer(own.model.tokenizer)
                check_text(own.data)
            else:
                check_source(own)
    check_foreign(config)
    check_public(config)
    check_lineages(config)


@contextmanager
def of_lineage(config: Experiment, name: str) -> Iterator[None]:
    """Errors say which lineage they are about, where it has anything of its own; those that say it already are left as they are."""
    try:
        yield
    except UserError as error:
        if config.lineages.get(name) and not str(error).startswith(f"lineages.{name}"):
            error.args = (f"lineages.{name}: {error}",)
        raise


def check_policies(config: Experiment) -> None:
    """Whether no two policies are the same, and the plan is one that can be written down."""
    loop = config.loop
    for policy in loop.policies:
        if (same := loop.policies[loop.policies.index(policy)]).name != policy.name:
            raise ConfigError(f"the policies {same} and {policy} are the same; give one of them")
    lineages = len(config.lineage_names)
    models = (loop.generations + 1) * len(loop.policies) * len(loop.seeds) * lineages
    if config.kind == "generational" and models > MOST_MODELS:
        raise ConfigError(
            f"this is {models:,} models (generations: {loop.generations + 1:,}, policies: {len(loop.policies):,}, seeds: "
            f"{len(loop.seeds):,}{f', lineages: {lineages:,}' if lineages > 1 else ''}), and a run has at most {MOST_MODELS:,}; lower one of them"
        )


def check_public(config: Experiment) -> None:
    """Whether there can be the public rows that a configuration asks for. The text is read as it will be again, which costs nothing then.

    Raises:
        ConfigError: when there cannot.
        InputError: as `load_text` does.
    """
    if config.pool.public:
        if not FAMILIES[config.learner].text:
            raise ConfigError(
                f"pool.public is text, and the rows of the learner {config.learner} are numbers; of a source that is drawn "
                "say how many rows all share (pool.public_rows)"
            )
        if config.data.source in KNOWN and KNOWN[config.data.source].documents:
            raise ConfigError(
                f"pool.public is cut into blocks, and data.source = {config.data.source} has whole documents for rows"
            )
        load_text(source=config.pool.public, scored=UNSCORED)
    elif config.pool.public_rows and config.data.source not in DRAWN:
        raise ConfigError(
            f"pool.public_rows = {config.pool.public_rows} are drawn, and data.source = {config.data.source} is not a distribution "
            f"({', '.join(DRAWN)}); name a text that all share (pool.public)"
        )


def check_lineages(config: Experiment) -> None:
    """Whether lineages can be measured beside each other, and read each other's rows.

    Raises:
        ConfigError: when they cannot.
    """
    several = {name: own for name, own in config.of_lineages().items() if name}
    if not FAMILIES[config.learner].text:
        check_shapes(several)
    for name, own in several.items():
        if own.data.scored is not None and config.data.source in KNOWN:
            raise ConfigError(
                f"lineages.{name}.data.source: the truth of data.source = {config.data.source} is known, which other text does not have; "
                "give lineages parts of it (pool.real = segments), or name another common text (--data)"
            )


def check_shapes(several: Mapping[str, Experiment]) -> None:
    """Whether lineages of numbers can take each other's rows.

    Raises:
        ConfigError: where rows of one have other numbers than those of the first.
    """
    shapes = {
        name: {
            "data.source": own.data.source,
            "data.blobs.dimensions": own.data.blobs.dimensions,
            "data.regression.dimensions": own.data.regression.dimensions,
            f"{own.learner}.trials": getattr(getattr(own, own.learner), "trials", 1),
        }
        for name, own in several.items()
    }
    first, wanted = next(iter(shapes.items()), ("", {}))
    for name, shape in shapes.items():
        for option, value in shape.items():
            if wanted[option] != value:
                raise ConfigError(
                    f"lineages.{first}.{option} = {wanted[option]} and that of {name} is {value}: rows of one cannot be fitted by the "
                    "other; give all lineages the same"
                )


def check_adapter(config: Experiment) -> None:
    """Whether there is a trained model for an adapter to lie on."""
    if not config.train.adapter or not config.model.from_scratch:
        return
    if config.kind == "mixture":
        raise ConfigError(
            "train.adapter trains an adapter beside the weights of the base model, which here are random (a model from scratch); "
            "start from a trained one (--model), or leave it out"
        )
    if config.loop.init == "base":
        raise ConfigError(
            "train.adapter trains an adapter beside the weights that a generation starts from, and with loop.init = base those are "
            "random (a model from scratch); say --set loop.init=gen0 or previous, or start from a trained model (--model)"
        )
    if config.loop.generations == 0:
        raise ConfigError(
            "train.adapter has no effect with 0 generations: generation 0 of a model from scratch is trained whole, and there is no "
            "other"
        )


def check_select(config: Experiment) -> None:
    """Whether the scores of a selection suit the rows.

    Raises:
        ConfigError: for a score of text where rows are numbers.
    """
    if FAMILIES[config.learner].text:
        for step in config.select.chosen:
            if step.model:
                check_folder(step.model, "select.model", "config.json", "")
        return
    for step in config.select.chosen:
        if step.model:
            raise ConfigError(
                f"select.model names a model that reads text, and the rows of the learner {config.learner} are numbers; leave it out"
            )
        if step.kind.text:
            fit = ", ".join(name for name, kind in BY.items() if not kind.text)
            raise ConfigError(
                f"select: {step.name} takes rows of text, and those of the learner {config.learner} are numbers; these take them: {fit}"
            )
    if (
        config.select.on
        and config.learner in Experiment.model_fields
        and getattr(getattr(config, config.learner), "trials", 1) > 1
    ):
        raise ConfigError(
            f"select chooses whole rows, and {config.learner}.trials puts independent experiments beside each other in each; set "
            f"{config.learner}.trials = 1 and give more loop.seeds"
        )


def check_anchor(config: Experiment) -> None:
    """Whether there is something to hold a model by, and to."""
    train = config.train
    if train.anchor in ("ewc", "l2") and train.adapter:
        raise ConfigError(
            f"train.anchor = {train.anchor} holds the weights of a model, and with train.adapter = {train.adapter} those are not trained; "
            "kl and distill hold what it predicts"
        )
    if train.anchor not in ("none", "l2") and train.anchor_to == "base" and config.model.from_scratch:
        raise ConfigError(
            f"train.anchor = {train.anchor} with train.anchor_to = base holds a model to what the base model has learned, which here "
            "(a model from scratch) is nothing; say --set train.anchor_to=gen0 or previous"
        )


def check_model(model: ModelConfig) -> None:
    """Whether what `model.source` names can be a model: a config file, a folder with weights, or a public Hub id."""
    source = model.source
    if model.config:
        return
    if not source.strip():
        raise InputError("model.source is empty; give a model folder, a Hub id or a config .json file (--model)")
    path = _path(source, "the model")
    if source.endswith(".json"):
        _check_config(path)
        return
    if not check_folder(source, "the model", "config.json", model.revision) or places.is_gguf(path):
        return
    if not any(any(path.glob(pattern)) for pattern in (*WEIGHTS, "adapter_*", "*.gguf", "*.onnx", "*.h5", "*.pt*")):
        raise InputError(
            f"the model: {path} has no weights (model.safetensors or pytorch_model.bin); to start from scratch, give the "
            f"file itself: --model {path / 'config.json'}"
        )


def check_tokenizer(tokenizer: str) -> None:
    """Whether `model.tokenizer` is empty, one that is made, a folder or a public Hub id."""
    if tokenizer and tokenizer not in MADE_TOKENIZERS:
        check_folder(tokenizer, "the tokenizer", "", "")


def check_folder(source: str, what: str, needed: str, revision: str) -> bool:
    """Whether a folder or a GGUF file, rather than a Hub id, is named, with the file that it needs.

    Raises:
        InputError: when it is neither, or the file is not there; HubError when the Hub is out of reach and nothing cached.
    """
    path = _path(source, what)
    if places.is_folder(source, what):
        packed = path if places.is_gguf(path) else places.gguf_in(path, what) if needed else None
        if packed is not None:
            places.check_gguf(packed, what)
            return True
        adapted = any(path.glob("adapter_*"))  # refused by its own name, later
        if needed and not (path / needed).is_file() and not adapted:
            inside = [file.parent.name for file in sorted(path.glob(f"*/{needed}"))][:3]
            there = f"; folders in it have one: {', '.join(inside)}" if inside else ""
            raise places.without(needed, path, what, there)
        return True
    if hub_revision(source, "model", f"{what} {source!r}", revision) is None:
        import huggingface_hub

        name = needed or "tokenizer_config.json"
        cached = huggingface_hub.try_to_load_from_cache(source, name, revision=revision or None)
        if not isinstance(cached, str) and not (not needed and _cached(source, revision)):
            raise HubError(
                f"{what} {source!r}", "it is not a folder here, the Hub cannot be reached, and it is not cached"
            )
    return False


def _cached(source: str, revision: str) -> bool:
    """Whether anything of a tokenizer is in the Hub's cache."""
    import huggingface_hub

    names = ("tokenizer.json", "vocab.json", "tokenizer.model", "spiece.model", "config.json")
    return any(
        isinstance(huggingface_hub.try_to_load_from_cache(source, name, revision=revision or None), str)
        for name in names
    )


def place_of_text(source: str) -> tuple[Path, str]:
    """Where the text of `data.source` is, and what is there: `file`, `folder`, or "" where it can only be on the Hub.

    Raises:
        InputError: when it cannot be text.
    """
    refuse_numbers(source)
    path = _path(source, "data.source")
    kind = files.what_is(path)
    if kind == "other":
        raise InputError(f"data.source = {source!r} is a pipe or a device; give a file or a folder")
    away = not kind and source not in (*OWN, *HUB_NAMES)
    if away and (source.startswith((".", "/", "~")) or not re.fullmatch(r"[\w.-]+(/[\w.-]+)?(:[\w.-]+)?", source)):
        raise no_text(source)
    return path, kind


def check_documents(config: Experiment) -> None:
    """Whether a model of whole documents is sampled as one: from their beginning, to an end that it finds itself.

    Raises:
        ConfigError: when it is not.
    """
    source, sample = config.data.source, config.sample
    if source not in KNOWN or not KNOWN[source].documents:
        return
    if not within("sample.decode.min_new_tokens", FAMILIES[config.learner].reads):
        raise ConfigError(
            f"the rows of data.source = {source} are whole documents, and the learner {config.learner} never ends a text; name other "
            "text (--data)"
        )
    for wrong, instead in (
        (config.train.target != "full", "train.target = full"),
        (sample.decode.min_new_tokens < 0, "sample.decode.min_new_tokens = 0"),
        (
            sample.prompts != "none" and sample.prompt_tokens >= SHORTEST,
            f"sample.prompt_tokens < {SHORTEST}",
        ),
    ):
        if wrong:
            raise ConfigError(f"data.source = {source} has whole documents for rows: set {instead} (--set)")


def check_text(data: DataConfig) -> None:
    """Whether `data.source` is text: what is here is read; else it is a public Hub id.

    Raises:
        InputError: when it is not; HubError when the Hub is out of reach and nothing cached.
    """
    source = data.source
    if source in OWN:
        return  # checked when it is made
    path, kind = place_of_text(source)
    if kind:  # read as it will be read again, which costs nothing then: it is kept
        load_text(**data.places())
        return
    named = HUB_NAMES.get(source, source)
    repo = named.partition(":")[0]
    if format_of(path) is not None or hub_revision(repo, "dataset", f"the dataset {named!r}") is not None:
        return
    if not _cached_dataset(repo):
        here = "" if source in HUB_NAMES else f"there is no file or folder {source!r} here, "
        raise HubError(f"the dataset {named!r}", f"{here}the Hub cannot be reached and the dataset is not cached")


def check_foreign(config: Experiment) -> None:
    """Whether what synthetic text comes from can be read, or asked. Files are read as they will be again, which costs nothing then.

    Raises:
        InputError: as `written.read` does.
        ConfigError: for what servers cannot be asked, or when the library that asks them is not installed.
    """
    servers = [server for source in config.foreign_sources if (server := server_of(source))]
    for source in config.foreign_sources:
        if server_of(source) is None:
            written.read(source, config.foreign.text)
    if not servers:
        return
    asked, decode = str(servers[0]), config.sample.decode
    if importlib.util.find_spec("openai") is None:
        raise ConfigError(f"{asked} is a server, and openai is not installed: pip install 'collapse-cli[server]'")
    if decode.beams > 1:
        raise ConfigError(
            f"{asked}: servers of completions have no beam search, and sample.decode.beams = {decode.beams}; set it to 1, with a "
            "temperature (--set sample.decode.beams=1 --set sample.decode.temperature=1.0)"
        )
    for name, off in (("top_k", 0), ("min_p", 0.0), ("repetition_penalty", 1.0), ("min_new_tokens", -1)):
        if (value := getattr(decode, name)) != off:
            raise ConfigError(
                f"{asked}: sample.decode.{name} = {value:g} is none of the options of OpenAI's completions; leave it at {off:g}, and "
                "name what your server has for it in foreign.extra"
            )
    if config.sample.prompts != "real":
        raise ConfigError(
            f"{asked}: servers continue real rows; set sample.prompts = real, it is {config.sample.prompts}"
        )
    if os.environ.get(KEY) and len({server.host for server in servers}) > 1:
        raise ConfigError(f"the key in {KEY} would be sent to several servers; ask them in runs of their own")


def _cached_dataset(repo: str) -> bool:
    """Whether something of a dataset is cached, in the Hub's cache or in that of `datasets`, whose import takes seconds."""
    from huggingface_hub import constants

    def plain(name: str) -> str:  # `datasets` writes HelloWorld as hello_world
        return name.replace("_", "").lower()

    made = Path(os.environ.get("HF_DATASETS_CACHE") or Path(constants.HF_HOME) / "datasets").expanduser()
    name = plain(repo.replace("/", "___"))
    downloaded = Path(constants.HF_HUB_CACHE) / f"datasets--{repo.replace('/', '--')}"
    return downloaded.is_dir() or any(plain(folder.name) == name for folder in made.glob("*/"))


def check_source(config: Experiment) -> None:
    """Whether a learner of numbers takes `data.source`."""
    source, takes = config.data.source, FAMILIES[config.learner].sources
    if takes:
        if source not in takes:
            raise InputError(
                f"the learner {config.learner} cannot take data.source = {source!r}; it takes {', '.join(takes)}"
            )
    elif source not in IMAGES:  # read as it will be read again, which costs nothing then: it is kept
        _path(source, "data.source")
        load_images(source)


def _check_config(path: Path) -> None:
    """Whether a config file of a model can be read."""
    if not path.is_file():
        raise InputError(f"the model: there is no file {str(path)!r}")
    try:
        fields = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"the model: {path} is not a transformers config in JSON ({error})") from None
    if not isinstance(fields, dict):
        raise InputError(f"the model: {path} is not a transformers config in JSON (it is not an object)")


def _path(source: str, what: str) -> Path:
    """The path that a source may be.

    Raises:
        InputError: for one that no file can have.
    """
    if not files.is_utf8(source):
        raise InputError(f"{what}: the path {source[:80]!r} is not UTF-8; {files.NOT_UTF8}")
    path = Path(source)
    try:
        path.exists()
    except (OSError, ValueError, RuntimeError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise InputError(f"{what}: {source[:80]!r} cannot be looked up: {why}") from None
    return path
