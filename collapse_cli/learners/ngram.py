"""The learner `ngram`: exact maximum likelihood over tokens, the model whose collapse can be followed count by count.

It reads text as the language model does. A token is predicted, and drawn, from the longest context (at most `order - 1`
tokens, none before the row's start) that was seen with a follower: what was never seen has probability 0, for good.

The NLL of such a model on text that holds anything unseen is infinite. So its headline measure is `unseen_share`, the share
of real test tokens without probability; perplexity and KL take `ngram.floor` for them, and say so (docs/metrics.md).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from collapse_cli import metrics
from collapse_cli.config.experiment import Experiment
from collapse_cli.data import zipf
from collapse_cli.data.dataset import WEIGHTS, Dataset
from collapse_cli.errors import InputError
from collapse_cli.families.ngram import NgramConfig
from collapse_cli.families.section import for_key
from collapse_cli.learners import text_inputs
from collapse_cli.learners.family import Family, State, generator
from collapse_cli.learners.ngram_counts import Tables, count
from collapse_cli.learners.protocol import CORPUS, Comparable, Facts, Hints, Outcome, Resolved, Tell, Verb
from collapse_cli.learners.settings import Part
from collapse_cli.lm import text as texts

NANOSECONDS = 450  # to count, draw and score a token, per length of context; measured on one core
CPU = 35.0  # floating-point operations that a nanosecond is taken for: `run.preparation.NOMINAL_SPEED` times a train stage's efficiency


@dataclass(frozen=True)
class Sampling:
    """What sampling depends on, of the section `sample`."""

    prompts: str
    prompt_tokens: int
    new_tokens: int
    temperature: float


@dataclass(frozen=True)
class Prompt:
    """What of a row is continued, of the section `sample`."""

    prompts: str
    prompt_tokens: int

    def cut(self, rows: Dataset) -> Dataset:
        ids = rows.arrays["tokens"][:, : 0 if self.prompts == "none" else self.prompt_tokens]
        return Dataset(
            {"tokens": ids, "lengths": np.minimum(rows.arrays["lengths"], ids.shape[1]).astype(np.int32)}, rows.origin
        )


class NGramSettings(text_inputs.TextSettings):
    """`data` and `tokenizer` of the stage of real data; of all others `model`, of sampling `sample` and `target`; `prompt` of what
    is measured between lineages.
    """

    model = Part(NgramConfig)
    prompt = Part(Prompt)
    sample = Part(Sampling)
    target = Part(str)


class NGram(Family):
    """n-grams by exact maximum likelihood. Rows are `tokens` (rows, width) int32 and `lengths` (rows,) int32."""

    section = "ngram"
    block = 25

    def __init__(self, params: Mapping[str, Any], hints: Hints, tell: Tell) -> None:
        super().__init__(params, hints, tell)
        self.settings = NGramSettings(params)
        self._tables = Tables([], [])

    # --- what is looked up before anything runs -----------------------------------------------------------------------

    @classmethod
    def resolve(cls, config: Experiment) -> Resolved:
        """Find the text and the tokenizer.

        Raises:
            InputError: for whatever is missing, and for ways of decoding or scoring that n-grams do not have.
        """
        _check(config)
        data = config.data
        own: NgramConfig = config.ngram
        reader = text_inputs.find_tokenizer(config.model, data, None)
        text, where = text_inputs.find_text(data)
        if text_inputs.holds_dialogues(text):
            raise InputError(
                f"{data.source}: the learner ngram reads plain text, and rows here are prompts and answers; name the column that it shall "
                "read (--set data.format=text --set data.text=COLUMN), or take the learner lm, which reads both"
            )
        tokens = data.rows * data.block_size or _most_tokens(text.splits["train"])
        vocabulary = reader.model.vocab_size if reader.tokenizer is None else texts.id_range(reader.tokenizer)
        filled = {"model": reader.model, "data": data.model_copy(update={"sha256": text.sha256})}
        return Resolved(
            config.model_copy(update=filled),
            Hints(tokenizer=reader.folder, text=where),
            sum(min(vocabulary**n, tokens) for n in range(1, own.order + 1)),
            row_bytes=4 * data.block_size,
            row_flops=NANOSECONDS * CPU * own.order * data.block_size,
            notes=text.notes,
        )

    @classmethod
    def written_in(cls, config: Experiment) -> Mapping[str, Any]:
        return text_inputs.written_in(config)

    @classmethod
    def with_tokenizer_of(cls, config: Experiment, encoded: Path | None) -> Experiment:
        return text_inputs.with_tokenizer_of(config, encoded)

    @classmethod
    def about(cls, scored: Mapping[str, Any], own: Mapping[str, Any]) -> Facts:
        """Types that are left are a share of those that the run's original corpus had.

        Raises:
            InputError: when it is not known how many.
        """
        if "types" not in own:
            raise InputError(
                "the text that this run began with is no longer in the store, and vocabulary_share is a share of its types; "
                "give the run's command again"
            )
        return {**scored, "types": own["types"]}

    @classmethod
    def params(cls, config: Experiment, verb: Verb) -> dict[str, Any]:
        if verb == "data":
            return cls.data_params(config)
        own = {"model": for_key(config.ngram)}
        asked = config.sample
        if verb == "between":
            return own | {"prompt": {"prompts": asked.prompts, "prompt_tokens": asked.prompt_tokens}}
        if verb != "sample":
            return own
        sample = Sampling(asked.prompts, asked.prompt_tokens, asked.new_tokens, asked.decode.temperature)
        return own | {"sample": vars(sample), "target": config.train.target}

    @classmethod
    def data_params(cls, config: Experiment) -> dict[str, Any]:
        return text_inputs.data_params(config)

    # --- verbs --------------------------------------------------------------------------------------------------------

    def encode(self, folder: Path, *, seed: int) -> Facts:
        """The rows, and the tokenizer, of the language model; `types` is how many the original corpus has."""
        about = text_inputs.encode(folder, self.settings, self.hints, self._tell)
        corpus = Dataset.load(folder / CORPUS)
        used = np.arange(corpus.arrays["tokens"].shape[1]) < corpus.arrays["lengths"][:, None]
        return {**about, "types": len(np.unique(corpus.arrays["tokens"][used]))}

    def real(self, seed: int) -> tuple[dict[str, Dataset], list[str]]:
        raise NotImplementedError("rows of text come with a tokenizer; `encode` makes both")

    def fit(self, data: Dataset, *, seed: int, scratch: Path) -> Facts:
        """Count, each row as many times as it weighs. `train_loss` is the mean NLL of the rows' tokens, the first of each left out, in nats."""
        tokens, lengths = data.arrays["tokens"], data.arrays["lengths"]
        if not (lengths > 0).any():
            raise InputError("the corpus has no tokens to count; give more data.rows")
        weights = data.arrays.get(WEIGHTS)
        self._tables = count(tokens, lengths, self.settings.model.order, weights)
        nll, predicted = self._nll(data)
        if weights is not None:
            nll, predicted = nll * weights, predicted * weights
        return {"train_loss": float(nll.sum() / (predicted.sum() or 1))}

    def sample(self, prompts: Dataset, *, seed: int, scratch: Path) -> Outcome:
        """The new tokens of each prompt, or prompt and new tokens (`start` says where these begin).

        No token ends a text: where the corpus has end-of-text tokens, they are drawn like all others.
        """
        settings = self.settings.sample
        cut = Prompt(settings.prompts, settings.prompt_tokens).cut(prompts)
        ids, lengths = cut.arrays["tokens"], cut.arrays["lengths"]
        made = self._tables.continued(
            ids, lengths, self._uniform(prompts, settings.new_tokens, seed), settings.temperature
        )
        new = Dataset({"tokens": made, "lengths": np.full(len(made), made.shape[1], np.int32)}, prompts.origin)
        counted = made[~prompts.arrays["extra"]]
        facts = {
            "sample_rows": len(counted),
            "sample_tokens": counted.size,
            "duplicate_share": metrics.duplicate_share(counted),
            "sample_entropy": _entropy(np.bincount(counted.ravel())),
        }
        begin = np.zeros(len(made), np.int32)
        if self.settings.target == "full":
            new, begin = texts.join(cut, new), lengths
        return Outcome(Dataset({**new.arrays, "start": begin}, new.origin), facts)

    @staticmethod
    def _uniform(prompts: Dataset, new: int, seed: int) -> np.ndarray:
        """(rows, new) in [0, 1): a row's depend on its stream and the seed, not on the rows beside it."""
        streams = prompts.arrays["stream"]
        drawn = generator(seed).random((int(streams.max(initial=-1)) + 1, new))
        return np.asarray(drawn[streams])

    def score(self, data: Dataset) -> np.ndarray:
        """(rows,) mean NLL per predicted token, in nats."""
        nll, predicted = self._nll(data)
        return np.asarray(nll / np.maximum(predicted, 1))

    def measure(self, test: Dataset, first: Dataset | None = None) -> Outcome:
        """What has no probability; perplexity and its relatives; types left; where the language is known, the truth's distance.

        `seen_nll` and `seen_perplexity` are over the tokens that have a probability, so no floor is in them (None where
        there is none): nll = (1 - unseen_share) seen_nll - unseen_share ln(floor), whatever the floor is. Per-row `nll` and
        `predicted` are returned.
        """
        about = self.hints.about
        nll, predicted, (length, context, gram) = self._scored(test)
        if predicted.sum() == 0:
            raise InputError("the test rows have no token to predict; raise data.block_size or eval.block_size")
        size, floor = about["splits"]["test"], self.settings.model.floor
        facts: Facts = {**metrics.text_measures(nll, predicted, size["tokens"], size["words"], size["bytes"])}
        unseen, total = int(((gram < 0) & (length >= 0)).sum()), int(predicted.sum())
        seen = max(0.0, float(nll.sum() + unseen * np.log(floor))) / (total - unseen) if unseen < total else None
        facts |= {
            "test_loss": facts["nll"],
            "unseen_share": unseen / total,
            "seen_nll": seen,
            "seen_perplexity": None if seen is None else metrics.perplexity(seen),
            "protocol": {
                "protocol": "block",
                "dtype": "float64",
                "line_bos": bool(about.get("line_bos")),
                "context": int(test.arrays["tokens"].shape[1]),
                "floor": floor,
            },
            "vocabulary_share": len(self._tables.keys[0]) / about["types"],
            "corpus_entropy": _entropy(self._tables.counts[0]),
        }
        if about.get("zipf"):
            language, offset = zipf.from_facts(about["zipf"]), int(about["zipf"]["first_word_id"])
            before = test.arrays["tokens"][:, :-1] - offset
            facts |= self._truth(language, offset, before, length, context)
        return Outcome(Dataset({"nll": nll, "predicted": predicted}, test.origin), facts)

    def _nll(self, data: Dataset) -> tuple[np.ndarray, np.ndarray]:
        nll, predicted, _ = self._scored(data)
        return nll, predicted

    def _scored(self, data: Dataset) -> tuple[np.ndarray, np.ndarray, tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """(rows,) summed NLL and predicted tokens, and how each token is predicted (`Tables.predict`)."""
        losses, found = self._losses(data)
        losses = np.nan_to_num(losses, nan=0.0, posinf=self.unseen_nll)
        return losses.sum(axis=1), (found[0] >= 0).sum(axis=1), found

    def _losses(self, data: Dataset) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """`token_losses`, and how each token is predicted."""
        length, context, gram = self._tables.predict(data.arrays["tokens"], data.arrays["lengths"])
        losses = np.where(length >= 0, np.inf, np.nan)
        for n in range(self._tables.order):
            there = (length == n) & (gram >= 0)
            losses[there] = -np.log(self._tables.probabilities(n))[gram[there]]
        return losses, (length, context, gram)

    # --- beside models of other lineages ------------------------------------------------------------------------------

    @property
    def unseen_nll(self) -> float:
        return float(-np.log(self.settings.model.floor))

    def continued(self, prompts: Dataset) -> Dataset:
        """What of each row is continued: its first tokens, or nothing."""
        return self.settings.prompt.cut(prompts)

    def token_losses(self, rows: Dataset) -> np.ndarray:
        """(rows, width - 1) nats: NaN where nothing is predicted, inf where the model gives no probability."""
        return self._losses(rows)[0]

    def continuation_losses(self, prompts: Dataset, new: Dataset) -> tuple[np.ndarray, np.ndarray]:
        """(rows,) summed losses with the floor, and predicted tokens: without a prompt all but the first."""
        losses = np.nan_to_num(self._losses(texts.join(prompts, new))[0], nan=np.nan, posinf=self.unseen_nll)
        behind = np.arange(1, losses.shape[1] + 1) >= prompts.arrays["lengths"][:, None]
        there = behind & ~np.isnan(losses)
        return np.where(there, losses, 0.0).sum(axis=1), there.sum(axis=1)

    def divergences(self, other: Comparable, rows: Dataset) -> np.ndarray:
        """(rows, width - 1) bits, of what each model draws the token from; no floor is in it. NaN where nothing is predicted."""
        assert isinstance(other, NGram), "models of other families have no counts"
        return self._tables.divergences(other._tables, rows.arrays["tokens"], rows.arrays["lengths"])

    def _truth(
        self, language: zipf.Language, offset: int, before: np.ndarray, length: np.ndarray, context: np.ndarray
    ) -> Facts:
        """`kl_truth` and `tail_mass_recall` as the language model has them, exactly; and `missing_mass`.

        Args:
            before: (rows, width - 1) the word before each predicted token; words outside of the language are left out.
            length, context: as `Tables.predict` gives them.

        KL(P || q) = -H(P) - ln(floor) (1 - P(seen)) - Σ_seen P ln q, summed over the grams of each context.
        """
        floor = np.log(self.settings.model.floor)
        known = (before >= 0) & (before < language.vocabulary) & (length >= 0)
        kl = model_tail = true_tail = seen = 0.0
        for n in range(self._tables.order):
            words = self._tables.tokens(n) - offset
            there = (words >= 0) & (words < language.vocabulary)
            words, of = words[there], self._tables.contexts(n)[there]
            q = self._tables.probabilities(n)[there]
            here = known & (length == n)
            # behind contexts of one length, each pair of context and last word once; the last word is part of a context
            pairs, times = np.unique(context[here] * language.vocabulary + before[here], return_counts=True)
            which, last = pairs // language.vocabulary, pairs % language.vocabulary
            ends = np.searchsorted(of, [which, which + 1])
            spans = ends[1] - ends[0]
            pair = np.repeat(np.arange(len(pairs)), spans)
            gram = np.arange(len(pair)) - np.repeat(np.cumsum(spans) - spans, spans) + np.repeat(ends[0], spans)
            p = language.transition[last[pair], words[gram]]
            share = np.bincount(pair, p, len(pairs))
            cross = np.bincount(pair, p * np.log(q[gram]), len(pairs))
            kl += float(times @ (-language.entropies[last] - floor * (1 - share) - cross))
            model_tail += float(times @ np.bincount(pair, q[gram] * language.tail[words[gram]], len(pairs)))
            true_tail += float(times @ language.transition[last][:, language.tail].sum(axis=1))
            seen += float(times @ share)
        count = int(known.sum())
        if count == 0:
            return {}
        return {
            "entropy_rate": language.entropy_rate,
            "kl_truth": kl / count,
            "missing_mass": 1 - seen / count,
            "tail_mass_recall": model_tail / true_tail if true_tail else None,
        }

    @property
    def width(self) -> tuple[int, ...]:
        raise NotImplementedError("rows of tokens are of any length")

    # --- state --------------------------------------------------------------------------------------------------------

    def state(self) -> State:
        """`keys_N` and `counts_N` by length of context N."""
        named = {"keys": self._tables.keys, "counts": self._tables.counts}
        return {f"{name}_{n}": array for name, arrays in named.items() for n, array in enumerate(arrays)}

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        order = len(state) // 2
        keys, counts = ([state[f"{name}_{n}"] for n in range(order)] for name in ("keys", "counts"))
        self._tables = Tables(keys, counts)


def _check(config: Experiment) -> None:
    decode = config.sample.decode
    plain = (decode.beams, decode.top_k, decode.top_p, decode.min_p, decode.repetition_penalty) == (1, 0, 1.0, 0.0, 1.0)
    if decode.temperature <= 0 or not plain:
        raise InputError(
            "the learner ngram draws from its probabilities and nothing else: set sample.decode.beams = 1 and "
            "sample.decode.temperature = 1.0, without top_k, top_p, min_p or repetition_penalty"
        )
    if config.eval.protocol != "block":
        raise InputError("the learner ngram scores rows of tokens: set eval.protocol = block")


def _most_tokens(rows: Any) -> int:
    """A bound on the tokens of a text, for estimates: no tokenizer makes more than one of a byte."""
    return sum(len(row.encode()) for row in rows)


def _entropy(counts: np.ndarray) -> float:
    """In nats, of the shares that counts are; of nothing 0."""
    shares = counts[counts > 0] / max(1, counts.sum())
    return float(-(shares * np.log(shares)).sum()) + 0.0
