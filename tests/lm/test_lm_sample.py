"""A sampled row depends on nothing but itself and the seed; sampling survives a kill and says what goes wrong."""

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.sampling import FAMILIES, chi_square, continued, family, warped, wide_model
from support.tiny import END, KINDS, PAD, VOCABULARY, random_rows, rows_of, tiny_model

from collapse_cli.config.tree import DecodeConfig
from collapse_cli.data.dataset import Dataset
from collapse_cli.engine.stage import Shard
from collapse_cli.lm import sample, search
from collapse_cli.lm.decode import Decoder, Trial, try_out
from collapse_cli.lm.sample import SampleError, rows_at_once, uniforms
from collapse_cli.lm.search import Rules
from collapse_cli.lm.slots import most_slots
from collapse_cli.lm.text import join

NEW = 6
DRAW: dict[str, Any] = {"beams": 1, "temperature": 1.0}
DECODES: dict[str, dict[str, Any]] = {
    "greedy": {"beams": 1},
    "beams": {"beams": 5},
    "beams that end": {"beams": 3, "min_new_tokens": 0, "length_penalty": 0.5},
    "temperature": {"beams": 1, "temperature": 0.8},
    "top-k": {"beams": 1, "temperature": 1.0, "top_k": 20},
    "top-p": {"beams": 1, "temperature": 1.0, "top_p": 0.9},
    "penalty": {"beams": 1, "temperature": 1.0, "repetition_penalty": 1.5},
    "penalized beams": {"beams": 2, "repetition_penalty": 1.5},
}


def at_most(monkeypatch: pytest.MonkeyPatch, rows: int, how: dict[str, Any]) -> None:
    monkeypatch.setitem(sample.MOST_SEQUENCES, "cpu", rows * int(how["beams"]))


def cut(prompts: Dataset, rows: Sequence[int]) -> Dataset:
    """These rows, without columns that none of them uses."""
    some = prompts.take(np.array(rows))
    width = int(some.arrays["lengths"].max())
    return Dataset({**some.arrays, "tokens": some.arrays["tokens"][:, :width]}, some.origin)


# --- the ends of rows -------------------------------------------------------------------------------------------------


def test_a_row_is_over_with_its_first_end_token() -> None:
    """A model without memory that ends a text with probability one fifth: lengths are as they should be."""
    model = tiny_model("opt", vocabulary=5)
    model.get_output_embeddings().weight.data.zero_()
    prompts = rows_of(np.full((400, 2), 4), stream=np.arange(400))
    found = continued(model, prompts, min_new_tokens=0, **DRAW)
    tokens, lengths = found.arrays["tokens"], found.arrays["lengths"]
    for row, length in zip(tokens, lengths, strict=True):
        assert END not in row[: length - 1]
        assert row[length - 1] == END or length == NEW
        assert (row[length:] == PAD).all()
    first = np.bincount(lengths, minlength=NEW + 1)[1:] / 400
    assert first[:4] == pytest.approx([0.2 * 0.8**k for k in range(4)], abs=0.06)


@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("least", [1, 3])
def test_no_row_ends_before_it_may(least: int, biased: bool) -> None:
    """Through the engine, and with a bias in the head through `generate`."""
    model, prompts = wants_to_end(biased), random_rows(5, 4)
    assert bool(try_out(model).why_not) == biased
    hows: list[dict[str, Any]] = [{"beams": 1}, {"beams": 3}, DRAW]
    for how in hows:
        found = continued(model, prompts, min_new_tokens=least, **how)
        assert found.arrays["lengths"].tolist() == [least + 1] * 5
        assert (found.arrays["tokens"][:, least] == END).all()
        assert (found.arrays["tokens"][:, least + 1 :] == PAD).all()
        full = continued(model, prompts, **how)
        assert full.arrays["lengths"].tolist() == [NEW] * 5
        assert END not in full.arrays["tokens"]


@pytest.mark.parametrize("biased", [False, True])
def test_a_tokenizer_without_an_end_token_makes_full_rows(biased: bool) -> None:
    found = continued(wants_to_end(biased), random_rows(3, 4), end=None, min_new_tokens=0)
    assert found.arrays["lengths"].tolist() == [NEW] * 3
    assert (found.arrays["tokens"] == END).all()


def wants_to_end(biased: bool) -> Any:
    model = tiny_model("opt", tied=False)
    head, norm = model.get_output_embeddings(), model.model.decoder.final_layer_norm
    if biased:
        head.bias = torch.nn.Parameter(50.0 * (torch.arange(VOCABULARY) == END))
    else:
        norm.weight.data[-1], norm.bias.data[-1], head.weight.data[END, -1] = 0.0, 1.0, 50.0
    return model


def test_no_prompts_give_no_rows(tmp_path: Path) -> None:
    """keep-99.9 of 200 rows keeps all of them, and samples none."""
    found = continued(tiny_model("opt"), random_rows(0, 5), tmp_path)
    assert len(found) == 0
    assert found.arrays["tokens"].shape == (0, NEW)
    assert found.arrays["lengths"].shape == (0,)


# --- each row by itself -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "how"),
    [("opt", how) for how in DECODES] + [(name, how) for name in FAMILIES[1:] for how in ("beams", "top-p")],
)
def test_a_row_does_not_depend_on_the_size_of_batches(monkeypatch: pytest.MonkeyPatch, name: str, how: str) -> None:
    model, prompts = family(name, eager=2.0), random_rows(11, 7, ragged=True)
    wanted = continued(model, prompts, new=8, **DECODES[how])
    assert len(np.unique(wanted.arrays["tokens"], axis=0)) > 8
    for rows, some in ((1, 4), (2, 4), (3, 11), (5, 11)):
        at_most(monkeypatch, rows, DECODES[how])
        found = continued(model, cut(prompts, range(some)), new=8, **DECODES[how])
        assert np.array_equal(found.arrays["tokens"], wanted.arrays["tokens"][:some])


@pytest.mark.parametrize("how", [{"beams": 1}, {"beams": 5}, {"beams": 1, "temperature": 1.0, "top_p": 0.9}], ids=str)
def test_a_row_of_a_wider_model_does_not_depend_on_the_size_of_batches(
    monkeypatch: pytest.MonkeyPatch, how: dict[str, Any]
) -> None:
    """Its products go through oneDNN, and slots of beams are dropped several times."""
    model, prompts = wide_model(), random_rows(7, 7, ragged=True, vocabulary=1000)
    wanted = continued(model, prompts, new=40, **how)
    for rows, some in ((1, 3), (3, 7)):
        at_most(monkeypatch, rows, how)
        found = continued(model, cut(prompts, range(some)), new=40, **how)
        assert np.array_equal(found.arrays["tokens"], wanted.arrays["tokens"][:some])


@pytest.mark.parametrize(
    ("name", "dtype", "how"),
    [(name, "float32", {}) for name in FAMILIES]
    + [("opt", "float32", {"repetition_penalty": 1.3, "top_k": 20}), ("llama", "bfloat16", {})]
    + [(name, "float32", {"beams": 3, "temperature": 0.0}) for name in ("opt", "grouped")]
    + [("opt", "bfloat16", {"beams": 3, "temperature": 0.0, "repetition_penalty": 1.3})],
)
def test_rows_that_are_over_are_dropped_and_no_other_row_changes(
    monkeypatch: pytest.MonkeyPatch, name: str, dtype: str, how: dict[str, Any]
) -> None:
    """In two batches, the second of which needs room for all its rows again."""
    model, prompts = copy.deepcopy(family(name, eager=10.0)), random_rows(120, 9, ragged=True)
    how = {"beams": 1, "temperature": 1.0, "min_new_tokens": 0, "dtype": dtype, **how}
    monkeypatch.setitem(sample.MOST_SEQUENCES, "cpu", 60 * how["beams"])
    sizes: list[int] = []
    keep = Decoder.keep

    def watched(self: Decoder, rows: torch.Tensor) -> None:
        sizes.append(len(rows))
        keep(self, rows)

    monkeypatch.setattr(Decoder, "keep", watched)
    found = continued(model, prompts, new=40, **how).arrays
    assert len(sizes) >= 4
    assert min(sizes) >= search.LEAST_ROWS / how["beams"]
    sizes.clear()
    monkeypatch.setattr(search, "WORTH_DROPPING", 0.0)
    wanted = continued(model, prompts, new=40, **how).arrays
    assert not sizes
    assert len(np.unique(wanted["lengths"])) > 5
    same = (found["tokens"] == wanted["tokens"]).all(axis=1)
    assert same.all() if dtype == "float32" else same.mean() > 0.9  # there, rounding may choose another token


@settings(max_examples=25)
@given(
    name=st.sampled_from(FAMILIES),
    how=st.sampled_from(sorted(DECODES)),
    chosen=st.lists(st.integers(0, 11), min_size=1, max_size=12),
    seed=st.integers(0, 3),
)
def test_a_row_does_not_depend_on_the_other_rows_nor_on_their_order(
    name: str, how: str, chosen: list[int], seed: int
) -> None:
    model, prompts = family(name), random_rows(12, 7, seed=seed, ragged=True)
    wanted = continued(model, prompts, seed=seed, **DECODES[how]).arrays["tokens"]
    found = continued(model, cut(prompts, chosen), seed=seed, **DECODES[how]).arrays["tokens"]
    assert np.array_equal(found, wanted[chosen])


@pytest.mark.parametrize("shards", [2, 5])
@pytest.mark.parametrize("how", DECODES.values(), ids=DECODES)
def test_shards_together_are_the_whole(how: dict[str, Any], shards: int) -> None:
    model, prompts = family("opt"), random_rows(23, 7, ragged=True)
    wanted = continued(model, prompts, **how).arrays["tokens"]
    parts = [cut(prompts, part.tolist()) for part in np.array_split(np.arange(23), shards)]
    found = np.concatenate([continued(model, part, **how).arrays["tokens"] for part in parts])
    assert np.array_equal(found, wanted)


def test_another_seed_or_another_stream_draws_other_tokens_and_moves_no_global_random_numbers() -> None:
    model, prompts = tiny_model("opt"), random_rows(12, 5)
    drawn = continued(model, prompts, **DRAW).arrays["tokens"]
    torch.manual_seed(77)
    state = torch.get_rng_state()
    again = continued(model, prompts, **DRAW).arrays["tokens"]
    assert torch.equal(torch.get_rng_state(), state)
    assert np.array_equal(again, drawn)
    shifted = Dataset({**prompts.arrays, "stream": prompts.arrays["stream"] + 12}, prompts.origin)
    for other in (continued(model, prompts, seed=1, **DRAW), continued(model, shifted, **DRAW)):
        assert (other.arrays["tokens"] != drawn).any(axis=1).all()


def test_the_same_prompt_is_continued_in_different_ways() -> None:
    prompts = rows_of(np.full((20, 4), 9), stream=np.arange(20))
    assert len(np.unique(continued(tiny_model("opt"), prompts, **DRAW).arrays["tokens"], axis=0)) > 15


@pytest.mark.parametrize(
    ("temperature", "top_k", "top_p"), [(1.0, 0, 1.0), (0.7, 5, 1.0), (0.7, 0, 0.8), (1.3, 7, 0.9)]
)
def test_tokens_are_drawn_with_the_probabilities_of_the_model(temperature: float, top_k: int, top_p: float) -> None:
    """4,000 pairs of tokens after one prompt: the first, and the second given the first, fit the model's softmax."""
    model, count = tiny_model("llama", vocabulary=12), 4000
    prompts = rows_of(np.tile([5, 7, 3], (count, 1)), stream=np.arange(count))
    how: dict[str, Any] = {"beams": 1, "temperature": temperature, "top_k": top_k, "top_p": top_p}
    made = continued(model, prompts, new=2, end=None, **how).arrays["tokens"]
    with torch.no_grad():
        after = model(torch.tensor([[5, 7, 3, first] for first in range(12)])).logits
    first = warped(after[:1, 2], temperature, top_k, top_p)[0]
    pairs = first[:, None] * warped(after[:, 3], temperature, top_k, top_p)
    assert ((first > 0) & (first < 0.9)).sum() > 2, "a distribution worth testing"
    assert not np.isin(made[:, 0], np.flatnonzero(first == 0)).any(), "what is cut off is never drawn"
    assert chi_square(np.bincount(made[:, 0], minlength=12), first) < 4
    assert chi_square(np.bincount(made[:, 0] * 12 + made[:, 1], minlength=144), pairs.ravel()) < 4


def test_a_temperature_near_zero_is_greedy_search() -> None:
    model, prompts = family("opt"), random_rows(6, 5)
    greedy = continued(model, prompts, beams=1).arrays["tokens"]
    hows: list[dict[str, Any]] = [{"temperature": 1e-4}, {"temperature": 1.0, "top_k": 1}]
    for how in [*hows, {"temperature": 1.0, "top_p": 1e-6}]:
        assert np.array_equal(continued(model, prompts, beams=1, **how).arrays["tokens"], greedy)


@pytest.mark.parametrize("how", [{"beams": 5}, {"beams": 1}, DRAW], ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_bfloat16_gives_full_rows(kind: str, how: dict[str, Any]) -> None:
    model = tiny_model(kind)
    found = continued(model, random_rows(9, 7, ragged=True), new=20, dtype="bfloat16", **how)
    assert model.dtype == torch.bfloat16
    assert found.arrays["tokens"].shape == (9, 20)
    assert found.arrays["lengths"].tolist() == [20] * 9
    assert ((found.arrays["tokens"] >= 0) & (found.arrays["tokens"] < VOCABULARY)).all()


def test_rows_at_once_are_bounded_by_memory_and_by_what_brings_something(monkeypatch: pytest.MonkeyPatch) -> None:
    model, fits, not_ours = tiny_model("opt"), Trial("", 1 << 16), Trial("too odd", 0)
    slots = most_slots(7, NEW, 1)

    def rows(beams: int, trial: Trial) -> int:
        return rows_at_once(model, trial, 7, Rules(DecodeConfig(beams=beams), NEW, NEW, END, PAD))

    monkeypatch.setattr(sample, "free_bytes", lambda device: 1 << 40)
    assert [rows(beams, fits) for beams in (1, 5, 640, 641)] == [640, 128, 1, 1]
    assert [rows(beams, Trial("", 1)) for beams in (1, 5)] == [2560, 128], "more of one beam, of few keys and values"
    monkeypatch.setattr(sample, "CACHED_BYTES", 1000 * slots * 4)
    assert rows(1, Trial("", 1)) == 1000
    monkeypatch.setattr(sample, "free_bytes", lambda device: 2 * 100 * slots * (1 << 16) * 4)
    assert rows(1, fits) == 100
    monkeypatch.setitem(sample.FALLBACK_BYTES, "cpu", 4 * VOCABULARY * 10)
    assert [rows(beams, not_ours) for beams in (1, 2, 5, 10, 11)] == [10, 5, 2, 1, 1]


def test_a_row_has_random_numbers_of_its_own_generator() -> None:
    rows = np.array([5, 0, 2**40, 5])
    wanted = [np.random.Generator(np.random.Philox(key=[2**63 - 1, int(row)])).random(7) for row in rows]
    assert np.array_equal(uniforms(2**63 - 1, rows, 7), wanted)


# --- numbers that are not finite --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "how", [{"beams": 1}, {"beams": 3}, DRAW, {"beams": 1, "temperature": 1.0, "top_p": 0.9}], ids=str
)
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("biased", [False, True])
def test_the_row_and_token_whose_logits_are_not_finite_are_named_and_its_batch_is_not_kept(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, biased: bool, bad: float, how: dict[str, Any]
) -> None:
    """The embedding of one token is broken; it is in the prompt of row 13, which is of the third batch."""
    model = tiny_model("opt", tied=False)
    if biased:  # through `generate`
        model.get_output_embeddings().bias = torch.nn.Parameter(torch.zeros(VOCABULARY))
    model.get_input_embeddings().weight.data[50] = bad
    model.get_output_embeddings().weight.data[50] = 0.0
    assert bool(try_out(model).why_not) == biased
    prompts = random_rows(18, 5)
    prompts.arrays["tokens"][prompts.arrays["tokens"] == 50] = 51
    prompts.arrays["tokens"][13, 2] = 50
    at_most(monkeypatch, 6, how)
    monkeypatch.setitem(sample.FALLBACK_BYTES, "cpu", 4 * VOCABULARY * 6 * how["beams"])
    message = r"^row 13 of the prompts, counted from 0: the logits of new token 1 of 3 are not finite; lower train.lr where its"
    with pytest.raises(SampleError, match=message):
        continued(model, prompts, tmp_path, new=3, **how)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "rows-000000000-000000006.safetensors",
        "rows-000000006-000000012.safetensors",
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_of_nothing_but_nan_is_reported(kind: str, tmp_path: Path) -> None:
    model = tiny_model(kind)
    for weight in model.parameters():
        weight.data.fill_(torch.nan)
    with pytest.raises(SampleError, match=r"^row 0 of the prompts, .* new token 1 of 6 "):
        continued(model, random_rows(3, 5), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_later_token_that_is_not_finite_is_named() -> None:
    """Every row draws the broken token sooner or later."""
    model = tiny_model("opt", tied=False)
    model.get_input_embeddings().weight.data[50] = torch.nan
    norm, head = model.model.decoder.final_layer_norm, model.get_output_embeddings()
    norm.weight.data[-1], norm.bias.data[-1], head.weight.data[50, -1] = 0.0, 1.0, 60.0
    with pytest.raises(SampleError, match=r"^row 0 of the prompts, .* new token 2 of 6 "):
        continued(model, random_rows(3, 5), beams=1)


# --- taking up again --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("later", [1, 2, 4, 7, 12])
@pytest.mark.parametrize("how", [DRAW, {"beams": 3}], ids=str)
def test_a_killed_sampling_goes_on_with_batches_of_any_size_and_does_nothing_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: dict[str, Any], later: int
) -> None:
    model, prompts = family("opt"), random_rows(12, 5)
    wanted = continued(model, prompts, **how)
    ran: list[tuple[int, int]] = []
    run, fail_at = sample.Batches.run, 2

    def spy(self: sample.Batches, some: Dataset, rows: int, start: int, tell: Any) -> Dataset:
        if len(ran) == fail_at:
            raise KeyboardInterrupt
        ran.append((start, start + len(some)))
        return run(self, some, rows, start, tell)

    monkeypatch.setattr(sample.Batches, "run", spy)
    at_most(monkeypatch, 3, how)
    with pytest.raises(KeyboardInterrupt):
        continued(model, prompts, tmp_path, **how)
    (tmp_path / "rows-000000006-000000009.tmp").write_bytes(b"half a file")
    assert sorted(path.name for path in tmp_path.glob("*.safetensors")) == [
        "rows-000000000-000000003.safetensors",
        "rows-000000003-000000006.safetensors",
    ]
    ran.clear()
    fail_at = 99
    at_most(monkeypatch, later, how)
    steps: list[tuple[int, int]] = []
    found = continued(model, prompts, tmp_path, tell=lambda done, total: steps.append((done, total)), **how)
    assert np.array_equal(found.arrays["tokens"], wanted.arrays["tokens"])
    assert np.array_equal(found.arrays["lengths"], wanted.arrays["lengths"])
    assert sorted(row for first, end in ran for row in range(first, end)) == list(range(6, 12))
    assert [done for done, _ in steps] == sorted(done for done, _ in steps)
    assert steps[-1] == (12 * NEW, 12 * NEW)
    ran.clear()
    continued(model, prompts, tmp_path, **how)
    assert ran == [], "all is there"


def test_a_piece_that_is_missing_between_others_is_made_and_fits_between_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, prompts = family("opt"), random_rows(12, 5)
    at_most(monkeypatch, 2, DRAW)
    wanted = continued(model, prompts, tmp_path, **DRAW)
    for name in ("rows-000000002-000000004.safetensors", "rows-000000006-000000008.safetensors"):
        (tmp_path / name).unlink()
    at_most(monkeypatch, 5, DRAW)
    found = continued(model, prompts, tmp_path, **DRAW)
    assert np.array_equal(found.arrays["tokens"], wanted.arrays["tokens"])
    names = [path.name for path in sorted(tmp_path.iterdir())]
    assert names == [f"rows-{start:09d}-{start + 2:09d}.safetensors" for start in range(0, 12, 2)]


@pytest.mark.parametrize("how", [DRAW, {"beams": 3}], ids=str)
def test_progress_counts_new_tokens(monkeypatch: pytest.MonkeyPatch, how: dict[str, Any]) -> None:
    at_most(monkeypatch, 5, how)
    steps: list[tuple[int, int]] = []
    continued(family("opt"), random_rows(7, 5), tell=lambda done, total: steps.append((done, total)), **how)
    wanted = [5 * step for step in range(1, NEW + 1)] + [30] + [30 + 2 * step for step in range(1, NEW + 1)] + [42]
    assert steps == [(done, 42) for done in wanted]


# --- prompt and sample in one row -------------------------------------------------------------------------------------


def test_prompt_and_new_tokens_are_joined_without_a_gap() -> None:
    prompts = rows_of(np.array([[5, 6, 7], [8, 9, 0]]), [3, 1])
    new = rows_of(np.array([[11, 12], [13, 14]]), [1, 2])
    new = Dataset(new.arrays, np.array([4, 4]))
    joined = join(prompts, new)
    assert joined.arrays["tokens"].tolist() == [[5, 6, 7, 11], [8, 13, 14, 0]]
    assert joined.arrays["lengths"].tolist() == [4, 3]
    assert joined.arrays["lengths"].dtype == np.int32
    assert joined.origin.tolist() == [4, 4]


@pytest.mark.parametrize("decode", ["temperature", "beams that end"])
@pytest.mark.parametrize("kind", FAMILIES)
def test_a_part_of_the_rows_is_continued_as_all_of_them_are(kind: str, decode: str) -> None:
    """Shards (`engine.stage.Shard`), also of fewer rows than a batch takes, and of none; prompts are of unequal length."""
    for rows, number in ((41, 3), (5, 7)):
        model, prompts = family(kind), random_rows(rows, 12, ragged=True)
        whole, shards = (
            continued(model, prompts, **DECODES[decode]),
            [Shard(one, number) for one in range(1, number + 1)],
        )
        joined = Dataset.concat([continued(model, prompts, rows=one.rows(rows), **DECODES[decode]) for one in shards])
        assert all(np.array_equal(joined.arrays[name], array) for name, array in whole.arrays.items())


def test_a_row_that_goes_wrong_in_a_part_is_named_by_its_place_among_all() -> None:
    model = tiny_model("opt")
    model.get_output_embeddings().weight.data[:] = float("nan")
    with pytest.raises(SampleError, match=r"^row 6 of the prompts"):
        continued(model, random_rows(10, 8), rows=slice(6, 9), **DRAW)
