"""Sampling equals transformers' own search, and drawing at random depends on nothing but the row and the seed."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny import END, KINDS, PAD, VOCABULARY, random_rows, rows_of, tiny_model

from collapse_cli.data import Dataset
from collapse_cli.learners.lm import _joined
from collapse_cli.lm import sample
from collapse_cli.lm.sample import BLOCK, _invert, continue_rows, rows_at_once

NEW = 6
DRAW = {"beams": 1, "temperature": 1.0}


def decode(**changes: Any) -> dict[str, Any]:
    """The fields of `config.DecodeConfig`; five beams and all rows equally long unless said otherwise."""
    defaults: dict[str, Any] = {
        "beams": 5,
        "temperature": 0.0,
        "top_k": 0,
        "top_p": 1.0,
        "repetition_penalty": 1.0,
        "min_new_tokens": -1,
    }
    return defaults | changes


def continued(
    model: Any, prompts: Dataset, scratch: Path, *, new: int = NEW, seed: int = 0, end: int | None = END, **how: Any
) -> Dataset:
    scratch.mkdir(parents=True, exist_ok=True)
    return continue_rows(
        model, prompts, new, decode(**how), dtype="float32", end=end, pad=PAD, seed=seed, scratch=scratch
    )


def plain_generate(model: Any, prompts: Dataset, **options: Any) -> np.ndarray:
    """What transformers itself makes of prompts that are all equally long."""
    ids = torch.from_numpy(prompts.arrays["tokens"].astype(np.int64))
    made = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=NEW,
        do_sample=False,
        eos_token_id=END,
        pad_token_id=PAD,
        **options,
    )[:, ids.shape[1] :]
    padded = np.full((len(ids), NEW), PAD)
    padded[:, : made.shape[1]] = made.numpy()
    return padded


def likes_to_end(kind: str, by: float = 3.0) -> Any:
    """A model that ends a text early now and then: its end-of-text token is made more probable."""
    model = tiny_model(kind, tied=False)
    head = model.get_output_embeddings()
    bias = torch.zeros(VOCABULARY)
    bias[END] = by
    head.bias = torch.nn.Parameter(bias)
    return model


# --- search: token for token what transformers makes ------------------------------------------------------------------


@pytest.mark.parametrize("least", [-1, 0, 3])
@pytest.mark.parametrize("penalty", [1.0, 2.0])
@pytest.mark.parametrize("beams", [1, 2, 5])
@pytest.mark.parametrize("kind", KINDS)
def test_search_equals_transformers_token_for_token(
    tmp_path: Path, kind: str, beams: int, penalty: float, least: int
) -> None:
    model, prompts = likes_to_end(kind), random_rows(8, 7, seed=3)
    how = {"beams": beams, "repetition_penalty": penalty, "min_new_tokens": least}
    found = continued(model, prompts, tmp_path, **how)
    wanted = plain_generate(
        model,
        prompts,
        num_beams=beams,
        repetition_penalty=penalty,
        min_new_tokens=NEW if least < 0 else least,
    )
    assert found.arrays["tokens"].tolist() == wanted.tolist()
    assert found.arrays["tokens"].dtype == found.arrays["lengths"].dtype == np.int32
    ends = wanted == END
    if least == 0:
        assert ends.any(), "the comparison is to include rows that end"
    if least < 0:
        assert found.arrays["lengths"].tolist() == [NEW] * 8
        assert not ends.any()


def test_what_a_model_folder_suggests_does_not_change_the_settings(tmp_path: Path) -> None:
    model, prompts = tiny_model("opt"), random_rows(4, 5)
    wanted = continued(model, prompts, tmp_path / "a", beams=1)
    model.generation_config.repetition_penalty = 5.0
    model.generation_config.max_length = 6
    model.generation_config.do_sample = True
    model.generation_config.suppress_tokens = wanted.arrays["tokens"][0].tolist()
    found = continued(model, prompts, tmp_path / "b", beams=1)
    assert np.array_equal(found.arrays["tokens"], wanted.arrays["tokens"])


def test_a_row_is_over_with_its_first_end_token(tmp_path: Path) -> None:
    """A model without memory that ends a text with probability one half: lengths are as they should be."""
    model = tiny_model("opt", vocabulary=5)
    model.get_output_embeddings().weight.data.zero_()
    prompts = rows_of(np.full((400, 2), 4), stream=np.arange(400))
    found = continued(model, prompts, tmp_path, min_new_tokens=0, **DRAW)
    tokens, lengths = found.arrays["tokens"], found.arrays["lengths"]
    for row, length in zip(tokens, lengths, strict=True):
        assert END not in row[: length - 1]
        assert row[length - 1] == END or length == NEW
        assert (row[length:] == PAD).all()
    first = np.bincount(lengths, minlength=NEW + 1)[1:] / 400
    assert first[:4] == pytest.approx([0.2 * 0.8**k for k in range(4)], abs=0.06)


@pytest.mark.parametrize("least", [1, 3])
def test_no_row_ends_before_it_may(tmp_path: Path, least: int) -> None:
    model, prompts = likes_to_end("gpt2", by=50.0), random_rows(5, 4)
    for number, how in enumerate(({"beams": 1}, {"beams": 3}, DRAW)):
        found = continued(model, prompts, tmp_path / str(number), min_new_tokens=least, **how)
        assert found.arrays["lengths"].tolist() == [least + 1] * 5
        assert (found.arrays["tokens"][:, least] == END).all()


def test_a_tokenizer_without_an_end_token_makes_full_rows(tmp_path: Path) -> None:
    found = continued(likes_to_end("opt", by=50.0), random_rows(3, 4), tmp_path, end=None, min_new_tokens=0)
    assert found.arrays["lengths"].tolist() == [NEW] * 3
    assert (found.arrays["tokens"] == END).all()


@pytest.mark.parametrize(
    "how",
    [{"beams": 1}, {"beams": 3}, {"beams": 1, "temperature": 0.9}, {"beams": 1, "repetition_penalty": 2.0}],
    ids=str,
)
@pytest.mark.parametrize("kind", KINDS)
def test_prompts_of_different_length_are_continued_as_each_alone(
    tmp_path: Path, kind: str, how: dict[str, Any]
) -> None:
    model, prompts = tiny_model(kind), random_rows(6, 7, seed=1, ragged=True)
    lengths = prompts.arrays["lengths"]
    assert len(set(lengths)) > 2
    together = continued(model, prompts, tmp_path / "together", **how)
    for row in range(6):
        alone = prompts.take(np.array([row]))
        cut = {**alone.arrays, "tokens": alone.arrays["tokens"][:, : lengths[row]]}
        found = continued(model, Dataset(cut, alone.origin), tmp_path / str(row), **how)
        assert found.arrays["tokens"][0].tolist() == together.arrays["tokens"][row].tolist()


def test_a_token_that_pads_prompts_is_not_penalised_for_it(tmp_path: Path) -> None:
    """The padding of a short prompt is no text: a penalty on repetition must not see it."""
    model = tiny_model("opt", tied=False)
    head = model.get_output_embeddings()
    head.bias = torch.nn.Parameter(torch.zeros(VOCABULARY))
    head.bias.data[PAD] = 40.0  # it is by far the most probable token, and stays so when it is penalised once
    head.bias.data[50] = 30.0
    prompts = rows_of(np.full((2, 5), 9), [5, 2], stream=np.arange(2))
    found = continued(model, prompts, tmp_path, beams=1, repetition_penalty=2.0)
    assert found.arrays["tokens"][:, 0].tolist() == [PAD, PAD]


def test_no_prompts_give_no_rows(tmp_path: Path) -> None:
    """keep-99.9 of 200 rows keeps all of them, and samples none."""
    found = continued(tiny_model("opt"), random_rows(0, 5), tmp_path)
    assert len(found) == 0
    assert found.arrays["tokens"].shape == (0, NEW)
    assert found.arrays["lengths"].shape == (0,)


# --- drawing: each row from its own stream ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def opt() -> Any:
    return tiny_model("opt")


@pytest.fixture(scope="module")
def drawn(opt: Any, tmp_path_factory: pytest.TempPathFactory) -> np.ndarray:
    """Twelve rows drawn at once."""
    made = continued(opt, random_rows(12, 5), tmp_path_factory.mktemp("drawn"), **DRAW)
    assert len(np.unique(made.arrays["tokens"], axis=0)) == 12
    tokens: np.ndarray = made.arrays["tokens"]
    return tokens


@pytest.mark.parametrize("rows", [1, 5, 12])
def test_a_row_does_not_depend_on_the_size_of_batches(
    opt: Any, drawn: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: int
) -> None:
    monkeypatch.setattr(sample, "MOST_ROWS", rows)
    assert rows_at_once(opt, 1) == rows
    assert np.array_equal(continued(opt, random_rows(12, 5), tmp_path, **DRAW).arrays["tokens"], drawn)


def test_the_room_for_logits_limits_a_batch(opt: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sample, "LOGITS_BYTES", 4 * VOCABULARY * 10)
    assert [rows_at_once(opt, beams) for beams in (1, 2, 5, 10, 11)] == [10, 5, 2, 1, 1]


@pytest.mark.parametrize("chosen", [[11, 3, 7, 0, 5], [4], list(range(11, -1, -1)), [2, 2]], ids=str)
def test_a_row_does_not_depend_on_the_other_rows_nor_on_their_order(
    opt: Any, drawn: np.ndarray, tmp_path: Path, chosen: Sequence[int]
) -> None:
    found = continued(opt, random_rows(12, 5).take(np.array(chosen)), tmp_path, **DRAW)
    assert np.array_equal(found.arrays["tokens"], drawn[list(chosen)])


def test_another_seed_or_another_stream_draws_other_tokens(opt: Any, drawn: np.ndarray, tmp_path: Path) -> None:
    prompts = random_rows(12, 5)
    again = continued(opt, prompts, tmp_path / "again", seed=0, **DRAW).arrays["tokens"]
    other = continued(opt, prompts, tmp_path / "other", seed=1, **DRAW).arrays["tokens"]
    shifted = Dataset({**prompts.arrays, "stream": prompts.arrays["stream"] + 12}, prompts.origin)
    stream = continued(opt, shifted, tmp_path / "stream", **DRAW).arrays["tokens"]
    assert np.array_equal(again, drawn)
    for tokens in (other, stream):
        assert (tokens != drawn).any(axis=1).all()


def test_drawing_neither_reads_nor_moves_the_global_random_numbers(opt: Any, drawn: np.ndarray, tmp_path: Path) -> None:
    torch.manual_seed(77)
    state = torch.get_rng_state()
    found = continued(opt, random_rows(12, 5), tmp_path, **DRAW)
    assert torch.equal(torch.get_rng_state(), state)
    assert np.array_equal(found.arrays["tokens"], drawn)


def test_the_same_prompt_is_continued_in_different_ways(opt: Any, tmp_path: Path) -> None:
    prompts = rows_of(np.full((20, 4), 9), stream=np.arange(20))
    assert len(np.unique(continued(opt, prompts, tmp_path, **DRAW).arrays["tokens"], axis=0)) > 15


def chi_square(counts: np.ndarray, wanted: np.ndarray) -> float:
    """How many standard deviations the statistic lies above its mean; cells with few draws are put together."""
    total = counts.sum()
    few = wanted * total < 5
    counts = np.append(counts[~few], counts[few].sum())
    wanted = np.append(wanted[~few], wanted[few].sum())
    counts, wanted = counts[wanted > 0], wanted[wanted > 0]
    freedom = len(counts) - 1
    statistic = float(((counts - total * wanted) ** 2 / (total * wanted)).sum())
    return (statistic - freedom) / np.sqrt(2 * freedom)


def warped(logits: torch.Tensor, temperature: float, top_k: int, top_p: float) -> np.ndarray:
    """Probabilities after temperature, top-k and top-p, by their definitions."""
    scores = logits.double().numpy() / temperature
    if top_k:
        scores[scores < np.sort(scores)[-top_k]] = -np.inf
    odds = np.exp(scores - scores.max())
    odds /= odds.sum()
    order = np.argsort(-odds)
    before = np.cumsum(odds[order]) - odds[order]
    odds[order[before >= top_p]] = 0
    result: np.ndarray = odds / odds.sum()
    return result


@pytest.mark.parametrize(
    ("temperature", "top_k", "top_p"), [(1.0, 0, 1.0), (0.7, 0, 1.0), (0.7, 5, 1.0), (0.7, 0, 0.8), (1.3, 7, 0.9)]
)
def test_tokens_are_drawn_with_the_probabilities_of_the_model(
    tmp_path: Path, temperature: float, top_k: int, top_p: float
) -> None:
    """4,000 pairs of tokens after one prompt: the first, and the second given the first, fit the model's softmax."""
    model, count = tiny_model("llama", vocabulary=12), 4000
    prompts = rows_of(np.tile([5, 7, 3], (count, 1)), stream=np.arange(count))
    how = {"beams": 1, "temperature": temperature, "top_k": top_k, "top_p": top_p}
    made = continued(model, prompts, tmp_path, new=2, end=None, **how).arrays["tokens"]
    with torch.no_grad():
        after = [model(torch.tensor([[5, 7, 3, first]])).logits[0] for first in range(12)]
    first = warped(after[0][2], temperature, top_k, top_p)
    pairs = np.stack([first[one] * warped(after[one][3], temperature, top_k, top_p) for one in range(12)])
    assert ((first > 0) & (first < 0.9)).sum() > 2, "a distribution worth testing"
    assert not np.isin(made[:, 0], np.flatnonzero(first == 0)).any(), "what is cut off is never drawn"
    assert chi_square(np.bincount(made[:, 0], minlength=12), first) < 4
    assert chi_square(np.bincount(made[:, 0] * 12 + made[:, 1], minlength=144), pairs.ravel()) < 4
    wrong = np.roll(first, 1)
    assert chi_square(np.bincount(made[:, 0], minlength=12), wrong) > 50, "the test can tell"


def test_a_temperature_near_zero_is_greedy_search(opt: Any, tmp_path: Path) -> None:
    prompts = random_rows(6, 5)
    greedy = continued(opt, prompts, tmp_path / "greedy", beams=1).arrays["tokens"]
    cold = continued(opt, prompts, tmp_path / "cold", beams=1, temperature=1e-4).arrays["tokens"]
    only = continued(opt, prompts, tmp_path / "only", beams=1, temperature=1.0, top_k=1).arrays["tokens"]
    assert np.array_equal(greedy, cold)
    assert np.array_equal(greedy, only)


# --- inverting a distribution -----------------------------------------------------------------------------------------


def naive(mass: np.ndarray, uniform: float) -> tuple[int, bool]:
    """The index by its definition in float64, and whether rounding may give a neighbour."""
    sums = np.cumsum(mass.astype(np.float64))
    point = uniform * sums[-1]
    near = bool(np.isclose(sums, point, rtol=1e-5, atol=1e-6 * sums[-1]).any())
    return int(np.argmax(sums > point)), near


@given(
    count=st.sampled_from([1, 2, 12, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK, 3 * BLOCK + 7]),
    zeros=st.floats(0, 0.99),
    steep=st.sampled_from([0.1, 1.0, 10.0]),
    seed=st.integers(0, 2**32 - 1),
    edge=st.sampled_from([None, 0.0, 1 - 2**-53, 0.5]),
)
def test_inverting_is_exact_and_never_draws_what_has_no_probability(
    count: int, zeros: float, steep: float, seed: int, edge: float | None
) -> None:
    random = np.random.default_rng(seed)
    mass = np.exp(steep * random.normal(size=(8, count))).astype(np.float32)
    mass /= mass.max(axis=1, keepdims=True)
    mass[random.random((8, count)) < zeros] = 0
    mass[np.arange(8), random.integers(0, count, 8)] = 1
    uniform = random.random(8) if edge is None else np.full(8, edge)
    drawn = _invert(torch.from_numpy(mass), torch.from_numpy(uniform)).numpy()
    for row in range(8):
        assert mass[row, drawn[row]] > 0
        wanted, near = naive(mass[row], uniform[row])
        if not near:
            assert drawn[row] == wanted


@pytest.mark.parametrize("count", [12, BLOCK, 2 * BLOCK + 5])
def test_inverting_at_the_very_edges_draws_the_first_and_the_last_token_that_has_probability(count: int) -> None:
    mass = torch.zeros(2, count)
    mass[:, 3] = mass[:, count - 2] = 0.5
    drawn = _invert(mass, torch.tensor([0.0, 1 - 2**-53], dtype=torch.float64))
    assert drawn.tolist() == [3, count - 2]
    half = _invert(mass, torch.tensor([np.nextafter(0.5, 0), 0.5], dtype=torch.float64))
    assert half.tolist() == [3, count - 2], "a boundary belongs to the next token"


def test_a_boundary_between_blocks_never_draws_a_token_without_probability() -> None:
    """The first token of a block has none; points at and around the end of the block before it."""
    random = np.random.default_rng(0)
    mass = random.random((200, 3 * BLOCK)).astype(np.float32)
    mass[:, [0, BLOCK, 2 * BLOCK]] = 0
    ends = mass.reshape(200, 3, BLOCK).sum(axis=2, dtype=np.float32).astype(np.float64).cumsum(axis=1)
    for boundary in (0, 1):
        for shift in range(-3, 4):
            uniform = ends[:, boundary] / ends[:, -1] * (1 + shift * 2.0**-53)
            drawn = _invert(torch.from_numpy(mass), torch.from_numpy(uniform)).numpy()
            assert (mass[np.arange(200), drawn] > 0).all()


# --- taking up again --------------------------------------------------------------------------------------------------


def test_finished_batches_are_taken_up_after_a_kill(
    opt: Any, drawn: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sample, "MOST_ROWS", 5)
    generate, sizes = sample._generate, []

    def spy(model: Any, prompts: Dataset, *rest: Any, **named: Any) -> Dataset:
        sizes.append(len(prompts))
        if len(sizes) == 2:
            raise KeyboardInterrupt
        return generate(model, prompts, *rest, **named)

    monkeypatch.setattr(sample, "_generate", spy)
    with pytest.raises(KeyboardInterrupt):
        continued(opt, random_rows(12, 5), tmp_path, **DRAW)
    (tmp_path / "rows-000000005-5.tmp").write_bytes(b"half a file")
    found = continued(opt, random_rows(12, 5), tmp_path, **DRAW)
    assert sizes == [5, 5, 5, 2], "the first batch was not made again"
    assert np.array_equal(found.arrays["tokens"], drawn)


def test_batches_of_another_size_are_not_mistaken_for_these(
    opt: Any, drawn: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that is gone on with on a machine where other batches fit."""
    for rows in (5, 3, 4):
        monkeypatch.setattr(sample, "MOST_ROWS", rows)
        assert np.array_equal(continued(opt, random_rows(12, 5), tmp_path, **DRAW).arrays["tokens"], drawn)


# --- prompt and sample in one row -------------------------------------------------------------------------------------


def test_prompt_and_new_tokens_are_joined_without_a_gap() -> None:
    prompts = rows_of(np.array([[5, 6, 7], [8, 9, 0]]), [3, 1])
    new = rows_of(np.array([[11, 12], [13, 14]]), [1, 2])
    new = Dataset(new.arrays, np.array([4, 4]))
    joined = _joined(prompts, new)
    assert joined.arrays["tokens"].tolist() == [[5, 6, 7, 11], [8, 13, 14, 0]]
    assert joined.arrays["lengths"].tolist() == [4, 3]
    assert joined.arrays["lengths"].dtype == np.int32
    assert joined.origin.tolist() == [4, 4]
