"""The choice of the next token from logits: penalties, the best candidates, draws with a row's own random number.

All functions take float32 logits (rows, vocabulary) and may write into them.
"""

import torch

BLOCK = 64  # tokens whose maximum is taken together when the best of a vocabulary are looked for
SUM_BLOCK = 256  # tokens whose probabilities are summed together when one is drawn
COLD = 1e-20  # temperatures below it could make logits infinite
COLDEST = 1e-30  # draws the likeliest tokens only, as any temperature below it would
LIKELY = 1024  # candidates of top-p sampling; more are sorted only for rows that need them


def penalize(scores: torch.Tensor, seen: torch.Tensor, penalty: float) -> None:
    """Repetition penalty (Keskar et al. 2019) for the tokens `seen` (rows, n), in place.

    Of logits, and in beam search of log-probabilities, as in transformers.
    """
    raw = scores.gather(1, seen)
    most = torch.finfo(scores.dtype).max  # extreme penalties must not make infinite what was finite
    penalized = torch.where(raw < 0, raw * penalty, raw / penalty)
    scores.scatter_(1, seen, torch.where(raw.isfinite(), penalized.nan_to_num(0.0).clamp(-most, most), raw))


def log_softmax_(logits: torch.Tensor) -> torch.Tensor:
    """Log-probabilities in place of the logits; no number is left in a row with a logit that is not finite."""
    return torch.log_softmax(logits, dim=1, out=logits)


def best(scores: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The `count` best scores of each row and their columns, best first, both (rows, count).

    The best of all are among those blocks of columns that have the best maxima, so only these are looked through.
    """
    rows, width = scores.shape
    count = min(count, width)
    blocks = width // BLOCK
    if blocks < 4 * count:
        return torch.topk(scores, count, dim=1)
    whole, inside = blocks * BLOCK, torch.arange(BLOCK, device=scores.device)
    if scores.device.type == "cpu":
        chosen = torch.topk(scores[:, :whole].view(rows, blocks, BLOCK).amax(dim=2), count, dim=1).indices
        columns = (chosen[:, :, None] * BLOCK + inside).flatten(1)
    else:  # a GPU is several times faster when neighbours in memory are of different blocks
        chosen = torch.topk(scores[:, :whole].view(rows, BLOCK, blocks).amax(dim=1), count, dim=1).indices
        columns = (chosen[:, :, None] + inside * blocks).flatten(1)
    rest = torch.arange(whole, width, device=scores.device).expand(rows, -1)
    columns = torch.cat([columns, rest], dim=1)
    top = torch.topk(scores.gather(1, columns), count, dim=1)
    return top.values, columns.gather(1, top.indices)


def log_mass(logits: torch.Tensor) -> torch.Tensor:
    """(rows, 1) logarithm of the summed exponentials; not finite when a logit is not."""
    top = logits.amax(dim=1, keepdim=True)
    return (logits - top).exp_().sum(dim=1, keepdim=True).log_() + top


def draw(
    logits: torch.Tensor, uniform: torch.Tensor, temperature: float, top_k: int, top_p: float, min_p: float = 0.0
) -> torch.Tensor:
    """(rows,) tokens, drawn with `uniform` (rows,) float64 in [0, 1) from what temperature, top-k, top-p and min-p leave.

    Min-p leaves the tokens that are at least `min_p` times as probable as the likeliest one (Nguyen et al., arXiv 2407.01082).
    """
    if temperature < COLD:  # the quotients could be infinite, but of their differences only small ones matter
        logits.sub_(logits.amax(dim=1, keepdim=True))
        temperature = max(temperature, COLDEST)
    scores = logits.div_(temperature) if temperature != 1.0 else logits
    if top_k > 0:
        values, columns = best(scores, top_k)
        mass = (values - values[:, :1]).exp_()
        kept = _nucleus(mass, mass.sum(dim=1, keepdim=True), top_p) & (mass >= min_p)
        return _among(mass, columns, kept, uniform)
    if top_p < 1.0:
        values, columns = best(scores, LIKELY)
        mass = (values - values[:, :1]).exp_()
        total = (log_mass(scores) - values[:, :1]).exp_()
        if not bool((mass.sum(dim=1, keepdim=True) >= top_p * total).all()):
            values, columns = scores.sort(dim=1, descending=True)
            mass = (values - values[:, :1]).exp_()
        return _among(mass, columns, _nucleus(mass, total, top_p) & (mass >= min_p), uniform)
    mass = scores.sub_(scores.amax(dim=1, keepdim=True)).exp_()
    return invert(mass.masked_fill_(mass < min_p, 0.0) if min_p else mass, uniform)


def _nucleus(mass: torch.Tensor, total: torch.Tensor, top_p: float) -> torch.Tensor:
    """Which of the tokens, likeliest first, are needed for a share top_p of the total (Holtzman et al. 2020)."""
    before = mass.cumsum(dim=1, dtype=torch.float64) - mass
    kept = before < top_p * total
    kept[:, 0] = True
    return kept


def _among(mass: torch.Tensor, columns: torch.Tensor, kept: torch.Tensor, uniform: torch.Tensor) -> torch.Tensor:
    """One of `columns`, with the probabilities of `mass` where `kept`."""
    ends = (mass * kept).cumsum(dim=1, dtype=torch.float64)
    place = torch.searchsorted(ends, uniform[:, None] * ends[:, -1:], right=True)
    # rounding must not draw what has no probability: stay at or before the last token that has some
    last = (kept & (mass > 0)).to(torch.int8).cumsum(dim=1, dtype=torch.int64).amax(dim=1, keepdim=True) - 1
    return columns.gather(1, torch.minimum(place, last.clamp_(min=0))).squeeze(1)


def invert(mass: torch.Tensor, uniform: torch.Tensor) -> torch.Tensor:
    """The first index at which the running sum of `mass` (rows, n) exceeds `uniform` (rows,) times its total.

    In two steps, blocks and then within one block: a running sum over a whole vocabulary is slow, and not exact.
    """
    rows, count = mass.shape
    whole = count // SUM_BLOCK * SUM_BLOCK
    parts = [mass[:, :whole].reshape(rows, -1, SUM_BLOCK).sum(dim=2), mass[:, whole:].sum(dim=1, keepdim=True)]
    sums = torch.cat(parts, dim=1).double()
    ends = sums.cumsum(dim=1)
    point = uniform[:, None] * ends[:, -1:]
    block = torch.searchsorted(ends, point, right=True).clamp_(max=sums.shape[1] - 1)
    columns = block * SUM_BLOCK + torch.arange(SUM_BLOCK, device=mass.device)
    inside = mass.gather(1, columns.clamp(max=count - 1)).double().masked_fill_(columns >= count, 0.0)
    point = (point - (ends.gather(1, block) - sums.gather(1, block))).clamp_(min=0)
    # rounding must not draw what has no probability: stay at or before the last token that has some
    last = torch.where(inside > 0, torch.arange(SUM_BLOCK, device=mass.device), 0).amax(dim=1, keepdim=True)
    within = torch.searchsorted(inside.cumsum(dim=1), point, right=True)
    return (block * SUM_BLOCK + torch.minimum(within, last)).squeeze(1)
