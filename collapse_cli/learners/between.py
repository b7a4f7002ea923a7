"""What is measured between lineages: each model on the real text and on the samples of every other, how alike they are, and
what they predict together. One generation of one policy and seed.

Text, not tokens, is what lineages have in common. Where their tokenizers are equal, the same rows of tokens are given to both;
else text is encoded again, row by row, and only bits per byte compare.

Memory: the weights of one model; of two while they are held against each other, with a part of their logits (`lm.divergence`);
eight bytes for each token of the text and model.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from collapse_cli.data.dataset import MASK, Dataset
from collapse_cli.engine import checkpoint as checkpoints
from collapse_cli.learners import text_measures
from collapse_cli.learners.continuations import spaced
from collapse_cli.learners.protocol import TOKENIZER, Comparable, Facts, Tell
from collapse_cli.learners.translation import in_tokens_of
from collapse_cli.lm import text as texts
from collapse_cli.metrics import likeness, perplexity

ROWS = 500  # of the own text and of the samples of a lineage, that the models of all score
TOKENS = 8192  # at which models are held against each other
UNKNOWN: Facts = {"nll": None, "predicted": 0, "tokens": 0, "bytes": 0}  # losses of a text that could not be had
MOST = 1 << 30  # tokens of a row that is read in other ones: it is cut afterwards


@dataclass(frozen=True)
class Member:
    """A lineage, as it stands at a generation.

    Attributes:
        model: the folder of its model; equal models are looked at once.
        make: its learner, with that model.
        encoded: the folder of its data stage, with its tokenizer.
        most: tokens of a row that its model takes.
        test: the common test text in its tokens.
        own: real rows of its own.
        own_text: which text those are of: equal where two lineages have the same.
        samples, prompts: what its model made, and the rows that it continued; None where it is not sampled.
    """

    model: Path
    make: Callable[[], Comparable]
    encoded: Path
    most: int
    test: Dataset
    own: Dataset
    own_text: str
    samples: Dataset | None = None
    prompts: Dataset | None = None

    @cached_property
    def tokens(self) -> str:
        """A digest of what its tokens stand for: equal where two tokenizers have the same ones under the same ids."""
        known = texts.load_tokenizer(self.encoded / TOKENIZER).get_vocab()
        return hashlib.sha256(json.dumps(sorted(known.items())).encode()).hexdigest()


@dataclass(frozen=True)
class Shown:
    """Rows of a text as a model is given them.

    Attributes:
        rows: in its tokens.
        tokens, size: how many of its tokens count, and the bytes of their text in UTF-8: of dialogues of what an assistant says.
    """

    rows: Dataset
    tokens: int
    size: int


def measure(members: Mapping[str, Member], scratch: Path, tell: Tell) -> dict[str, Facts]:
    """The fields that lineages have in `metrics.jsonl` because there are several, by name.

    Args:
        scratch: where what was found of each model and of each pair is kept, so that a kill loses one of them.
    """
    return _Comparison(members, scratch, tell).measured()


class _Comparison:
    def __init__(self, members: Mapping[str, Member], scratch: Path, tell: Tell) -> None:
        self.members, self.scratch = members, scratch
        self.names = list(members)
        # the own texts that there are, each with the lineage whose rows of it are taken: the first that has it
        self.texts: dict[str, str] = {}
        for name, member in members.items():
            self.texts.setdefault(member.own_text, name)
        if len(self.texts) == 1:
            self.texts = {}  # each has the same
        self.pairs = [
            (one, other)
            for one, other in combinations(self.names, 2)
            if self._reads_as(one, other) and members[one].model != members[other].model
        ]
        self._done, self._tell = 0, tell
        self._held: tuple[str, Comparable] | None = None  # the first model of the pair at work

    def measured(self) -> dict[str, Facts]:
        alone = {name: self._kept(f"model-{number:05d}", self._alone, name) for number, name in enumerate(self.names)}
        apart = {
            pair: self._kept(f"pair-{number:05d}", self._apart, *pair)[1] for number, pair in enumerate(self.pairs)
        }
        return {name: self._fields(name, alone, apart) for name in self.names}

    # --- one model, and two -------------------------------------------------------------------------------------------

    def _alone(self, name: str) -> tuple[dict[str, np.ndarray], Facts]:
        """Losses of tokens of the common test text; sums over those of each own text, and of the samples of all."""
        member = self.members[name]
        same = next((other for other in self.names[: self.names.index(name)] if self._equal(name, other)), None)
        if same is not None:
            return self._read(self.names.index(same))
        learner, on, samples = member.make(), {}, {}
        found = learner.token_losses(self._test(name))
        arrays = {"nll": found[~np.isnan(found)]}
        for text, owner in self.texts.items():
            made = self.members[owner]
            some = spaced(len(made.own), min(ROWS, len(made.test)))
            shown = self._shown(made.own.take(some), owner, name)
            on[text] = (
                UNKNOWN if shown is None else _summed(learner.token_losses(shown.rows), learner.unseen_nll, shown)
            )
        for other, made in self.members.items():
            if made.samples is not None and made.prompts is not None:
                samples[other] = self._of_samples(learner, name, other)
        return arrays, {"own_texts": on, "samples": samples, "unseen_nll": _finite(learner.unseen_nll)}

    def _equal(self, one: str, other: str) -> bool:
        """Whether two lineages have one model that reads in one way."""
        mine, theirs = self.members[one], self.members[other]
        return mine.model == theirs.model and (mine.encoded, mine.most) == (theirs.encoded, theirs.most)

    def _of_samples(self, learner: Comparable, name: str, other: str) -> Facts:
        """What a model finds of another's samples, as `_summed` has it, and of how many."""
        made = self.members[other]
        assert made.samples is not None
        assert made.prompts is not None
        filled = np.flatnonzero(made.samples.arrays["lengths"] > 0)
        some = filled[spaced(len(filled), ROWS)]
        prompts, new = made.prompts.take(some), made.samples.take(some)
        size: float = _bytes(text_measures.spoken(new, made.encoded))
        if not self._reads_as(name, other) or _longest(prompts, new) > self.members[name].most:
            prompts, new, kept = self._fitted(prompts, new, other, name)
            # of other tokens, what is scored: on the way there, what is no text (U+FFFD at the ends) is left out
            size = (
                size * kept
                if self._reads_as(name, other)
                else _bytes(text_measures.spoken(new, self.members[name].encoded))
            )
        nll, predicted = learner.continuation_losses(prompts, new)
        counts = {"predicted": int(predicted.sum()), "tokens": int(new.arrays["lengths"].sum()), "bytes": round(size)}
        return {"nll": _finite(float(nll.sum())), **counts, "rows": len(some)}

    def _apart(self, one: str, other: str) -> tuple[dict[str, np.ndarray], Facts]:
        """The Jensen-Shannon distance of two models on the common test text."""
        rows = self._test(one)
        lengths = rows.arrays["lengths"]
        some = spaced(len(rows), max(1, int(TOKENS / max(1.0, float(np.mean(lengths))))))
        if self._held is None or self._held[0] != one:
            self._held = None  # before another one is loaded
            self._held = one, self.members[one].make()
        found = self._held[1].divergences(self.members[other].make(), rows.take(some))
        found = found[~np.isnan(found)]
        return {}, {"distance": likeness.distance(found), "tokens": len(found)}

    # --- text in the tokens of a lineage ------------------------------------------------------------------------------

    def _width(self, name: str) -> int:
        """Tokens of a row that all models with the tokenizer of a lineage take: they are given the same rows."""
        own = self.members[name].tokens
        return min(member.most for member in self.members.values() if member.tokens == own)

    def _test(self, name: str) -> Dataset:
        """The common test text, one for all models that read the same tokens."""
        first = next(other for other in self.names if self._reads_as(name, other))
        return _cut(self.members[first].test, self._width(name))

    def _shown(self, rows: Dataset, owner: str, name: str) -> Shown | None:
        """Rows of one lineage as the model of another is given them; None of dialogues in other tokens, where it is not known who says what."""
        made, width = self.members[owner], self._width(name)
        counted = [ids[there] for ids, there in zip(rows.arrays["tokens"], rows.counted, strict=True)]
        size = _bytes(text_measures.spoken(_rows_of(counted, max(1, *map(len, counted))), made.encoded))
        if self._reads_as(owner, name):
            return Shown(_cut(rows, width), sum(map(len, counted)), size)
        if MASK in rows.arrays:
            return None
        translated = _rows_of(self._translated(rows, owner, name), width)
        return Shown(translated, int(translated.arrays["lengths"].sum()), size)

    def _translated(self, rows: Dataset, owner: str, name: str) -> list[np.ndarray]:
        """Rows of one lineage in the tokens of another, all of each."""
        made, _ = in_tokens_of(rows, self.members[owner].encoded, self.members[name].encoded, MOST)
        return text_measures.used(made)

    def _fitted(self, prompts: Dataset, new: Dataset, owner: str, name: str) -> tuple[Dataset, Dataset, float]:
        """Prompts and continuations as another lineage's model takes them, and what share of the continuations' tokens that is.

        What is too long is cut: of a continuation its end, of a prompt its beginning.
        """
        member, alike = self.members[name], self._reads_as(owner, name)
        both = [text_measures.used(rows) if alike else self._translated(rows, owner, name) for rows in (prompts, new)]
        begin = texts.bos_id(texts.load_tokenizer(member.encoded / TOKENIZER))
        kept = [ids[: member.most - 1] for ids in both[1]]
        starts = [
            ids[max(0, len(ids) + len(rest) - member.most) :] if len(ids) else np.array([begin or 0], np.int32)
            for ids, rest in zip(both[0], kept, strict=True)
        ]
        share = sum(map(len, kept)) / max(1, sum(map(len, both[1])))
        return _rows_of(starts, member.most), _rows_of(kept, member.most), share

    # --- what is kept -------------------------------------------------------------------------------------------------

    def _kept(
        self, part: str, work: Callable[..., tuple[dict[str, np.ndarray], Facts]], *names: str
    ) -> tuple[dict[str, np.ndarray], Facts]:
        path = self.scratch / f"{part}.safetensors"
        made = checkpoints.take_up(path)
        if made is None:
            made = work(*names)
            checkpoints.keep(path, *made)
        self._done += 1
        self._tell(self._done, len(self.names) + len(self.pairs), "parts")
        return made

    def _read(self, number: int) -> tuple[dict[str, np.ndarray], Facts]:
        made = checkpoints.take_up(self.scratch / f"model-{number:05d}.safetensors")
        assert made is not None, "written just now"
        return made

    # --- fields -------------------------------------------------------------------------------------------------------

    def _fields(
        self,
        name: str,
        alone: Mapping[str, tuple[Mapping[str, np.ndarray], Facts]],
        apart: Mapping[tuple[str, str], Facts],
    ) -> Facts:
        own, alike = alone[name][1], [other for other in self.names if self._reads_as(name, other)]
        fields: Facts = {}
        if self.texts:
            on = {other: own["own_texts"][made.own_text] for other, made in self.members.items()}
            fields["nll_on"] = {other: _loss(found) for other, found in on.items()}
            fields["bits_per_byte_on"] = {other: _bits_per_byte(found) for other, found in on.items()}
        if own["samples"]:
            cross = {other: _perplexity(found) for other, found in own["samples"].items()}
            fields["cross_perplexity"] = cross
            fields["cross_bits_per_byte"] = {other: _bits_per_byte(found) for other, found in own["samples"].items()}
            fields["others_perplexity"] = likeness.geometric_mean([cross[other] for other in cross if other != name])
        tokens = 0
        if len(alike) > 1:
            to = {}
            for other in alike:
                found = apart.get((name, other)) or apart.get((other, name))
                if found is not None:
                    to[other], tokens = found["distance"], found["tokens"]
                elif other != name:
                    to[other] = 0.0  # they have one model
            fields["js_distance_to"], fields["js_distance"] = to, likeness.mean(list(to.values()))
            fields |= _mixed([alone[other] for other in alike])
        fields["between"] = {
            "test_tokens": len(alone[name][0]["nll"]),
            "js_tokens": tokens,
            "sample_rows": max((found["rows"] for found in own["samples"].values()), default=0),
        }
        return fields

    def _reads_as(self, one: str, other: str) -> bool:
        """Whether two lineages read the same tokens, and their models can be held against each other."""
        return self.members[one].tokens == self.members[other].tokens


def _cut(rows: Dataset, width: int) -> Dataset:
    """Rows in pieces of `width` tokens at most; as they are where none is longer."""
    if int(rows.arrays["lengths"].max(initial=0)) <= width:
        return rows
    made = _rows_of(text_measures.used(rows), width)
    if MASK not in rows.arrays:
        return made
    pairs = zip(rows.arrays[MASK], rows.arrays["lengths"], strict=True)
    counted = _rows_of([there[:length].astype(np.int32) for there, length in pairs], width)
    return Dataset({**made.arrays, MASK: counted.arrays["tokens"] > 0}, made.origin)


def _rows_of(coded: Sequence[np.ndarray], width: int) -> Dataset:
    """Texts as rows of `width` tokens at most, the longer ones in pieces; of no text a row without tokens."""
    pieces = [ids[first : first + width] for ids in coded for first in range(0, max(1, len(ids)), width)]
    return Dataset.of_tokens(pieces)


def _longest(prompts: Dataset, new: Dataset) -> int:
    return int((prompts.arrays["lengths"].astype(np.int64) + new.arrays["lengths"]).max(initial=0))


def _bytes(spoken: Sequence[str]) -> int:
    return sum(len(text.encode()) for text in spoken)


def _summed(losses: np.ndarray, unseen: float, shown: Shown) -> Facts:
    """Losses of a text: their sum in nats (None where it is not finite), how many, all its tokens, and its bytes.

    Args:
        losses: as `Comparable.token_losses` gives them.
    """
    predicted = losses[~np.isnan(losses)]
    total = float(np.where(np.isinf(predicted), unseen, predicted).sum())
    return {"nll": _finite(total), "predicted": len(predicted), "tokens": shown.tokens, "bytes": shown.size}


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None


def _loss(found: Facts) -> float | None:
    """Nats per predicted token."""
    return None if found["nll"] is None or not found["predicted"] else found["nll"] / found["predicted"]


def _perplexity(found: Facts) -> float | None:
    loss = _loss(found)
    return None if loss is None else perplexity(loss)


def _bits_per_byte(found: Facts) -> float | None:
    loss = _loss(found)
    return None if loss is None or not found["bytes"] else likeness.bits_per_byte(loss, found["tokens"], found["bytes"])


def _mixed(models: Sequence[tuple[Mapping[str, np.ndarray], Facts]]) -> Facts:
    """The mixture of models that read the same rows of tokens."""
    nll = np.stack([arrays["nll"] for arrays, _ in models])
    seen = np.isfinite(nll)
    unseen = np.array([np.inf if facts["unseen_nll"] is None else facts["unseen_nll"] for _, facts in models])
    nll = np.where(seen, nll, unseen[:, None])
    if nll.shape[1] == 0 or not np.isfinite(nll).all():
        return {}
    facts: dict[str, Any] = likeness.mixture_measures(nll)
    if np.isfinite(unseen).all():  # models that may give a token no probability at all
        facts["mixture_unseen_share"] = float((~seen).all(axis=0).mean())
    return facts
