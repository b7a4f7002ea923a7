"""Policies as values: what `loop.policies` names, parsed when a configuration is validated."""

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from collapse_cli.errors import InputError
from collapse_cli.families.section import Parsed

Rule = Literal["keep", "keep-rows", "fresh", "accumulate", "accumulate-fresh", "accumulate-subsample"]
FRESH: tuple[Rule, ...] = ("fresh", "accumulate-fresh")  # rules that take real rows never used before
SHARED: tuple[Rule, ...] = ("keep", *FRESH)  # rules with a percentage
KEEP_ROWS = "keep-rows-"
ACCUMULATING: dict[str, Rule] = {"accumulate": "accumulate", "accumulate-subsample": "accumulate-subsample"}
SAID_BY_POLICIES = {  # what others have options for
    "mix.real_rows": "keep-rows-500",
    "mix.share": "keep-10",
    "mix.schedule": "keep-50-20-10",
}
PLAIN = r"(0|[1-9][0-9]*)(\.[0-9]+)?"
SHARES = r"(?<=[0-9.])-(?=[0-9])"  # what stands between those of a schedule; not the minus of 1e-05
MOST_SHARES = 30  # of a schedule, whose name stands in tables
KNOWN = (
    "keep-P, fresh-P (P in 0..100, or one for each generation: keep-50-20-10), keep-rows-N, accumulate, "
    "accumulate-fresh-P, accumulate-subsample"
)


@dataclass(frozen=True)
class Policy(Parsed):
    """How generation g's corpus is built from real and synthetic rows.

    Attributes:
        rule: keep: P% of the rows are real, drawn anew each generation from the original corpus, the rest is the
            newest synthetic data. keep-rows: the same `rows` real rows in each generation, the rest as with keep. fresh: P%
            are real rows never used before. accumulate: the original corpus and all synthetic corpora so far.
            accumulate-fresh: the same, but P% of the rows that each generation adds are real rows never used before.
            accumulate-subsample: as many rows as the original corpus, drawn evenly from all of accumulate's.
        percent: P of keep, fresh and accumulate-fresh; of a schedule the last one, which stays.
        before: of a schedule, P of generations 1, 2, ... before that. Empty: P is one for all generations.
        rows: N of keep-rows.
        size: how many rows a generation puts together, or adds where it accumulates; 0: as many as the original corpus has.
        name: as the user wrote it. keep-10 and keep-10.0 are one policy.
    """

    rule: Rule
    percent: float = 0.0
    name: str = field(default="", compare=False)
    before: tuple[float, ...] = ()
    rows: int = 0
    size: int = 0

    def __post_init__(self) -> None:
        before = self.before
        while before and before[-1] == self.percent:
            before = before[:-1]
        object.__setattr__(self, "before", before)
        if not self.name:
            shares = (*before, self.percent) if self.rule in SHARED else ()
            parts = [f"{share!r}".removesuffix(".0") for share in shares] or ([str(self.rows)] if self.rows else [])
            object.__setattr__(self, "name", "-".join([self.rule, *parts]))

    def __str__(self) -> str:
        return self.name

    @property
    def accumulates(self) -> bool:
        return self.rule.startswith("accumulate")

    @property
    def keeps(self) -> bool:
        """Whether its real rows are of the original corpus, each in place of its own continuation."""
        return self.rule.startswith("keep")

    @property
    def shares(self) -> tuple[float, ...]:
        """P of generations 1, 2, ... of rules with a percentage; the last one stays."""
        return (*self.before, self.percent)

    @property
    def draws(self) -> bool:
        """Whether a corpus holds a random part of real rows, or of all rows so far."""
        if self.rule == "keep":
            return any(0 < share < 100 for share in self.shares)
        return self.rule in ("accumulate-subsample", "keep-rows")

    @property
    def mixes(self) -> bool:
        """Whether a corpus may hold both real and synthetic rows."""
        if self.rule == "accumulate-fresh":
            return min(self.shares) < 100
        return self.rule not in SHARED or any(0 < share < 100 for share in self.shares)

    def needs_samples(self, generation: int) -> bool:
        """Whether a generation needs synthetic rows at all; that of keep-100 and fresh-100 does not."""
        return self.rule not in SHARED or self.until(generation).percent < 100

    def real(self, generation: int) -> bool:
        """Whether a corpus of a generation holds real rows."""
        return self.rule not in ("keep", "fresh") or self.until(generation).percent > 0

    def at(self, generation: int) -> "Policy":
        """What it is in one generation, without a schedule. Where fresh rows follow on those taken before: up to that one."""
        past = self.until(generation)
        return past if self.rule in FRESH or not past.before else replace(past, before=(), name="")

    def until(self, generation: int) -> "Policy":
        """What it is up to a generation: without what a schedule says of later ones."""
        if not self.before:
            return self
        share = self.shares[min(max(generation, 1), len(self.shares)) - 1]
        return replace(self, percent=share, before=self.before[: max(generation - 1, 0)], name="")

    def of_size(self, size: int) -> "Policy":
        """The same with so many rows that a generation puts together, or adds."""
        return replace(self, size=size)

    @classmethod
    def parse(cls, text: str) -> "Policy":
        """The policy of a name such as `keep-10`.

        Raises:
            InputError: for an unknown name, P outside 0..100, or a schedule that repeats its end.
        """
        if text.startswith(KEEP_ROWS):
            return cls("keep-rows", name=text, rows=_rows(text))
        for shared in reversed(SHARED):
            if text.startswith(f"{shared}-"):
                written = text.removeprefix(f"{shared}-")
                *before, last = (_percent(text, shared, share) for share in re.split(SHARES, written))
                if before and before[-1] == last:
                    raise InputError(
                        f"policy {text[:80]!r}: the last share stays for all later generations; say it once"
                    )
                if len(before) >= MOST_SHARES:
                    raise InputError(f"policy {text[:40]!r}…: a schedule has at most {MOST_SHARES} shares")
                return cls(shared, last, text, tuple(before))
        if text in ACCUMULATING:
            return cls(ACCUMULATING[text])
        raise InputError(f"there is no policy {text[:80]!r}{_meant(text)}; known: {KNOWN}")

    def params(self) -> dict[str, Any]:
        """What the key of a stage has of it: all but its name. A schedule and numbers of rows only where there are some."""
        more = {"before": list(self.before), "rows": self.rows, "size": self.size}
        return {"rule": self.rule, "percent": self.percent} | {name: value for name, value in more.items() if value}

    @classmethod
    def of(cls, params: Mapping[str, Any]) -> "Policy":
        """The policy that a stage has in its parameters."""
        return cls(**{**params, "before": tuple(params.get("before", ()))})


def of_row(name: object) -> Policy | None:
    """The policy that a row of `metrics.jsonl` names; None where it is none that is known: a later version may have written it."""
    try:
        return Policy.parse(str(name))
    except InputError:
        return None


def percent_kept(name: object) -> float | None:
    """P of keep-P; None of any other policy that a row names, a schedule among them."""
    policy = of_row(name)
    return policy.percent if policy is not None and policy.rule == "keep" and not policy.before else None


def looks_like_a_policy(text: str) -> bool:
    """Whether a text that stands somewhere else was probably meant as a policy."""
    return any(text.startswith(f"{rule}-") for rule in SHARED) or text.startswith("accumulate")


def _percent(text: str, rule: str, share: str) -> float:
    wrong = f"policy {text[:80]!r}: P must be"
    try:
        percent = float(share)
    except ValueError:
        each = "; give each policy a --policy of its own" if re.search(r"[\s,;]\S", share) else ""
        raise InputError(f"{wrong} a number in 0..100, as in {rule}-10{each}") from None
    if not 0 <= percent <= 100:
        raise InputError(f"{wrong} in 0..100, it is {share[:80]}")
    if not re.fullmatch(PLAIN, share) and share != repr(percent):  # or one policy has many names
        raise InputError(f"{wrong} written plainly, as in {rule}-10 or {rule}-0.5")
    return percent


def _rows(text: str) -> int:
    written = text.removeprefix(KEEP_ROWS)
    if not re.fullmatch(r"[1-9][0-9]{0,17}", written):
        none = "; keep-0 keeps none" if written == "0" else ""
        raise InputError(f"policy {text[:80]!r}: N must be a whole number from 1 on, as in {KEEP_ROWS}100{none}")
    return int(written)


def _meant(text: str) -> str:
    """The known name that is near, as a question; empty without one."""
    shares = re.findall(r"(?<![0-9])(?:100|[1-9]?[0-9])(?![0-9])", text[:80])[:1]
    names = [f"{rule}-{share}" for share in shares for rule in SHARED]
    names += ACCUMULATING
    near = difflib.get_close_matches(text[:40], names, n=1)
    return f" (did you mean {near[0]!r}?)" if near else ""
