"""Counts of n-grams within rows of tokens: exact maximum likelihood for every length of context, found, scored and drawn from.

`keys[c]` numbers the (c+1)-grams of a corpus. A gram's key is the number of its first c tokens in `keys[c - 1]` (0 for
c = 0), shifted, and its last token; keys ascend, so the grams of one context are neighbours, by token.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from collapse_cli.metrics.likeness import jensen_shannon

SHIFT = 32  # bits of a key that hold the last token
TOKEN = (1 << SHIFT) - 1
PAIRS_AT_ONCE = 1 << 14  # of contexts, whose tokens are laid out in memory
DENSE = 4  # grams there could be, in units of those there are, up to which counting in a table beats sorting


@dataclass(frozen=True)
class Tables:
    """What was counted.

    Attributes:
        keys: by length of context c, (grams,) int64, ascending.
        counts: as `keys`, how often each gram occurs; floats where rows have weights.
    """

    keys: Sequence[np.ndarray]
    counts: Sequence[np.ndarray]

    @property
    def order(self) -> int:
        """Tokens of the longest n-gram."""
        return len(self.keys)

    @cached_property
    def starts(self) -> list[np.ndarray]:
        """By length of context, (contexts + 1,) where the grams of each begin; contexts as numbered in `keys[c - 1]`."""
        sizes = [1, *map(len, self.keys[:-1])]
        return [
            np.searchsorted(keys, np.arange(size + 1) << SHIFT) for keys, size in zip(self.keys, sizes, strict=True)
        ]

    @cached_property
    def totals(self) -> list[np.ndarray]:
        """By length of context, (contexts,) how often each is followed by anything; 0 where it only ends rows."""
        if any(counts.dtype.kind == "f" for counts in self.counts):  # differences of running sums would lose digits
            return [
                np.bincount(self.contexts(c), counts, len(self.starts[c]) - 1) for c, counts in enumerate(self.counts)
            ]
        sums = [np.concatenate([[0], np.cumsum(counts)]) for counts in self.counts]
        return [np.diff(total[start]) for total, start in zip(sums, self.starts, strict=True)]

    def tokens(self, context: int) -> np.ndarray:
        """(grams,) the last token of each gram behind contexts of that length."""
        return np.asarray(self.keys[context] & TOKEN)

    def contexts(self, context: int) -> np.ndarray:
        """(grams,) which context each gram behind contexts of that length has."""
        return np.asarray(self.keys[context] >> SHIFT)

    def probabilities(self, context: int) -> np.ndarray:
        """(grams,) of each gram's last token, given its context."""
        return np.asarray(self.counts[context] / self.totals[context][self.contexts(context)])

    def find(self, tokens: np.ndarray, lengths: np.ndarray) -> list[np.ndarray]:
        """By length of context c, (rows, width - c) the number of the gram that starts at each token; -1: never seen."""
        width = tokens.shape[1]
        used = np.arange(width) < np.asarray(lengths)[:, None]
        before = np.zeros(tokens.shape, np.int64)
        numbers = []
        for context in range(min(self.order, width)):
            number = self._number(context, before[:, : width - context], tokens[:, context:])
            before = np.where(used[:, context:], number, -1)
            numbers.append(before)
        return numbers

    def predict(self, tokens: np.ndarray, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """How each token but the first of its row is predicted: from the longest context that was seen with a follower.

        Returns:
            (rows, width - 1) each: the context's length (-1 behind the row's end), its number, and the gram's (-1: the
            token was never seen there).
        """
        width = tokens.shape[1]
        used = np.arange(1, width) < np.asarray(lengths)[:, None]
        grams = self.find(tokens, lengths)
        chosen = np.where(used, 0, -1)
        context = np.zeros(chosen.shape, np.int64)
        gram = grams[0][:, 1:].copy()
        for length in range(1, len(grams)):
            before = grams[length - 1][:, : width - length]  # the token to predict stands at start + length
            better = (before >= 0) & (self.totals[length][before] > 0) & used[:, length - 1 :]
            for array, value in ((chosen, length), (context, before), (gram, grams[length])):
                array[:, length - 1 :] = np.where(better, value, array[:, length - 1 :])
        return chosen, context, gram

    def divergences(self, other: "Tables", tokens: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """How far apart two models' distributions of each token but the first of its row are, whatever the token is.

        Returns:
            (rows, width - 1) Jensen-Shannon divergence in bits (`metrics.likeness.jensen_shannon`); NaN behind the row's end.
        """
        (mine, own, _), (theirs, others, _) = (tables.predict(tokens, lengths) for tables in (self, other))
        found = np.full(mine.shape, np.nan)
        for length in range(self.order):
            for their_length in range(other.order):
                here = (mine == length) & (theirs == their_length)
                if not here.any():
                    continue
                # each pair of contexts once
                pairs, pair = np.unique(np.stack([own[here], others[here]]), axis=1, return_inverse=True)
                apart = [
                    self._divergences(other, length, their_length, some)
                    for some in np.array_split(pairs, max(1, -(-pairs.shape[1] // PAIRS_AT_ONCE)), axis=1)
                ]
                found[here] = np.concatenate(apart)[pair.reshape(-1)]
        return found

    def _divergences(self, other: "Tables", length: int, their_length: int, pairs: np.ndarray) -> np.ndarray:
        """(pairs,) of contexts of those lengths, by their numbers in both models (2, pairs)."""
        begin, end = self.starts[length][pairs[0]], self.starts[length][pairs[0] + 1]
        spans = end - begin
        pair = np.repeat(np.arange(pairs.shape[1]), spans)
        gram = np.arange(len(pair)) - np.repeat(np.cumsum(spans) - spans - begin, spans)
        theirs = other._number(their_length, pairs[1][pair], self.tokens(length)[gram])
        pair, gram, theirs = (each[theirs >= 0] for each in (pair, gram, theirs))
        p, q = self.probabilities(length)[gram], other.probabilities(their_length)[theirs]
        return jensen_shannon(p, q, pair, pairs.shape[1])

    def continued(
        self, prompts: np.ndarray, lengths: np.ndarray, uniform: np.ndarray, temperature: float = 1.0
    ) -> np.ndarray:
        """Tokens drawn one behind the other, each from the longest context that was seen with a follower.

        Args:
            prompts, lengths: (rows, width) and (rows,): what is continued; may be nothing.
            uniform: (rows, new) numbers in [0, 1), one for each token.
            temperature: counts are raised to its inverse.

        Returns:
            (rows, new) int32.
        """
        rows, longest = len(uniform), self.order - 1
        made = np.full((rows, longest + uniform.shape[1]), -1, np.int64)  # history first; -1: none
        behind = np.asarray(lengths)[:, None] - longest + np.arange(longest)  # where the history stands in the prompt
        if prompts.shape[1]:
            kept = np.take_along_axis(np.asarray(prompts, np.int64), np.maximum(behind, 0), axis=1)
            made[:, :longest] = np.where(behind >= 0, kept, -1)
        sums = [np.concatenate([[0.0], np.cumsum(self._weights(c, temperature))]) for c in range(self.order)]
        for step in range(uniform.shape[1]):
            todo = np.arange(rows)
            for length in range(longest, -1, -1):
                context = np.zeros(len(todo), np.int64)
                for back in range(length):
                    context = self._number(back, context, made[todo, step + longest - length + back])
                begin, end = self.starts[length][context], self.starts[length][context + 1]
                seen = (context >= 0) & (begin < end)
                begin, end, now = begin[seen], end[seen], todo[seen]
                low, high = sums[length][begin], sums[length][end]
                at = np.searchsorted(sums[length][1:], low + uniform[now, step] * (high - low), side="right")
                at = np.clip(at, begin, end - 1)  # a product may be rounded up
                made[now, step + longest] = self.keys[length][at] & TOKEN
                todo = todo[~seen]
        return np.asarray(made[:, longest:], np.int32)

    def _number(self, context: int, before: np.ndarray, token: np.ndarray) -> np.ndarray:
        """The number of the gram of a context (-1: an unseen one) and a token (-1: none); -1 where it was never seen."""
        keys = self.keys[context]
        wanted = (before << SHIFT) | token
        at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
        return np.where(keys[at] == wanted, at, -1) if len(keys) else np.full(wanted.shape, -1)

    def _weights(self, context: int, temperature: float) -> np.ndarray:
        counts = self.counts[context]
        if temperature == 1 or len(counts) == 0:
            return counts
        groups = self.contexts(context)
        first = np.flatnonzero(np.diff(groups, prepend=-1))
        logs = np.log(counts)
        most = np.repeat(np.maximum.reduceat(logs, first), np.diff(np.append(first, len(groups))))
        return np.asarray(np.exp((logs - most) / temperature))


def count(tokens: np.ndarray, lengths: np.ndarray, order: int, weights: np.ndarray | None = None) -> Tables:
    """The n-grams, n = 1 .. order, of rows; none reaches from one row into another.

    Args:
        tokens: (rows, width) not negative.
        lengths: (rows,) how many tokens of each row are used.
        weights: (rows,) how many times each row counts. None: once.
    """
    width = tokens.shape[1]
    used = np.arange(width) < np.asarray(lengths)[:, None]
    times_each = None if weights is None else np.broadcast_to(weights[:, None], tokens.shape)
    size = int(tokens.max(initial=0)) + 1
    before = np.zeros(tokens.shape, np.int64)
    keys: list[np.ndarray] = []
    counts: list[np.ndarray] = []
    for context in range(order):
        inside = used[:, context:]
        grams, number, times = _distinct(
            before[:, : max(width - context, 0)][inside],
            tokens[:, context:][inside],
            len(keys[-1]) if keys else 1,
            size,
            None if times_each is None else times_each[:, context:][inside],
        )
        before = np.full(inside.shape, -1, np.int64)
        before[inside] = number
        keys.append(grams)
        counts.append(times)
    return Tables(keys, counts)


def _distinct(
    before: np.ndarray, token: np.ndarray, contexts: int, size: int, weights: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The distinct pairs as keys, which of them each pair is, and how often each occurs, or weighs (`weights`, above 0)."""
    if contexts * size > DENSE * len(token):
        keys, of, often = np.unique((before << SHIFT) | token, return_inverse=True, return_counts=True)
        return keys, of, often if weights is None else np.bincount(of, weights, len(keys))
    pair = before * size + token
    times = np.bincount(pair, weights, minlength=contexts * size)
    there = np.flatnonzero(times)
    number = np.zeros(contexts * size, np.int64)
    number[there] = np.arange(len(there))
    return (there // size << SHIFT) | there % size, number[pair], times[there]
