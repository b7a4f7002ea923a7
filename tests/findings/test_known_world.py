"""What samples still say of the invented world, counted by hand, and the sentences on it."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from support.instrumented import write_run

from collapse_cli.findings.known_world import BREEDS, breed_shares, world_left, world_said
from collapse_cli.findings.run_result import RunResult
from collapse_cli.records.row import Row
from collapse_cli.records.rundir import RunFolder
from collapse_cli.terminal.run import print_run
from collapse_cli.terminal.text import line
from collapse_cli.where import Where

TREE = {"data": {"source": "world", "world": {"breed_exponent": 1.0}}}


def row(policy: str, seed: int, generation: int, counts: dict[str, Any], facts: float | None, nll: float = 1.0) -> Row:
    measured: dict[str, Any] = {"nll": nll, "breed_counts": counts, "facts_left": facts, "facts_expected": 40.4}
    measured |= {"breeds_left": sum(1 for count in counts.values() if count), "breeds_expected": 2.9}
    return Row.at(Where(policy, seed, generation), measured)


def counts(hound: int, poodle: int, pug: int) -> dict[str, Any]:
    return {"hound": hound, "poodle": poodle, "pug": pug}


ROWS = [
    row("keep-0", 0, 0, counts(50, 30, 20), 40),
    row("keep-0", 0, 5, counts(90, 10, 0), 11),
    row("keep-20", 0, 0, counts(50, 30, 20), 40),
    row("keep-20", 0, 5, counts(60, 30, 10), 32),
]


def test_one_seed_is_said_to_have_no_interval() -> None:
    left = world_left(list(reversed(ROWS)), TREE)
    assert [str(there.arm) for there in left] == ["keep-0", "keep-20"], "the one with the fewest breeds first"
    assert world_said(left) == [
        "At generation 5 keep-0 names 2 breeds of dogs, where as much real text would name 3, and states 11 facts rightly, where "
        "it would state 40; 90% of its dogs are hounds, in truth 55% (one seed: no interval).",  # 1 / (1 + 1/2 + 1/3)
        "keep-20 names 3 breeds (real text: 3) and states 32 facts (real text: 40), 60% hounds.",
    ]


def test_several_seeds_have_intervals_within_what_shares_and_counts_can_be() -> None:
    """Facts 11 and 13: 12 ± 12.706 · √2 / √2, from below 0. Shares 0.9 and 1.0: 0.95 ± 12.706 · 0.05."""
    second = [
        row("keep-0", 1, 0, counts(50, 30, 20), 40),
        row("keep-0", 1, 5, counts(70, 0, 0), 13),
    ]
    (left,) = world_left([*ROWS[:2], *second], TREE)
    assert (left.facts.mean, left.facts.low) == (12, 0)
    assert left.facts.high == pytest.approx(12 + 12.706, abs=0.01)
    assert (left.share.low, left.share.high) == (pytest.approx(0.95 - 12.706 * 0.05, abs=0.001), 1.0)
    assert world_said([left]) == [
        "At generation 5 keep-0 names 2 (0 to 8) breeds of dogs, where as much real text would name 3, and states 12 (0 to 25) facts "
        "rightly, where it would state 40; 95% (31% to 100%) of its dogs are hounds, in truth 55% (95% intervals over 2 seeds)."
    ]


def test_where_nothing_is_lost_samples_name_more_than_real_text_on_average_and_that_reads_well() -> None:
    """It said "67 of the 66 breeds": the number expected of real text is a mean, from which chance leads up and down."""
    names = {f"breed {at}": 2 for at in range(67)}
    rows = [row("accumulate", 0, g, names, 149) for g in (0, 5)]
    rows = [Row.at(there.where, {**there.fields, "breeds_expected": 65.6, "facts_expected": 147.0}) for there in rows]
    (said,) = world_said(world_left(rows, TREE))
    assert "names 67 breeds of dogs, where as much real text would name 66, and states 149 facts rightly, where" in said
    assert "of the 66" not in said


def test_what_no_seed_has_is_said_to_be_unseen_not_to_be_certain() -> None:
    """Three seeds without a fact, all dogs of one breed: a share of 0.1% would look so in one of eight runs."""
    rows = [row("keep-0", seed, g, counts(9, 0, 0), 0) for seed in range(3) for g in (0, 5)]
    (said,) = world_said(world_left(rows, TREE))
    assert "states 0 (none seen in 3 seeds) facts rightly" in said
    assert "100% (in each of 3 seeds) of its dogs" in said
    assert "names 1 (in each of 3 seeds) breeds" in said


def test_seeds_and_generation_are_those_of_the_diagnosis() -> None:
    """Of an unfinished run: seed 1 has come to generation 1 alone, and one generation of a policy is not what became of it."""
    more = [row("keep-0", 1, 0, counts(50, 30, 20), 40), row("keep-0", 1, 1, counts(1, 0, 0), 1)]
    assert world_left([*ROWS, *more], TREE) == world_left(ROWS, TREE)
    assert world_left([ROWS[0]], TREE) == []


@pytest.mark.parametrize(
    "broken",
    [
        {"breed_counts": [1, 2]},
        {"breed_counts": {"hound": 0, "poodle": 0, "pug": -3}},
        {"breed_counts": {"hound": "many"}},
        {"facts_left": None},
        {"breeds_expected": "3"},
    ],
)
def test_what_is_damaged_says_nothing(broken: dict[str, Any]) -> None:
    damaged = Row.at(ROWS[1].where, {**ROWS[1].fields, **broken})
    assert [str(there.arm) for there in world_left([ROWS[0], damaged, *ROWS[2:]], TREE)] == ["keep-20"]


def test_the_end_of_a_run_says_it_below_the_verdict(tmp_path: Path) -> None:
    write_run(tmp_path, "run", policies=("keep-0",), generations=1, config={"data": {"source": "world"}})
    folder = RunFolder(tmp_path, "run")
    rows = [
        Row.at(there.where, {**row("keep-0", 0, 0, counts(9, 1, 0), 7).fields, **there.fields})
        for there in folder.rows()
    ]
    result = RunResult.of(folder.path, folder.config(), rows, folder.path / "report.html", computed=3, cached=0)
    out = io.StringIO()
    print_run(Console(file=out, width=80), result)
    said = " ".join(out.getvalue().split())
    (sentence,) = world_said(result.world)
    assert said.index(result.verdict) < said.index(sentence) < said.index("report: ")
    assert "names 2 breeds of dogs, where as much real text would name 3" in sentence
    assert json.loads(json.dumps(result.record()))["world"][0]["breeds"]["mean"] == 2


def test_other_sources_have_nothing_to_say() -> None:
    assert (
        world_left([Row.at(Where("keep-0", 0, g), {"nll": 1.0}) for g in range(3)], {"data": {"source": "zipf"}}) == []
    )
    assert world_left(ROWS, {}) == [] == world_left(ROWS, {"data": {"world": {"breed_exponent": "steep"}}})
    many = {f"breed {at}": 1 for at in range(BREEDS + 1)}
    assert breed_shares([row("keep-0", 0, 0, many, 3)], TREE) == {}
    assert world_said([]) == []


def test_a_name_from_outside_stays_text_in_the_terminal_and_is_json() -> None:
    hostile = {"[red]\x1b[31m\nhound" + "d" * 500: 3, "poodle": 1, "pug": 0}
    left = world_left([row("keep-0", 0, g, hostile, 4) for g in (0, 1)], TREE)
    screen = Console(file=io.StringIO(), width=80, force_terminal=True, color_system=None)
    for sentence in world_said(left):
        line(screen, sentence)
    shown = screen.file.getvalue()  # type: ignore[attr-defined]
    assert "\x1b" not in shown
    assert "[red]" in shown
    assert len(shown) < 500
    json.dumps([there.record() for there in left], allow_nan=False)
