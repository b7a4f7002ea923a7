"""Remedies beside the same loop without any: which run is the baseline, paired ratios, prices, and what a remedy is called."""

import json
import math
from typing import Any

import numpy as np
import pytest

from collapse_cli.config.experiment import Experiment
from collapse_cli.config.selection import SelectConfig, Step
from collapse_cli.config.tree import TrainConfig
from collapse_cli.findings.remedies import OneRun, remedies, remedy_of
from collapse_cli.metrics.intervals import log_ratio
from collapse_cli.records.row import Row
from tests.support.rows import row_of

NOTHING: dict[str, Any] = Experiment().model_dump(mode="json")


def tree_of(**sections: Any) -> dict[str, Any]:
    return Experiment(**sections).model_dump(mode="json")


def rows_of(policy: str, rise: float, *, seeds: int = 3, real: int = 0, last: int = 4, **more: Any) -> list[Row]:
    """Losses that grow by `rise` a generation; seeds differ by a tenth."""
    return [
        row_of(
            policy,
            seed,
            g,
            nll=1 + 0.1 * seed + rise * g * (1 + 0.01 * seed),
            real_rows=100 if g == 0 else real,
            train_tokens=1000 * (g + 1),
            sample_tokens=0 if g == 0 else 500,
            seconds={"train": 2.0, "sample": 1.0},
            distinct_2=0.5,
            recall_by_decile=[1.0] * 9 + [0.25],
            **(more if g else {}),
        )
        for seed in range(seeds)
        for g in range(last + 1)
    ]


def test_an_experiment_without_remedies_has_none_in_words() -> None:
    assert remedy_of(NOTHING) == ""
    assert remedy_of({}) == ""
    assert remedy_of({"mix": {"weights": "equal"}}) == remedy_of({"mix": {"weights": "1:1"}}) == ""
    assert remedy_of({"mix": {"weights": "2:1"}}) == "mix.weights = 2:1"
    assert remedy_of({"mix": {"weights": "of a later version"}}) == "mix.weights = of a later version"


@pytest.mark.parametrize(
    ("sections", "words"),
    [
        ({"train": TrainConfig(loss="truncated", truncate=0.8)}, ["train.loss = truncated", "train.truncate = 0.8"]),
        (
            {"select": SelectConfig(by="surprise", keep="highest", oversample=1.5)},
            ["select.by = surprise", "select.keep = highest", "select.oversample = 1.5"],
        ),
        (
            {
                "select": SelectConfig(
                    oversample=3.0,
                    steps=(Step(by="length", keep="middle", share=0.5), Step(by="perplexity", keep="lowest")),
                )
            },
            ["by length keep middle share 0.5; by perplexity keep lowest"],
        ),
    ],
)
def test_options_that_are_not_neutral_are_named(sections: dict[str, Any], words: list[str]) -> None:
    said = remedy_of(tree_of(**sections))
    assert [word for word in words if word not in said] == []


def test_the_baseline_keeps_nothing_real_and_does_nothing_else() -> None:
    remedied = tree_of(train=TrainConfig(loss="focal"))
    arms = [
        OneRun("focal", remedied, rows_of("keep-0", 0.1)),
        OneRun("plain", NOTHING, [*rows_of("keep-10", 0.05, real=10), *rows_of("keep-0", 0.2)]),
    ]
    found = remedies(arms)
    assert found is not None
    assert found.baseline == ("plain", "keep-0")
    assert [(one.run, one.arm.policy, one.baseline) for one in found.remedies] == [
        ("focal", "keep-0", False),
        ("plain", "keep-10", False),
        ("plain", "keep-0", True),
    ]


def test_differences_are_paired_by_seed() -> None:
    arms = [OneRun("plain", NOTHING, [*rows_of("keep-0", 0.2), *rows_of("keep-10", 0.05, real=10)])]
    found = remedies(arms)
    assert found is not None
    _, kept = found.remedies
    logs = [0.05 * 4 * (1 + 0.01 * seed) - 0.2 * 4 * (1 + 0.01 * seed) for seed in range(3)]
    wanted = log_ratio(logs).within(math.exp)
    assert kept.against is not None
    assert kept.against.mean == pytest.approx(wanted.mean)
    assert (kept.against.low, kept.against.high) == (pytest.approx(wanted.low), pytest.approx(wanted.high))
    assert kept.told_apart is True
    assert kept.ratio.mean == pytest.approx(math.exp(np.mean([0.2 * (1 + 0.01 * seed) for seed in range(3)])))
    assert kept.end.mean == pytest.approx(math.exp(np.mean([1 + 0.1 * s + 0.2 * (1 + 0.01 * s) for s in range(3)])))


def test_a_difference_of_noise_is_not_shown() -> None:
    alike = [*rows_of("keep-0", 0.2), *rows_of("keep-rows-1", 0.2, real=1)]
    noisy = [
        row if row.where.policy == "keep-0" else row_of("keep-rows-1", row.where.seed, row.where.generation, **{
            **row.fields, "nll": row.fields["nll"] + 0.05 * (row.where.seed - 1)
        })
        for row in alike
    ]  # fmt: skip
    found = remedies([OneRun("plain", NOTHING, noisy)])
    assert found is not None
    assert found.remedies[1].told_apart is False


def test_the_generation_is_the_last_that_all_have() -> None:
    found = remedies([OneRun("plain", NOTHING, [*rows_of("keep-0", 0.2, last=6), *rows_of("keep-10", 0.1, last=3)])])
    assert found is not None
    assert found.generation == 3


def test_prices_are_of_one_seed_without_generation_0() -> None:
    chosen = {"select_candidates": 150, "select_distinct": 100}
    found = remedies(
        [
            OneRun("plain", NOTHING, rows_of("keep-0", 0.2)),
            OneRun("chosen", tree_of(select=SelectConfig(by="surprise", keep="highest", oversample=1.5)),
                rows_of("keep-10", 0.1, real=10, replay_rows=5 * Experiment().train.epochs, **chosen)),
        ]
    )  # fmt: skip
    assert found is not None
    plain, other = (one.price for one in found.remedies)
    assert (plain.real, plain.thrown, plain.sampled, plain.trained, plain.seconds) == (0, 0, 2000, 14000, 12)
    assert (other.real, other.thrown) == (15, 50)


def test_one_policy_has_nothing_beside_it() -> None:
    assert remedies([OneRun("plain", NOTHING, rows_of("keep-0", 0.2))]) is None
    assert remedies([]) is None


def test_without_a_baseline_there_are_no_differences_and_it_is_said() -> None:
    found = remedies([OneRun("plain", NOTHING, [*rows_of("keep-10", 0.2), *rows_of("keep-20", 0.1)])])
    assert found is not None
    assert found.baseline is None
    assert [one.against for one in found.remedies] == [None, None]
    assert any("keep-0" in note for note in found.notes)


def test_one_seed_shows_no_difference() -> None:
    found = remedies([OneRun("plain", NOTHING, [*rows_of("keep-0", 0.2, seeds=1), *rows_of("keep-10", 0.1, seeds=1)])])
    assert found is not None
    kept = found.remedies[1]
    assert kept.against is not None
    assert kept.against.low is None
    assert kept.told_apart is None
    assert any("one seed" in note for note in found.notes)


def test_it_is_json() -> None:
    found = remedies([OneRun("plain", NOTHING, [*rows_of("keep-0", 0.2), *rows_of("keep-10", 0.1)])])
    assert found is not None
    record = json.loads(json.dumps(found.record()))
    assert record["baseline"] == {"run": "plain", "policy": "keep-0"}
    assert record["remedies"][1]["against"]["mean"] < 1


def test_what_no_field_can_hold_is_left_out_of_the_price_and_breaks_nothing() -> None:
    """Rows of a folder that nobody vouches for: numbers beyond all floats, and losses whose squares are."""
    rows = rows_of("keep-0", 0.1) + rows_of("keep-10", 0.05)
    damage: dict[str, Any] = {"train": 2.0, "sample": 10**400, "eval": math.nan, "mix": -5.0, "real": "x"}
    damaged = [Row.of({**row.fields, "seconds": damage}) for row in rows]
    found = remedies([OneRun("odd", NOTHING, [row for row in damaged if row is not None])])
    assert found is not None
    assert [remedy.price.seconds for remedy in found.remedies] == [8.0, 8.0]  # four generations, 2 s each

    far = [Row.of({**row.fields, "nll": 1e299 * (-1) ** row.where.seed}) for row in rows_of("keep-10", 0.05)]
    beyond = remedies([OneRun("far", NOTHING, [*rows_of("keep-0", 0.1), *(row for row in far if row is not None)])])
    assert beyond is not None
    json.dumps(beyond.record(), allow_nan=False)


def test_the_baseline_is_the_loop_that_most_others_are_like() -> None:
    """A run that starts from generation 0 has no remedy in its options either, but is another loop than the others'."""
    other = tree_of(loop={"init": "gen0"})
    arms = [
        OneRun("from-gen0", other, rows_of("keep-0", 0.1)),
        OneRun("focal", tree_of(train=TrainConfig(loss="focal")), rows_of("keep-0", 0.15)),
        OneRun("none", NOTHING, rows_of("keep-0", 0.2)),
        OneRun("ewc", tree_of(loop={"init": "gen0"}, train=TrainConfig(anchor="ewc")), rows_of("keep-0", 0.1)),
        OneRun("smoothed", tree_of(train=TrainConfig(loss="smoothed")), rows_of("keep-0", 0.1)),
    ]
    for turned in (arms, arms[::-1]):
        found = remedies(turned)
        assert found is not None
        assert found.baseline == ("none", "keep-0")
        said = {one.run: one.what for one in found.remedies}
        assert said["from-gen0"] == "loop.init = gen0"
        assert said["ewc"].startswith("loop.init = gen0, train.anchor = ewc")
        assert said["focal"] == "train.loss = focal"
