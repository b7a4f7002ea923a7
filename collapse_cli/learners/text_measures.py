"""What is measured of a language model: itself on real test text, and the samples it made under the model of generation 0.

A new measure is a pure function in `metrics/`; here is what is given to it (`measured`: every scored token of the test text;
`examined`: the samples, and their states), and where what it returns becomes fields of `metrics.jsonl`.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from collapse_cli import metrics
from collapse_cli.config.tree import EvalConfig, SampleConfig
from collapse_cli.data.dataset import MASK, Dataset
from collapse_cli.learners.continuations import continuations, cut_prompts, longest_real, real_continuations, spaced
from collapse_cli.learners.protocol import CORPUS, TOKENIZER, Arrays, Facts, Hints, Outcome, Tell
from collapse_cli.learners.truths import Truth, truth_of
from collapse_cli.lm import architecture
from collapse_cli.lm import score as scoring
from collapse_cli.lm import text as texts
from collapse_cli.metrics import samples as sampled
from collapse_cli.metrics import tails
from collapse_cli.metrics.features import ROWS

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

REAL = "real.safetensors"  # features of real text, in an eval stage of its own
SHOWN_CHARACTERS = 2000  # of a text in `examples`


def type_counts(encoded: Path, vocabulary: int) -> np.ndarray:
    """(vocabulary,) how often each token occurs in the original corpus; of dialogues in the answers."""
    corpus = Dataset.load(encoded / CORPUS)
    return np.bincount(corpus.arrays["tokens"][corpus.counted], minlength=vocabulary)


# --- a model on real test text ----------------------------------------------------------------------------------------


EACH = "token."  # before the names of what is known of each scored token, beside what is known of each row


def score_part(
    model: "PreTrainedModel",
    test: Dataset,
    settings: EvalConfig,
    about: Mapping[str, Any],
    tell: Tell,
    part: scoring.Part = scoring.everything,
) -> Arrays:
    """Score a part of the test text under a protocol.

    Args:
        about: the facts of the data stage.

    Returns:
        Per row (block or window) `nll` and `predicted`, and of each scored token, as `token.NAME`, what `scoring.Details` has;
        and `context` (1,), the tokens that the model sees at once.
    """
    width = test.arrays["tokens"].shape[1]
    truth = truth_of(about)
    details = scoring.Details(truth.more if truth else None)
    if settings.protocol == "block":
        context = width
        nll, predicted = scoring.score_blocks(
            model,
            test,
            lambda done, total: tell(done * width, total * width, "tokens"),
            dtype=settings.dtype,
            details=details,
            part=part,
        )
    else:
        context = settings.context or architecture.positions(model) or width
        nll, predicted = scoring.score_sliding(
            model,
            test.arrays["tokens"][np.arange(width) < test.arrays["lengths"][:, None]],
            context,
            _stride(settings, context),
            lambda done, total: tell(done, total, "tokens"),
            dtype=settings.dtype,
            details=details,
            part=part,
        )
    tokens = {f"{EACH}{name}": values for name, values in details.columns().items()}
    return {"nll": nll, "predicted": predicted, "context": np.array([context]), **tokens}


def _stride(settings: EvalConfig, context: int) -> int:
    """By how many tokens the window moves."""
    return settings.stride or max(1, context // 2)


def measured(
    found: Arrays,
    test: Dataset,
    first: Dataset | None,
    settings: EvalConfig,
    encoded: Path,
    about: Mapping[str, Any],
    vocabulary: int,
) -> Outcome:
    """Perplexity and its relatives under a protocol, and what needs every token: tails, calibration, known truth.

    Args:
        found: what `score_part` gives of all test rows.
        first: the per-row values of generation 0, to compare with.
        encoded, about: the folder and the facts of the data stage.
        vocabulary: how many tokens the model has.

    Returns:
        The fields of `metrics.jsonl`; per row (block or window) `nll`, `predicted`, and both by decile (rows, 10).
    """
    nll, predicted, context = found["nll"], found["predicted"], int(found["context"][0])
    protocol: Facts = {"protocol": settings.protocol, "dtype": settings.dtype, "line_bos": about["line_bos"]}
    if MASK in test.arrays:
        protocol["counted"] = "answers"
    stride = context if settings.protocol == "block" else _stride(settings, context)
    protocol |= {"context": context, "stride": stride}
    truth = truth_of(about)
    size = about["splits"]["test"]
    facts: Facts = metrics.text_measures(nll, predicted, size["tokens"], size["words"], size["bytes"])
    tokens = {name.removeprefix(EACH): values for name, values in found.items() if name.startswith(EACH)}
    deciles = tails.frequency_deciles(type_counts(encoded, vocabulary))
    sums, counts = tails.by_decile(tokens["nll"], deciles[tokens["label"]], tokens["row"], len(nll))
    facts |= tails.decile_measures(sums, counts) | tails.token_measures(tokens, deciles)
    if first is not None:
        facts |= tails.decile_changes(sums, first.arrays["nll_by_decile"], counts)
    if truth:
        facts |= truth.of_model(tokens, nll, predicted, test)
    rows = {"nll": nll, "predicted": predicted, "nll_by_decile": sums, "tokens_by_decile": counts}
    return Outcome(Dataset(rows, np.zeros(len(nll), np.int32)), {**facts, "protocol": protocol})


# --- the samples of a model -------------------------------------------------------------------------------------------


def real_features(
    reference: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    settings: SampleConfig,
    encoded: Path,
    tell: Tell,
) -> Dataset:
    """`features` (rows, d) float32: the reference model's state at the end of real continuations of real prompts."""
    prompts, real = real_continuations(encoded, settings, texts.bos_id(tokenizer), ROWS)
    _, features = scoring.score_continuations(
        reference,
        prompts,
        real,
        real.arrays["lengths"].astype(np.int64),
        lambda done, total: tell(done, total, "rows"),
        settings.dtype,
    )
    return Dataset({"features": features}, np.zeros(len(features), np.int32))


def examine_part(
    reference: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    samples: Dataset,
    prompts: Dataset,
    settings: SampleConfig,
    hints: Hints,
    tell: Tell,
    part: scoring.Part = scoring.everything,
) -> Arrays:
    """Score a part of the continuations that a model made; arguments as those of `examined`.

    Args:
        reference: the model of generation 0.

    Returns:
        Per sample `nll`; `features` (samples that MAUVE looks at, d) float32, the reference model's state at the end of each.
    """
    new = continuations(samples)
    if len(new) == 0:
        return {"nll": np.zeros(0), "features": np.zeros((0, 0), np.float32)}
    cut = cut_prompts(prompts.take(samples.arrays["row"]), settings, texts.bos_id(tokenizer))
    corpus = Dataset.load(hints.real(CORPUS))
    ends = np.zeros(len(new), np.int64)
    equal = sampled.equal_rows(len(new), len(corpus) // 2)
    some = equal[spaced(len(equal), ROWS)]
    ends[some] = np.minimum(new.arrays["lengths"][some], longest_real(corpus, settings))
    nll, features = scoring.score_continuations(
        reference, cut, new, ends, lambda done, total: tell(done, total, "samples"), settings.dtype, part
    )
    return {"nll": nll, "features": features}


def examined(
    found: Arrays,
    tokenizer: "PreTrainedTokenizerBase",
    samples: Dataset,
    shown: Dataset,
    prompts: Dataset,
    settings: SampleConfig,
    hints: Hints,
    real: Dataset,
    first: Dataset | None,
    vocabulary: int,
) -> Outcome:
    """Measure the continuations that a model made.

    Args:
        found: what `examine_part` gives of all of them.
        samples, shown: `tokens`, `lengths`, `start` (where the continuation begins) and `row` (that it continues).
        prompts: the corpus whose rows were continued.
        settings: the `sample` section of the configuration.
        hints: where the data stage is, and its facts.
        real: what `real_features` found.
        first: per sample `nll` and `tokens` of generation 0; None for that itself.
        vocabulary: how many tokens the reference has.

    Returns:
        The fields of `metrics.jsonl`; per sample `nll` and `tokens`.
    """
    encoded, about, new = hints.real(), hints.about, continuations(samples)
    if len(new) == 0:
        return Outcome(
            Dataset({"nll": np.zeros(0), "tokens": np.zeros(0, np.int64)}, samples.origin), {"sample_rows": 0}
        )
    cut = cut_prompts(prompts.take(samples.arrays["row"]), settings, texts.bos_id(tokenizer))
    lengths = new.arrays["lengths"].astype(np.int64)
    corpus = Dataset.load(encoded / CORPUS)
    equal, nll = sampled.equal_rows(len(new), len(corpus) // 2), found["nll"]
    deciles = tails.frequency_deciles(type_counts(encoded, vocabulary))
    before = None if first is None else sampled.per_token(first.arrays["nll"], first.arrays["tokens"])
    facts = sampled.sample_measures(new.arrays["tokens"], lengths, deciles, equal)
    facts |= sampled.prompt_measures((cut.arrays["tokens"], cut.arrays["lengths"]), (new.arrays["tokens"], lengths))
    facts |= sampled.score_measures(nll, lengths, before)
    facts["mauve"] = sampled.mauve(real.arrays["features"], found["features"])
    for phrase in facts["top_8grams"]:
        phrase["text"] = tokenizer.decode(phrase["tokens"], clean_up_tokenization_spaces=False)
    truth = truth_of(about)
    if truth is not None and truth.documents:
        rows, end = used(texts.join(cut.take(equal), new.take(equal))), tokenizer.eos_token_id
        facts |= truth.of_samples(_spoken(tokenizer, rows), [bool(len(ids)) and ids[-1] == end for ids in rows])
    facts["examples"] = _examples(tokenizer, shown, prompts, settings, truth)
    return Outcome(Dataset({"nll": nll, "tokens": lengths}, samples.origin), facts)


def told(
    samples: Dataset, prompts: Dataset, settings: SampleConfig, encoded: Path, about: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Samples as text: `row`, `prompt`, `text`, and `sentences` where the truth is known.

    Args:
        samples, prompts, settings: as `examine` has them.
        encoded, about: the folder of the data stage, and its facts.
    """
    return _examples(_tokenizer(encoded), samples, prompts, settings, truth_of(about))


@lru_cache(maxsize=4)
def _tokenizer(encoded: Path) -> "PreTrainedTokenizerBase":
    return texts.load_tokenizer(encoded / TOKENIZER)


def spoken(rows: Dataset, encoded: Path) -> list[str]:
    """Rows of tokens as text.

    Args:
        encoded: the folder of the data stage, with the tokenizer.
    """
    if not len(rows):  # of which batch_decode makes one empty text
        return []
    return _spoken(_tokenizer(encoded), used(rows))


def _spoken(tokenizer: "PreTrainedTokenizerBase", rows: Sequence[np.ndarray]) -> list[str]:
    """Rows of tokens as text, without the tokens that begin and end one."""
    spoken: list[str] = tokenizer.batch_decode(
        [ids.tolist() for ids in rows], skip_special_tokens=True, clean_up_tokenization_spaces=False
    )
    return spoken


def used(rows: Dataset) -> list[np.ndarray]:
    """The tokens of each row."""
    return [ids[:length] for ids, length in zip(rows.arrays["tokens"], rows.arrays["lengths"], strict=True)]


def _examples(
    tokenizer: "PreTrainedTokenizerBase", shown: Dataset, prompts: Dataset, settings: SampleConfig, truth: Truth | None
) -> list[dict[str, Any]]:
    """`row`, `prompt`, `text` that continues it; where it is known, the `sentences` of both and whether they are right."""
    new = continuations(shown)
    cut = cut_prompts(prompts.take(shown.arrays["row"]), settings, texts.bos_id(tokenizer))
    if truth is not None and truth.documents:
        before, whole = (_spoken(tokenizer, used(rows)) for rows in (cut, texts.join(cut, new)))
        # a tokenizer of words puts blanks between them, but not before the first
        after = [both.removeprefix(prompt) for prompt, both in zip(before, whole, strict=True)]
        judged = [{"sentences": truth.judged(both[:SHOWN_CHARACTERS])} for both in whole]
    else:
        before, after = (
            [tokenizer.decode(ids.tolist(), clean_up_tokenization_spaces=False) for ids in used(rows)]
            for rows in (cut, new)
        )
        judged = [{} for _ in before]
    return [
        {"row": row, "prompt": prompt[-SHOWN_CHARACTERS:], "text": text[:SHOWN_CHARACTERS], **more}
        for row, prompt, text, more in zip(shown.arrays["row"].tolist(), before, after, judged, strict=True)
    ]
