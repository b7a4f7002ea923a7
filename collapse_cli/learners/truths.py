"""Text whose truth is known (`data.known`): what a model of it, and what it writes, are measured by.

A `Truth` is asked at three places: at every scored token of real text (`more`), of all that was scored (`of_model`), and of whole
samples as text (`of_samples`). Each source answers what it can.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import numpy as np

from collapse_cli.data import zipf
from collapse_cli.data.dataset import Dataset
from collapse_cli.data.world.parser import Sentence
from collapse_cli.data.world.things import RELATIONS
from collapse_cli.data.world.world import World, world
from collapse_cli.metrics import truth

if TYPE_CHECKING:
    import torch

    from collapse_cli.lm.loss import More

LOG_TRUTH = "log_truth"  # of test rows that are whole documents: ln of their true probability
PLACES, DATES = ("town", "birthplace", "river"), ("birthday", "founded")
Fields = dict[str, Any]


class Truth(Protocol):
    """What is known of a source. `documents`: whether a row is a whole document, whose text can be read."""

    documents: ClassVar[bool]

    @property
    def more(self) -> "More | None":
        """What is wanted at every scored token, besides its loss."""

    def of_model(
        self, tokens: Mapping[str, np.ndarray], nll: np.ndarray, predicted: np.ndarray, test: Dataset
    ) -> Fields:
        """Fields of a model.

        Args:
            tokens: by predicted token, what `more` found.
            nll, predicted: (rows,) summed negative log-likelihood, nats, and predicted tokens.
            test: the rows that were scored.
        """

    def of_samples(self, texts: Sequence[str], finished: Sequence[bool]) -> Fields:
        """Fields of what a model wrote: texts with their prompts, and whether each came to its end."""

    def judged(self, text: str) -> list[dict[str, str]]:
        """The sentences of a text and what is to be said of each (`text`, `verdict`); none where that is not known."""


def truth_of(about: Mapping[str, Any]) -> Truth | None:
    """The truth of a text, by the facts of its data stage; None where none is known."""
    if about.get("zipf"):
        return NextWords(zipf.from_facts(about["zipf"]), int(about["zipf"]["first_word_id"]))
    if about.get("world"):
        return Statements(world(about["world"]))
    return None


class NextWords:
    """Of `zipf`: the true probability of each next word. Samples say nothing more."""

    documents: ClassVar[bool] = False

    def __init__(self, language: zipf.Language, first_word_id: int) -> None:
        self.language, self.offset = language, first_word_id

    @property
    def more(self) -> "More":
        """At every token, how far the model is from what the language really says."""
        language, offset, size = self.language, self.offset, self.language.vocabulary

        def divergences(log_odds: "torch.Tensor", before: "torch.Tensor") -> dict[str, "torch.Tensor"]:
            log_q = log_odds[:, offset : offset + size].double().cpu().numpy()
            words = before.cpu().numpy() - offset
            known = (words >= 0) & (words < size)
            words = np.where(known, words, 0)
            model_mass, true_mass = language.tail_mass(log_q, words)
            values = {"kl": language.kl(log_q, words), "model_tail": model_mass, "true_tail": true_mass}
            return {name: log_odds.new_tensor(np.where(known, each, np.nan)) for name, each in values.items()}

        return divergences

    def of_model(
        self, tokens: Mapping[str, np.ndarray], nll: np.ndarray, predicted: np.ndarray, test: Dataset
    ) -> Fields:
        tail = float(np.nansum(tokens["true_tail"]))  # 0 where no word is rare enough to be one of the tail
        return {
            "entropy_rate": self.language.entropy_rate,
            "kl_truth": float(np.nanmean(tokens["kl"])),
            "tail_mass_recall": float(np.nansum(tokens["model_tail"])) / tail if tail else None,
        }

    def of_samples(self, texts: Sequence[str], finished: Sequence[bool]) -> Fields:
        return {}

    def judged(self, text: str) -> list[dict[str, str]]:
        return []


class Statements:
    """Of `world`: the true probability of each document, and whether what it states is right."""

    documents: ClassVar[bool] = True
    more: "More | None" = None

    def __init__(self, known: World) -> None:
        self.world = known

    def of_model(
        self, tokens: Mapping[str, np.ndarray], nll: np.ndarray, predicted: np.ndarray, test: Dataset
    ) -> Fields:
        """`kl_truth` is the mean over test documents of ln p - ln q, nats a token, with its standard error over documents."""
        words = float(predicted.sum())
        beyond = test.arrays[LOG_TRUTH] + nll
        rate = beyond.sum() / words
        off = beyond - rate * predicted  # of a ratio (Cochran 1977, 2.11)
        error = float(np.sqrt(len(off) / (len(off) - 1) * (off**2).sum()) / words) if len(off) > 1 else None
        return {"entropy_rate": self.world.entropy_rate, "kl_truth": float(rate), "kl_truth_se": error}

    def of_samples(self, texts: Sequence[str], finished: Sequence[bool]) -> Fields:
        documents = [self._whole(text, ended) for text, ended in zip(texts, finished, strict=True)]
        read = [sentence for document in documents for sentence in document]
        return {
            **self._probable(texts, documents, finished),
            **self._breeds(read, len(documents)),
            **self._facts(read, len(documents)),
            **self._association(read),
            **_what_is_not(read),
        }

    def judged(self, text: str) -> list[dict[str, str]]:
        """`verdict`: `right`; `false` (states no fact); `unknown` (names what there is not); `odd` (no sentence of the grammar)."""
        return [{"text": sentence.text, "verdict": _verdict(sentence)} for sentence in self.world.parse(text)]

    def _whole(self, text: str, ended: bool) -> list[Sentence]:
        """The sentences of a text; a last one that was cut off is none."""
        sentences = self.world.parse(text)
        return sentences[:-1] if sentences and not ended and not sentences[-1].text.endswith(".") else sentences

    def _probable(self, texts: Sequence[str], documents: Sequence[list[Sentence]], finished: Sequence[bool]) -> Fields:
        """How much of it the grammar has, and how probable that is."""
        logs = np.array(
            [
                self.world.probability.log_of(document) if ended else -np.inf
                for document, ended in zip(documents, finished, strict=True)
            ]
        )
        possible = np.isfinite(logs)
        words = sum(self.world.count(text) for text, there in zip(texts, possible, strict=True) if there)
        sentences = sum(map(len, documents))
        return {
            "sentences": sentences,
            "sentences_accepted": truth.share(
                sum(sentence.accepted for each in documents for sentence in each), sentences
            ),
            "documents_possible": truth.share(int(possible.sum()), len(documents)),
            "possible_nll": truth.share(-float(logs[possible].sum()), words),
        }

    def _breeds(self, read: Sequence[Sentence], documents: int) -> Fields:
        """Which breeds are mentioned: `breed_counts` by breed, in the order of their true frequency."""
        breeds = self.world.things.shares["breed"]
        mentions = Counter(
            sentence.values["breed"] for sentence in read if sentence.values and "breed" in sentence.values
        )
        counts, shares = np.array([mentions[breed] for breed in breeds]), np.array(list(breeds.values()))
        in_one = np.array([self.world.expectation.mentioned("breed")[breed] for breed in breeds])
        return {
            "breed_counts": dict(zip(breeds, counts.tolist(), strict=True)),
            "breeds_left": int((counts > 0).sum()),
            "breeds_expected": truth.expected_distinct(in_one, documents),
            "breeds_kl": truth.divergence(counts, shares),
            "breeds_tv": truth.total_variation(counts, shares),
        }

    def _facts(self, read: Sequence[Sentence], documents: int) -> Fields:
        """How many facts are stated, and rightly, by how frequent they are in real text."""
        rates = self.world.expectation.stated()
        place = {fact: index for index, fact in enumerate(rates)}
        stated, right = np.zeros(len(rates)), np.zeros(len(rates))
        for claim in (claim for sentence in read for claim in sentence.claims):
            at = place[claim.relation, claim.subject]
            stated[at] += 1
            right[at] += claim.true
        groups = truth.bands(list(rates.values()))
        kinds = [np.array([at for (kind, _), at in place.items() if kind == relation]) for relation in RELATIONS]
        return {
            "facts_stated": int(stated.sum()),
            "facts_true": truth.share(float(right.sum()), float(stated.sum())),
            "facts_true_by_band": truth.share_by_band(right, stated, groups),
            "facts_true_by_relation": dict(zip(RELATIONS, truth.share_by_band(right, stated, kinds), strict=True)),
            "facts_left": int((right > 0).sum()),
            "facts_left_by_band": truth.share_by_band((right > 0).astype(float), np.ones(len(rates)), groups),
            "facts_expected": truth.expected_distinct(np.array(list(rates.values())), documents),
        }

    def _association(self, read: Sequence[Sentence]) -> Fields:
        """How often a trade goes with the sex that is usual for it; by trade in the order of their true frequency."""
        usual = self.world.things.usual
        pairs = [
            (sentence.values["helper"], sentence.values["self"])
            for sentence in read
            if sentence.values and "self" in sentence.values and not sentence.unknown
        ]
        there = Counter(trade for trade, _ in pairs)
        as_usual = Counter(trade for trade, own in pairs if usual[trade] == own)
        return {
            "associations": len(pairs),
            "association": truth.share(sum(as_usual.values()), len(pairs)),
            "association_truth": self.world.things.association,
            "association_by_trade": {trade: truth.share(as_usual[trade], there[trade]) for trade in usual},
        }


def _verdict(sentence: Sentence) -> str:
    if sentence.template is None or "article" in sentence.unknown:
        return "odd"
    if sentence.unknown:
        return "unknown"
    return "right" if all(claim.true for claim in sentence.claims) else "false"


def _what_is_not(read: Sequence[Sentence]) -> Fields:
    """Shares of the names and dates in sentences of a known form that there are not."""
    total: Counter[str] = Counter()
    not_there: Counter[str] = Counter()
    for sentence in read:
        total.update((sentence.values or {}).keys())
        not_there.update(sentence.unknown)

    def missing(*slots: str) -> float | None:
        return truth.share(sum(not_there[slot] for slot in slots), sum(total[slot] for slot in slots))

    return {
        "breeds_unknown": missing("breed"),
        "people_unknown": missing("person"),
        "places_unknown": missing(*PLACES),
        "dates_unknown": missing(*DATES),
    }
