"""The learner `ngram`: counts, probabilities, draws and measures against slow references."""

import io
from collections import Counter, defaultdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from support.rows import row_of

from collapse_cli.config import Experiment, load, merge, preset_path, read_toml
from collapse_cli.config.policies import Policy
from collapse_cli.data import zipf
from collapse_cli.data.dataset import Dataset
from collapse_cli.errors import InputError
from collapse_cli.experiment import mixing
from collapse_cli.learners import Hints, learner_class, silent
from collapse_cli.learners import ngram_counts as tables
from collapse_cli.learners.ngram import NGram

FLOOR = 1e-9
Gram = tuple[int, ...]


def rows(tokens: Any, lengths: Any = None, origin: int = 0) -> Dataset:
    tokens = np.asarray(tokens, np.int32)
    used = np.full(len(tokens), tokens.shape[1]) if lengths is None else np.asarray(lengths)
    arrays = {"tokens": tokens, "lengths": used.astype(np.int32)}
    return Dataset(arrays, np.full(len(tokens), origin, np.int32))


def some_rows(count: int, width: int, vocabulary: int, seed: int = 0, shortest: int = 0) -> Dataset:
    """Random rows of unequal length; what stands behind a row's length is another token."""
    draw = np.random.default_rng(seed)
    return rows(draw.integers(0, vocabulary, (count, width)), draw.integers(shortest, width + 1, count))


def prompts_of(corpus: Dataset, extra: Any = None, stream: Any = None) -> Dataset:
    count = len(corpus)
    more = {
        "stream": np.arange(count) if stream is None else np.asarray(stream),
        "extra": np.zeros(count, bool) if extra is None else np.asarray(extra),
    }
    return Dataset({**corpus.arrays, **more}, corpus.origin)


def learner(
    order: int = 2,
    *,
    prompts: str = "real",
    prompt_tokens: int = 1,
    new_tokens: int = 8,
    temperature: float = 1.0,
    target: str = "continuation",
    about: Any = None,
    floor: float = FLOOR,
) -> NGram:
    sample = {
        "prompts": prompts,
        "prompt_tokens": prompt_tokens,
        "new_tokens": new_tokens,
        "temperature": temperature,
    }
    own = {"model": {"order": order, "floor": floor}, "sample": sample, "target": target}
    return NGram(own, Hints(about=about or {}), silent)


def fitted(corpus: Dataset, order: int = 2, **more: Any) -> NGram:
    made = learner(order, **more)
    made.fit(corpus, seed=0, scratch=Path())
    return made


def grams_of(corpus: Dataset, n: int) -> Counter[Gram]:
    """n-grams within rows, the slow way."""
    found: Counter[Gram] = Counter()
    for row, length in zip(corpus.arrays["tokens"].tolist(), corpus.arrays["lengths"].tolist(), strict=True):
        found.update(tuple(row[at : at + n]) for at in range(length - n + 1))
    return found


def decoded(made: tables.Tables, context: int) -> Counter[Gram]:
    """What the tables hold, as n-grams."""
    found: Counter[Gram] = Counter()
    for index in range(len(made.keys[context])):
        gram: list[int] = []
        number = index
        for level in range(context, -1, -1):
            key = int(made.keys[level][number])
            gram.insert(0, key & tables.TOKEN)
            number = key >> tables.SHIFT
        assert number == 0
        found[tuple(gram)] = int(made.counts[context][index])
    return found


class Slow:
    """The model in words: counters, and the longest context that was seen with a follower."""

    def __init__(self, corpus: Dataset, order: int) -> None:
        self.order = order
        self.after: dict[Gram, Counter[int]] = defaultdict(Counter)
        for n in range(1, order + 1):
            for gram, times in grams_of(corpus, n).items():
                self.after[gram[:-1]][gram[-1]] += times

    def next(self, history: Gram) -> dict[int, float]:
        for length in range(min(self.order - 1, len(history)), -1, -1):
            found = self.after.get(history[len(history) - length :])
            if found:
                return {token: times / found.total() for token, times in found.items()}
        raise AssertionError("an empty corpus")


# --- counts -----------------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=60)
@given(
    st.integers(1, 5),
    st.integers(1, 7),
    st.integers(1, 6),
    st.sampled_from([2, 4, 1000, 2**31 - 1]),
    st.integers(0, 1000),
)
def test_counts_are_those_of_a_counter(order: int, width: int, count: int, vocabulary: int, seed: int) -> None:
    corpus = some_rows(count, width, vocabulary, seed)
    made = tables.count(corpus.arrays["tokens"], corpus.arrays["lengths"], order)
    for n in range(1, order + 1):
        assert decoded(made, n - 1) == grams_of(corpus, n)
        assert (np.diff(made.keys[n - 1]) > 0).all()


def test_counting_in_a_table_and_by_sorting_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    corpus = some_rows(50, 20, 9, shortest=1)
    results = []
    for dense in (0, 10**6):
        monkeypatch.setattr(tables, "DENSE", dense)
        results.append(tables.count(corpus.arrays["tokens"], corpus.arrays["lengths"], 4))
    for name in ("keys", "counts"):
        for sorted_, dense_ in zip(getattr(results[0], name), getattr(results[1], name), strict=True):
            np.testing.assert_array_equal(sorted_, dense_)


@pytest.mark.parametrize("order", [1, 2, 3, 5])
def test_losses_are_those_of_the_longest_context_seen(order: int) -> None:
    corpus, test = some_rows(12, 9, 6, 1, shortest=1), some_rows(40, 9, 7, 2)
    slow, made = Slow(corpus, order), fitted(corpus, order)
    expected = []
    for row, length in zip(test.arrays["tokens"].tolist(), test.arrays["lengths"].tolist(), strict=True):
        losses = [-np.log(slow.next(tuple(row[:at])).get(row[at], FLOOR)) for at in range(1, length)]
        expected.append(np.mean(losses) if losses else 0.0)
    np.testing.assert_allclose(made.score(test), expected, rtol=1e-12)
    assert any(loss > 5 for loss in expected), "nothing unseen was tried"


def test_training_loss_is_the_loss_on_the_corpus_and_never_the_floor() -> None:
    corpus = rows(np.random.default_rng(0).integers(0, 5, (30, 10)))
    made = learner(3)
    facts = made.fit(corpus, seed=0, scratch=Path())
    assert facts["train_loss"] == pytest.approx(made.score(corpus).mean(), rel=1e-12)
    assert facts["train_loss"] < np.log(5)


# --- draws ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("order", "temperature"), [(1, 1.0), (2, 1.0), (3, 1.0), (3, 0.5)])
def test_draws_have_the_exact_distribution(order: int, temperature: float) -> None:
    """The first two new tokens, jointly, by chi-square."""
    corpus = some_rows(12, 9, 4, 3, shortest=3)
    slow, count = Slow(corpus, order), 20_000
    prompt = (2, 1)

    def tempered(history: Gram) -> dict[int, float]:
        shares = {token: share ** (1 / temperature) for token, share in slow.next(history).items()}
        return {token: share / sum(shares.values()) for token, share in shares.items()}

    made = fitted(corpus, order, prompt_tokens=2, new_tokens=2, temperature=temperature)
    start = prompts_of(rows(np.tile(prompt, (count, 1))))
    got = Counter(map(tuple, made.sample(start, seed=4, scratch=Path()).rows.arrays["tokens"].tolist()))
    exact = {(one, two): p * q for one, p in tempered(prompt).items() for two, q in tempered((*prompt, one)).items()}
    assert got.keys() <= exact.keys()
    found = [got[pair] for pair in exact]
    assert stats.chisquare(found, np.array(list(exact.values())) * count).pvalue > 0.001


def test_a_context_that_only_ends_rows_is_backed_off_from() -> None:
    """7 stands at row ends only: what follows it is drawn as if nothing were known."""
    corpus = rows([[1, 2, 7]] * 3)
    made = fitted(corpus, 3, prompt_tokens=3, new_tokens=1)
    new = made.sample(prompts_of(rows([[1, 2, 7]] * 3000)), seed=0, scratch=Path()).rows.arrays["tokens"]
    assert stats.chisquare(np.bincount(new[:, 0], minlength=8)[[1, 2, 7]]).pvalue > 0.001


def test_rows_do_not_depend_on_those_beside_them() -> None:
    corpus = some_rows(20, 12, 5, 5, shortest=4)
    made = fitted(corpus, 3, prompt_tokens=4, new_tokens=6)
    all_at_once = made.sample(prompts_of(corpus), seed=9, scratch=Path()).rows.arrays["tokens"]
    order = np.random.default_rng(0).permutation(20)
    for part in (order[:7], order[7:]):
        alone = made.sample(prompts_of(corpus.take(part), stream=part), seed=9, scratch=Path()).rows
        np.testing.assert_array_equal(alone.arrays["tokens"], all_at_once[part])
    other = made.sample(prompts_of(corpus), seed=10, scratch=Path()).rows.arrays["tokens"]
    assert (other != all_at_once).any()


def test_no_prompt_means_no_context() -> None:
    """`none`: the first token is drawn from the frequencies of tokens, whatever the rows hold."""
    corpus = rows([[0, 1]] * 10 + [[1, 0]] * 30)
    made = fitted(corpus, 2, prompts="none", new_tokens=2)
    new = made.sample(prompts_of(rows([[0, 0]] * 4000)), seed=1, scratch=Path()).rows.arrays["tokens"]
    assert stats.chisquare(np.bincount(new[:, 0])).pvalue > 0.001  # 0 and 1 are equally frequent
    assert (new[:, 1] != new[:, 0]).all()


def test_full_rows_have_their_prompt_before_them() -> None:
    corpus = some_rows(6, 5, 3, 2, shortest=2)
    made = fitted(corpus, 2, prompt_tokens=3, new_tokens=4, target="full")
    new = made.sample(prompts_of(corpus), seed=1, scratch=Path()).rows
    plain = fitted(corpus, 2, prompt_tokens=3, new_tokens=4).sample(prompts_of(corpus), seed=1, scratch=Path()).rows
    starts = np.minimum(corpus.arrays["lengths"], 3)
    np.testing.assert_array_equal(new.arrays["start"], starts)
    np.testing.assert_array_equal(new.arrays["lengths"], starts + 4)
    for index, start in enumerate(starts):
        row = new.arrays["tokens"][index]
        np.testing.assert_array_equal(row[:start], corpus.arrays["tokens"][index, :start])
        np.testing.assert_array_equal(row[start : start + 4], plain.arrays["tokens"][index])
    assert (plain.arrays["start"] == 0).all()


def test_rows_that_are_only_shown_do_not_count() -> None:
    corpus = some_rows(5, 6, 3, 1, shortest=2)
    made = fitted(corpus)
    outcome = made.sample(prompts_of(corpus, extra=[False, True, False, True, True]), seed=0, scratch=Path())
    new, facts = outcome.rows, outcome.facts
    counted = new.arrays["tokens"][[0, 2]]
    assert (facts["sample_rows"], facts["sample_tokens"]) == (2, 16)
    shares = np.bincount(counted.ravel()) / 16
    shares = shares[shares > 0]
    assert facts["sample_entropy"] == pytest.approx(-(shares * np.log(shares)).sum())
    facts = made.sample(prompts_of(corpus.take(np.arange(0))), seed=0, scratch=Path()).facts
    assert facts["sample_rows"] == facts["sample_entropy"] == 0


# --- generations ------------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 4), st.sampled_from(["keep-0", "keep-30", "accumulate"]), st.integers(0, 1000))
def test_what_is_lost_stays_lost_and_accumulating_loses_nothing(order: int, name: str, seed: int) -> None:
    """keep-0: each generation's n-grams are among its parent's, but for contexts that were backed off from; types
    always are. accumulate: no n-gram is ever lost.
    """
    real = some_rows(12, 8, 12, seed, shortest=2)
    real.arrays["lengths"][:] = 8
    policy, corpus, made = Policy.parse(name), real, []
    support: list[set[Gram]] = []
    for generation in range(1, 5):
        model = fitted(corpus, order, new_tokens=8)
        support.append(set(decoded(model._tables, 0)))
        chosen = mixing.prompt_rows(policy, len(real), generation, seed, growing=False)
        new = model.sample(prompts_of(real.take(chosen), stream=chosen), seed=seed + generation, scratch=Path()).rows
        new = Dataset(new.arrays, np.full(len(new), generation, np.int32))
        made.append(new)
        synthetic = made if policy.accumulates else [new]
        corpus = mixing.mix(policy, real, real.take(np.arange(0)), synthetic, generation, seed, growing=False)
        if name == "accumulate":
            for n in range(1, order + 1):
                assert grams_of(real, n).keys() <= grams_of(corpus, n).keys()
        elif order == 1 or name == "keep-0":
            kept = set() if name == "keep-0" else set(grams_of(real, 1))
            assert set(grams_of(corpus, 1)) <= support[-1] | kept
    if name == "keep-0":
        assert all(after <= before for before, after in pairwise(support))


def test_types_are_lost_under_keep_0() -> None:
    """With 60 types and 96 tokens a generation, some must go: a regression guard for the property above."""
    real = some_rows(12, 8, 60, 0)
    real.arrays["lengths"][:] = 8
    corpus, shares = real, []
    for generation in range(6):
        model = fitted(corpus, 1, prompts="none", new_tokens=8, about=about_of(real))
        facts = model.measure(real).facts
        shares.append(facts["vocabulary_share"])
        corpus = model.sample(prompts_of(real), seed=generation, scratch=Path()).rows
    assert shares[0] == 1
    assert all(after <= before for before, after in pairwise(shares))
    assert shares[-1] < 0.6


def about_of(corpus: Dataset, language: zipf.Language | None = None, offset: int = 0) -> dict[str, Any]:
    about: dict[str, Any] = {
        "splits": {"test": {"tokens": 100, "words": 50, "bytes": 400}},
        "types": len(grams_of(corpus, 1)),
    }
    return about | ({"zipf": {**language.facts(), "first_word_id": offset}} if language else {})


# --- measures ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("order", "offset"), [(1, 0), (2, 0), (2, 3), (3, 0), (4, 2)])
def test_the_distance_from_the_truth_is_the_sum_over_contexts(order: int, offset: int) -> None:
    language = zipf.Language(vocabulary=9, rank=2)
    corpus = rows(language.sample(240, 0).reshape(20, 12) + offset)
    test = rows(language.sample(96, 1).reshape(8, 12) + offset, [12, 12, 5, 1, 0, 12, 7, 2])
    made = fitted(corpus, order, about=about_of(corpus, language, offset))
    facts = made.measure(test).facts
    slow, kls, model, true, missing = Slow(corpus, order), [], 0.0, 0.0, []
    for row, length in zip(test.arrays["tokens"].tolist(), test.arrays["lengths"].tolist(), strict=True):
        for at in range(1, length):
            q = slow.next(tuple(row[:at]))
            dense = np.array([q.get(word + offset, 0.0) for word in range(9)])
            p = language.transition[row[at - 1] - offset]
            kls.append(float((p * (np.log(p) - np.log(np.where(dense > 0, dense, FLOOR)))).sum()))
            missing.append(p[dense == 0].sum())
            model += dense[language.tail].sum()
            true += p[language.tail].sum()
    assert facts["kl_truth"] == pytest.approx(np.mean(kls), rel=1e-9)
    assert facts["missing_mass"] == pytest.approx(np.mean(missing), abs=1e-12)
    assert facts["tail_mass_recall"] == pytest.approx(model / true, rel=1e-9)
    assert facts["entropy_rate"] == language.entropy_rate
    assert facts["predicted_tokens"] == len(kls)


def test_bigrams_of_much_text_are_near_the_truth() -> None:
    """KL of maximum likelihood is about k / 2n, k = V (V - 1) free parameters, where all is seen."""
    language = zipf.Language(vocabulary=8, rank=2, dependence=1.0)
    corpus = rows(language.sample(2**17, 0).reshape(-1, 64))
    made = fitted(corpus, 2, about=about_of(corpus, language))
    facts = made.measure(rows(language.sample(2**12, 1).reshape(-1, 64))).facts
    assert 0 < facts["kl_truth"] < 3 * 8 * 7 / 2 / 2**17
    assert facts["missing_mass"] == pytest.approx(0, abs=1e-12)


def test_measures_of_a_text() -> None:
    corpus = rows([[0, 1, 0, 1], [0, 1, 1, 2]])
    made = fitted(corpus, 2, about=about_of(corpus))
    test = rows([[0, 1, 2, 9], [2, 2, 0, 0]], [4, 1])
    outcome = made.measure(test, None)
    result, facts = outcome.rows, outcome.facts
    # after 0: 1, 1, 1; after 1: 0, 1, 2; after 2 nothing ever followed, so frequencies: 0 is 3 of 8, 1 is 4, 2 once
    losses = np.array([-np.log(1.0), -np.log(1 / 3), -np.log(FLOOR)])
    np.testing.assert_allclose(result.arrays["nll"], [losses.sum(), 0], atol=1e-12)
    np.testing.assert_array_equal(result.arrays["predicted"], [3, 0])
    assert facts["nll"] == facts["test_loss"] == pytest.approx(losses.mean())
    assert facts["bits_per_byte"] == pytest.approx(losses.mean() * 100 / 400 / np.log(2))
    assert (facts["unseen_share"], facts["vocabulary_share"]) == (pytest.approx(1 / 3), 1)
    assert facts["corpus_entropy"] == pytest.approx(-sum(n / 8 * np.log(n / 8) for n in (3, 4, 1)))
    assert "kl_truth" not in facts
    assert all(np.isfinite(value) for name, value in facts.items() if name != "protocol")


@pytest.mark.parametrize("floor", [1e-9, 1e-6, 1e-3])
def test_what_hangs_on_the_floor_says_so_and_what_does_not_stays(floor: float) -> None:
    """Perplexity and KL with 1e-9 are those with another floor, by the share without probability alone."""
    language = zipf.Language(vocabulary=9, rank=2)
    corpus = rows(language.sample(40, 0).reshape(5, 8))
    test = rows(language.sample(96, 1).reshape(12, 8))
    facts = []
    for one in (FLOOR, floor):
        made = learner(2, about=about_of(corpus, language), floor=one)
        made.fit(corpus, seed=0, scratch=Path())
        facts.append(made.measure(test).facts)
    usual, other = facts
    assert 0 < usual["unseen_share"] < 1
    for name in ("unseen_share", "missing_mass", "seen_nll", "seen_perplexity"):
        assert usual[name] == pytest.approx(other[name], rel=1e-12), name
    apart = np.log(FLOOR) - np.log(floor)
    assert other["nll"] == pytest.approx(usual["nll"] + usual["unseen_share"] * apart)
    assert other["kl_truth"] == pytest.approx(usual["kl_truth"] + usual["missing_mass"] * apart)
    lost = usual["unseen_share"]
    assert usual["nll"] == pytest.approx((1 - lost) * usual["seen_nll"] - lost * np.log(FLOOR))
    assert usual["seen_perplexity"] == pytest.approx(np.exp(usual["seen_nll"]))
    assert other["protocol"]["floor"] == floor


def test_of_nothing_seen_there_is_no_perplexity_without_a_floor() -> None:
    corpus = rows([[0, 1, 0, 1]])
    made = fitted(corpus, 2, about=about_of(corpus))
    facts = made.measure(rows([[7, 8, 9]])).facts
    assert facts["unseen_share"] == 1
    assert facts["seen_nll"] is facts["seen_perplexity"] is None


def test_the_first_number_of_ngrams_is_what_has_no_probability_and_tables_state_the_floor() -> None:
    from rich.console import Console

    from collapse_cli.findings.diagnosis import diagnose_run
    from collapse_cli.terminal.run import print_rows

    experiment = Experiment(learner="ngram")
    protocol = {"protocol": "block", "dtype": "float64", "line_bos": False, "context": 64, "floor": 1e-7}
    same = {"warnings": [], "predicted_tokens": 90, "protocol": protocol}
    measured = [row_of("keep-0", 0, g, perplexity=50.0 + g, unseen_share=0.1 * g, **same) for g in (0, 1)]
    tree = experiment.model_dump(mode="json")
    assert diagnose_run(measured, tree).verdict == (
        "So far, share of real test tokens that the model gives no probability, from generation 0 to 1, one seed: "
        "keep-0 0 → 0.100."
    )
    console = Console(width=200, record=True, file=io.StringIO())
    print_rows(console, measured, tree)
    said = console.export_text()
    assert "no probability counts as 1e-07 (ngram.floor)" in said
    assert "51.0" in said, "the perplexity stands below"


# --- state and the stages ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", [1, 3])
def test_a_saved_model_is_the_same_model(tmp_path: Path, order: int) -> None:
    corpus, test = some_rows(20, 9, 6, 7, shortest=2), some_rows(9, 9, 8, 8)
    made, again = fitted(corpus, order), learner(order)
    made.save(tmp_path)
    again.load(tmp_path)
    np.testing.assert_array_equal(made.score(test), again.score(test))
    drawn = [one.sample(prompts_of(corpus), seed=3, scratch=tmp_path).rows.arrays["tokens"] for one in (made, again)]
    np.testing.assert_array_equal(*drawn)


def experiment(**more: Any) -> Experiment:
    tree: dict[str, Any] = {
        "learner": "ngram",
        "data": {
            "source": "zipf",
            "block_size": 16,
            "zipf": {"vocabulary": 16, "train_tokens": 2048, "test_tokens": 512},
        },
        "sample": {"prompt_tokens": 1, "new_tokens": 16, "decode": {"beams": 1, "temperature": 1.0}},
    }
    return Experiment.model_validate({**tree, **more})


def test_a_text_goes_through_all_verbs(tmp_path: Path) -> None:
    found = NGram.resolve(experiment())
    assert found.config.model.tokenizer == "words"
    assert found.config.data.sha256
    assert found.parameters == 17 + 17**2
    reader = NGram(NGram.params(found.config, "data"), found.hints, silent)
    reader_facts = reader.encode(tmp_path, seed=0)
    assert reader_facts["types"] == 16
    hints = Hints(encoded=tmp_path, about=reader_facts)
    train, test = (Dataset.load(tmp_path / f"{name}.safetensors") for name in ("train", "test"))
    assert len(Dataset.load(tmp_path / "reserve.safetensors")) == 0
    makers = {kind: NGram(NGram.params(found.config, kind), hints, silent) for kind in ("train", "sample", "eval")}
    makers["train"].fit(train, seed=0, scratch=tmp_path)
    for kind in ("sample", "eval"):
        makers[kind].restore(makers["train"].state())
    new = makers["sample"].sample(prompts_of(train), seed=0, scratch=tmp_path).rows
    assert Dataset.concat([train, new]).arrays["tokens"].shape == (2 * len(train), 16)
    facts = makers["eval"].measure(test).facts
    assert 0 < facts["kl_truth"] < 1


def test_what_a_stage_depends_on() -> None:
    """Sampling depends on how it is sampled; counting and scoring on the section alone."""
    config = NGram.resolve(experiment()).config
    other = load(
        merge(config.model_dump(mode="json"), {"sample": {"new_tokens": 8}, "train": {"epochs": 99}}), "the test"
    )
    for kind in ("data", "train", "eval"):
        assert NGram.params(config, kind) == NGram.params(other, kind)
    assert NGram.params(config, "sample") != NGram.params(other, "sample")


def test_it_is_found_by_its_name() -> None:
    assert learner_class("ngram") is NGram


def test_the_preset_shows_three_policies_on_a_known_language() -> None:
    config = load(read_toml(preset_path("ngram-zipf")), "ngram-zipf")
    found = NGram.resolve(config)
    assert [str(policy) for policy in config.loop.policies] == ["keep-0", "keep-10", "accumulate"]
    assert found.config.model.tokenizer == "words"
    blocks = config.data.zipf.train_tokens // config.data.block_size
    assert config.data.rows < blocks


# --- mistakes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "decode",
    [
        {"beams": 5},
        {"beams": 1},
        {"beams": 1, "temperature": 1.0, "top_k": 3},
        {"beams": 1, "temperature": 1.0, "top_p": 0.9},
        {"beams": 1, "temperature": 1.0, "repetition_penalty": 2.0},
    ],
)
def test_decoding_that_is_not_drawing_is_refused(decode: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"draws from its probabilities .* sample\.decode\.temperature = 1\.0"):
        NGram.resolve(experiment(sample={"prompt_tokens": 1, "new_tokens": 16, "decode": decode}))


def test_a_sliding_window_is_refused() -> None:
    with pytest.raises(InputError, match=r"eval\.protocol = block"):
        NGram.resolve(experiment(eval={"protocol": "sliding"}))


@pytest.mark.parametrize("source", ["blobs", "regression", "digits", "mnist"])
def test_numbers_are_no_text(source: str) -> None:
    with pytest.raises(InputError, match=rf"data\.source = {source} holds numbers, not text"):
        NGram.resolve(experiment(data={"source": source}))


def test_a_corpus_without_tokens_is_refused() -> None:
    with pytest.raises(InputError, match="no tokens to count"):
        fitted(rows([[1, 2]], [0]))


def test_a_test_text_without_a_token_to_predict_is_refused() -> None:
    made = fitted(rows([[1, 2]]), about=about_of(rows([[1, 2]])))
    with pytest.raises(InputError, match="no token to predict"):
        made.measure(rows([[1, 2]], [1]))
