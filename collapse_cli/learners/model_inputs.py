"""The model of a configuration: found, and whether its tokenizer, its rows and this machine's memory suit it."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from collapse_cli.config.experiment import Experiment
from collapse_cli.data.dataset import pinned
from collapse_cli.errors import ConfigError, InputError
from collapse_cli.learners import text_inputs
from collapse_cli.learners.protocol import TRAINING_BYTES, WEIGHT_BYTES, Hints, Resolved
from collapse_cli.lm import adapter, architecture, chats, folders, memory, training_state, trial
from collapse_cli.lm import model as models
from collapse_cli.lm import text as texts

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedTokenizerBase


def resolve(config: Experiment) -> Resolved:
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
    trained = adapted if adapted and not model.from_scratch else made.parameters  # its generation 0 is trained whole
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
        raise InputError(training_state.NO_VALIDATION)
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
