"""Policies: how many real rows, which ones, and what is continued, in every generation."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from collapse_cli.config.policies import Policy
from collapse_cli.data.dataset import Dataset
from collapse_cli.engine.stage import seed_for
from collapse_cli.errors import InputError
from collapse_cli.experiment.mixing import (
    DRAWN_TOGETHER,
    check_real_rows,
    choices,
    mix,
    new_rows,
    order_seed,
    prompt_rows,
    rounding_note,
    rows_in_corpus,
    schedule_note,
)
from collapse_cli.experiment.stages.sample import Continued

GENERATIONS = 9
PERCENTS = st.one_of(st.integers(0, 100), st.floats(0, 100, allow_nan=False))


def corpus(rows: int, first: int = 0, origin: int = 0) -> Dataset:
    """Rows that say who they are: row i holds the token first + i."""
    tokens = np.arange(first, first + rows, dtype=np.int32)[:, None]
    return Dataset({"tokens": tokens, "lengths": np.ones(rows, np.int32)}, np.full(rows, origin, np.int32))


def names(data: Dataset) -> np.ndarray:
    return data.arrays["tokens"][:, 0]


def simulate(
    policy: Policy, rows: int, reserve: int = 0, *, run_seed: int = 0, growing: bool = False
) -> list[tuple[Dataset, np.ndarray]]:
    """The corpora of generations 1..9, made as the loop makes them, and the prompts of each.

    A synthetic row of generation g is called 1,000,000 * g + its prompt's number.
    """
    real, beyond = corpus(rows), corpus(reserve, first=500_000)
    newest: list[Dataset] = []
    made = []
    for generation in range(1, GENERATIONS + 1):
        seed = order_seed(policy, run_seed, generation)
        drawn = Policy("keep", 0.0) if policy.accumulates else policy
        prompts = prompt_rows(drawn, rows, generation, seed, growing=growing)
        tokens = (1_000_000 * generation + prompts).astype(np.int32)[:, None]
        sample = Dataset(
            {"tokens": tokens, "lengths": np.ones(len(prompts), np.int32)},
            np.full(len(prompts), generation, np.int32),
        )
        newest = [*newest, sample] if policy.accumulates else [sample]
        made.append((mix(policy, real, beyond, newest, generation, seed, growing=growing), prompts))
    return made


# --- keep -------------------------------------------------------------------------------------------------------------


@given(percent=PERCENTS, rows=st.integers(1, 120), run_seed=st.integers(0, 2**32))
def test_keep_holds_exactly_its_share_of_original_rows_in_every_generation(
    percent: float, rows: int, run_seed: int
) -> None:
    for generation, (made, prompts) in enumerate(simulate(Policy("keep", percent), rows, run_seed=run_seed), 1):
        real, wanted = names(made)[made.origin == 0], round(rows * percent / 100)
        assert len(made) == rows, "the total is constant"
        assert len(real) == wanted, "the share does not decay"
        assert len(set(real)) == wanted, "no row is kept twice"
        assert set(real) <= set(range(rows)), "kept rows are rows of the original corpus"
        assert set(made.origin) <= {0, generation}, "what is not real is of the newest model"
        assert set(real).isdisjoint(prompts), "no kept row is continued as well"
        assert set(real) | set(prompts) == set(range(rows)), "each row is kept or continued"
        assert len(prompts) == rows - wanted


def test_keep_10_of_1000_rows_keeps_100_for_nine_generations() -> None:
    assert [int((made.origin == 0).sum()) for made, _ in simulate(Policy.parse("keep-10"), 1000)] == [100] * GENERATIONS


def test_the_kept_rows_are_drawn_anew_in_each_generation() -> None:
    kept = [frozenset(names(made)[made.origin == 0].tolist()) for made, _ in simulate(Policy.parse("keep-20"), 200)]
    assert len(set(kept)) == GENERATIONS
    # nine independent draws of a fifth leave 0.8^9 = 13% of the rows never kept; a decaying draw would leave far more
    assert 0.05 < 1 - len(frozenset.union(*kept)) / 200 < 0.25


def test_the_same_seed_keeps_the_same_rows_and_another_seed_others() -> None:
    first, again, other = (simulate(Policy.parse("keep-30"), 50, run_seed=seed) for seed in (3, 3, 4))
    for (a, _), (b, _), (c, _) in zip(first, again, other, strict=True):
        assert np.array_equal(names(a), names(b))
        assert not np.array_equal(names(a), names(c))


def test_kept_rows_are_nested_across_policies() -> None:
    """Differences between policies are paired: what keep-10 keeps, keep-20 keeps too."""
    for (few, _), (more, _) in zip(
        simulate(Policy.parse("keep-10"), 90), simulate(Policy.parse("keep-20"), 90), strict=True
    ):
        assert set(names(few)[few.origin == 0]) < set(names(more)[more.origin == 0])


def test_keep_100_is_the_original_corpus_and_keep_0_holds_none_of_it() -> None:
    for made, prompts in simulate(Policy.parse("keep-100"), 40):
        assert sorted(names(made)) == list(range(40))
        assert len(prompts) == 0
    for made, prompts in simulate(Policy.parse("keep-0"), 40):
        assert (made.origin > 0).all()
        assert sorted(prompts) == list(range(40))


# --- keep-rows --------------------------------------------------------------------------------------------------------


@given(kept=st.integers(1, 40), more=st.integers(0, 40), growing=st.booleans())
def test_keep_rows_keeps_the_same_rows_in_every_generation(kept: int, more: int, growing: bool) -> None:
    rows = kept + more
    simulated = simulate(Policy("keep-rows", rows=kept), rows, growing=growing)
    first = sorted(names(simulated[0][0])[:kept])
    for generation, (made, prompts) in enumerate(simulated, 1):
        assert sorted(names(made)[made.origin == 0]) == first
        assert len(set(first)) == kept, "no row is kept twice"
        assert len(made) == (rows * (generation + 1) if growing else rows)
        assert set(made.origin) <= {0, generation}
        if not growing:
            assert set(first).isdisjoint(prompts), "no kept row is continued as well"
            assert set(first) | set(prompts) == set(range(rows)), "each row is kept or continued"


def test_keep_rows_of_another_seed_are_others_and_of_fewer_rows_some_of_them() -> None:
    few, more = ({*names(simulate(Policy.parse(f"keep-rows-{n}"), 90)[0][0])[:n]} for n in (9, 30))
    assert few < more
    assert few != {*names(simulate(Policy.parse("keep-rows-9"), 90, run_seed=1)[0][0])[:9]}


def test_keep_rows_cannot_keep_more_than_there_are() -> None:
    check_real_rows(Policy.parse("keep-rows-50"), 50, 0, 9, growing=False)
    with pytest.raises(InputError, match="keep-rows-51 keeps 51 real rows, the original corpus has 50; lower N"):
        check_real_rows(Policy.parse("keep-rows-51"), 50, 0, 9, growing=False)


def test_the_order_of_rows_is_that_of_before_but_where_the_same_rows_are_kept() -> None:
    for name in ("keep-10", "keep-50-20", "fresh-10", "accumulate", "accumulate-subsample"):
        assert order_seed(Policy.parse(name), 3, 7) == seed_for(3, "mix", 7)
    assert order_seed(Policy.parse("keep-rows-5"), 3, 7) == order_seed(Policy.parse("keep-rows-5"), 3, 1)


# --- schedules --------------------------------------------------------------------------------------------------------


def test_a_schedule_makes_in_each_generation_the_corpus_of_that_share() -> None:
    scheduled = simulate(Policy.parse("keep-50-100-0-10"), 60)
    for generation, (made, prompts) in enumerate(scheduled, 1):
        share = (50, 100, 0, 10)[min(generation, 4) - 1]
        alone, continued = simulate(Policy("keep", float(share)), 60)[generation - 1]
        assert np.array_equal(names(made), names(alone)), "so stages are shared with the plain policy"
        assert np.array_equal(prompts, continued)


def test_a_schedule_of_fresh_rows_uses_none_twice_and_counts_what_it_used() -> None:
    policy = Policy.parse("fresh-50-0-20-10")
    counts = [20, 0, 8] + [4] * 6
    made = [corpus for corpus, _ in simulate(policy, 40, sum(counts))]
    fresh = [names(corpus)[corpus.origin == 0].tolist() for corpus in made]
    assert [len(rows) for rows in fresh] == counts
    assert sorted(row for rows in fresh for row in rows) == list(range(500_000, 500_000 + sum(counts)))
    check_real_rows(policy, 40, sum(counts), GENERATIONS, growing=False)
    with pytest.raises(InputError, match=f"needs {sum(counts)} never-seen real rows by generation 9"):
        check_real_rows(policy, 40, sum(counts) - 1, GENERATIONS, growing=False)


def test_a_growing_schedule_is_checked_where_it_asks_for_most() -> None:
    check_real_rows(Policy.parse("keep-50-0"), 100, 0, 9, growing=True)
    with pytest.raises(InputError, match="asks for 120 real rows at generation 1"):
        check_real_rows(Policy.parse("keep-60-0"), 100, 0, 9, growing=True)
    check_real_rows(Policy.parse("keep-0-0-60"), 100, 0, 2, growing=True)


def test_shares_that_a_run_never_reaches_are_said() -> None:
    assert schedule_note(Policy.parse("keep-50-20-10"), 3) == ""
    assert schedule_note(Policy.parse("keep-10"), 0) == ""
    assert "ends with generation 1, so it does not use 20, 10" in schedule_note(Policy.parse("keep-50-20-10"), 1)


# --- accumulate -------------------------------------------------------------------------------------------------------


def test_accumulate_holds_all_there_ever_was() -> None:
    for generation, (made, _) in enumerate(simulate(Policy.parse("accumulate"), 30), 1):
        assert len(made) == 30 * (generation + 1)
        assert np.bincount(made.origin).tolist() == [30] * (generation + 1)
        assert len(set(names(made))) == len(made)
        assert rows_in_corpus(Policy.parse("accumulate"), 30, generation, growing=False) == (30, 30 * generation)


def test_accumulate_subsample_has_a_constant_size_and_draws_evenly() -> None:
    shares = np.zeros(GENERATIONS)
    for run_seed in range(20):
        for index, (made, _) in enumerate(simulate(Policy.parse("accumulate-subsample"), 60, run_seed=run_seed)):
            assert len(made) == 60
            assert len(set(names(made))) == 60, "drawn without replacement"
            assert made.origin.max() <= index + 1
            shares[index] += (made.origin == 0).mean() / 20
    assert shares == pytest.approx([1 / (g + 1) for g in range(1, GENERATIONS + 1)], abs=0.05)


# --- fresh ------------------------------------------------------------------------------------------------------------


@given(percent=PERCENTS, rows=st.integers(1, 60), growing=st.booleans())
def test_fresh_never_uses_a_real_row_twice(percent: float, rows: int, growing: bool) -> None:
    policy = Policy("fresh", percent)
    needed = sum(
        rows_in_corpus(policy, rows, generation, growing=growing)[0] for generation in range(1, GENERATIONS + 1)
    )
    used: set[int] = set()
    for generation, (made, _) in enumerate(simulate(policy, rows, needed, growing=growing), 1):
        total = rows * (generation + 1) if growing else rows
        real = set(names(made)[made.origin == 0].tolist())
        assert len(made) == total
        assert len(real) == round(total * percent / 100)
        assert real.isdisjoint(used)
        assert all(row >= 500_000 for row in real), "fresh rows are not of the original corpus"
        used |= real
    assert len(used) == needed, "the reserve is used up to the last row"


@given(percent=st.integers(10, 100), rows=st.integers(10, 60))
def test_fresh_says_so_when_the_reserve_runs_out(percent: int, rows: int) -> None:
    policy = Policy("fresh", percent)
    needed = GENERATIONS * round(rows * percent / 100)
    check_real_rows(policy, rows, needed, GENERATIONS, growing=False)
    with pytest.raises(InputError, match=rf"fresh-{percent} needs {needed} never-seen real rows by generation 9"):
        check_real_rows(policy, rows, needed - 1, GENERATIONS, growing=False)
    with pytest.raises(InputError, match="the reserve has"):
        simulate(policy, rows, needed - 1)


# --- accumulate-fresh and the number of rows --------------------------------------------------------------------------


def put_together(policy: Policy, rows: int, reserve: int = 0) -> list[tuple[Dataset, int]]:
    """The corpora of generations 1..9 and how many rows the model made for each, by the stages' own choice of prompts."""
    real, beyond = corpus(rows), corpus(reserve, first=500_000)
    synthetic: list[Dataset] = []
    made = []
    for generation in range(1, GENERATIONS + 1):
        which = Continued.by(policy, 0, generation, growing=False)
        prompts = prompt_rows(which.policy, rows, generation, which.choice, growing=which.growing)
        if not policy.needs_samples(generation):
            prompts = prompts[:0]  # they are made for measuring alone
        assert len(prompts) == new_rows(policy, rows, generation, growing=False), "what costs and choices are told"
        assert len(set(prompts)) == len(prompts), "a row that is continued twice has another stream the second time"
        new = corpus(len(prompts), first=1_000_000 * generation, origin=generation)
        synthetic = [*synthetic, new] if policy.accumulates else [new]
        seed = order_seed(policy, 0, generation)
        made.append((mix(policy, real, beyond, synthetic, generation, seed, growing=False), len(prompts)))
    return made


@given(percent=PERCENTS, rows=st.integers(1, 40), size=st.integers(0, 60))
def test_accumulate_fresh_adds_rows_of_both_kinds_to_all_there_were(percent: float, rows: int, size: int) -> None:
    policy = Policy("accumulate-fresh", percent).of_size(size)
    added = size or rows
    fresh = round(added * percent / 100)
    for generation, (made, new) in enumerate(put_together(policy, rows, GENERATIONS * fresh), 1):
        assert new == added - fresh
        assert len(made) == rows + added * generation
        assert sum(rows_in_corpus(policy, rows, generation, growing=False)) == len(made)
        real = names(made)[made.origin == 0].tolist()
        assert sorted(real) == [*range(rows), *range(500_000, 500_000 + fresh * generation)]
        assert np.bincount(made.origin, minlength=generation + 1)[1:].tolist() == [added - fresh] * generation


def test_accumulate_fresh_says_when_the_reserve_runs_out_and_follows_a_schedule() -> None:
    policy = Policy.parse("accumulate-fresh-50-0-10")
    check_real_rows(policy, 20, 10 + 0 + 7 * 2, GENERATIONS, growing=False)
    with pytest.raises(InputError, match="accumulate-fresh-50-0-10 needs 24 never-seen real rows by generation 9"):
        check_real_rows(policy, 20, 23, GENERATIONS, growing=False)
    made = put_together(policy, 20, 24)
    assert [int((corpus.origin == 0).sum()) for corpus, _ in made] == [30, 30, *range(32, 46, 2)]
    assert [new for _, new in made] == [10, 20] + [18] * 7


@pytest.mark.parametrize("size", [5, 20, 50])
@pytest.mark.parametrize("name", ["keep-0", "keep-20", "keep-rows-4", "fresh-20", "accumulate", "accumulate-subsample"])
def test_a_generation_puts_together_as_many_rows_as_are_asked_for(name: str, size: int) -> None:
    policy, rows = Policy.parse(name).of_size(size), 20
    plain = Policy.parse(name)
    for generation, (made, new) in enumerate(put_together(policy, rows, 100), 1):
        real = {"keep-20": size // 5, "fresh-20": size // 5, "keep-rows-4": 4}.get(name, 0)
        if name == "accumulate":
            assert (len(made), new) == (rows + size * generation, size)
        else:
            assert len(made) == size
            assert new == (size if policy.accumulates else size - real)
        if not policy.accumulates:
            assert int((made.origin == 0).sum()) == real
        if size == rows:
            alone, _ = put_together(plain, rows, 100)[generation - 1]
            assert np.array_equal(names(made), names(alone)), "as many as the original corpus has is what 0 says"


def test_a_number_of_rows_that_real_ones_do_not_fit_is_refused() -> None:
    with pytest.raises(InputError, match=r"keep-rows-9 keeps 9 real rows, a corpus of mix\.rows = 8 has fewer"):
        check_real_rows(Policy.parse("keep-rows-9").of_size(8), 20, 0, 3, growing=False)
    with pytest.raises(
        InputError, match=r"keep-50 of mix\.rows = 50 asks for 25 real rows at generation 1, the original corpus has 20"
    ):
        check_real_rows(Policy.parse("keep-50").of_size(50), 20, 0, 3, growing=False)


# --- growing ----------------------------------------------------------------------------------------------------------


@given(percent=st.floats(0, 10, allow_nan=False), rows=st.integers(1, 60))
def test_a_growing_corpus_has_g_plus_1_times_the_rows(percent: float, rows: int) -> None:
    for generation, (made, prompts) in enumerate(simulate(Policy("keep", percent), rows, growing=True), 1):
        total = rows * (generation + 1)
        assert len(made) == total
        assert int((made.origin == 0).sum()) == round(total * percent / 100)
        assert len(set(prompts)) == len(prompts), "a row that is continued twice has another stream the second time"
        passes = np.bincount(prompts % rows, minlength=rows)
        kept = set(names(made)[made.origin == 0])
        assert passes.max() - passes.min() <= 1, "all rows are continued about equally often"
        assert all(passes[row] == passes.min() for row in kept if passes.max() > passes.min())


def test_a_growing_corpus_cannot_keep_more_rows_than_there_are() -> None:
    check_real_rows(Policy.parse("keep-10"), 100, 0, 9, growing=True)
    with pytest.raises(InputError, match="asks for 110 real rows at generation 10"):
        check_real_rows(Policy.parse("keep-10"), 100, 0, 10, growing=True)
    with pytest.raises(InputError, match=r"mix\.size = constant"):
        simulate(Policy.parse("keep-50"), 20, growing=True)


@pytest.mark.parametrize("name", ["accumulate-subsample", "keep-50"])
def test_the_error_over_trials_is_that_of_their_mean(name: str) -> None:
    """Trials side by side draw their rows apart. As all drew the same ones, the mean moved 1.25 times as much as it said."""
    policy, rows, trials, runs = Policy.parse(name), 8, 60, 220
    random = np.random.default_rng(11)
    means, errors = [], []
    for _ in range(runs):
        real = Dataset({"x": random.standard_normal((rows, trials, 1))}, np.zeros(rows, np.int32))
        synthetic: list[Dataset] = []
        corpus = real
        for generation in range(1, 13):
            x = corpus.arrays["x"]
            count = rows if policy.accumulates else rows_in_corpus(policy, rows, generation, growing=False)[1]
            new = x.mean(axis=0) + x.std(axis=0) * random.standard_normal((count, trials, 1))
            made = Dataset({"x": new}, np.full(count, generation, np.int32))
            synthetic = [*synthetic, made] if policy.accumulates else [made]
            seed = int(random.integers(2**32))
            corpus = mix(
                policy, real, real.take(np.arange(0)), synthetic, generation, seed, growing=False, trials=trials
            )
            assert len(corpus) == rows
        squares = corpus.arrays["x"].mean(axis=0)[:, 0] ** 2
        means.append(squares.mean())
        errors.append(squares.std(ddof=1) / math.sqrt(trials))
    said, seen = math.sqrt(float(np.mean(np.square(errors)))), float(np.std(means, ddof=1))
    assert 0.87 < seen / said < 1.13, "the standard deviation of 220 numbers is known to 5%"


def test_of_trials_apart_the_first_draws_what_one_alone_draws() -> None:
    real = Dataset({"x": np.arange(60.0).reshape(20, 3), "row": np.arange(20)}, np.zeros(20, np.int32))
    policy = Policy.parse("keep-50")
    alone = mix(policy, real, real, [], 1, 7, growing=False)
    apart = mix(policy, real, real, [], 1, 7, growing=False, trials=3)
    assert np.array_equal(apart.arrays["x"][:, 0], alone.arrays["x"][:, 0])
    assert np.array_equal(apart.arrays["row"], alone.arrays["row"])
    for trial in range(3):
        values = apart.arrays["x"][:, trial]
        assert len(set(values)) == 10
        assert set(values) <= set(real.arrays["x"][:, trial])
    assert not np.array_equal(apart.arrays["x"][:, 1] - 1, apart.arrays["x"][:, 0])


@pytest.mark.parametrize(
    ("name", "rows", "said"),
    [
        ("keep-1", 40, "keep-1 of 40 rows leaves no real row, so it does what keep-0 does"),
        ("fresh-0.5", 99, "fresh-0.5 of 99 rows leaves no real row, so it does what fresh-0 does"),
        ("keep-99.9", 200, "keep-99.9 of 200 rows leaves no synthetic row, so it does what keep-100 does"),
        ("keep-1", 100, ""),
        ("keep-0", 10, ""),
        ("keep-100", 10, ""),
        ("accumulate", 1, ""),
        ("keep-50-1", 40, "keep-50-1 of 40 rows leaves no real row at generation 2, so it does what keep-0 does"),
        ("keep-50-0", 40, ""),
        ("keep-rows-40", 40, "keep-rows-40 of 40 rows leaves no synthetic row, so it does what keep-100 does"),
        ("keep-rows-39", 40, ""),
    ],
)
def test_a_share_that_is_no_whole_row_is_said(name: str, rows: int, said: str) -> None:
    """Under the name of a share nothing of it was kept, and nobody was told."""
    found = rounding_note(Policy.parse(name), rows)
    assert found.startswith(said) if said else found == ""


@pytest.mark.parametrize(
    ("rows", "wanted", "times"),
    [(1, 1, 4), (2, 1, 50), (15, 15, 300), (20, 0, 3), (20, 5, 300), (7, 3, 0), (DRAWN_TOGETHER, 200, 20), (300, 9, 5)],
)
def test_rows_of_all_trials_at_once_are_those_of_one_trial_after_another(rows: int, wanted: int, times: int) -> None:
    """Number for number what numpy's own `choice` draws, and it leaves the generator where that does."""
    ours, theirs = (np.random.Generator(np.random.Philox(5).jumped()) for _ in range(2))
    expected = [theirs.choice(rows, wanted, replace=False, shuffle=False) for _ in range(times)]
    drawn = choices(ours, rows, wanted, times)
    assert drawn.shape == (times, wanted)
    assert drawn.tolist() == [one.tolist() for one in expected]
    assert ours.integers(1 << 40) == theirs.integers(1 << 40)
