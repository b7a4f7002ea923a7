"""What samples still say of the invented world (`--data world`), whose truth is known: figures by policy, and sentences."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from collapse_cli.metrics.counting import counted
from collapse_cli.metrics.intervals import Interval, interval, over_seeds
from collapse_cli.metrics.numbers import alike, percent
from collapse_cli.records.fields import finite, table
from collapse_cli.records.row import Row, by_arm
from collapse_cli.where import Arm

BREEDS = 1000  # more in a row is damage
MOST = 4  # policies that are named beside the first
LONGEST = 60  # characters of a name


@dataclass(frozen=True)
class WorldLeft:
    """What the samples of one arm still say of the world at its last generation.

    Attributes:
        seeds: how many the means are over.
        breeds, facts: how many breeds of dogs are mentioned, and how many facts stated rightly; mean over seeds.
        breeds_of, facts_of: how many as many real documents would mention, and state (expected number).
        breed: the most frequent one in truth.
        share: of all mentions of breeds that are of it.
        truth: the same in truth.
    """

    arm: Arm
    generation: int
    seeds: int
    breeds: Interval
    breeds_of: float
    facts: Interval
    facts_of: float
    breed: str
    share: Interval
    truth: float

    def record(self) -> dict[str, Any]:
        """As JSON."""
        return {
            **self.arm.record(),
            **{name: value for name, value in vars(self).items() if name != "arm"},
            "breeds": self.breeds.record(),
            "facts": self.facts.record(),
            "share": self.share.record(),
        }


def breed_shares(rows: Sequence[Row], tree: Mapping[str, Any]) -> dict[str, float]:
    """The breeds by their true frequency, with their shares of mentions: 1 / rank ** exponent, as the world has them.

    Args:
        rows: of one run, or one policy; the first that counts breeds names them in this order.
        tree: its configuration, for which nobody vouches.

    Returns:
        Nothing where rows count no breeds, or the configuration is not one of a world.
    """
    given: Mapping[str, Any] = next(
        (counts for row in rows if isinstance(counts := row.fields.get("breed_counts"), dict)), {}
    )
    exponent = finite(table(table(tree.get("data")).get("world")).get("breed_exponent"))
    if not 0 < len(given) <= BREEDS or exponent is None:
        return {}
    weights = [(rank + 1) ** -min(max(exponent, 0.0), 10.0) for rank in range(len(given))]
    return {name: weight / sum(weights) for name, weight in zip(given, weights, strict=True)}


def mentions(row: Row, breeds: Sequence[str]) -> dict[str, float]:
    """How often a row's samples mention each breed; none is below 0."""
    counts = table(row.fields.get("breed_counts"))
    return {breed: max(0.0, finite(counts.get(breed)) or 0.0) for breed in breeds}


def world_left(rows: Sequence[Row], tree: Mapping[str, Any]) -> list[WorldLeft]:
    """What is left of the world under each policy, the one with the fewest breeds first; none for other sources.

    The generation and the seeds are those of the diagnosis: the last up to which most is measured.
    """
    truth = breed_shares(rows, tree)
    left = [there for arm, own in by_arm(rows).items() if truth and (there := _of(own, arm, truth)) is not None]
    return sorted(left, key=lambda there: there.breeds.mean)


def world_said(left: Sequence[WorldLeft]) -> list[str]:
    """What was lost, in a sentence on the first policy and one on the others; plain text, nothing where nothing is known.

    The ends of intervals stand behind their means where there are several seeds.
    """
    if not left:
        return []
    first, *others = left
    sure = f"95% intervals over {first.seeds} seeds" if first.seeds > 1 else "one seed: no interval"
    sentences = [
        f"At generation {first.generation} {first.arm} names {_some(first.breeds)} breeds of dogs, where as much real text "
        f"would name {first.breeds_of:.0f}, and states {_some(first.facts)} facts rightly, where it would state "
        f"{first.facts_of:.0f}; {_part(first.share)} of its dogs are {first.breed}s, in truth {percent(first.truth)} ({sure})."
    ]
    if others:
        parts = [_other(there, first) for there in others[:MOST]]
        if len(others) > MOST:
            parts.append(f"{len(others) - MOST} more policies")
        sentences.append(f"{'; '.join(parts)}.")
    return sentences


def _of(rows: Sequence[Row], arm: Arm, truth: Mapping[str, float]) -> WorldLeft | None:
    """Of one policy; None where something of it was not measured."""
    measured: dict[int, dict[int, Row]] = {}
    for row in rows:
        if row.nll is not None:
            measured.setdefault(row.where.generation, {})[row.where.seed] = row
    end = counted(measured)
    if end is None or end[0] == 0:
        return None
    last, seeds = end
    own = [measured[last][seed] for seed in seeds]
    breed = next(iter(truth))
    shares = []
    for row in own:
        counts = mentions(row, list(truth))
        if not (total := sum(counts.values())):
            return None
        shares.append(counts[breed] / total)
    found: dict[str, Interval] = {}
    for name in ("breeds_left", "breeds_expected", "facts_left", "facts_expected"):
        values = [row.measure(name) for row in own]
        known = [value for value in values if value is not None]
        if len(known) < len(values):
            return None
        found[name] = over_seeds(name, known)
    return WorldLeft(
        arm,
        last,
        len(seeds),
        found["breeds_left"],
        found["breeds_expected"].mean,
        found["facts_left"],
        found["facts_expected"].mean,
        breed[:LONGEST],
        interval(shares).within(lambda end: min(1.0, max(0.0, end))),
        truth[breed],
    )


def _some(over: Interval) -> str:
    """A number of things with its interval: 5 (2 to 8)."""
    return _with_ends(over, "{:.0f}".format)


def _part(over: Interval) -> str:
    return _with_ends(over, percent)


def _with_ends(over: Interval, form: Callable[[float], str]) -> str:
    if over.low is None or over.high is None:
        return form(over.mean)
    return f"{form(over.mean)} ({alike(over, seen=True) if over.exact else f'{form(over.low)} to {form(over.high)}'})"


def _other(there: WorldLeft, first: WorldLeft) -> str:
    when = f" at generation {there.generation}" if there.generation != first.generation else ""
    return (
        f"{there.arm}{when} names {_some(there.breeds)} breeds (real text: {there.breeds_of:.0f}) and states "
        f"{_some(there.facts)} facts (real text: {there.facts_of:.0f}), {_part(there.share)} {there.breed}s"
    )
