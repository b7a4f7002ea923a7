"""A language whose next-word distribution is known exactly: the source `zipf`, and the truth that models of it are held to.

A log-bilinear bigram language (after Mnih & Hinton 2007): the joint probability of neighbouring words i, j is

    J_ij = a_i b_j exp(dependence * <u_i, v_j> / sqrt(rank))        u, v: (vocabulary, rank) standard normal

with a and b chosen (Sinkhorn's iteration) so that both margins of J are pi, Zipf's law pi_k ~ 1 / k^exponent. So
P(j|i) = J_ij / pi_i has pi as its stationary distribution, exactly, every word can follow every word, and log P has,
up to a constant for each i, rank + 1 dimensions: a softmax over fewer hidden dimensions cannot express it.
"""

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np

LINE_WORDS = 16  # of a line of text; lines are for the eye, the chain runs on through them
TAIL = 0.1  # share of the words of a text that the tail types make up
SINKHORN_ERROR = 1e-13  # of a margin, absolute
SINKHORN_STEPS = 10_000


@dataclass(frozen=True)
class Language:
    """The language, and all that is known of it. Entropies are in nats, word indices count from 0, the most frequent.

    Attributes:
        vocabulary: words.
        exponent: of Zipf's law; 0: all words are equally frequent.
        rank: dimensions of the dependence of a word on the one before.
        dependence: standard deviation of the log-weights; 0: words are independent.
        seed: of the language itself.
    """

    vocabulary: int = 256
    exponent: float = 1.0
    rank: int = 8
    dependence: float = 2.0
    seed: int = 0

    @cached_property
    def stationary(self) -> np.ndarray:
        """(vocabulary,) share of each word in a long text; it falls with the index."""
        weights = np.arange(1, self.vocabulary + 1, dtype=np.float64) ** -self.exponent
        return np.asarray(weights / weights.sum())

    @cached_property
    def transition(self) -> np.ndarray:
        """(vocabulary, vocabulary) probability of word j (column) after word i (row); rows sum to 1.

        Raises:
            ValueError: when a probability is too small for a float (a dependence beyond all reason).
        """
        draw = _generator(self.seed, 0)
        before = draw.standard_normal((self.vocabulary, self.rank))
        after = draw.standard_normal((self.vocabulary, self.rank))
        logs = before @ after.T * (self.dependence / np.sqrt(self.rank))
        kernel = np.exp(logs - logs.max())
        pi = self.stationary
        columns = np.ones(self.vocabulary)
        with np.errstate(all="ignore"):
            for _ in range(SINKHORN_STEPS):
                rows = pi / (kernel @ columns)
                sums = kernel.T @ rows
                error = np.abs(columns * sums - pi).max()
                if not error >= SINKHORN_ERROR:  # small enough, or no number any more
                    break
                columns = pi / sums
            joint = rows[:, None] * kernel * columns
        if not error < SINKHORN_ERROR or joint.min() < np.finfo(np.float64).tiny:
            raise ValueError("data.zipf.dependence is too large for exact probabilities; lower it")
        return np.asarray(joint / joint.sum(axis=1, keepdims=True))

    @cached_property
    def logs(self) -> np.ndarray:
        """(vocabulary, vocabulary) ln P(j|i)."""
        return np.asarray(np.log(self.transition))

    @cached_property
    def entropies(self) -> np.ndarray:
        """(vocabulary,) entropy of the next word after each word."""
        return np.asarray(-(self.transition * self.logs).sum(axis=1))

    @property
    def entropy_rate(self) -> float:
        """H = -sum_i pi_i sum_j P(j|i) ln P(j|i): the lowest mean NLL a model can have on this language."""
        return float(self.stationary @ self.entropies)

    @property
    def unigram_entropy(self) -> float:
        """Entropy of a word whose predecessor is not known: the NLL of a model that learnt frequencies alone."""
        return float(-(self.stationary * np.log(self.stationary)).sum())

    @cached_property
    def tail(self) -> np.ndarray:
        """(vocabulary,) bool: the tail types, as many of the rarest words as together hold at most `TAIL` of a text."""
        mass_from_here_on = np.cumsum(self.stationary[::-1])[::-1]
        return np.asarray(mass_from_here_on <= TAIL)

    def sample(self, words: int, stream: int) -> np.ndarray:
        """(words,) int32 indices: one unbroken chain that starts in the stationary distribution.

        Streams are independent of each other and of the language; a shorter chain is the start of a longer one.
        """
        if words == 0:
            return np.empty(0, np.int32)
        uniform = _generator(self.seed, stream + 1).random(words).tolist()
        # a row's last sum may be below 1 by rounding: the draw above it is the last word
        inverse = [row[:-1] for row in np.cumsum(self.transition, axis=1).tolist()]
        word = bisect_right(np.cumsum(self.stationary)[:-1].tolist(), uniform[0])
        chain = [word]
        for value in uniform[1:]:
            word = bisect_right(inverse[word], value)
            chain.append(word)
        return np.array(chain, np.int32)

    def kl(self, log_q: np.ndarray, contexts: np.ndarray) -> np.ndarray:
        """(n,) exact KL(P(.|context) || q) in nats.

        Args:
            log_q: (n, vocabulary) a model's log-probability of each word; its mass may be below 1, where the model
                gives some to what is no word, and KL counts that as lost.
            contexts: (n,) index of the word before.
        """
        cross = np.einsum("nv,nv->n", self.transition[contexts], np.asarray(log_q, np.float64))
        return np.asarray(-self.entropies[contexts] - cross)

    def tail_mass(self, log_q: np.ndarray, contexts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """((n,), (n,)) probability of the tail types after each context: by the model, and in truth."""
        model = np.exp(np.asarray(log_q, np.float64)[:, self.tail]).sum(axis=1)
        return np.asarray(model), self._tail_after[contexts]

    @cached_property
    def _tail_after(self) -> np.ndarray:
        return np.asarray(self.transition[:, self.tail].sum(axis=1))

    def facts(self) -> dict[str, Any]:
        """What `from_facts` makes the language from again, and its entropies; can be written as JSON."""
        return {**asdict(self), "entropy_rate": self.entropy_rate, "unigram_entropy": self.unigram_entropy}


NAMES = tuple(Language.__dataclass_fields__)  # what a language is made from


def from_facts(facts: Mapping[str, Any]) -> Language:
    """The language whose `facts` these are (more keys do no harm)."""
    return _made(*(facts[name] for name in NAMES))


@lru_cache(maxsize=8)
def _made(*values: Any) -> Language:
    return Language(*values)


def words(vocabulary: int) -> list[str]:
    """The words in order of index: `w1`, the most frequent, to `wN`, the rarest."""
    return [f"w{rank}" for rank in range(1, vocabulary + 1)]


def text(facts: Mapping[str, Any]) -> dict[str, list[str]]:
    """The splits of a text as lines of words; each split is one chain of its own.

    Args:
        facts: a language's, and `train_tokens` and `test_tokens` (there is as much validation as test text).
    """
    language = from_facts(facts)
    spelled = words(language.vocabulary)
    lengths = {"train": facts["train_tokens"], "valid": facts["test_tokens"], "test": facts["test_tokens"]}
    splits = {}
    for stream, (split, length) in enumerate(lengths.items()):
        chain = [spelled[word] for word in language.sample(length, stream)]
        splits[split] = [" ".join(chain[at : at + LINE_WORDS]) + "\n" for at in range(0, length, LINE_WORDS)]
    return splits


def _generator(seed: int, stream: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=np.array([seed, stream], np.uint64)))
