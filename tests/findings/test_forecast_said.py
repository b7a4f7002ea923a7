"""What a person reads of a forecast: sentences that are true and stand alone, a command to paste, tables."""

import io
import json
import shlex
from pathlib import Path

import pytest
from rich.console import Console
from rich.table import Table
from support.series import folder_of, made, rng_of, rows_of, run_of
from typer.testing import CliRunner

from collapse_cli.cli.app import app
from collapse_cli.findings.forecast import forecast, forecast_rows, sentences
from collapse_cli.findings.forecast.history import History
from collapse_cli.terminal.forecast import tables


def test_the_command_is_printed_on_one_line_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a narrow terminal, from another folder, with what rich takes for markup and for an emoji in it."""
    words = [*("collapse", "run", "one.toml", "--runs-dir", "R", "--set", "data.source=[bold]a[/] :smile: b")]
    folder = folder_of(tmp_path / "R", rows_of(run_of((0, 5, 40), 3)), command=words)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    found = forecast(folder, factor=2.0)
    monkeypatch.setenv("COLUMNS", "40")
    said = CliRunner().invoke(app, ["forecast", str(folder.path), "--factor", "2"]).output.splitlines()
    command = found["share"]["next"][0]["command"]
    assert command in said
    given = shlex.split(command)
    assert given[given.index("--runs-dir") + 1] == str(tmp_path / "R")
    assert given.count("--runs-dir") == 1
    assert words[-1] in given
    assert all(len(line) <= 40 for line in said if line != command)


def shared(low: str, guess: str, high: str, **more: object) -> list[str]:
    """What is said of `14`, `<0` (or less, the smallest that was run) or `>30` (more than the largest)."""
    ends = {}
    for name, end in zip(("low90", "share", "high90"), (low, guess, high), strict=True):
        bound = {"<": "below", ">": "above"}.get(end[0], "")
        ends[name] = {"value": float(end.lstrip("<>")), "bound": bound}
    share = {"status": "ok", "generation": 9, "factor": 1.15, "next": [], **ends, **more}
    return sentences({"notes": [], "policies": [], "share": share})


WITHIN = "generation 9 within 1.15× of generation 0"


@pytest.mark.parametrize(
    ("ends", "said"),
    [
        (("10", "14", ">30"), f"about 14% of real data keeps {WITHIN} (90% interval: 10% to more than 30%)"),
        (("<5", "14", "20"), f"about 14% of real data keeps {WITHIN} (90% interval: 5% or less to 20%)"),
        (("<0", "14", "20"), f"about 14% of real data keeps {WITHIN} (90% interval: 0% to 20%)"),
        (
            ("14", ">30", ">30"),
            f"at the best guess more than 30% of real data is needed to keep {WITHIN}; "
            "it may be as little as 14%, or more than 30% (90% interval)",
        ),
        (
            ("<5", ">30", ">30"),
            f"at the best guess more than 30% of real data is needed to keep {WITHIN}; "
            "it may be as little as 5% or less, or more than 30% (90% interval)",
        ),
        (
            (">30", ">30", ">30"),
            f"more than 30% of real data is needed to keep {WITHIN} (90% interval; 30% is the largest share that was run)",
        ),
        (("<0", "<0", "<0"), f"no real data is needed to keep {WITHIN} (90% interval)"),
        (
            ("<0", "<0", "7"),
            f"at the best guess no real data is needed to keep {WITHIN}; it may take up to 7% (90% interval)",
        ),
        (
            ("<5", "<5", ">30"),
            f"at the best guess 5% of real data or less keeps {WITHIN}; it may take more than 30% (90% interval)",
        ),
        (
            ("<5", "<5", "<5"),
            f"5% of real data or less keeps {WITHIN} (90% interval; 5% is the smallest share that was run)",
        ),
        ((">100", ">100", ">100"), f"even 100% of real data does not keep {WITHIN} (90% interval)"),
        (
            ("40", ">100", ">100"),
            f"at the best guess even 100% of real data does not keep {WITHIN}; "
            "it may be that 40% does, or not even 100% (90% interval)",
        ),
    ],
)
def test_the_sentence_of_the_share_says_no_more_than_its_interval(ends: tuple[str, str, str], said: str) -> None:
    assert shared(*ends) == [said]


def test_each_sentence_of_the_share_stands_alone() -> None:
    narrow = {"policy": "keep-20", "chains": 3, "width": 0.0, "expected_width": 0.0}
    assert shared("14", "14", "14", next=[narrow])[1:] == [
        "no further run would narrow the share of real data that is needed"
    ]
    wide = narrow | {"width": 12.34, "expected_width": 5.67}
    assert shared("10", "14", ">30", next=[wide])[1:] == [
        "what would narrow the share of real data most: keep-20, to an expected 5.7 percentage points, from 12"
    ]


def test_the_sentence_and_the_table_agree() -> None:
    """The largest share is "perhaps" near enough: then it is not said to be too small."""
    run = run_of((0, 10, 30), 3, noise=0.12)
    factor = 0.99 * forecast_rows(rows_of(run))["share"]["ratios"][-1]["ratio"]
    found = forecast_rows(rows_of(run), factor=factor)
    last = found["share"]["ratios"][-1]
    assert last["low90"] <= factor < last["high90"], "perhaps"
    assert found["share"]["share"]["bound"] == "above"
    said = next(line for line in sentences(found) if "at the best guess" in line)
    assert "more than 30% of real data is needed" in said
    assert f"it may be as little as {found['share']['low90']['value']:g}%" in said


def test_no_real_data_is_needed_where_none_was_and_none_is() -> None:
    found = forecast_rows(
        rows_of({name: [4.0, *[4 + 1e-3 * (-1) ** g for g in range(9)]] for name in ("keep-0", "keep-20")}),
        factor=2.0,  # one seed: within 1.5× it is 91%, for seeds may differ by 0.3 nats
    )
    assert "no real data is needed to keep generation 9 within 2× of generation 0 (90% interval)" in sentences(found)


@pytest.mark.parametrize("seeds", [1, 3])
def test_a_run_with_generation_0_only_says_so(seeds: int) -> None:
    found = forecast_rows(rows_of({name: made("linear", seeds, 1, 0.0, rng_of(7)) for name in ("keep-0", "keep-20")}))
    said = sentences(found)
    why = "only generation 0 is measured; a forecast needs at least 5 generations, or 6 of a single seed"
    assert said[:2] == [f"{name}: not enough data: {why}" for name in ("keep-0", "keep-20")]
    assert "generations after 0" in said[2]
    later = forecast_rows(rows_of({"keep-0": History({0: {1: 4.0, 2: 4.1}})}))
    assert later["policies"][0]["why"] == "no seed has both generation 0 and a later one"


def text_of(table: Table) -> str:
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(table)
    return console.export_text()


def test_policies_stand_in_the_order_of_the_configuration(tmp_path: Path) -> None:
    """Measured side by side, the one that was first in the file is not the one named first."""
    names = ["keep-20", "accumulate", "keep-0"]
    rows = rows_of({name: [4 + 0.1 * g for g in range(7)] for name in names})
    folder = folder_of(tmp_path, rows[::-1])
    record = folder.record()
    record["config"]["loop"]["policies"] = names
    (folder.path / "run.json").write_text(json.dumps(record), encoding="utf-8")
    assert [one["policy"] for one in forecast(folder)["policies"]] == names
    assert [one["policy"] for one in forecast_rows(rows)["policies"]] == names


def test_the_table_says_what_its_columns_are_and_which_seeds_are_behind_them() -> None:
    both = {"keep-0": made("linear", 3, 8, 0.01, rng_of(9)), "keep-20": made("saturating", 3, 8, 0.01, rng_of(10))}
    said = text_of(tables(forecast_rows(rows_of(both)))[0])
    heads = said.split("keep-0")[0]
    assert "…" not in heads, "eighty columns are enough"
    for word in ("0", "last", "measured", "(its", "generation)", "10"):
        assert word in heads.replace("┃", " ").split()
    assert "means over" not in said, "all policies have the same seeds"
    late = {s: {g: v for g, v in by.items() if s == 1 or g < 6} for s, by in both["keep-20"].values.items()}
    said = text_of(tables(forecast_rows(rows_of(both | {"keep-20": History(late)})))[0])
    caption = "means over the seeds with the most generations: keep-0 over 3 (seeds 0, 1, 2); keep-20 over 1 (seed 1)"
    assert caption in " ".join(said.split())
