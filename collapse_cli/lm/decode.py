"""The model while it samples: it reads prompts once, then one new token a beam and step, over slots the engine keeps."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from collapse_cli.lm import trial
from collapse_cli.lm.arithmetic import PackedWeights, fast_products, product_in_float32
from collapse_cli.lm.attention import UnsupportedError, attending
from collapse_cli.lm.loss import has_plain_head
from collapse_cli.lm.memory import is_out_of_memory
from collapse_cli.lm.slots import slots_for

if TYPE_CHECKING:
    from transformers import PreTrainedModel

READ_AT_ONCE = 4096  # prompt tokens on a CPU, so that a layer's work stays near its caches
READ_AT_ONCE_GPU = 1 << 16
STEPS = 2  # of a trial
TEXT_AT_ONCE = 64  # tokens of a text that a trial writes in one step


class Decoder:
    """One batch of rows after another, all of the same number of rows and beams."""

    def __init__(self, model: "PreTrainedModel", rows: int, beams: int, width: int, new_tokens: int) -> None:
        """For prompts of up to `width` tokens."""
        self.model, self.rows, self.beams = model, rows, beams
        self.device = model.device
        self.slots = slots_for(self.device)(rows, beams, width, new_tokens, self.device)
        self.weight: torch.Tensor = model.get_output_embeddings().weight
        self.packed = PackedWeights(rows * beams)
        self.held: torch.Tensor | None = None  # logits
        self._graphs: dict[tuple[int, int], _Graph] = {}

    def read(self, ids: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Read prompts `ids` (rows, width), used up to `lengths` (rows,); their last hidden states (rows, d)."""
        width = ids.shape[1]
        self.slots.begin(lengths, width)
        self.next_position = lengths.repeat_interleave(self.beams)
        at_once = READ_AT_ONCE if self.device.type == "cpu" else READ_AT_ONCE_GPU
        step = max(1, at_once // width)
        positions = torch.arange(width, device=self.device)
        states = []
        for first in range(0, self.rows, step):
            part = slice(first, first + step)
            self.slots.reading(part)
            made = self._run(ids[part], positions.expand(len(ids[part]), -1))
            last = (lengths[part] - 1)[:, None, None].expand(-1, 1, made.shape[2])
            states.append(made.gather(1, last).squeeze(1))
        return torch.cat(states)

    def step(self, tokens: torch.Tensor, parents: torch.Tensor | None = None) -> torch.Tensor:
        """Hidden states (rows * beams, d) after one more token a beam.

        Args:
            tokens: (rows, beams) the new tokens.
            parents: (rows, beams) which earlier beam each continues; each its own when None.
        """
        if parents is not None:
            self.slots.reorder(parents)
        self.slots.advance()
        ids, positions = tokens.reshape(-1, 1), self.next_position[:, None]
        states = self._replay(ids, positions) if self.device.type == "cuda" else self._run(ids, positions)
        self.next_position = self.next_position + 1
        return states[:, 0]

    def keep(self, rows: torch.Tensor) -> None:
        """Go on with these rows (n,) alone, until the next prompts are read. Not on a GPU, which records steps of one size."""
        self.slots.keep(rows)
        self.next_position = self.next_position.view(-1, self.beams)[rows].flatten()

    def follow(self, text: torch.Tensor) -> torch.Tensor:
        """As so many steps of one beam, in one: the beams of a single row write the tokens of one text.

        Args:
            text: (n,) what follows the prompt, at most as many tokens as there are beams.

        Returns:
            Their hidden states (n, d).
        """
        self.slots.advance(one_text=True)
        ids = torch.nn.functional.pad(text, (0, self.beams - len(text)))  # what comes later changes nothing
        places = torch.arange(self.beams, device=self.device).clamp(max=len(text) - 1)
        states = self._run(ids[:, None], (self.next_position + places)[:, None])
        self.next_position = self.next_position + self.beams
        return states[: len(text), 0]

    def logits(self, states: torch.Tensor) -> torch.Tensor:
        """(n, vocabulary) float32 scores of the next token for hidden states (n, d); the next call overwrites them."""
        if states.device.type != "cpu" and states.dtype != torch.float32:
            return product_in_float32(states, self.weight.T)
        made = self.packed.linear(states, self.weight)
        if made.dtype == torch.float32:
            return made
        if self.held is None or self.held.numel() < made.numel():
            self.held = torch.empty(made.numel(), device=self.device)  # fresh memory each time would be slower
        return self.held[: made.numel()].view(made.shape).copy_(made)

    def _run(self, ids: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        self.slots.begin_pass()
        with fast_products(self.device, self.packed):
            made = self.model.base_model(input_ids=ids, position_ids=positions, use_cache=False)
        states: torch.Tensor = made.last_hidden_state
        return states

    def _replay(self, ids: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        """As `_run`, from a graph recorded for this number of slots: a step is hundreds of small kernels."""
        slots = self.slots
        key = (slots.capacity, next(iter(slots.keys.values())).data_ptr())
        if key not in self._graphs:
            self._graphs[key] = _Graph(self, ids, positions)
        return self._graphs[key].replay(ids, positions)


class _Graph:
    """A recorded step: its inputs are copied to where the recording reads them."""

    def __init__(self, decoder: Decoder, ids: torch.Tensor, positions: torch.Tensor) -> None:
        self.slots = decoder.slots
        self.inputs = [each.clone() for each in (ids, positions, self.slots.write, self.slots.mask)]
        _, _, self.slots.write, self.slots.mask = self.inputs
        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        # a first run outside of the recording sets up what libraries set up once
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            decoder._run(*self.inputs[:2])
        torch.cuda.current_stream().wait_stream(side)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.states = decoder._run(*self.inputs[:2])

    def replay(self, ids: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        for kept, given in zip(self.inputs, (ids, positions, self.slots.write, self.slots.mask), strict=True):
            if kept is not given:
                kept.copy_(given)
        self.graph.replay()
        return self.states


@dataclass(frozen=True)
class Trial:
    """What a trial of a model found.

    Attributes:
        why_not: why the engine cannot sample from the model; empty when it can.
        states: numbers that a token's keys and values are, in all layers.
    """

    why_not: str
    states: int


def try_out(model: "PreTrainedModel", reach: int = trial.LEAST_REACH) -> Trial:
    """Whether the engine can sample rows of up to `reach` tokens from a model, found out by trying."""
    if not has_plain_head(model):
        return Trial("its output head is more than one matrix", 0)
    reach = max(trial.LEAST_REACH, reach)
    return trial.remembered(model, ("sampling", reach), lambda: _tried(model, reach))


@torch.no_grad()
def _tried(model: "PreTrainedModel", reach: int) -> tuple[Trial, bool]:
    """Rows of unequal lengths, which end on both sides of each switch, read and continued by the engine's own steps."""
    ends = [max(STEPS + 1, length) for length in trial.lengths(model, reach)]
    lengths = torch.tensor(ends, device=model.device) - STEPS
    rows, width = len(ends), int(lengths.max())
    ids = trial.tokens(model, rows, reach)
    each = torch.arange(rows, device=model.device)[:, None]
    at = lengths[:, None] + torch.arange(
        2, device=model.device
    )  # a beam writes the tokens that follow, in another order
    first, second = ids[each, at], ids[each, at.flip(1)]
    parents = torch.tensor([[1, 0], [0, 0]], device=model.device)[torch.arange(rows, device=model.device) % 2]
    decoder = Decoder(model, rows, 2, width, STEPS)
    decoder.slots.reach = reach
    near = 1e-3 if model.dtype == torch.float32 else 0.1  # of the largest number: half precision is far coarser
    sure = True
    try:
        with attending(model, decoder.slots):
            read = decoder.read(ids[:, :width], lengths)
            decoder.step(first)
            logits = decoder.step(second, parents).view(rows, 2, -1)
        for row in range(rows):
            prompt = ids[row, : lengths[row]]
            pairs = [(read[row], prompt)] + [
                (logits[row, beam], torch.cat([prompt, first[row, parents[row, beam], None], second[row, beam, None]]))
                for beam in range(2)
            ]
            for states, whole in pairs:
                wanted = model.base_model(input_ids=whole[None], use_cache=False).last_hidden_state[0, -1]
                if not wanted.isfinite().all():  # nothing to compare with; sampling itself says so
                    sure = False
                elif not (states - wanted).abs().amax() <= near * wanted.abs().amax():  # nor is NaN
                    return Trial(_difference(len(whole)), 0), True
        states, wanted = _written(model, ids[0, :reach])
        if not wanted.isfinite().all():
            sure = False
        elif not (states - wanted).abs().amax() <= near * wanted.abs().amax():
            return Trial(_difference(reach), 0), True
    except UnsupportedError as error:
        return Trial(str(error), 0), True
    except (TypeError, ValueError, KeyError, AttributeError, RuntimeError) as error:
        if is_out_of_memory(error):
            raise
        return Trial(f"its layers take other arguments ({type(error).__name__})", 0), True
    kept = [*decoder.slots.keys.values(), *decoder.slots.values.values()]
    return Trial("", sum(states.shape[1] * states.shape[3] for states in kept)), sure


@torch.no_grad()
def _written(model: "PreTrainedModel", text: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Hidden states (n, d) of all tokens after a short prompt, by the engine's steps and by the model's own pass.

    Faults that show only many steps after a short prompt are seen so, at the price of reading the text once.
    """
    short = min(trial.SHORT, len(text) - 1)
    beams = min(TEXT_AT_ONCE, len(text) - short)
    decoder = Decoder(model, 1, beams, short, -(-(len(text) - short) // beams))
    decoder.slots.reach = len(text)
    with attending(model, decoder.slots):
        decoder.read(text[None, :short], torch.tensor([short], device=text.device))
        states = torch.cat([decoder.follow(part) for part in torch.split(text[short:], beams)])
    return states, model.base_model(input_ids=text[None], use_cache=False).last_hidden_state[0, short:]


def _difference(length: int) -> str:
    return (
        "its layers remember more than keys and values, or what they do depends on how long a row is "
        f"(a row of {length} tokens came out differently)"
    )
