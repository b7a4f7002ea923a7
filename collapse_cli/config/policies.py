"""Policies as values: what `loop.policies` names, parsed when a configuration is validated."""

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from collapse_cli.errors import InputError
from collapse_cli.families.section import Parsed

Rule = Literal["keep", "fresh", "accumulate", "accumulate-subsample"]
SHARED = ("keep", "fresh")  # rules with a percentage
ACCUMULATING: dict[str, Rule] = {"accumulate": "accumulate", "accumulate-subsample": "accumulate-subsample"}
PLAIN = r"(0|[1-9][0-9]*)(\.[0-9]+)?"
KNOWN = "keep-P, fresh-P (P in 0..100), accumulate, accumulate-subsample"


@dataclass(frozen=True)
class Policy(Parsed):
    """How generation g's corpus is built from real and synthetic rows.

    Attributes:
        rule: keep: P% of the rows are real, drawn anew each generation from the original corpus, the rest is the
            newest synthetic data. fresh: P% are real rows never used before. accumulate: the original corpus and
            all synthetic corpora so far. accumulate-subsample: as many rows as the original corpus, drawn evenly
            from all of these.
        percent: P of keep and fresh.
        name: as the user wrote it. keep-10 and keep-10.0 are one policy.
    """

    rule: Rule
    percent: float = 0.0
    name: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        if not self.name:
            share = f"-{self.percent!r}".removesuffix(".0") if self.rule in SHARED else ""
            object.__setattr__(self, "name", f"{self.rule}{share}")

    def __str__(self) -> str:
        return self.name

    @property
    def accumulates(self) -> bool:
        return self.rule.startswith("accumulate")

    @property
    def draws(self) -> bool:
        """Whether a corpus holds a random part of real rows, or of all rows so far."""
        return self.rule == "accumulate-subsample" or (self.rule == "keep" and 0 < self.percent < 100)

    @property
    def needs_samples(self) -> bool:
        """Whether a generation needs synthetic rows at all; keep-100 and fresh-100 do not."""
        return self.accumulates or self.percent < 100

    @classmethod
    def parse(cls, text: str) -> "Policy":
        """The policy of a name such as `keep-10`.

        Raises:
            InputError: for an unknown name, or P outside 0..100.
        """
        rule, dash, share = text.partition("-")
        if rule == "keep" and dash:
            return cls("keep", _percent(text, rule, share), text)
        if rule == "fresh" and dash:
            return cls("fresh", _percent(text, rule, share), text)
        if text in ACCUMULATING:
            return cls(ACCUMULATING[text])
        raise InputError(f"there is no policy {text[:80]!r}{_meant(text)}; known: {KNOWN}")

    def params(self) -> dict[str, Any]:
        """What the key of a stage has of it: all but its name."""
        return {"rule": self.rule, "percent": self.percent}

    @classmethod
    def of(cls, params: Mapping[str, Any]) -> "Policy":
        """The policy that a stage has in its parameters."""
        return cls(params["rule"], params["percent"])


def of_row(name: object) -> Policy | None:
    """The policy that a row of `metrics.jsonl` names; None where it is none that is known: a later version may have written it."""
    try:
        return Policy.parse(str(name))
    except InputError:
        return None


def percent_kept(name: object) -> float | None:
    """P of keep-P; None of any other policy that a row names."""
    policy = of_row(name)
    return policy.percent if policy is not None and policy.rule == "keep" else None


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


def _meant(text: str) -> str:
    """The known name that is near, as a question; empty without one."""
    shares = re.findall(r"(?<![0-9])(?:100|[1-9]?[0-9])(?![0-9])", text[:80])[:1]
    names = [f"{rule}-{share}" for share in shares for rule in SHARED]
    names += ACCUMULATING
    near = difflib.get_close_matches(text[:40], names, n=1)
    return f" (did you mean {near[0]!r}?)" if near else ""
