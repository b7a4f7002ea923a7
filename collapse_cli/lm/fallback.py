"""Sampling through transformers' own `generate`, for models that the engine cannot take."""

from typing import TYPE_CHECKING, Any

import torch

from collapse_cli.lm import pick
from collapse_cli.lm.search import Rules, Watch

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def generate(
    model: "PreTrainedModel",
    ids: torch.Tensor,
    lengths: torch.Tensor,
    uniforms: torch.Tensor | None,
    rules: Rules,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Greedy search, beam search, or with `uniforms` (rows, new_tokens) sampling.

    Args:
        ids, lengths: prompts (rows, width) and their lengths (rows,).

    Returns:
        (rows, new_tokens) tokens and (rows,) the first step with scores that are not finite, or -1.
    """
    from transformers import GenerationConfig

    width, decode = ids.shape[1], rules.decode
    used = torch.arange(width, device=ids.device) < lengths[:, None]
    mask = used.flip(1)  # prompts must end together, so padding comes first
    turned = torch.full_like(ids, rules.pad)
    turned[mask] = ids[used]
    model.generation_config = GenerationConfig()  # what a model folder suggests must not change our settings
    watch = Watch(len(ids), ids.device)
    processors: list[Any] = [] if rules.penalty == 1 else [_Penalty(rules.penalty, mask)]
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
            num_beams=int(decode["beams"]),
            do_sample=False,
            length_penalty=float(decode["length_penalty"]),
            eos_token_id=rules.end,
            pad_token_id=rules.pad,
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
        options = float(self.decode["temperature"]), int(self.decode["top_k"]), float(self.decode["top_p"])
        drawn = pick.draw(scores.float(), self.uniforms[:, input_ids.shape[1] - self.prompt_width], *options)
        return torch.full_like(scores, -torch.inf).scatter_(1, drawn[:, None], 0.0)
