"""The section `select`: what it says, and each nonsense in one line, before any library of a learner is imported."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support import e2e

from collapse_cli.config import load, refuse_unread
from collapse_cli.config.selection import SelectConfig, candidates
from collapse_cli.errors import ConfigError
from collapse_cli.families.section import for_key

HIGHEST = {"by": "surprise", "keep": "highest"}


def test_nothing_is_chosen_unless_it_is_said() -> None:
    assert not SelectConfig().on
    assert for_key(SelectConfig()) == {}, "so that no key has it"


def test_the_short_form_is_one_step() -> None:
    short = SelectConfig(oversample=2, **HIGHEST)
    long = SelectConfig(oversample=2, steps=(HIGHEST,))
    assert short.chosen == long.chosen
    assert [step.name for step in short.chosen] == ["surprise"]


@pytest.mark.parametrize(
    ("oversample", "rows", "made"), [(1.0, 7, 7), (1.1, 10, 11), (1.5, 3, 5), (1.001, 1000, 1001), (3.0, 0, 0)]
)
def test_as_many_candidates_as_it_says(oversample: float, rows: int, made: int) -> None:
    """1.1 * 10 is more than 11 as floats go."""
    assert candidates(oversample, rows) == made


NONSENSE: list[tuple[dict[str, Any], str]] = [
    ({"by": "supprise", "keep": "highest"}, "'supprise' is no score (did you mean 'surprise'?)"),
    (
        {"by": "surprise"},
        'by = surprise says no rule; add keep = "highest", "lowest", "middle", "threshold" or "choice"',
    ),
    ({"keep": "highest"}, 'keep alone chooses and changes nothing; say by = "surprise" and keep = "highest"'),
    ({"phi": 0.9}, 'phi alone chooses and changes nothing; say by = "verifier"'),
    ({"oversample": 2.0}, "oversample alone chooses and changes nothing"),
    (
        {"gamma": 2.0},
        'gamma alone chooses and changes nothing; say do = "correct"',
    ),
    ({"top": 4}, 'top alone chooses and changes nothing; say do = "edit"'),
    ({"oversample": 0.5, **HIGHEST}, "select.oversample must be at least 1"),
    ({"oversample": 1e9, **HIGHEST}, "select.oversample must be at most 1000"),
    (HIGHEST, "keeps every row; raise oversample"),
    ({"oversample": 2.0, **HIGHEST, "weight": "power"}, "exclude each other"),
    ({"by": "length", "keep": "threshold"}, "needs the threshold and the side"),
    ({"by": "length", "keep": "threshold", "threshold": 3.0}, "needs the threshold and the side"),
    ({"by": "length", "weight": "power"}, "takes scores from 0 to 1, and length is in tokens"),
    ({"oversample": 2.0, **HIGHEST, "threshold": 1.0}, "nothing reads threshold with by = surprise and keep = highest"),
    ({"oversample": 2.0, **HIGHEST, "model": "some/model"}, "nothing reads model with by = surprise"),
    ({"oversample": 2.0, **HIGHEST, "gram": 2}, "nothing reads gram with by = surprise"),
    ({"oversample": 2.0, **HIGHEST, "max_repeats": 2}, "nothing reads max_repeats"),
    ({"oversample": 2.0, **HIGHEST, "share": 0.5}, "is for steps before the last"),
    ({"oversample": 2.0, **HIGHEST, "steps": [HIGHEST]}, "not both"),
    ({"oversample": 2.0, "steps": [HIGHEST, HIGHEST]}, "step 1: keep = highest before the last step needs share"),
    (
        {"steps": [{"by": "repetition", "weight": "power"}, {**HIGHEST, "share": 0.0}]},
        "step 1: weight = power draws as many rows as are needed, so it must be the last step",
    ),
    ({"by": "repetition", "weight": "power", "bias": 0.0}, "select.bias must be above 0"),
    ({"by": "repetition", "weight": "power", "max_repeats": 0}, "select.max_repeats must be at least 1"),
    ({"oversample": 2.0, **HIGHEST, "over": "all"}, "select.over must be"),
    ({"oversample": 2.0, **HIGHEST, "short": "more"}, "select.short must be"),
    ({"do": "paint"}, "do = 'paint' is no change of rows"),
    ({"do": "paint", "by": "length"}, "do = paint changes rows and throws none away"),
]


@pytest.mark.parametrize(("select", "said"), NONSENSE)
def test_nonsense_is_refused_in_a_line(select: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as refused:
        load({"select": select}, "a file")
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


def test_where_nothing_can_be_chosen_nothing_reads_it() -> None:
    tree = {"loop": {"policies": ["keep-100"]}, "select": {"oversample": 2.0, **HIGHEST}}
    with pytest.raises(ConfigError, match="no policy here takes rows that a model made"):
        refuse_unread(tree, tree, "a file")


SAYS = """
import sys
from collapse_cli.__main__ import main
status = main(sys.argv[1:])
assert "torch" not in sys.modules, "torch was imported"
sys.exit(status)
"""


@pytest.mark.parametrize(
    ("learner", "settings", "said"),
    [
        ("gaussian", ["select.by=length", "select.keep=lowest"], "length takes rows of text"),
        ("gaussian", ["select.by=surprise", "select.keep=lowest", "gaussian.trials=3"], "gaussian.trials = 1"),
        (
            "gaussian",
            ["select.by=perplexity", "select.keep=lowest", "select.model=nowhere/x"],
            "a model that reads text",
        ),
    ],
)
def test_what_does_not_suit_the_rows_is_said_before_torch_is_there(
    tmp_path: Path, learner: str, settings: list[str], said: str
) -> None:
    given = [f"learner={learner}", "data.source=blobs", "data.rows=20", "select.oversample=2", *settings]
    command = ["run", "--runs-dir", str(tmp_path), *(part for one in given for part in ("--set", one))]
    ended = subprocess.run(
        [sys.executable, "-c", SAYS, *command], capture_output=True, text=True, check=False, cwd=e2e.ROOT
    )
    assert (ended.returncode, said in ended.stderr) == (2, True), ended.stderr
    assert len(ended.stderr.strip().splitlines()) == 1
