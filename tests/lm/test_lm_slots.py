"""The engine's slots against a slow reference: every beam's own tokens, read from the start."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from support.sampling import FAMILIES, continued, family, generated, wide_model
from support.tiny import VOCABULARY, random_rows

from collapse_cli.data.dataset import Dataset
from collapse_cli.lm import decode, sample, slots
from collapse_cli.lm.attention import attending
from collapse_cli.lm.decode import Decoder
from collapse_cli.lm.slots import STEPS_AHEAD, GpuSlots, Slots, most_slots

WIDTH, STEPS = 7, 40
GRAIN = Slots.GRAIN


@pytest.fixture(autouse=True)
def no_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


@pytest.fixture(params=[Slots, GpuSlots])
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> type[Slots]:
    """The slots of both kinds of devices: those of a GPU give the same on a CPU."""
    monkeypatch.setattr(decode, "slots_for", lambda _: request.param)
    made: type[Slots] = request.param
    return made


def prompts_of(rows: int, *, seed: int = 0, ragged: bool = True) -> tuple[torch.Tensor, torch.Tensor]:
    made = random_rows(rows, WIDTH, seed=seed, ragged=ragged)
    return torch.from_numpy(made.arrays["tokens"]).long(), torch.from_numpy(made.arrays["lengths"]).long()


class Walk:
    """Random tokens and parents, and what each beam has read by them."""

    def __init__(self, rows: int, beams: int, how: str, seed: int) -> None:
        self.rows, self.beams, self.how = rows, beams, how
        self.random = torch.Generator().manual_seed(seed)

    def parents(self) -> torch.Tensor | None:
        if self.how == "own":
            return None
        if self.how == "first":
            return torch.zeros(self.rows, self.beams, dtype=torch.int64)
        return torch.randint(0, self.beams, (self.rows, self.beams), generator=self.random)

    def tokens(self) -> torch.Tensor:
        return torch.randint(4, VOCABULARY, (self.rows, self.beams), generator=self.random)


def walked(decoder: Decoder, ids: torch.Tensor, lengths: torch.Tensor, walk: Walk, steps: int = STEPS) -> list[Any]:
    """For each step (hidden states (rows, beams, d), the sequences of each row's beams so far)."""
    made = []
    sequences = [ids[row, :length].expand(walk.beams, -1) for row, length in enumerate(lengths)]
    with attending(decoder.model, decoder.slots):
        decoder.read(ids, lengths)
        for _ in range(steps):
            parents, tokens = walk.parents(), walk.tokens()
            states = decoder.step(tokens, parents).view(walk.rows, walk.beams, -1)
            for row in range(walk.rows):
                own = sequences[row] if parents is None else sequences[row][parents[row]]
                sequences[row] = torch.cat([own, tokens[row, :, None]], dim=1)
            made.append((states.clone(), list(sequences)))
    return made


def far_from_whole(model: Any, made: list[Any], every: int = 3) -> float:
    """The largest difference from what whole sequences give."""
    worst = 0.0
    for states, sequences in [*made[::every], made[-1]]:
        for row, sequence in enumerate(sequences):
            whole = model.base_model(input_ids=sequence, use_cache=False).last_hidden_state[:, -1]
            worst = max(worst, float((states[row] - whole).abs().max()))
    return worst


@pytest.mark.usefixtures("kind")
@pytest.mark.parametrize("how", ["any", "own", "first"])
@pytest.mark.parametrize("beams", [1, 2, 5])
@pytest.mark.parametrize("name", FAMILIES)
def test_a_beam_s_states_are_those_of_its_own_tokens_read_from_the_start(name: str, beams: int, how: str) -> None:
    model, (ids, lengths) = family(name), prompts_of(3, seed=beams)
    decoder = Decoder(model, 3, beams, WIDTH, STEPS)
    assert far_from_whole(model, walked(decoder, ids, lengths, Walk(3, beams, how, seed=beams))) < 1e-4


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("ragged", [True, False])
def test_prompts_of_one_length_are_written_to_one_slot(
    ragged: bool, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same numbers, bit for bit, as where each row's slot is looked up; also after rows were dropped."""
    model, (ids, lengths) = copy.deepcopy(family("grouped")).to(dtype), prompts_of(20, ragged=ragged)
    found = []
    for look_up in (False, True):
        decoder, random = Decoder(model, 20, 1, WIDTH, STEPS), torch.Generator().manual_seed(0)
        with attending(model, decoder.slots):
            states = [decoder.read(ids, lengths)]
            assert (decoder.slots.slot is None) == ragged
            if look_up:
                decoder.slots.slot = None
            for step in range(STEPS):
                states.append(decoder.step(torch.randint(4, VOCABULARY, (decoder.slots.rows, 1), generator=random)))
                if step == STEPS // 2:
                    decoder.keep(torch.arange(0, 20, 3))
        found.append(states)
    assert all(map(torch.equal, *found))


@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("name", FAMILIES)
def test_sums_one_by_one_give_what_products_of_matrices_do(
    monkeypatch: pytest.MonkeyPatch, name: str, beams: int
) -> None:
    """As in bfloat16, but in a precision that shows every mistake; float64 drops slots too. Two batches in turn."""
    products: list[int] = []
    bmm = torch.bmm

    def spy(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        products.append(1)
        return bmm(left, right)

    monkeypatch.setattr(torch, "bmm", spy)
    monkeypatch.setattr(slots, "_quick", lambda vectors: True)
    monkeypatch.setattr(slots, "FEW", 99)
    model = copy.deepcopy(family(name)).double()
    decoder = Decoder(model, 4, beams, WIDTH, STEPS)
    for seed in range(2):
        ids, lengths = prompts_of(4, seed=seed)
        made = walked(decoder, ids, lengths, Walk(4, beams, "any", seed))
        assert far_from_whole(model, made) < 1e-4
        for states in (*decoder.slots.keys.values(), *decoder.slots.values.values()):
            states.fill_(1e30)  # what is left of a batch is seen by none, whatever it is
    scores_of_several = 0 if beams == 1 else 2 * STEPS * len(decoder.slots.keys)
    assert len(products) == scores_of_several, "nothing else is a product of matrices"


@pytest.mark.usefixtures("kind")
def test_prompts_read_in_parts_give_the_same_states(monkeypatch: pytest.MonkeyPatch) -> None:
    model, (ids, lengths) = family("grouped"), prompts_of(7)
    whole = walked(Decoder(model, 7, 3, WIDTH, 5), ids, lengths, Walk(7, 3, "any", 0), 5)
    monkeypatch.setattr(decode, "READ_AT_ONCE", 3 * WIDTH)  # three rows, three, and one
    parts = walked(Decoder(model, 7, 3, WIDTH, 5), ids, lengths, Walk(7, 3, "any", 0), 5)
    for (found, _), (wanted, _) in zip(parts, whole, strict=True):
        assert torch.allclose(found, wanted, atol=1e-5)


@pytest.mark.usefixtures("kind")
def test_the_last_states_of_prompts_are_those_of_each_alone() -> None:
    model, (ids, lengths) = family("llama"), prompts_of(6)
    decoder = Decoder(model, 6, 4, WIDTH, STEPS)
    with attending(model, decoder.slots):
        states = decoder.read(ids, lengths)
    for row, length in enumerate(lengths):
        alone = model.base_model(input_ids=ids[row : row + 1, :length], use_cache=False).last_hidden_state[0, -1]
        assert torch.allclose(states[row], alone, atol=1e-4)


@pytest.mark.usefixtures("kind")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("name", ["opt", "grouped"])
def test_a_second_batch_sees_nothing_of_the_first(name: str, dtype: torch.dtype) -> None:
    """Its prompts are shorter and longer, and it starts where the first had dropped slots (not in float32) or had not."""
    model = copy.deepcopy(family(name)).to(dtype)
    decoder = Decoder(model, 4, 5, WIDTH, STEPS)
    for seed, steps in enumerate((STEPS, 3, STEPS, 20)):
        ids, lengths = prompts_of(4, seed=seed)
        found = walked(decoder, ids, lengths, Walk(4, 5, "any", seed), steps)
        fresh = walked(Decoder(model, 4, 5, WIDTH, STEPS), ids, lengths, Walk(4, 5, "any", seed), steps)
        for (one, _), (other, _) in zip(found, fresh, strict=True):
            assert torch.equal(one, other)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("beams", [1, 2])
def test_no_batch_reads_memory_that_was_never_written(beams: int, dtype: torch.dtype) -> None:
    """Short prompts first, so that the room shrinks; then long ones. Masked slots must hold numbers, for 0 * NaN is NaN."""
    decoder = Decoder(copy.deepcopy(family("opt")).to(dtype), 2, beams, 44, 20)
    ids = torch.arange(2 * 44).view(2, 44) % VOCABULARY
    torch.use_deterministic_algorithms(True)  # fills fresh memory with NaN
    try:
        assert torch.empty(3).isnan().all(), "or nothing is tested"
        for length, steps in ((2, 12), (44, 12), (2, 20), (44, 20)):
            made = walked(decoder, ids, torch.tensor([length] * 2), Walk(2, beams, "any", 0), steps)
            assert all(states.isfinite().all() for states, _ in made)
    finally:
        torch.use_deterministic_algorithms(False)


def capacity_after(how: str, beams: int, steps: int, dtype: torch.dtype = torch.float32) -> tuple[int, Decoder]:
    decoder = Decoder(copy.deepcopy(family("opt")).to(dtype), 3, beams, WIDTH, steps)
    ids, lengths = prompts_of(3)
    walked(decoder, ids, lengths, Walk(3, beams, how, 0), steps)
    return decoder.slots.capacity, decoder


@pytest.mark.parametrize("beams", [2, 5, 8])
def test_beams_with_common_ancestors_need_little_more_than_one_row(beams: int) -> None:
    """In half precision; float32 keeps all slots, so that room does not depend on the batch."""
    steps = 50
    capacity, _ = capacity_after("first", beams, steps, torch.bfloat16)
    assert capacity <= WIDTH + steps + 2 * STEPS_AHEAD * beams + GRAIN
    assert capacity < 0.8 * (WIDTH + beams * steps) or beams == 2
    capacity, _ = capacity_after("any", beams, steps, torch.bfloat16)
    assert capacity <= WIDTH + steps + 3 * STEPS_AHEAD * beams + GRAIN


@pytest.mark.parametrize("beams", [1, 2, 5])
def test_beams_without_common_ancestors_need_no_more_than_was_promised(beams: int) -> None:
    capacity, decoder = capacity_after("own", beams, STEPS)
    assert WIDTH + beams * STEPS <= capacity <= most_slots(WIDTH, STEPS, beams) + GRAIN
    assert decoder.slots.most >= capacity
    held = {states.untyped_storage().nbytes() for states in decoder.slots.keys.values()}
    assert held == {3 * 16 * 4 * decoder.slots.most}, "3 rows, 16 float32 numbers a slot and layer"


@pytest.mark.usefixtures("kind")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_dropped_slots_are_those_that_no_beam_descends_from(dtype: torch.dtype) -> None:
    """By the masks: after room was made, a beam's past is exactly as long as its sequence. Float32 drops none."""
    for how in ("any", "own", "first"):
        _, decoder = capacity_after(how, 4, STEPS, dtype)
        lengths = prompts_of(3)[1]
        assert decoder.slots.own.sum(dim=2).tolist() == [[int(length) + STEPS] * 4 for length in lengths]


class Watched:
    """How many slots were dropped each time that room was made, in all rows, and the states of each step."""

    def __init__(self) -> None:
        self.dropped: list[int] = []
        self.states: list[torch.Tensor] = []

    @contextmanager
    def watched(self) -> Iterator[None]:
        make_room, step = slots.Slots._make_room, Decoder.step

        def spy_room(this: slots.Slots) -> None:
            before = int(this.used.sum())
            make_room(this)
            self.dropped.append(before - int(this.used.sum()))

        def spy_step(this: Decoder, tokens: torch.Tensor, parents: torch.Tensor | None = None) -> torch.Tensor:
            self.states.append(step(this, tokens, parents).clone())
            return self.states[-1]

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(slots.Slots, "_make_room", spy_room)
            patch.setattr(Decoder, "step", spy_step)
            yield


def in_float64(name: str) -> Any:
    """A model in float64 throughout, where transformers' own norms of Llama round what they are given to float32."""
    model = copy.deepcopy(family(name)).double()
    for layer in model.modules():
        for part, norm in layer.named_children():
            if type(norm).__name__ == "LlamaRMSNorm":
                exact = torch.nn.RMSNorm(len(norm.weight), eps=norm.variance_epsilon, dtype=torch.float64)
                exact.load_state_dict(norm.state_dict())
                setattr(layer, part, exact)
    return model


@pytest.mark.parametrize("beams", [2, 3, 5])
@pytest.mark.parametrize("name", FAMILIES)
def test_beam_search_that_drops_slots_gives_the_tokens_of_generate_and_the_states_of_one_that_drops_none(
    monkeypatch: pytest.MonkeyPatch, name: str, beams: int
) -> None:
    """In float64, which drops them as half precision does, and is exact enough to show a single wrong one."""
    model, prompts, new = in_float64(name), random_rows(6, WIDTH, seed=5, ragged=True), 56
    reach = prompts.arrays["tokens"].shape[1] + new
    assert not decode.try_out(model, reach).why_not, "this is about the engine, and its trial is over before we watch"
    dropping, keeping = Watched(), Watched()
    with dropping.watched():
        found = continued(model, prompts, new=new, beams=beams)
    assert len(dropping.dropped) >= 3
    assert min(dropping.dropped) > 0
    assert found.arrays["tokens"].tolist() == generated(model, prompts, new=new, num_beams=beams).tolist()
    monkeypatch.setattr(slots, "STEPS_AHEAD", new)  # room for all from the start
    with keeping.watched():
        kept = continued(model, prompts, new=new, beams=beams)
    assert keeping.dropped == []
    assert kept.arrays["tokens"].tolist() == found.arrays["tokens"].tolist()
    assert len(dropping.states) == len(keeping.states) >= new - 1
    for state, wanted in zip(dropping.states, keeping.states, strict=True):
        assert state.dtype == torch.float64
        torch.testing.assert_close(state, wanted, rtol=0, atol=1e-10)


def test_room_is_made_when_the_last_free_slot_is_used_and_not_before(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    make_room = slots.Slots._make_room

    def spy(self: slots.Slots) -> None:
        made.append(self.most_used)
        make_room(self)

    monkeypatch.setattr(slots.Slots, "_make_room", spy)
    for beams in (1, 5):
        made.clear()
        capacity_after("own", beams, STEPS)
        assert len(made) >= 2
        first = -(-(WIDTH + STEPS_AHEAD * beams) // GRAIN) * GRAIN
        assert first - beams < made[0] <= first


@pytest.mark.parametrize("beams", [1, 5])
@pytest.mark.parametrize("name", FAMILIES)
def test_a_row_s_states_have_the_same_bits_whatever_other_rows_there_are(name: str, beams: int) -> None:
    """The other rows are longer or shorter, and share more or fewer ancestors, so that they need other numbers of slots."""
    model, (ids, lengths) = family(name), prompts_of(12, seed=1)
    tokens = Walk(12, beams, "any", 0)
    steps = [(tokens.tokens(), tokens.parents()) for _ in range(STEPS)]
    for _, parents in steps:
        if parents is not None:
            parents[6:] = torch.arange(beams)  # nothing in common

    def states_of(rows: list[int]) -> list[torch.Tensor]:
        decoder = Decoder(model, len(rows), beams, WIDTH, STEPS)
        with attending(model, decoder.slots):
            read = decoder.read(ids[rows], lengths[rows])
            found = [decoder.step(new[rows], None if parents is None else parents[rows]) for new, parents in steps]
        return [read[:4], *(each.view(len(rows), beams, -1)[:4] for each in found)]

    wanted = states_of([0, 1, 2, 3])
    for rows in ([0, 1, 2, 3, 4, 5], [0, 1, 2, 3, *range(6, 12)]):
        different = [
            step for step, pair in enumerate(zip(states_of(rows), wanted, strict=True)) if not torch.equal(*pair)
        ]
        assert not different


# --- bits of whole samplings ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("beams", [1, 5, 6, 17])
@pytest.mark.parametrize("wide", [False, True])
def test_logits_have_the_same_bits_in_every_batch(monkeypatch: pytest.MonkeyPatch, wide: bool, beams: int) -> None:
    """Tokens alone would show a difference in rounding in one row of a thousand; bits differ in all, so few rows do alone."""
    model, how = wide_model() if wide else family("opt"), {"beams": beams}
    count = 12 if wide else 20
    for width, new in ((1, 3), (7, 25 if beams > 1 else 12)):
        prompts = random_rows(count, width, ragged=width > 1)
        monkeypatch.setitem(sample.MOST_SEQUENCES, "cpu", count * beams)
        wanted = bits(monkeypatch, model, prompts, new, how)
        assert len(wanted) == count
        for rows, some in ((1, 5), (5, count)):
            monkeypatch.setitem(sample.MOST_SEQUENCES, "cpu", rows * beams)
            found = bits(monkeypatch, model, prompts.take(np.arange(some)), new, how)
            assert len(found) == some
            different = {
                (row, step)
                for row in range(some)
                for step, pair in enumerate(zip(found[row], wanted[row], strict=True))
                if not torch.equal(*pair)
            }
            assert not different, "(row, step) where they differ"


def bits(
    monkeypatch: pytest.MonkeyPatch, model: Any, prompts: Dataset, new: int, how: dict[str, Any]
) -> dict[int, list[torch.Tensor]]:
    """For each row the logits of each step, in the order of the beams."""
    made: dict[int, list[torch.Tensor]] = {}
    pieces: list[torch.Tensor] = []
    run, logits = sample.Batches.run, Decoder.logits

    def spy_logits(self: Decoder, states: torch.Tensor) -> torch.Tensor:
        scores = logits(self, states)
        pieces.append(scores.clone())
        return scores

    def spy_run(self: sample.Batches, some: Dataset, rows: int, start: int, tell: Any) -> Dataset:
        pieces.clear()
        result = run(self, some, rows, start, tell)
        assert self.decoder is not None
        size, beams = self.decoder.rows, self.decoder.beams
        first, *later = torch.split(torch.cat(pieces), [size] + [size * beams] * (new - 1))
        for row in range(len(some)):
            made[start + row] = [first[row], *(each.view(size, beams, -1)[row] for each in later)]
        return result

    with monkeypatch.context() as patch:
        patch.setattr(Decoder, "logits", spy_logits)
        patch.setattr(sample.Batches, "run", spy_run)
        continued(model, prompts, new=new, **how)
    return made


@pytest.mark.parametrize("how", [{"beams": 1}, {"beams": 5}, {"beams": 1, "temperature": 1.0}], ids=str)
def test_logits_held_in_pieces_have_the_same_bits(monkeypatch: pytest.MonkeyPatch, how: dict[str, Any]) -> None:
    """17 rows where 16 fit: the last piece is a single row."""
    model, prompts = family("opt"), random_rows(17, 7)
    wanted = bits(monkeypatch, model, prompts, 3, how)
    monkeypatch.setitem(sample.LOGITS_BYTES, "cpu", 1)
    found = bits(monkeypatch, model, prompts, 3, how)
    for row in range(17):
        assert all(torch.equal(*pair) for pair in zip(found[row], wanted[row], strict=True))
