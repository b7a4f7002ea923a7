"""Sampling through transformers' own `generate`, for models that the engine cannot take."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from collapse_cli.config.tree import DecodeConfig
from collapse_cli.lm import pick, trial
from collapse_cli.lm.memory import is_out_of_memory
from collapse_cli.lm.search import Rules, Watch

if TYPE_CHECKING:
    from transformers import PreTrainedModel

STEPS = 3  # of a trial
MOST_LENGTHS = 4  # of prompts in a trial
NEAR = 1e-3  # of the largest number: what rounding can do in float32
LIKELY = 30.0  # nats below the likeliest token, from where on differences do not matter


@dataclass(frozen=True)
class Way:
    """How `generate` is asked.

    Attributes:
        mixes: with prompts of unequal lengths in one batch.
        together: with several prompts of one length in one batch.
        cache: with the model's cache of what it has read.
    """

    mixes: bool = True
    together: bool = True
    cache: bool = True

    def said(self) -> str:
        """What is slower in this way, for a message; empty when nothing is."""
        rows = "" if self.mixes else "prompts of one length at a time" if self.together else "one prompt at a time"
        parts = [part for part in (rows, "" if self.cache else "without its cache") if part]
        return f", {' and '.join(parts)}, because it gives other results otherwise" if parts else ""


WAYS = (Way(), Way(mixes=False), Way(mixes=False, cache=False), Way(mixes=False, together=False, cache=False))


def find_way(model: "PreTrainedModel", reach: int, beams: int, pad: int) -> Way | None:
    """The fastest way in which `generate` does what the model's own forward pass says; None when there is none.

    Args:
        reach: the longest row of the work, prompt and new tokens together.
    """
    few, reach = min(beams, 2), max(trial.LEAST_REACH, reach)
    return trial.remembered(model, ("generate", reach, few, pad), lambda: _tried(model, reach, few, pad))


@torch.no_grad()
def _tried(model: "PreTrainedModel", reach: int, beams: int, pad: int) -> tuple[Way | None, bool]:
    """Rows that end on both sides of each switch are continued by a few tokens, and short ones up to the reach."""
    ends = trial.lengths(model, reach)
    ends = [
        max(STEPS + 1, end) for end in (*ends[: MOST_LENGTHS - 1], ends[-1])
    ] * 2  # two of each, and of other tokens
    lengths = torch.tensor(ends, device=model.device) - STEPS
    ids = trial.tokens(model, len(ends), int(lengths.max()))
    short = torch.tensor([min(2 * trial.SHORT, reach - 1), min(trial.SHORT, reach - 1)], device=model.device)
    sure = True
    for way in WAYS:
        work = [(ids, lengths, STEPS)]
        if way.cache:  # without one, nothing of a step is left in the next
            work.append((ids[:2, : int(short.max())], short, reach - int(short.max())))
        good = True
        for prompts, sizes, new in work:
            seen: list[
                tuple[torch.Tensor, torch.Tensor]
            ] = []  # a row without padding, and the scores of its next token
            rules = Rules(DecodeConfig(beams=beams), new, new, None, pad)
            try:
                generate(model, prompts, sizes, None, rules, way, seen)
            except (TypeError, ValueError, KeyError, AttributeError, IndexError, RuntimeError) as error:
                if is_out_of_memory(error):
                    raise
                good = False
            else:
                good, finite = _as_alone(model, seen)
                sure = sure and finite
            if not good:
                break
        if good:
            return way, sure
    return None, sure


def _as_alone(model: "PreTrainedModel", seen: list[tuple[torch.Tensor, torch.Tensor]]) -> tuple[bool, bool]:
    """Whether scores are those of the model's forward pass over each row alone, and whether those are finite.

    A pass over a row says something of all rows that it begins with, unless rotations change with the length: where it
    says something else, the shorter row is read by itself.
    """
    finite = True
    passes: list[tuple[torch.Tensor, torch.Tensor]] = []
    for row, scores in sorted(seen, key=lambda pair: -len(pair[0])):
        known = next((odds for whole, odds in passes if torch.equal(whole[: len(row)], row)), None)
        if known is None:
            passes.append((row, _odds(model, row)))
            known = passes[-1][1]
        wanted = known[len(row) - 1]
        if not _near(scores, wanted):
            wanted = _odds(model, row)[-1]
        if not wanted.isfinite().any():
            finite = False  # of a broken model; sampling itself says so
        elif not _near(scores, wanted):
            return False, finite
    return True, finite


def _odds(model: "PreTrainedModel", row: torch.Tensor) -> torch.Tensor:
    """(length, vocabulary) log-probabilities of what follows each token of a row."""
    logits: torch.Tensor = model(input_ids=row[None], use_cache=False).logits[0].float()
    return logits.log_softmax(1)


def _near(scores: torch.Tensor, wanted: torch.Tensor) -> bool:
    """Whether scores of the next token are log-probabilities that are `wanted`, but for rounding."""
    scored, wanted = scores.float().log_softmax(0).nan_to_num(), wanted.nan_to_num()
    likely = wanted > wanted.max() - LIKELY
    most = NEAR * max(1.0, float(wanted[likely].abs().max()))
    return bool((scored - wanted)[likely].abs().max() <= most)


def generate(
    model: "PreTrainedModel",
    ids: torch.Tensor,
    lengths: torch.Tensor,
    uniforms: torch.Tensor | None,
    rules: Rules,
    way: Way = WAYS[0],
    seen: list[tuple[torch.Tensor, torch.Tensor]] | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Greedy search, beam search, or with `uniforms` (rows, new_tokens) sampling.

    Args:
        ids, lengths: prompts (rows, width) and their lengths (rows,).
        way: how `generate` is asked.
        seen: filled with the rows that were continued, without padding, and the scores of their next tokens.

    Returns:
        (rows, new_tokens) tokens and (rows,) the first step with scores that are not finite, or -1.
    """
    if way.mixes:
        return _generate(model, ids, lengths, uniforms, rules, way, seen)
    new = torch.full((len(ids), rules.new_tokens), rules.pad, device=ids.device)
    bad = torch.full((len(ids),), -1, device=ids.device)
    for length in sorted(set(lengths.tolist())):
        for rows in (lengths == length).nonzero().squeeze(1).split(len(ids) if way.together else 1):
            drawn = None if uniforms is None else uniforms[rows]
            new[rows], bad[rows] = _generate(model, ids[rows, :length], lengths[rows], drawn, rules, way, seen)
    return new, bad


def _generate(
    model: "PreTrainedModel",
    ids: torch.Tensor,
    lengths: torch.Tensor,
    uniforms: torch.Tensor | None,
    rules: Rules,
    way: Way,
    seen: list[tuple[torch.Tensor, torch.Tensor]] | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """As `generate`, all rows in one batch."""
    from transformers import GenerationConfig

    width, decode = ids.shape[1], rules.decode
    used = torch.arange(width, device=ids.device) < lengths[:, None]
    mask = used.flip(1)  # prompts must end together, so padding comes first
    turned = torch.full_like(ids, rules.pad)
    turned[mask] = ids[used]
    model.generation_config = GenerationConfig()  # what a model folder suggests must not change our settings
    watch = Watch(len(ids), ids.device)
    processors: list[Any] = [] if rules.penalty == 1 else [_Penalty(rules.penalty, mask)]
    if seen is not None:
        processors.append(_Show(seen, mask))
    processors.append(_See(watch, width))
    if rules.end is not None and rules.least > 0:
        processors.append(_NoEnd(rules.end, width + rules.least))
    if uniforms is not None:
        processors.append(_DrawFromRow(uniforms, width, rules))
    made = model.generate(
        turned,
        attention_mask=mask.long(),
        generation_config=GenerationConfig(
            max_new_tokens=rules.new_tokens,
            num_beams=decode.beams,
            do_sample=False,
            length_penalty=decode.length_penalty,
            eos_token_id=rules.end,
            pad_token_id=rules.pad,
            use_cache=way.cache,
        ),
        logits_processor=processors,
    )
    new: torch.Tensor = torch.nn.functional.pad(
        made[:, width:], (0, rules.new_tokens + width - made.shape[1]), value=rules.pad
    )
    return new, watch.bad


class _Penalty:
    """The repetition penalty of `generate`, never on padding, which transformers up to 5.21 (and perhaps 5.22) takes for text.

    Scores of tokens that a row holds are divided by it where they are above 0, and multiplied where below.
    """

    def __init__(self, penalty: float, mask: torch.Tensor) -> None:
        """`mask` (rows, width): which tokens of the prompts are no padding."""
        self.penalty, self.mask = penalty, mask

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        none = scores.shape[1]  # a column that is dropped: of padding, and of ids beyond the head
        ids = input_ids.clamp(max=none)
        width = self.mask.shape[1]
        unused = ~self.mask.repeat_interleave(len(ids) // len(self.mask), dim=0)
        ids[:, :width] = ids[:, :width].masked_fill(unused, none)
        wider = torch.nn.functional.pad(scores, (0, 1))
        held = wider.gather(1, ids)
        held = torch.where(held < 0, held * self.penalty, held / self.penalty)
        return wider.scatter(1, ids, held)[:, :none]


class _Show:
    """Notes rows without their padding, and the scores of their next tokens."""

    def __init__(self, seen: list[tuple[torch.Tensor, torch.Tensor]], mask: torch.Tensor) -> None:
        self.seen, self.mask = seen, mask

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        unused = (~self.mask).sum(dim=1).repeat_interleave(len(input_ids) // len(self.mask)).tolist()
        self.seen.extend(
            (row[first:].clone(), own.clone()) for row, first, own in zip(input_ids, unused, scores, strict=True)
        )
        return scores


class _See:
    """Shows a `Watch` the scores of each step."""

    def __init__(self, watch: Watch, prompt_width: int) -> None:
        self.watch, self.prompt_width = watch, prompt_width

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        self.watch.see(input_ids.shape[1] - self.prompt_width, scores.amax(dim=1))
        return scores


class _NoEnd:
    """No end-of-text token before `width` tokens; in place, where transformers' own copies all scores."""

    def __init__(self, end: int, width: int) -> None:
        self.end, self.width = end, width

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        if input_ids.shape[1] < self.width:
            scores[:, self.end] = -torch.inf
        return scores


class _DrawFromRow:
    """Draws each row's next token with that row's own random number, and leaves greedy search no other choice.

    transformers samples from one global stream, which makes a row's sample depend on the rest of its batch.
    """

    def __init__(self, uniforms: torch.Tensor, prompt_width: int, rules: Rules) -> None:
        self.uniforms, self.prompt_width, self.decode = uniforms, prompt_width, rules.decode

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Scores (rows, vocabulary) that are 0 at the drawn token and -inf elsewhere."""
        options = self.decode.temperature, self.decode.top_k, self.decode.top_p, self.decode.min_p
        drawn = pick.draw(scores.float(), self.uniforms[:, input_ids.shape[1] - self.prompt_width], *options)
        return torch.full_like(scores, -torch.inf).scatter_(1, drawn[:, None], 0.0)
