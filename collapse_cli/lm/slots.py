"""Keys and values of what was read and written so far, kept by the engine while it samples.

Every row (prompt) has slots, one a token: first its prompt, read once and shared by all its beams, then what the beams
wrote, K slots a step. A beam attends to all slots of its row under a mask that says which of them are its own past;
when beams are chosen anew only that mask moves. Every few steps, in half precision, the slots that no beam descends
from any more are dropped, so a row needs little more than its own length, not K times as much.

A row's slots stand in the same order whatever other rows are in the batch, and what is masked adds exact zeros: a row
comes out the same in every batch.
"""

import torch
from torch.nn import functional

from collapse_cli.lm.attention import Causal

STEPS_AHEAD = 8  # steps that room is made for at once
FEW = 4  # queries of a row and head up to which sums one by one are faster than a product of matrices


class Slots:
    """Implements `attention.Attend`: `reading` prompts first, then step by step one token a beam. For a CPU."""

    GRAIN = 16  # slots come in multiples of it: of the processor's vectors

    def __init__(self, rows: int, beams: int, width: int, new_tokens: int, device: torch.device) -> None:
        """For prompts of up to `width` tokens."""
        self.all_rows = self.rows = rows
        self.beams, self.reach, self.device = beams, width + new_tokens, device
        self.most = self._rounded(most_slots(width, new_tokens, beams))
        # by layer: (rows, key heads, capacity, d), of one beam perhaps as the transpose of (rows, key heads, d, capacity)
        self.keys: dict[torch.nn.Module, torch.Tensor] = {}
        self.values: dict[torch.nn.Module, torch.Tensor] = {}
        self.spare: torch.Tensor | None = None
        # made once: recorded steps of earlier batches look for them where they were
        self.every_row = self.each_row = torch.arange(rows, device=device)[:, None]
        self.each_beam = torch.arange(beams, device=device)
        self.places: dict[torch.Size, torch.Tensor] = {}
        self.capacity = 0
        self.read: slice | None = None

    # --- reading the prompts ------------------------------------------------------------------------------------------

    def begin(self, lengths: torch.Tensor, width: int) -> None:
        """Start a batch of prompts of `lengths` (rows,), the longest of them `width` tokens."""
        self.rows, self.each_row = self.all_rows, self.every_row
        self.capacity = self._rounded(width + STEPS_AHEAD * self.beams)
        self.places.clear()
        self.used = lengths.clone()  # (rows,) the next free slot
        self.most_used = width
        # on a CPU, where all prompts are as long and each row has one beam: the slot that all rows wrote last
        alike = self.device.type == "cpu" and self.beams == 1 and bool((lengths == width).all())
        self.slot: int | None = width - 1 if alike else None
        here = torch.arange(self.capacity, device=self.device) < lengths[:, None]
        self.own = here[:, None].repeat(1, self.beams, 1)  # (rows, beams, capacity): the slots of a beam's past
        self.causal = Causal(None, width)

    def reading(self, part: slice) -> None:
        """The next call of the model reads the prompts of these rows."""
        self.read = part

    # --- step by step -------------------------------------------------------------------------------------------------

    def begin_pass(self) -> None:
        """The next call of the model is a pass of its own."""

    def advance(self, *, one_text: bool = False) -> None:
        """Make room for one more token a beam; the next call of the model reads it.

        Args:
            one_text: the tokens are those of one text, all earlier ones its past, and each beam sees those before its own.
        """
        self.read = None
        if self.most_used + self.beams > self.capacity:
            self._make_room()
        self.write = self.used[:, None] + self.each_beam  # (rows, beams): where the new tokens go
        if one_text:
            self.own = torch.arange(self.capacity, device=self.device) <= self.write[:, :, None]
        self.own.scatter_(2, self.write[:, :, None], True)
        self.slot = None if self.slot is None else self.slot + 1
        self.used += self.beams
        self.most_used += self.beams
        self.mask = self._masked()

    def _masked(self) -> torch.Tensor:
        """(rows, beams, capacity) what is added to the scores of a beam's slots."""
        return torch.zeros(self.own.shape, device=self.device).masked_fill_(~self.own, -torch.inf)

    def reorder(self, parents: torch.Tensor) -> None:
        """Beam k of each row now descends from beam parents[row, k]."""
        self.own = self.own.gather(1, parents[:, :, None].expand(-1, -1, self.capacity))

    def keep(self, rows: torch.Tensor) -> None:
        """Go on with these rows (n,) alone, until the next batch begins; not where steps are recorded."""
        self.rows, self.each_row = len(rows), self.every_row[: len(rows)]
        self.used, self.own = self.used[rows], self.own[rows]
        self.places.clear()
        for kept in (self.keys, self.values):
            for layer, states in kept.items():
                heads, d = states.shape[1], states.shape[3]
                columns = not states.is_contiguous()
                made = self._view(self._other(_storage(states)), heads, d, columns)
                # as they stand in memory: of one beam perhaps (rows, key heads, d, capacity)
                before, after = (each.transpose(2, 3) if columns else each for each in (states, made))
                torch.index_select(before, 0, rows, out=after)
                self.spare, kept[layer] = _storage(states), made

    def _other(self, own: torch.Tensor) -> torch.Tensor:
        """As much memory as `own`, in which nothing is kept; fresh memory is slow."""
        if self.spare is None or len(self.spare) < len(own):
            self.spare = torch.zeros_like(own)  # what is masked must still be a number
        return self.spare

    def _rounded(self, slots: int) -> int:
        return -(-slots // self.GRAIN) * self.GRAIN

    def _make_room(self) -> None:
        """Leave free slots for the next steps; in half precision, drop those that no beam descends from."""
        if next(iter(self.keys.values())).dtype == torch.float32:
            # Sums over more slots may be rounded in another way, and float32 rows are to be the same in every batch:
            # room then depends on the step alone, not on what the other rows of the batch need.
            alive = torch.arange(self.capacity, device=self.device) < self.used[:, None]
        else:
            alive = self.own.any(dim=1)
            self.used = alive.sum(dim=1)
            self.most_used = int(self.used.max())
        old, self.capacity = self.capacity, self._rounded(self.most_used + STEPS_AHEAD * self.beams)
        self.places.clear()
        order = torch.argsort((~alive).to(torch.int8), dim=1, stable=True)  # living slots first, in their order
        order = functional.pad(order, (0, max(0, self.capacity - old)))[:, : self.capacity]
        free = torch.arange(self.capacity, device=self.device) >= self.used[:, None]
        self.own = self.own.gather(2, order[:, None].expand(-1, self.beams, -1)).masked_fill_(free[:, None], False)
        self._move(order, old)

    def _move(self, order: torch.Tensor, old: int) -> None:
        """Slot i of a row is now what was slot order[row, i] of the `old` ones."""
        vectors: dict[int, torch.Tensor] = {}  # by number of heads: where each slot's vector was
        for kept in (self.keys, self.values):
            for layer, states in kept.items():
                heads = states.shape[1]
                if heads not in vectors:
                    first = torch.arange(self.rows * heads, device=self.device).view(self.rows, heads, 1) * old
                    vectors[heads] = (first + order[:, None]).flatten()
                kept[layer] = self._picked(states, vectors[heads])

    def _picked(self, states: torch.Tensor, vectors: torch.Tensor) -> torch.Tensor:
        """These vectors as (rows, heads, capacity, d), in memory that is there already: fresh memory is slow."""
        heads, d = states.shape[1], states.shape[3]
        own = _storage(states)
        made = self._view(self._other(own), heads, d, not states.is_contiguous())
        if not states.is_contiguous():  # of one beam, none is dropped
            made[:, :, : states.shape[2]] = states
            made[:, :, states.shape[2] :] = 0
        else:
            torch.index_select(states.view(-1, d), 0, vectors, out=made.view(-1, d))
        self.spare = own
        return made

    def _fresh(self, states: torch.Tensor, numbers: int) -> torch.Tensor:
        return states.new_empty(numbers)

    def _view(self, storage: torch.Tensor, heads: int, d: int, columns: bool = False) -> torch.Tensor:
        part = storage[: self.rows * heads * self.capacity * d]
        if columns:
            return part.view(self.rows, heads, d, self.capacity).transpose(2, 3)
        return part.view(self.rows, heads, self.capacity, d)

    # --- what the model's attention layers call -----------------------------------------------------------------------

    def __call__(
        self,
        layer: torch.nn.Module,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        scaling: float,
        dropout: float,
    ) -> torch.Tensor:
        """As `attention.Attend`."""
        if self.read is not None:
            self._store(layer, key, value)
            return self.causal(layer, query, key, value, scaling, dropout)
        rows, beams = self.rows, self.beams
        heads, d = key.shape[1], key.shape[3]
        groups = query.shape[1] // heads
        keys, values = self.keys[layer], self.values[layer]
        for kept, new in ((keys, key), (values, value)):
            self._put(kept, new.view(rows, beams, heads, d))
        asked = (query * scaling).view(rows, beams, heads, groups, d).permute(0, 2, 3, 1, 4)
        asked = asked.reshape(rows * heads, groups * beams, d)
        seen = self._attended(asked, keys, values, groups)
        return seen.view(rows, heads, groups, beams, d).permute(0, 3, 1, 2, 4).reshape(rows * beams, 1, -1, d)

    def _put(self, kept: torch.Tensor, new: torch.Tensor) -> None:
        """Write `new` (rows, beams, key heads, d) where the tokens of this step go."""
        if self.slot is None:
            kept[self.each_row, :, self.write] = new
        else:  # one copy, several times as fast
            kept[:, :, self.slot] = new[:, 0]

    def _attended(self, asked: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, groups: int) -> torch.Tensor:
        """(rows * key heads, groups * beams, d) for queries of that shape, keys and values (rows, key heads, capacity, d)."""
        rows, heads, capacity, _ = keys.shape
        scores = self._sums(asked, keys.transpose(2, 3).flatten(0, 1)).view(rows, heads * groups, self.beams, capacity)
        odds = torch.softmax(scores + self.mask[:, None], dim=-1).to(values.dtype)
        return self._sums(odds.view(rows * heads, groups * self.beams, capacity), values.flatten(0, 1))

    def _sums(self, weights: torch.Tensor, vectors: torch.Tensor) -> torch.Tensor:
        """Weights (n, few, count) @ vectors (n, count, d): for few weights a vector, as fast as the vectors are read."""
        if not _quick(vectors) or weights.shape[1] > FEW or not vectors.is_contiguous():
            return torch.bmm(weights, vectors)
        n, few, count = weights.shape
        if weights.shape not in self.places:
            first = torch.arange(n, dtype=torch.int32)[:, None, None] * count
            places = first + torch.arange(count, dtype=torch.int32).expand(few, -1)
            self.places[weights.shape] = places.view(-1, count)
        places, flat = self.places[weights.shape], vectors.view(n * count, -1)
        sums = functional.embedding_bag(places, flat, mode="sum", per_sample_weights=weights.view(-1, count))
        return sums.view(n, few, -1)

    def _store(self, layer: torch.nn.Module, key: torch.Tensor, value: torch.Tensor) -> None:
        for kept, states in ((self.keys, key), (self.values, value)):
            heads, d = states.shape[1], states.shape[3]
            # scores are sums of what a row's keys have at each place of a vector: one beam's are kept by that
            columns = kept is self.keys and self.beams == 1 and _quick(states)
            if layer not in kept:
                storage = self._fresh(states, self.rows * heads * self.most * d)
                kept[layer] = self._view(storage, heads, d, columns).zero_()  # what is masked must still be a number
            elif (
                kept[layer].shape[0] != self.rows or kept[layer].shape[2] != self.capacity
            ):  # left from another batch: any numbers will do
                kept[layer] = self._view(_storage(kept[layer]), heads, d, columns)
            kept[layer][self.read, :, : states.shape[2]] = states


class GpuSlots(Slots):
    """For a GPU: keys and values stay in the same memory, where recorded steps read them, (rows, key heads, most, d).

    More room then costs nothing, and of the slots only those behind the prompts move.
    """

    GRAIN = 64  # few sizes: each needs a recording of its own

    def begin(self, lengths: torch.Tensor, width: int) -> None:
        """As `Slots.begin`."""
        super().begin(lengths, width)
        self.settled = int(lengths.min())  # slots that every row needs to the end
        self.wide_masks: dict[tuple[int, int], torch.Tensor] = {}

    def begin_pass(self) -> None:
        """The next call of the model is a pass of its own, perhaps recorded."""
        self.wide_masks.clear()

    def _masked(self) -> torch.Tensor:
        dtype = next(iter(self.keys.values())).dtype
        return torch.zeros(self.own.shape, device=self.device, dtype=dtype).masked_fill_(~self.own, -torch.inf)

    def _fresh(self, states: torch.Tensor, numbers: int) -> torch.Tensor:
        return states.new_zeros(numbers)  # what is masked must still be a number

    def _view(self, storage: torch.Tensor, heads: int, d: int, columns: bool = False) -> torch.Tensor:
        return self._whole(storage, heads, d)[:, :, : self.capacity]

    def _whole(self, storage: torch.Tensor, heads: int, d: int) -> torch.Tensor:
        return storage[: self.rows * heads * self.most * d].view(self.rows, heads, self.most, d)

    def _move(self, order: torch.Tensor, old: int) -> None:
        first, last = self.settled, self.most_used
        dropped = next(iter(self.keys.values())).dtype != torch.float32
        index = order[:, None, first:last, None]
        for kept in (self.keys, self.values):
            for layer, states in kept.items():
                heads, d = states.shape[1], states.shape[3]
                own = _storage(states)
                if dropped:
                    before = _wide(self._whole(own, heads, d))
                    size = self.rows * heads * (last - first) * d
                    made = self._other(own)[:size].view(self.rows, heads, last - first, d)
                    torch.gather(before, 2, index.expand(-1, heads, -1, before.shape[3]), out=_wide(made))
                    before[:, :, first:last] = _wide(made)
                kept[layer] = self._view(own, heads, d)

    def _wide_mask(self, heads: int, groups: int) -> torch.Tensor:
        """(rows * heads, groups * beams, capacity) the mask for all heads, made once a pass."""
        if (heads, groups) not in self.wide_masks:
            wide = self.mask[:, None, None].expand(-1, heads, groups, -1, -1)
            self.wide_masks[heads, groups] = wide.reshape(-1, groups * self.beams, self.capacity)
        return self.wide_masks[heads, groups]

    def _put(self, kept: torch.Tensor, new: torch.Tensor) -> None:
        _wide(kept)[self.each_row, :, self.write] = _wide(new)

    def _attended(self, asked: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, groups: int) -> torch.Tensor:
        mask = self._wide_mask(keys.shape[1], groups)
        scores = torch.baddbmm(mask, asked, keys.transpose(2, 3).flatten(0, 1))
        return torch.bmm(torch.softmax(scores, dim=-1), values.flatten(0, 1))


def slots_for(device: torch.device) -> type[Slots]:
    """How keys and values are kept on a device."""
    return Slots if device.type == "cpu" else GpuSlots


def _wide(vectors: torch.Tensor) -> torch.Tensor:
    """The same memory (..., d) in pieces of 16 bytes where that is possible: a GPU copies them faster than numbers of 2."""
    return vectors.view(torch.complex128) if vectors.shape[-1] * vectors.element_size() % 16 == 0 else vectors


def _quick(vectors: torch.Tensor) -> bool:
    """Whether sums of weighted vectors are faster one by one than as products of matrices."""
    return vectors.dtype == torch.bfloat16 and vectors.device.type == "cpu"


def most_slots(width: int, new_tokens: int, beams: int) -> int:
    """Slots that a row can need, when no two of its beams have anything in common."""
    return width + beams * (new_tokens + STEPS_AHEAD)


def _storage(states: torch.Tensor) -> torch.Tensor:
    """All the memory behind a view of it, as one row of numbers."""
    size = states.untyped_storage().nbytes() // states.element_size()
    return states.as_strided((size,), (1,), 0)
