"""From prompts to new tokens: greedy search and sampling token by token, and beam search."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

from collapse_cli.config.tree import DecodeConfig
from collapse_cli.lm import pick
from collapse_cli.lm.decode import Decoder

WORTH_DROPPING = 0.75  # rows that are over are dropped when no more than this share of those at work would be left
LEAST_ROWS = 16  # matrix products of fewer rows round in another way
NEVER = -1e9  # the score of what must not win, as in transformers: finite, so that sums of it stay numbers


@dataclass(frozen=True)
class Rules:
    """How rows are continued.

    Attributes:
        decode: how the next token is chosen.
        new_tokens, least: at most, and before an end-of-text token may come.
        end: the end-of-text token, after which a row is over; None when there is none.
        pad: what stands after it.
    """

    decode: DecodeConfig
    new_tokens: int
    least: int
    end: int | None
    pad: int

    @property
    def penalty(self) -> float:
        return self.decode.repetition_penalty


class SeenTokens:
    """The tokens a repetition penalty is for: the prompt, and what was written so far."""

    def __init__(self, ids: torch.Tensor, lengths: torch.Tensor) -> None:
        inside = torch.arange(ids.shape[1], device=ids.device) < lengths[:, None]
        self.prompt = torch.where(inside, ids, ids[:, :1])  # the first token again: twice the same changes nothing

    def of(self, written: torch.Tensor) -> torch.Tensor:
        """(rows * beams, tokens) for `written` (rows, beams, t)."""
        prompt = self.prompt[:, None].expand(-1, written.shape[1], -1)
        return torch.cat([prompt, written], dim=2).flatten(0, 1)


class Watch:
    """The first step at which a row's logits were not finite; -1 while they all are. Read once, at the end."""

    def __init__(self, rows: int, device: torch.device) -> None:
        self.bad = torch.full((rows,), -1, device=device)

    def see(self, step: int, mass: torch.Tensor) -> None:
        """`mass` (rows or rows * beams,): a number for each row that is finite when its logits are."""
        finite = torch.isfinite(mass).view(len(self.bad), -1).all(dim=1)
        self.bad = torch.where((self.bad < 0) & ~finite, step, self.bad)


def pieces(states: torch.Tensor, at_once: int) -> Iterator[tuple[slice, torch.Tensor]]:
    """Hidden states (n, d), about `at_once` at a time: a small rest would be multiplied, and rounded, in another way."""
    first = 0
    for part in states.tensor_split(max(1, round(len(states) / at_once))):
        yield slice(first, first + len(part)), part
        first += len(part)


def left(over: torch.Tensor, least: int) -> torch.Tensor | None:
    """(n,) which rows to go on with, at least so many; None where it is not worth while to drop those that are `over` (rows,).

    Never on a GPU, which records steps for one number of rows.
    """
    if over.device.type != "cpu":
        return None
    count = max(int((~over).sum()), least)
    if count > WORTH_DROPPING * len(over):
        return None
    return torch.argsort(over.to(torch.int8), stable=True)[:count].sort().values


class _Working:
    """The rows of a batch that are still at work; of what `one_by_one` knows of them, their part.

    Rows that are over are dropped now and then, for they cost as much as the others. A row comes out the same in every
    batch, so none is changed by that.
    """

    def __init__(self, new: torch.Tensor, uniforms: torch.Tensor | None, history: SeenTokens) -> None:
        """All rows of a batch: `new` (rows, new_tokens) as they begin."""
        rows, device = len(new), new.device
        self.who = torch.arange(rows, device=device)  # their places in the batch
        self.new, self.uniforms, self.history, self.watch = new.clone(), uniforms, history, Watch(rows, device)
        self.over = torch.zeros(rows, dtype=torch.bool, device=device)

    def put(self, new: torch.Tensor, bad: torch.Tensor) -> None:
        """Write what was found of them into what is found of all."""
        new[self.who], bad[self.who] = self.new, self.watch.bad

    def drop_all_but(self, kept: torch.Tensor, new: torch.Tensor, bad: torch.Tensor) -> None:
        """Go on with these of them (n,); what was found so far is put away for all."""
        self.put(new, bad)
        self.who, self.new, self.over = self.who[kept], self.new[kept], self.over[kept]
        self.uniforms = None if self.uniforms is None else self.uniforms[kept]
        self.history.prompt = self.history.prompt[kept]
        self.watch.bad = self.watch.bad[kept]


def one_by_one(
    decoder: Decoder,
    ids: torch.Tensor,
    lengths: torch.Tensor,
    uniforms: torch.Tensor | None,
    rules: Rules,
    at_once: int,
    tell: Callable[[int], None],
) -> tuple[torch.Tensor, torch.Tensor]:
    """Greedy search, or with `uniforms` (rows, new_tokens) sampling.

    Args:
        ids, lengths: prompts (rows, width) and their lengths (rows,).
        at_once: rows whose logits are held together.
        tell: called with the number of tokens each row has so far.

    Returns:
        (rows, new_tokens) tokens and (rows,) the first step with logits that are not finite, or -1.
    """
    rows, device, decode = len(ids), ids.device, rules.decode
    new = torch.full((rows, rules.new_tokens), rules.pad, device=device)
    bad = torch.full((rows,), -1, device=device)
    work = _Working(new, uniforms, SeenTokens(ids, lengths))
    can_end = rules.end is not None and rules.least < rules.new_tokens
    states = decoder.read(ids, lengths)
    for step in range(rules.new_tokens):
        count = len(work.who)
        seen = work.history.of(work.new[:, None, :step]) if rules.penalty != 1.0 else None
        tokens, mass = torch.empty(count, dtype=torch.int64, device=device), torch.empty(count, device=device)
        for part, some in pieces(states, at_once):
            logits = decoder.logits(some)
            mass[part] = logits.sum(dim=1)
            if seen is not None:
                pick.penalize(logits, seen[part], rules.penalty)
            if rules.end is not None and step < rules.least:
                logits[:, rules.end] = -torch.inf
            if work.uniforms is None:
                tokens[part] = logits.argmax(dim=1)
            else:
                options = decode.temperature, decode.top_k, decode.top_p, decode.min_p
                tokens[part] = pick.draw(logits, work.uniforms[part, step], *options)
        work.watch.see(step, mass)
        tokens = torch.where(work.over, rules.pad, tokens)
        work.new[:, step] = tokens
        tell(step + 1)
        if can_end:
            work.over |= tokens == rules.end
            if bool(work.over.all()):
                break
            if step + 1 < rules.new_tokens and (kept := left(work.over, LEAST_ROWS)) is not None:
                work.drop_all_but(kept, new, bad)
                decoder.keep(kept)
                tokens = tokens[kept]
        if step + 1 < rules.new_tokens:
            states = decoder.step(tokens[:, None])
    work.put(new, bad)
    return new, bad


def beam_search(
    decoder: Decoder,
    ids: torch.Tensor,
    lengths: torch.Tensor,
    rules: Rules,
    at_once: int,
    tell: Callable[[int], None],
) -> tuple[torch.Tensor, torch.Tensor]:
    """Beam search as transformers' `generate` does it, with early_stopping = False; arguments as `one_by_one`."""
    rows, beams, device = len(ids), decoder.beams, ids.device
    history, watch = SeenTokens(ids, lengths), Watch(rows, device)
    written = torch.full((rows, beams, rules.new_tokens), rules.pad, device=device)
    scores = torch.zeros(rows, 1, device=device)
    done = FinishedBeams(rows, beams, rules, device)
    can_end = rules.end is not None and rules.least < rules.new_tokens
    who = torch.arange(rows, device=device)  # the rows that are at work
    new, bad = written[:, 0].clone(), watch.bad
    states = decoder.read(ids, lengths)
    for step in range(rules.new_tokens):
        rows, now = len(who), scores.shape[1]  # one beam at first
        seen = history.of(written[:, :now, :step]) if rules.penalty != 1.0 else None
        gains, columns = _candidates(decoder, states, seen, step, rules, at_once, watch)
        totals = (gains.view(rows, now, -1) + scores[:, :, None]).flatten(1)
        totals, chosen = totals.topk(min(2 * beams, totals.shape[1]), dim=1)
        parents = chosen // gains.shape[1]
        tokens = columns.view(rows, -1).gather(1, chosen)
        longer = written.gather(1, parents[:, :, None].expand(-1, -1, rules.new_tokens))
        longer[:, :, step] = tokens
        ends = tokens == rules.end if rules.end is not None else torch.zeros_like(tokens, dtype=torch.bool)
        if step + 1 == rules.new_tokens:
            ends = torch.ones_like(ends)
        done.add(step, longer, totals, ends)
        scores, kept = (totals + ends * NEVER).topk(beams, dim=1)
        done.look_ahead(step, scores)
        tell(step + 1)
        if step + 1 == rules.new_tokens or (can_end and done.complete()):
            break
        written = longer.gather(1, kept[:, :, None].expand(-1, -1, rules.new_tokens))
        tokens, parents = tokens.gather(1, kept), parents.gather(1, kept)
        if can_end and (rest := left(~done.open[:, 0], -(-LEAST_ROWS // beams))) is not None:
            new[who], bad[who] = done.sequences[:, 0], watch.bad
            who, written, scores, tokens, parents = (each[rest] for each in (who, written, scores, tokens, parents))
            history.prompt, watch.bad = history.prompt[rest], watch.bad[rest]
            done.keep(rest)
            decoder.keep(rest)
        states = decoder.step(tokens, parents)
    new[who], bad[who] = done.sequences[:, 0], watch.bad
    return new, bad


def _candidates(
    decoder: Decoder,
    states: torch.Tensor,
    seen: torch.Tensor | None,
    step: int,
    rules: Rules,
    at_once: int,
    watch: Watch,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The best log-probabilities after each of `states` (n, d) and their tokens, both (n, 2 * beams)."""
    gains, columns = [], []
    for part, some in pieces(states, at_once):
        odds = pick.log_softmax_(decoder.logits(some))
        if seen is not None:
            pick.penalize(odds, seen[part], rules.penalty)
        if rules.end is not None and step < rules.least:
            odds[:, rules.end] = -torch.inf
        values, tokens = pick.best(odds, 2 * decoder.beams)
        gains.append(values)
        columns.append(tokens)
    watch.see(step, gains[0][:, 0] if len(gains) == 1 else torch.cat([best[:, 0] for best in gains]))
    return torch.cat(gains), torch.cat(columns)


class FinishedBeams:
    """The best sequences of each row that are over, and whether it can still get better ones."""

    def __init__(self, rows: int, beams: int, rules: Rules, device: torch.device) -> None:
        self.beams, self.power = beams, rules.decode.length_penalty
        self.sequences = torch.full((rows, beams, rules.new_tokens), rules.pad, device=device)
        self.scores = torch.full((rows, beams), NEVER, device=device)
        self.over = torch.zeros(rows, beams, dtype=torch.bool, device=device)
        self.open = torch.ones(rows, 1, dtype=torch.bool, device=device)

    def add(self, step: int, sequences: torch.Tensor, totals: torch.Tensor, ends: torch.Tensor) -> None:
        """Take in those of the candidates (rows, 2 * beams), best first, that end and are among the `beams` best."""
        just = ends & (torch.arange(ends.shape[1], device=ends.device) < self.beams)
        scores = totals / (step + 1) ** self.power + (~self.open) * NEVER + (~just) * NEVER
        merged = torch.cat([self.scores, scores], dim=1)
        self.scores, chosen = merged.topk(self.beams, dim=1)
        wide = chosen[:, :, None].expand(-1, -1, sequences.shape[2])
        self.sequences = torch.cat([self.sequences, sequences], dim=1).gather(1, wide)
        self.over = torch.cat([self.over, just], dim=1).gather(1, chosen)

    def look_ahead(self, step: int, scores: torch.Tensor) -> None:
        """Close the rows whose best running beam (`scores` (rows, beams)) is worse than all that are finished."""
        reachable = scores[:, :1] / (step + 1) ** self.power
        worst = torch.where(self.over, self.scores.amin(dim=1, keepdim=True), NEVER)
        self.open &= (reachable > worst).any(dim=1, keepdim=True)

    def keep(self, rows: torch.Tensor) -> None:
        """Go on with these rows (n,) alone."""
        self.sequences, self.scores = self.sequences[rows], self.scores[rows]
        self.over, self.open = self.over[rows], self.open[rows]

    def complete(self) -> bool:
        return not bool(self.open.any())
