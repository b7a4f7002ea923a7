"""The corpus of a generation from real and synthetic rows, as its policy says. Pure functions of rows and a seed."""

from collections.abc import Sequence

import numpy as np

from collapse_cli.config.policies import FRESH, Policy
from collapse_cli.config.weights import Weights
from collapse_cli.data.dataset import WEIGHTS, Dataset
from collapse_cli.engine.stage import seed_for
from collapse_cli.errors import InputError

DRAWN_TOGETHER = 256  # rows, of more of which numpy draws for one trial after another as fast as we do for all at once


def rows_in_corpus(policy: Policy, rows: int, generation: int, *, growing: bool) -> tuple[int, int]:
    """How many (real, synthetic) rows generation `generation`'s corpus has, for an original corpus of `rows` rows.

    For accumulate-subsample the split is not fixed; it is what the draw gives, on average one real row in g+1.
    """
    size = policy.size or rows
    if policy.rule == "accumulate":
        return rows, size * generation
    if policy.rule == "accumulate-fresh":
        fresh = sum(_added(policy, rows, g)[0] for g in range(1, generation + 1))
        return rows + fresh, size * generation - fresh
    if policy.rule == "accumulate-subsample":
        real = round(size * rows / (rows + size * generation))
        return real, size - real
    total = rows * (generation + 1) if growing else size
    real = policy.rows if policy.rule == "keep-rows" else round(total * policy.at(generation).percent / 100)
    return real, total - real


def _added(policy: Policy, rows: int, generation: int) -> tuple[int, int]:
    """How many (real, synthetic) rows one generation adds under an accumulating policy."""
    size = policy.size or rows
    fresh = round(size * policy.until(generation).percent / 100) if policy.rule == "accumulate-fresh" else 0
    return fresh, size - fresh


def order_seed(policy: Policy, run_seed: int, generation: int) -> int:
    """The seed of the order in which rows are kept and continued: another one for each generation, but where all keep the same."""
    return seed_for(run_seed, "mix", 0 if policy.rule == "keep-rows" else generation)


def pooled(policy: Policy) -> Policy:
    """The policy by which rows are put together that a choice is then made among: where it draws evenly from all, no draw."""
    return Policy("accumulate", size=policy.size) if policy.rule == "accumulate-subsample" else policy


def new_rows(policy: Policy, rows: int, generation: int, *, growing: bool) -> int:
    """How many rows the newest model makes for generation `generation`'s corpus, of an original corpus of `rows` rows."""
    if policy.accumulates:
        return _added(policy, rows, generation)[1]
    return rows_in_corpus(policy, rows, generation, growing=growing)[1]


def candidates_of(prompts: np.ndarray, rows: int, candidates: int) -> tuple[np.ndarray, np.ndarray]:
    """So many candidates for the rows of a corpus: those of `prompt_rows` first, and then again.

    Candidate j of place i is row i + j * len(prompts): all candidates of a place continue one prompt, each with a stream of its own.

    Args:
        rows: of the original corpus.

    Returns:
        (candidates,) each, the prompts and the streams; both are `prompts` where no more are made than are needed.
    """
    passes = int(prompts.max(initial=-1)) // rows + 1
    again, places = np.arange(candidates) // max(1, len(prompts)), np.resize(prompts, candidates)
    return places, places + again * passes * rows


def prompt_rows(policy: Policy, rows: int, generation: int, seed: int, *, growing: bool) -> np.ndarray:
    """Which rows are continued to make a generation's synthetic rows.

    One seeded order of the corpus per generation gives both: the first rows are kept real, the others are
    prompts, as in the Nature code, where a kept row replaces its own continuation. A corpus that grows passes
    over the rows again: index i stands for row i % rows, and its own stream of random numbers.
    """
    if policy.accumulates:
        return np.arange(rows)
    real, synthetic = rows_in_corpus(policy, rows, generation, growing=growing)
    order = seeded_order(rows, seed)
    passes = -(-(real + synthetic) // rows)
    kept = real if policy.keeps else 0
    return np.concatenate([order + rows * i for i in range(passes)])[kept : kept + synthetic]


def spread(chosen: np.ndarray, rows: int, size: int, seed: int) -> np.ndarray:
    """The rows of a corpus of `size` rows that indices of `prompt_rows` (for `rows` rows) stand for.

    The original corpus, and one of its size, are taken as they are. A previous corpus that has grown beyond it is taken
    in a seeded order, so that the prompts are spread over all of it and not only over its first, real rows.
    """
    order = np.arange(size) if size == rows else seeded_order(size, seed)
    rows_there: np.ndarray = order[chosen % size]
    return rows_there


def mix(
    policy: Policy,
    real: Dataset,
    reserve: Dataset,
    synthetic: Sequence[Dataset],
    generation: int,
    seed: int,
    *,
    growing: bool,
    trials: int = 1,
) -> Dataset:
    """Generation `generation`'s corpus.

    Args:
        real: the original corpus.
        reserve: real rows that are not in the original corpus, for fresh-P.
        synthetic: the rows made by the previous model; for accumulating policies those of all models so far.
        seed: the same that `prompt_rows` was given.
        trials: independent experiments that are computed together, in every row. Each draws its own rows, or the error of their mean
            would leave out what all draw alike. The origins of the corpus are those of the first.

    Raises:
        InputError: as `check_real_rows` does.
    """
    if policy.accumulates:
        if policy.rule == "accumulate-fresh":
            check_real_rows(policy, len(real), len(reserve), generation, growing=growing)
            used = _fresh_rows(policy, len(real), generation, growing=growing)
            return Dataset.concat([real, reserve.take(np.arange(used)), *synthetic])
        union = Dataset.concat([real, *synthetic])
        if policy.rule == "accumulate":
            return union
        return _drawn(union, policy.size or len(real), seed, trials, ordered=True)
    check_real_rows(policy, len(real), len(reserve), generation, growing=growing)
    wanted, _ = rows_in_corpus(policy, len(real), generation, growing=growing)
    if policy.rule == "fresh":
        used = _fresh_rows(policy, len(real), generation - 1, growing=growing)
        chosen = reserve.take(np.arange(used, used + wanted))
    else:
        chosen = _drawn(real, wanted, seed, trials)
    return Dataset.concat([chosen, *synthetic])


def weighted(corpus: Dataset, weights: Weights) -> Dataset:
    """A corpus as it is to be fitted: with the weight of each row, where rows do not count alike."""
    real = corpus.origin == 0
    both = weights.of_rows(int(real.sum()), int((~real).sum()))
    return corpus if both is None else Dataset({**corpus.arrays, WEIGHTS: np.where(real, *both)}, corpus.origin)


def with_public(
    corpus: Dataset, public: Dataset | None, shares: Sequence[float] | None
) -> tuple[Dataset, dict[str, int | float]]:
    """A corpus as it is to be fitted, with the rows of the public text behind it; and how many there are of each kind.

    Args:
        public: real rows that all lineages share; None where there are none.
        shares: of the loss, those of private, public and pooled rows, each as a whole. A kind without rows has none of it, and rows of
            a kind whose share is 0 are left out. None: all rows count alike.

    Returns:
        The rows, with their weights where they do not count alike, 1 on average; `train_rows`, `real_rows` (private and public ones),
        `public_rows`, `synthetic_rows`, and with shares `real_weight`, the share of the loss that real rows have.
    """
    own = Dataset({name: corpus.arrays[name] for name in public.arrays}, corpus.origin) if public else corpus
    rows = Dataset.concat([own, public]) if public else own
    kind = np.where(rows.origin > 0, 2, 0)
    kind[len(corpus) :] = 1
    weights = None
    if shares is not None:
        there = np.bincount(kind, minlength=3)
        of_each = np.array([share / count if count else 0.0 for share, count in zip(shares, there, strict=True)])
        kept = np.flatnonzero(of_each[kind] > 0)
        rows, kind = rows.take(kept), kind[kept]
        weights = of_each[kind] / of_each[kind].mean()
        rows = Dataset({**rows.arrays, WEIGHTS: weights}, rows.origin)
    private, shared, pooled = (int(count) for count in np.bincount(kind, minlength=3))
    counts: dict[str, int | float] = {"train_rows": len(rows), "real_rows": private + shared, "synthetic_rows": pooled}
    if public:
        counts["public_rows"] = shared
    if weights is not None:
        counts["real_weight"] = float(weights[kind < 2].sum() / weights.sum())
    return rows, counts


def check_real_rows(policy: Policy, rows: int, reserve: int, generation: int, *, growing: bool) -> None:
    """Whether there are real rows enough for all generations up to `generation`.

    Args:
        rows, reserve: rows of the original corpus, and real rows beyond it.

    Raises:
        InputError: when more are asked for than there are.
    """
    if policy.rule in FRESH and (needed := _fresh_rows(policy, rows, generation, growing=growing)) > reserve:
        raise InputError(
            f"{policy} needs {needed:,} never-seen real rows by generation {generation}, the reserve "
            f"has {reserve:,}; lower data.rows (rows beyond it are the reserve), P or the generations"
        )
    if policy.rule == "keep-rows" and policy.size and policy.rows > policy.size:
        raise InputError(
            f"{policy} keeps {policy.rows:,} real rows, a corpus of mix.rows = {policy.size:,} has fewer; lower N or raise mix.rows"
        )
    if policy.rule == "keep-rows" and generation > 0 and policy.rows > rows:
        raise InputError(
            f"{policy} keeps {policy.rows:,} real rows, the original corpus has {rows:,}; lower N, or raise data.rows "
            "if there are more"
        )
    if policy.rule != "keep":
        return
    for when in sorted({*range(1, min(len(policy.shares), generation) + 1), generation} - {0}):
        wanted, _ = rows_in_corpus(policy, rows, when, growing=growing)
        if wanted > rows:
            if policy.size:
                raise InputError(
                    f"{policy} of mix.rows = {policy.size:,} asks for {wanted:,} real rows at generation {when}, the original "
                    f"corpus has {rows:,}; lower mix.rows or P"
                )
            raise InputError(
                f"{policy} with a growing corpus asks for {wanted:,} real rows at generation {when}, "
                f"the original corpus has {rows:,}; set mix.size = constant or lower P"
            )


def rounding_note(policy: Policy, rows: int) -> str:
    """A note where a share of `rows` rows is, in whole rows, none of them or all; "" where it is neither."""
    size = policy.size or rows
    if policy.rule == "keep-rows" and policy.rows == size:
        return (
            f"{policy} of {size:,} rows leaves no synthetic row, so it does what keep-100 does; give more rows "
            "(data.rows) or keep fewer"
        )
    for generation, share in enumerate(policy.shares if policy.mixes and not policy.accumulates else (), 1):
        real, synthetic = rows_in_corpus(policy, rows, generation, growing=False)
        if (real and synthetic) or not 0 < share < 100:
            continue
        lacking, same = ("real", 0) if synthetic else ("synthetic", 100)
        when = f" at generation {generation}" if policy.before else ""
        return (
            f"{policy} of {size:,} rows leaves no {lacking} row{when}, so it does what {policy.rule}-{same} does; give "
            "more rows (data.rows) or another share"
        )
    return ""


def schedule_note(policy: Policy, generations: int) -> str:
    """A note where a schedule has shares of generations that a run does not reach; "" otherwise."""
    if len(policy.shares) <= generations or not policy.before:
        return ""
    beyond = ", ".join(f"{share:g}" for share in policy.shares[generations:])
    return (
        f"{policy} has shares for {len(policy.shares)} generations, and this run ends with generation {generations}, so it "
        f"does not use {beyond}"
    )


def _fresh_rows(policy: Policy, rows: int, generation: int, *, growing: bool) -> int:
    """How many rows of the reserve are used up to a generation."""
    if policy.rule == "accumulate-fresh":
        return rows_in_corpus(policy, rows, generation, growing=growing)[0] - rows
    return sum(rows_in_corpus(policy, rows, g, growing=growing)[0] for g in range(1, generation + 1))


def _drawn(rows: Dataset, wanted: int, seed: int, trials: int, *, ordered: bool = False) -> Dataset:
    """So many rows at random; of the arrays (rows, trials, ...) each trial its own, the first those of `seeded_order`."""
    first = seeded_order(len(rows), seed)[:wanted]
    if ordered:
        first = np.sort(first)
    if trials == 1:
        return rows.take(first)
    random = np.random.Generator(np.random.Philox(seed).jumped())
    others = choices(random, len(rows), wanted, trials - 1)
    return rows.take_by_trial(np.concatenate([first[None], others]).T)


def choices(random: np.random.Generator, rows: int, wanted: int, times: int) -> np.ndarray:
    """(times, wanted) indices below `rows`: what `random.choice(rows, wanted, replace=False, shuffle=False)` gives so often, number for number.

    One call takes numpy 10 to 25 microseconds, however few rows: of few rows all are drawn at once, by the same algorithm (Floyd's:
    the k-th of n is drawn below rows - n + k, and is that bound where it is taken already).
    """
    if rows > DRAWN_TOGETHER or not times:
        every = [random.choice(rows, wanted, replace=False, shuffle=False) for _ in range(times)]
        return np.reshape(np.array(every, np.int64), (times, wanted))
    bounds = np.arange(rows - wanted, rows)
    drawn = random.integers(0, np.broadcast_to(bounds, (times, wanted)), endpoint=True)
    taken, each = np.zeros((times, rows), np.bool_), np.arange(times)
    for place, bound in enumerate(bounds):
        drawn[:, place] = np.where(taken[each, drawn[:, place]], bound, drawn[:, place])
        taken[each, drawn[:, place]] = True
    return drawn


def seeded_order(rows: int, seed: int) -> np.ndarray:
    """(rows,) the indices of a corpus in an order that follows from the seed alone."""
    return np.random.Generator(np.random.Philox(seed)).permutation(rows)
