"""How many different things samples say."""

from typing import Any

import numpy as np

from collapse_cli.metrics.grams import Grams

BUDGET = 20_000  # tokens over which distinct-n is counted, so that runs and generations compare
SELF_BLEU_ROWS = 500
ORDERS = 4  # of BLEU
GROUPS = 20  # of the jackknife


def draw(lengths: np.ndarray, budget: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Whole samples drawn at random until they hold `budget` tokens, the last one cut to fit.

    Returns:
        The rows, and how many tokens of each; all that there are where they hold fewer.
    """
    order = np.random.Generator(np.random.Philox(seed)).permutation(len(lengths))
    order = order[lengths[order] > 0]
    before = np.cumsum(lengths[order]) - lengths[order]
    order, before = order[before < budget], before[before < budget]
    return order, np.minimum(lengths[order], budget - before)


def distinct(grams: Grams, budget: int = BUDGET, seed: int = 0) -> dict[str, Any]:
    """distinct-n (Li et al. 2016): distinct n-grams / n-grams, over a fixed number of tokens.

    Returns:
        `distinct_1` .. `distinct_4`, 0..1 (None where no sample is so long); `type_token_ratio`, which is distinct-1
        where both are taken at equal numbers of tokens; `distinct_tokens`, over how many they were taken.
    """
    rows, lengths = draw(grams.lengths, budget, seed)
    drawn = grams.take(rows, lengths)
    shares: dict[str, Any] = {}
    for n in range(1, 5):
        ids = drawn.all(n)
        shares[f"distinct_{n}"] = len(np.unique(ids)) / len(ids) if len(ids) else None
    return {**shares, "type_token_ratio": shares["distinct_1"], "distinct_tokens": int(lengths.sum())}


def self_bleu(grams: Grams, rows: int = SELF_BLEU_ROWS, seed: int = 0) -> dict[str, Any]:
    """Self-BLEU (Zhu et al. 2018): the mean sentence BLEU-4 of each of some samples against the others of them.

    As sacrebleu's `sentence_bleu(tokenize="none", use_effective_order=True)` with its exponential smoothing would give
    over token ids. Here every n-gram's largest count is found once for all samples, not once for each of them.

    Returns:
        `self_bleu`, 0..100, None for fewer than two samples; `self_bleu_rows`, how many were taken: `rows` of those that
        hold a token, or all.
    """
    from sacrebleu.metrics import BLEU

    filled = np.flatnonzero(grams.lengths > 0)
    chosen = np.random.Generator(np.random.Philox(seed)).permutation(filled)[:rows]
    count = len(chosen)
    if count < 2:
        return {"self_bleu": None, "self_bleu_rows": count}
    drawn = grams.take(chosen)
    matched = np.stack([_matches(drawn.ids(n)) for n in range(1, ORDERS + 1)], axis=1)
    total = np.maximum(drawn.lengths[:, None] - np.arange(ORDERS), 0)
    lengths = drawn.lengths
    distance = np.abs(lengths[:, None] - lengths).astype(np.float64)
    np.fill_diagonal(distance, np.inf)
    nearest = lengths[np.lexsort((np.broadcast_to(lengths, distance.shape), distance), axis=1)[:, 0]]
    scores = [
        BLEU.compute_bleu(right, all_, length, closest, smooth_method="exp", effective_order=True).score
        for right, all_, length, closest in zip(
            matched.tolist(), total.tolist(), lengths.tolist(), nearest.tolist(), strict=True
        )
    ]
    return {"self_bleu": float(np.mean(scores)), "self_bleu_rows": count}


def _matches(ids: np.ndarray) -> np.ndarray:
    """(rows,) how many n-grams of a row any other row has too, each counted as often as one other row holds it."""
    rows = len(ids)
    row, column = np.nonzero(ids >= 0)
    pairs, counts = np.unique(ids[row, column] * np.int64(rows) + row, return_counts=True)
    gram, holder = np.divmod(pairs, rows)
    order = np.lexsort((counts, gram))
    gram, holder, counts = gram[order], holder[order], counts[order]
    if len(gram) == 0:
        return np.zeros(rows, np.int64)
    last = np.flatnonzero(np.concatenate([gram[1:] != gram[:-1], [True]]))  # of each n-gram the row with the most of it
    group = np.cumsum(np.concatenate([[0], gram[1:] != gram[:-1]]))
    most = counts[last][group]
    alone = np.diff(np.concatenate([[-1], last])) == 1
    most[last] = np.where(alone, 0, counts[last - 1])  # for that row the second most counts
    matches = np.zeros(rows, np.int64)
    np.add.at(matches, holder, np.minimum(counts, most))
    return matches


def entropy(counts: np.ndarray) -> float | None:
    """Entropy of relative frequencies in nats, as they stand (plug-in, so biased low); None where nothing was counted."""
    total = counts.sum()
    if total == 0:
        return None
    shares = counts[counts > 0] / total
    return max(0.0, float(-(shares * np.log(shares)).sum()))


def unigram_entropy(grams: Grams, groups: int = GROUPS) -> tuple[float | None, float | None]:
    """Entropy of token frequencies (nats), and its standard error by a jackknife over groups of whole samples.

    The delete-a-group jackknife (Kott 2001): sample i is in group i modulo `groups`, since the tokens of a sample are no
    independent draws. None for the error where fewer than two groups hold a token.
    """
    filled = np.flatnonzero(grams.lengths > 0)
    groups = min(groups, len(filled))
    if groups == 0:
        return None, None
    parts = [np.bincount(grams.tokens[filled[k::groups]].ravel() + 1)[1:] for k in range(groups)]  # 0: what is unused
    size = max(map(len, parts))
    counts = np.stack([np.pad(part, (0, size - len(part))) for part in parts])
    total = counts.sum(axis=0)
    whole = entropy(total)
    if groups < 2:
        return whole, None
    without = np.array([entropy(total - part) for part in counts])
    return whole, float(np.sqrt((groups - 1) / groups * ((without - without.mean()) ** 2).sum()))


def next_token_entropy(grams: Grams) -> float | None:
    """Entropy of a token given the one before it within the sample (nats): the plug-in estimate from bigrams."""
    pairs = grams.all(2)
    if len(pairs) == 0:
        return None
    first = grams.tokens[:, :-1][grams.ids(2) >= 0]
    joint, before = entropy(np.bincount(pairs)), entropy(np.bincount(first))
    assert joint is not None
    assert before is not None
    return max(0.0, joint - before)


def coverage(grams: Grams, deciles: np.ndarray) -> dict[str, Any]:
    """Which types of the real corpus the samples still use.

    Args:
        deciles: (types,) the frequency decile of each type in the real corpus, 0 (head) to 9; -1: it does not occur there.

    Returns:
        `vocabulary_coverage`: the share of the real corpus' types that occur in the samples; `recall_by_decile`: the same
        by decile, None where one is empty. Both None without a sample.
    """
    if len(grams) == 0:
        return {"vocabulary_coverage": None, "recall_by_decile": [None] * 10}
    used = np.bincount(grams.all(1), minlength=len(deciles))[: len(deciles)] > 0
    real = deciles >= 0
    types = np.bincount(deciles[real], minlength=10)
    kept = np.bincount(deciles[real & used], minlength=10)
    return {
        "vocabulary_coverage": float(kept.sum() / types.sum()) if types.sum() else None,
        "recall_by_decile": [float(a / b) if b else None for a, b in zip(kept, types, strict=True)],
    }
