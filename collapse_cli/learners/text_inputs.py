"""What learners of text read: the text and its tokenizer, found and checked, and made into rows of tokens."""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from collapse_cli.config.experiment import Experiment
from collapse_cli.config.pool import Segment
from collapse_cli.config.tree import MADE_TOKENIZERS, DataConfig, ModelConfig, SampleConfig, TrainConfig
from collapse_cli.data import textfiles
from collapse_cli.data.dataset import (
    OWN_TEST,
    SPLITS,
    Dataset,
    Text,
    how_many,
    load_text,
    pinned,
    refuse_numbers,
    unchanged,
)
from collapse_cli.data.dialogues import Dialogue
from collapse_cli.data.forms import WORDS, Kind
from collapse_cli.data.known import KNOWN, Options, Source
from collapse_cli.data.longtext import is_long
from collapse_cli.errors import InputError
from collapse_cli.families.section import for_key
from collapse_cli.learners.continuations import FOLLOWING, following, nothing, spaced
from collapse_cli.learners.protocol import TOKENIZER, Facts, Hints, Tell
from collapse_cli.learners.settings import Part, Settings
from collapse_cli.learners.truths import LOG_TRUTH
from collapse_cli.lm import architecture, chats, coding, dialogue_rows, folders
from collapse_cli.lm import text as texts

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

NAMES = {**textfiles.WORDS, OWN_TEST: textfiles.WORDS["test"]}  # of splits, for people
SPOOLED = ".stream-"  # and the split: tokens of a long text, while its stage is at work
DIALOGUES = "dialogues.json"  # in the data stage, where rows are dialogues: the template that they are written by
TURNS = "turns.safetensors"  # beside it: of each row of the original corpus which dialogue it is, and how many of its answers it has


@dataclass(frozen=True)
class TextRows:
    """How text becomes rows of tokens.

    Attributes:
        sha256: of the text.
        block_size, eval_block_size: tokens of a row to train on, and of one to test on.
        line_bos, rows, eval_rows: as in the section `data`.
        test_tail: whether what remains of the test text behind its last block is a row, too.
        segment: which part of the original corpus (and of the rows beyond it), of how many parts.
        dialogues: of chats and pairs, which they are, the template that they are written by, and its hash.
        zipf, world: of a text whose truth is known, what that is made from, under the name of its source.
    """

    sha256: str
    block_size: int
    line_bos: bool
    rows: int
    eval_rows: int
    eval_block_size: int
    test_tail: bool = False
    segment: tuple[int, int] = (1, 1)
    dialogues: Mapping[str, str] | None = None
    zipf: Mapping[str, Any] | None = None
    world: Mapping[str, Any] | None = None

    @property
    def known(self) -> tuple[str, Source, Options] | None:
        """The source whose truth is known and its options; None where it is of no such source."""
        return next(((name, KNOWN[name], given) for name in KNOWN if (given := getattr(self, name))), None)


@dataclass(frozen=True)
class Tokenizer:
    """A tokenizer that is made from the text, with so many entries; or the hash of another one's files."""

    bpe: int = 0
    words: int = 0
    sha256: str = ""


class TextSettings(Settings):
    """The parameters of the stage of real data."""

    data = Part(TextRows)
    tokenizer = Part(Tokenizer)


def find_text(data: DataConfig) -> tuple[Text, dict[str, str]]:
    """The text that `data` names, and the arguments of `load_text` by which it is found again.

    Raises:
        InputError: as `data.load_text` does, for a source that is no text, and when the text is not what it was.
    """
    refuse_numbers(data.source)
    where = data.places()
    text = load_text(**where)
    pinned(data.sha256, "data.sha256", text.sha256)
    return text, where


@dataclass(frozen=True)
class FoundTokenizer:
    """A tokenizer.

    Attributes:
        model: the section that names it, its hash filled in.
        folder: where it is; "" for one that the data stage will make.
        tokenizer: None for one that the data stage will make.
    """

    model: ModelConfig
    folder: str = ""
    tokenizer: "PreTrainedTokenizerBase | None" = None


def find_tokenizer(model: ModelConfig, data: DataConfig, folder: Path | None) -> FoundTokenizer:
    """The tokenizer that `model` names; `folder`: of a model that has one of its own."""
    named = model.tokenizer
    if not named and folder is None:
        named = "words" if data.source in KNOWN else "bpe"
    size = model.vocab_size
    if named == "words" and data.source in KNOWN:
        size = len(KNOWN[data.source].words(getattr(data, data.source).model_dump())) + 1
    model = model.model_copy(update={"tokenizer": named, "vocab_size": size})
    if named in MADE_TOKENIZERS:
        return FoundTokenizer(model)
    if named:
        folder, _ = folders.find_folder(named, "", "the tokenizer", model=False)
    assert folder is not None
    if folder.is_dir():
        folders.check_ordinary(folder, "the tokenizer")
    folders.check_downloaded(
        [file for name in folders.TOKENIZER_FILES if (file := folder / name).is_file()], "the tokenizer"
    )
    tokenizer, as_written = texts.read_tokenizer(folder)
    sha256 = folders.hash_tokenizer(folder)
    if as_written:  # such tokenizers were read otherwise before
        sha256 = hashlib.sha256(f"{sha256} as its tokenizer.json says".encode()).hexdigest()
    pinned(model.tokenizer_sha256, "model.tokenizer_sha256", sha256)
    return FoundTokenizer(model.model_copy(update={"tokenizer_sha256": sha256}), str(folder), tokenizer)


def other_tokens(name: str, tokenizer: "PreTrainedTokenizerBase | None", folder: Path) -> list[str]:
    """A note where a model is given text in other tokens than its own, in a sentence; no message of any check says it.

    Args:
        name: of the tokenizer that the configuration names; empty for the model's own.
        tokenizer: that one; None for one that the data stage will make.
        folder: of the model; nothing is known where it has no tokenizer.
    """
    if not name or not texts.has_tokenizer(folder):
        return []
    if tokenizer is None:
        what = f"the tokenizer that is made from the text (model.tokenizer = {name}) is not the model's own"
    else:
        own, given = texts.load_tokenizer(folder).get_vocab(), tokenizer.get_vocab()
        other = sum(own.get(token) != index for token, index in given.items())
        if not other:
            return []
        what = f"{other:,} of the {len(given):,} tokens of model.tokenizer = {name} are not those of the model's own tokenizer"
    return [
        f"{what}: the model's weights were made for that one, and read other text than is meant until they are trained anew"
    ]


def other_ends(folder: Path, tokenizer: "PreTrainedTokenizerBase | None", end: int | None = None) -> list[str]:
    """A note where the model names other ends of a text than the tokenizer's own, or `end`, at which alone rows of samples end.

    Models tuned for conversations name several (`eos_token_id` in generation_config.json or config.json).
    """
    if tokenizer is None:
        return []
    named: set[int] = set()
    for file in ("config.json", "generation_config.json"):
        if (folder / file).is_file():
            ends = architecture.read_json(folder / file).get("eos_token_id")
            named |= {end for end in (ends if isinstance(ends, list) else [ends]) if type(end) is int}
    special = {index: str(token) for index, token in tokenizer.added_tokens_decoder.items() if token.special}
    # ids of ordinary text are there by default, in configs whose tokenizer was chosen later
    used = tokenizer.eos_token_id if end is None else end
    others = sorted((named & special.keys()) - {used})
    if not others:
        return []
    few = architecture.few([f"{special[end]} ({end})" for end in others])
    of = "the tokenizer's own" if end is None else "what the chat template writes behind an answer"
    own = "nothing" if used is None else f"{tokenizer.convert_ids_to_tokens(used)} ({used})"
    return [
        f"the model names other tokens that end a text: {few}; rows of samples end at {of} alone, {own}, and "
        "what a model writes after another one stays in them"
    ]


def with_tokenizer_of(config: Experiment, encoded: Path | None) -> Experiment:
    """A configuration that reads other text with the tokenizer that was made from the text of a data stage.

    Args:
        config: whose data are other ones.
        encoded: the folder of the data stage; None where the store has it no longer.

    Raises:
        InputError: when that is gone.
    """
    if config.model.tokenizer not in MADE_TOKENIZERS:
        return config
    if encoded is None or not (encoded / TOKENIZER).is_dir():
        raise InputError(
            "the tokenizer that this run made from its text is no longer in the store; give the run's command again, "
            "or evaluate a model folder, which has its own: collapse eval FOLDER --data …"
        )
    made = {"tokenizer": str(encoded / TOKENIZER), "tokenizer_sha256": ""}
    return config.model_copy(update={"model": config.model.model_copy(update=made)})


def written_in(config: Experiment) -> dict[str, Any]:
    """What decides which tokens a text becomes: the tokenizer's files, or how one is made and from which text."""
    model = config.model
    if model.tokenizer not in MADE_TOKENIZERS:
        return {"sha256": model.tokenizer_sha256}
    return {model.tokenizer: model.vocab_size, "text": config.data.sha256, "source": config.data.source in KNOWN}


def data_params(config: Experiment) -> dict[str, Any]:
    """What the rows of real data depend on."""
    names = ("sha256", "block_size", "line_bos", "rows", "eval_rows")
    model, data = config.model, for_key(config.data)
    made, segment = model.tokenizer in MADE_TOKENIZERS, config.data.segment
    source = config.data.source
    known = {source: {name: data[source][name] for name in KNOWN[source].options}} if source in KNOWN else {}
    return {
        "data": {name: data[name] for name in names}
        | {"eval_block_size": config.eval.block_size or config.data.block_size}
        | ({"test_tail": True} if config.eval.protocol == "sliding" else {})
        | ({} if segment.whole else {"segment": [segment.part, segment.of]})
        | _dialogue_params(config.data)
        | known,
        "tokenizer": {model.tokenizer: model.vocab_size} if made else {"sha256": model.tokenizer_sha256},
    }


def _dialogue_params(data: DataConfig) -> dict[str, Any]:
    """What rows of chats and pairs depend on besides, once it is found; nothing of text."""
    if data.format not in ("chat", "pairs") or not data.template_sha256:
        return {}
    return {"dialogues": {"format": data.format, "template": data.template, "sha256": data.template_sha256}}


def holds_dialogues(text: Text) -> bool:
    """Whether the rows of a text are chats or pairs."""
    return isinstance(text.splits["train"][0], Dialogue)


def find_template(
    config: Experiment, text: Text, tokenizer: "PreTrainedTokenizerBase | None"
) -> tuple[DataConfig, int | None, list[str]]:
    """The section `data` with what chats and pairs are and how they are written; the token that ends answers, where the tokenizer is
    there; and what of other sections they leave without meaning.

    Args:
        text: whose rows are chats or pairs.
        tokenizer: None for one that the data stage will make.

    Raises:
        InputError: where there is no template, or the configuration asks for what dialogues do not have.
    """
    data, sample = config.data, config.sample
    first = text.splits["train"][0]
    assert isinstance(first, Dialogue)
    kind: Kind = "pairs" if first.pair else "chat"
    for wrong, instead in (
        (config.eval.protocol != "block", "they are scored row by row: set eval.protocol = block"),
        (data.line_bos, "the template says what stands before them: set data.line_bos = false"),
        (sample.prompts == "none", "what is sampled are answers to their prompts: set sample.prompts = real"),
    ):
        if wrong:
            raise InputError(f"{data.source} holds {WORDS[kind]}, and {instead}")
    name = chats.template_for(tokenizer, data.template, pairs=first.pair)
    found = pinned(data.template_sha256, "data.template_sha256", chats.hash_of(tokenizer, name))
    without = [
        f"{option} = {value} means nothing here: {why}"
        for option, value, default, why in (
            (
                "sample.prompt_tokens",
                sample.prompt_tokens,
                SampleConfig().prompt_tokens,
                "prompts are those of the data",
            ),
            (
                "train.target",
                config.train.target,
                TrainConfig().target,
                "models are trained on prompt and answer, and the loss counts the answer",
            ),
        )
        if value not in (default, 1) and config.samples  # 1: of an evaluation, which samples nothing
    ]
    end = None if tokenizer is None else chats.ChatTemplate(tokenizer, name).end
    return data.model_copy(update={"format": kind, "template": name, "template_sha256": found}), end, without


def encode(folder: Path, settings: TextSettings, hints: Hints, tell: Tell) -> Facts:
    """Text to blocks of tokens, with the tokenizer beside them.

    Args:
        settings: as `data_params` gives them.
        hints: where the text and the tokenizer are.

    Returns:
        Counts of tokens, words and bytes, and what is known of a language.
    """
    text = load_text(**hints.text)
    data, wanted = settings.data, settings.tokenizer
    unchanged(data.sha256, text.sha256, "the text")
    known, source, options = data.known or ("", None, {})
    as_written = False
    lines = _lines(text.splits["train"], data.dialogues)
    if wanted.bpe:
        tokenizer = texts.train_bpe(lines, wanted.bpe)
    elif wanted.words:
        common = texts.frequent_words(lines, wanted.words)
        tokenizer = texts.word_tokenizer(
            source.words(options) if source else common, marks=bool(source and source.marks)
        )
    else:
        tokenizer, as_written = texts.read_tokenizer(Path(hints.tokenizer))
    tokenizer.save_pretrained(folder / TOKENIZER)
    about: Facts = {}
    rows: dict[str, Dataset] = {}
    coded: dict[str, dialogue_rows.DialogueRows] = {}
    lost: list[str] = []
    template = _template(tokenizer, data.dialogues, folder)
    for done, split in enumerate(name for name in (*SPLITS, OWN_TEST) if name in text.splits):
        if template:
            size = data.block_size if split == "train" else data.eval_block_size
            coded[split], about[split], passed = _answers(template, text.splits[split], size, split)
            rows[split] = coded[split].rows
            lost += passed
            tell(done + 1, len(text.splits), "splits")
            continue
        spool = folder / f"{SPOOLED}{split}" if is_long(text.splits[split]) else None
        stream = texts.encode(tokenizer, text.splits[split], line_bos=data.line_bos, spool=spool)
        size = data.block_size if split == "train" else data.eval_block_size
        if source and source.documents:
            rows[split] = texts.documents(tokenizer, text.splits[split], data.block_size, NAMES[split])
        else:
            rows[split] = texts.blocks(stream, size, NAMES[split], tail=split == "test" and data.test_tail)
        if split == "test":
            lost = texts.losses(tokenizer, text.splits[split], stream, apart=source is None)
        words = bytes_ = 0
        for row in text.splits[split]:  # each ends in a newline, so no word is in two
            words, bytes_ = words + len(row.split()), bytes_ + len(row.encode())
        ends = len(rows[split]) if source and source.documents else 0  # of documents are tokens, too
        about[split] = {"tokens": len(stream) + ends, "words": words, "bytes": bytes_, "blocks": len(rows[split])}
        tell(done + 1, len(text.splits), "splits")
    original = _original(len(rows["train"]), data.rows, coded["train"].passed_over if template else "")
    chosen, rest = (some[Segment(*data.segment).rows(len(some))] for some in original)
    if not len(chosen):
        raise InputError(f"data.segment = {Segment(*data.segment)}: the original corpus has fewer rows than parts")
    alone = template or (source and source.documents)
    behind = nothing(len(chosen)) if alone else following(rows["train"], chosen)
    behind.save(folder / FOLLOWING)
    if template:
        made = coded["train"]
        Dataset({"dialogue": made.kept, "answers": made.answers}, made.rows.origin).take(chosen).save(folder / TURNS)
    every, rows["train"] = rows["train"], rows["train"].take(chosen)
    every.save_rows(folder / "reserve.safetensors", rest)
    if source and source.log_probability:
        rows["test"] = _with_truth(rows["test"], source.log_probability(options), text.splits["test"])
    for split in ("valid", "test", OWN_TEST):
        if split in rows and 0 < data.eval_rows < len(rows[split]):
            rows[split] = rows[split].take(spaced(len(rows[split]), data.eval_rows))
    for split, dataset in rows.items():
        dataset.save(folder / f"{split}.safetensors")
        about.setdefault(split, {})["rows"] = len(dataset)
    about["reserve"] = {"rows": len(rest)}
    for spooled in folder.glob(f"{SPOOLED}*"):
        spooled.unlink()
    spelled = [
        f"the training text spells out {token} {count:,} times; it is read as plain text, not as a special token"
        for token, count in texts.special_tokens_in(tokenizer, text.splits["train"]).items()
    ]
    fewer = [
        f"the training text gave {'a BPE' if kind == 'bpe' else 'a list'} of {len(tokenizer)} tokens, not {asked}"
        for kind, asked in (("bpe", wanted.bpe), ("words", wanted.words))
        if len(tokenizer) < asked
    ]
    facts: Facts = {
        "splits": about,
        "vocab_size": texts.id_range(tokenizer),
        "line_bos": data.line_bos,
        # what was said of files stays with them: others can hold the same rows
        "notes": [*spelled, *fewer, *lost, *([coding.AS_WRITTEN] if as_written else [])],
    }
    if template and data.dialogues:
        facts["notes"] = [*_said(template, data.dialogues["format"]), *facts["notes"]]
        facts["dialogues"] = {**data.dialogues, "end": template.end, "most": data.block_size}
    if source is None:
        return facts
    if truth := _truth(source, options, tokenizer):
        return facts | {known: truth}
    facts["notes"].append(
        "a word of the language is not a token, so there will be no kl_truth; --set model.tokenizer=words makes it one"
    )
    return facts


def _lines(rows: Sequence[str], dialogues: Mapping[str, str] | None) -> Iterator[str]:
    """What a tokenizer is made from: rows as they are, dialogues as they are written, without special tokens."""
    name = (dialogues or {}).get("template", "")
    return (chats.as_text(row, name) if isinstance(row, Dialogue) else row for row in rows)


def _template(
    tokenizer: "PreTrainedTokenizerBase", dialogues: Mapping[str, str] | None, folder: Path
) -> chats.ChatTemplate | None:
    """How dialogues are written, which is noted in the folder of the data stage; None for text."""
    if not dialogues:
        return None
    template = chats.ChatTemplate(tokenizer, dialogues["template"])
    unchanged(dialogues["sha256"], chats.hash_of(tokenizer, dialogues["template"]), "the chat template")
    (folder / DIALOGUES).write_text(json.dumps({"template": dialogues["template"]}), encoding="utf-8")
    return template


def _answers(
    template: chats.ChatTemplate, rows: Sequence[str], most: int, split: str
) -> tuple[dialogue_rows.DialogueRows, Facts, list[str]]:
    """Dialogues as rows of tokens, counts of what is counted of them, and notes."""
    what = NAMES[split]
    dialogues = [row for row in rows if isinstance(row, Dialogue)]
    if len(dialogues) < len(rows):
        raise InputError(
            f"the {what} text holds texts, where the training text holds prompts and answers; give such rows"
        )
    made = dialogue_rows.coded_rows(template, dialogues, most, what)
    notes = made.notes
    if split == "test":
        some = made.said[: texts.LOOKED_AT]
        stream = texts.encode(template.tokenizer, some, line_bos=False)
        notes += texts.losses(template.tokenizer, some, stream)
    counts = {
        "tokens": int(made.rows.predicted.sum()),
        "words": sum(len(said.split()) for said in made.said),
        "bytes": sum(len(said.encode()) for said in made.said),
        "blocks": len(made.rows),
    }
    return made, counts, notes


def _said(template: chats.ChatTemplate, kind: str) -> list[str]:
    """What is to be said of how dialogues are read."""
    token = template.tokenizer.convert_ids_to_tokens(template.end)
    own = "" if template.ends_turns else ", which the template does not write itself"
    notes = [
        f"rows are {WORDS[kind]}, {chats.SAID[template.name]}; losses and perplexity count what the assistant says, each time with "
        f"the token that ends it ({token}{own}); samples are answers to all that stands before the assistant's last turn"
    ]
    if template.has_clock:
        notes.append(f"the chat template writes the day: it is {chats.DAY} here, so that rows are the same each day")
    return notes


def _truth(source: Source, options: Options, tokenizer: "PreTrainedTokenizerBase") -> Facts:
    """What is known of the text: of whole documents in any tokens, else where each word is one token, in order."""
    if source.documents:
        return source.facts(options)
    words = source.words(options)
    ids = texts.encode(tokenizer, [" ".join(words)], line_bos=False)
    if len(ids) != len(words) or (np.diff(ids) != 1).any():
        return {}
    return {**source.facts(options), "first_word_id": int(ids[0])}


def _with_truth(rows: Dataset, log_probability: Callable[[str], float], text: Sequence[str]) -> Dataset:
    """The rows with `log_truth` (rows,) float64: ln of the true probability of each document."""
    logs = np.array([log_probability(document) for document in text], np.float64)
    return Dataset({**rows.arrays, LOG_TRUTH: logs}, rows.origin)


def _original(there: int, rows: int, passed_over: str) -> tuple[np.ndarray, np.ndarray]:
    """Which blocks are the original corpus (`rows` drawn with a fixed seed, or all), and which the reserve.

    Args:
        passed_over: the note on dialogues of the training text that are none of them; "" where there is nothing to say.
    """
    if rows > there:
        why = f"; {passed_over}" if passed_over else ""
        raise InputError(
            f"data.rows = {rows:,}, but the training text has only {how_many(there, 'row')} (0 takes all){why}"
        )
    if rows == 0:
        return np.arange(there), np.arange(0)
    order = np.random.Generator(np.random.Philox(0)).permutation(there)
    return np.sort(order[:rows]), order[rows:]
