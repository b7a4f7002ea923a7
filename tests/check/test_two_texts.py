"""Two texts without training: cases whose answer is known, each through the sentences that a user reads."""

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from support.checked_texts import a_tenth_often, shuffled, text, world

from collapse_cli.check import by_groups, copies, documents, telling, word_counts
from collapse_cli.check.side_by_side import examine
from collapse_cli.findings.check import TwoTexts, compared


def found(real: Sequence[str], synthetic: Sequence[str]) -> tuple[dict[str, object], TwoTexts]:
    return examined(tuple(real), tuple(synthetic))


@cache
def examined(real: tuple[str, ...], synthetic: tuple[str, ...]) -> tuple[dict[str, object], TwoTexts]:
    """Once for the same texts: nobody changes what is found."""
    record = json.loads(json.dumps(examine(text(real, "real"), text(synthetic, "synthetic"), None)))
    return record, compared(record)


def sentences(of: TwoTexts, tone: str = "") -> str:
    return "\n".join(remark.text for remark in of.remarks if tone in ("", remark.tone))


def test_the_real_text_itself_lacks_nothing_and_cannot_be_told_apart() -> None:
    record, what = found(world(), world())
    said = sentences(what)
    assert "Every row of the synthetic text stands in the real one" in said
    assert "They cannot be told apart" in said
    assert "No frequent word or phrase of the real text is missing" in said
    assert "Neither diversity nor repetition nor length is shown to differ" in said
    assert record["telling"]["auc"] == 0.5  # type: ignore[index]
    assert "rows put aside of the real text stand in the synthetic text" in sentences(what, "bad")


def test_two_halves_of_one_text_are_alike_and_nothing_bad_is_said() -> None:
    rows = world()
    record, what = found(rows[::2], rows[1::2])
    assert sentences(what, "bad") == ""
    assert record["telling"]["low"] <= 0.5  # type: ignore[index]


def test_shuffled_words_are_told_apart_and_their_phrases_are_missing() -> None:
    record, what = found(world(), shuffled(world()))
    bad = sentences(what, "bad")
    assert "can almost always tell synthetic rows from real ones" in bad
    assert "of the real text are missing or rare in the synthetic one, beyond chance" in bad
    one_word = [one for one in record["missing"]["of_real"]["shown"] if one["words"] == 1]  # type: ignore[index]
    assert one_word == [], "the words themselves are all there"


def test_a_tenth_a_hundred_times_is_said_and_changes_nothing_else() -> None:
    rows = world()
    record, what = found(rows, a_tenth_often(rows))
    bad = sentences(what, "bad")
    share = 1 - len(set(rows)) / len(a_tenth_often(rows))
    assert f"{share:.0%} of the synthetic rows repeat an earlier one" in bad
    assert "the most frequent 10" in bad  # 100 times, and more where the real text has a row twice
    assert "Neither diversity nor repetition nor length is shown to differ" in sentences(what)
    assert record["telling"]["auc"] == 0.5  # type: ignore[index]


def test_a_word_that_is_gone_is_named_with_what_was_to_be_expected() -> None:
    rows = world()
    without = [row.replace("golden retriever", "basenji") for row in rows]
    record, what = found(rows, without)
    gone = {one["phrase"]: one for one in record["missing"]["of_real"]["shown"]}  # type: ignore[index]
    named = next(one for phrase, one in gone.items() if "golden retriever" in phrase or "golden" in phrase)
    assert named["seen"] == 0
    assert named["expected"] == pytest.approx(sum("golden retriever" in row for row in set(rows)), rel=0.1)
    assert "golden" in sentences(what, "bad")


def test_of_a_phrase_that_is_gone_the_phrase_is_named_and_no_common_word_of_it() -> None:
    random = np.random.default_rng(0)

    def rows(share: float) -> list[str]:
        made = [" ".join(f"w{number}" for number in random.zipf(1.6, 14) % 300) for _ in range(400)]
        return [f"That is a known fault. {row}" if random.random() < share else row for row in made]

    record, of = found(rows(0.3), rows(0.0))
    named = [one["phrase"] for one in record["missing"]["of_real"]["shown"]]  # type: ignore[index]
    assert len(named) == 1
    assert len(named[0].split()) == 3
    assert named[0] in "That is a known fault"
    assert f"“{named[0]}”" in sentences(of, "bad")


def test_the_worst_comes_first() -> None:
    rows = list(world())
    _, few = found(rows, [*rows[1::2][:150], *rows[:20], *shuffled(rows[:200])])
    weights = [remark.weight for remark in few.remarks if remark.tone == "bad"]
    assert len(weights) >= 2
    assert weights == sorted(weights, reverse=True)
    _, many = found(rows, a_tenth_often(rows))
    assert "Every row of the synthetic text stands in the real one" in many.remarks[0].text
    _, odd = found(rows, shuffled(rows))
    assert "can almost always tell" in odd.remarks[0].text


def test_rare_words_that_are_gone_by_chance_are_not_named() -> None:
    rows = list(world())
    record, _ = found(rows[:200], rows[200:])
    rare = record["missing"]["kept_by_rows"][0]  # type: ignore[index]
    assert rare["kept"] < rare["words"], "some words stand in one half alone"
    assert record["missing"]["of_real"]["count"] == 0  # type: ignore[index]


def test_groups_have_equally_many_words_and_share_no_row() -> None:
    rows = world()
    vocabulary = word_counts.Vocabulary()
    both = [vocabulary.count(some, np.arange(len(some))) for some in (rows, rows[:200])]
    size, parts = word_counts.equal(both)
    for groups in parts:
        assert [group.total for group in groups] == [size] * word_counts.GROUPS
        together = np.concatenate([group.index for group in groups])
        assert len(np.unique(together)) == len(together)
    assert size * word_counts.GROUPS > 0.9 * both[1].total, "little is lost by cutting"


def test_the_auc_within_folds_is_that_of_scikit_learn_and_its_error_that_of_many_draws() -> None:
    from sklearn.metrics import roc_auc_score

    random = np.random.default_rng(0)
    late, fold = np.arange(400) >= 200, np.arange(400) % 5
    areas, errors = [], []
    for _ in range(300):
        decisions = random.normal(size=400) + 0.7 * late
        auc, error = telling.fold_auc(decisions, late, fold, np.arange(400))
        areas.append(auc)
        errors.append(error)
    each = [roc_auc_score(late[fold == one], decisions[fold == one]) for one in range(5)]
    assert auc == pytest.approx(np.mean(each), abs=1e-12)
    assert np.mean(errors) == pytest.approx(np.std(areas), rel=0.12)


def test_the_error_grows_where_rows_come_in_groups() -> None:
    random = np.random.default_rng(0)
    late, fold = np.arange(400) >= 200, np.zeros(400, int)
    group = np.arange(400) // 10
    areas, errors, alone = [], [], []
    for _ in range(300):
        decisions = random.normal(size=40)[group] + 0.1 * random.normal(size=400)
        auc, error = telling.fold_auc(decisions, late, fold, group)
        areas.append(auc)
        errors.append(error)
        alone.append(telling.fold_auc(decisions, late, fold, np.arange(400))[1])
    assert np.mean(errors) == pytest.approx(np.std(areas), rel=0.2)
    assert np.mean(alone) < 0.5 * np.std(areas), "rows of a group are no independent draws"


def test_a_linear_classifier_knows_no_neighbours_and_no_changed_copies_by_heart() -> None:
    """Of one source, but in each text other documents of twenty rows, or other rows of which each stands there four times with one word changed."""
    random = np.random.default_rng(0)
    chances = 1 / np.arange(1, 3001.0) ** 1.05
    chances /= chances.sum()

    def words(count: int) -> list[str]:
        return [f"w{number}" for number in random.choice(3000, count, p=chances)]

    def with_name(row: list[str], name: object) -> str:
        row[random.integers(len(row))] = f"Name{name}"
        return " ".join(row)

    def documents_of(first: int) -> list[str]:
        return [with_name(words(18), 100 * first + row // 20) for row in range(300)]

    def changed(first: int) -> list[str]:
        return [
            with_name(list(row), random.integers(10**6)) for row in [words(20) for _ in range(75)] for _ in range(4)
        ]

    for made in (documents_of, changed):
        areas = []
        for turn in range(4):
            both = [made(turn), made(10**6 + turn)]
            if made is changed:
                both = [[rows[at] for at in random.permutation(300)] for rows in both]
            vocabulary = word_counts.Vocabulary()
            found = telling.tell_apart(*(vocabulary.count(rows, np.arange(300)) for rows in both))
            areas.append(found["auc"])
            assert found["likeness"] == 0.5
        assert abs(np.mean(areas) - 0.5) < 0.1, "by heart it would be above 0.9"


def test_the_interval_of_a_difference_holds_the_truth_as_often_as_it_says() -> None:
    random = np.random.default_rng(0)
    inside = 0
    for _ in range(2000):
        over = by_groups.welch(random.normal(0, 1, 10).tolist(), random.normal(0.5, 3, 10).tolist(), 0.95)
        assert over.low is not None
        assert over.high is not None
        inside += over.low <= 0.5 <= over.high
    assert inside / 2000 == pytest.approx(0.95, abs=0.015)


def test_test_rows_are_found_whole_and_by_a_passage() -> None:
    rows = list(world())
    test, others = rows[:20], rows[20:]
    middle = " ".join(("And then he said that " + test[3]).split())
    vocabulary = word_counts.Vocabulary()
    real, synthetic = text(others, "real"), text([*shuffled(others), test[0], middle], "synthetic")
    told = copies.contamination(text(test, "test"), synthetic, real, vocabulary)

    def passages(row: str) -> set[tuple[str, ...]]:
        words = vocabulary.pattern.findall(row)
        return {tuple(words[at : at + 13]) for at in range(len(words) - 12)}

    there = set[tuple[str, ...]]().union(*map(passages, synthetic.measured))
    sharing = [number for number, row in enumerate(test) if passages(row) & there]
    assert told["copies"] == 1
    assert {0, 3} <= set(sharing)
    assert told["passages"] == len(sharing)
    assert test[0][:100] in told["shown"][0]


def test_a_text_without_blanks_is_compared_by_characters() -> None:
    rows = ["".join(chr(0x0E01 + (7 * row + at * at) % 40) for at in range(60)) + "\n" for row in range(300)]
    record, _ = found(rows[::2], rows[1::2])
    assert record["unit"] == "characters"


def test_rows_put_aside_are_of_every_copy_or_none() -> None:
    rows = [*world()[:200], *world()[:50]]
    real = text(rows, "real")
    aside = documents.held_out(real)
    contents = set(real.contents[aside].tolist())
    assert {row for row in range(len(rows)) if int(real.contents[row]) in contents} == set(aside.tolist())


def test_a_row_near_any_real_row_counts_not_only_near_the_first_of_its_cluster() -> None:
    random = np.random.default_rng(0)
    words = [[f"w{number}" for number in random.integers(5000, size=46)] for _ in range(60)]
    real = [" ".join(row[at : at + 38]) for row in words for at in (0, 3)]  # the second is near the first
    record, of = found(real, [" ".join(row[6:44]) for row in words])  # near the second alone
    assert record["between"]["near"] == 60  # type: ignore[index]
    assert "A further 100% of the synthetic rows that differ (60 of 60) are near copies" in sentences(of)
    assert "near copies" not in sentences(of, "bad"), "each real row has a near one as well"


def test_where_rows_hang_together_missing_names_are_no_verdict() -> None:
    """Twenty rows an article, each article's name in most of them: two texts of other articles lack each other's names."""
    random = np.random.default_rng(0)

    def articles(first: int) -> list[str]:
        rows = [" ".join(f"w{number}" for number in random.zipf(1.5, 12) % 500) for _ in range(400)]
        return [f"{row} Name{first + at // 20}" if at % 20 else row for at, row in enumerate(rows)]

    record, of = found(articles(0), articles(100))
    assert record["missing"]["of_real"]["count"] >= 10  # type: ignore[index]
    assert "missing" not in sentences(of, "bad")
    assert "rows hang together" in sentences(of, "plain")


def test_shared_passages_are_bad_beyond_chance_alone() -> None:
    record, _ = found(list(world())[:200], list(world())[200:400])
    random = np.random.default_rng(0)
    bad = 0
    for ours, theirs in random.poisson(6, (400, 2)).tolist():
        test = record["test"] | {
            "copies": 0,
            "passages": 30,
            "passage_rows": 40,
            "alike": {"real": ours, "synthetic": theirs},
        }  # type: ignore[operator]
        bad += "share a passage" in sentences(compared(record | {"test": test}), "bad")
    assert bad / 400 <= 0.025
    test = record["test"] | {"copies": 0, "passages": 30, "passage_rows": 40, "alike": {"real": 2, "synthetic": 14}}  # type: ignore[operator]
    assert "share a passage" in sentences(compared(record | {"test": test}), "bad")


def test_of_a_folder_s_validation_text_it_is_said_that_nothing_is_made_of_it(tmp_path: Path) -> None:
    for name, rows in (("train", 50), ("valid", 7), ("test", 5)):
        (tmp_path / f"{name}.txt").write_text("".join(f"{name} row {number}\n" for number in range(rows)))
    real, test = documents.read_real(tmp_path, documents.ReadingOptions())
    assert test is not None
    assert (len(real.rows), len(test.rows)) == (50, 5)
    assert "7 rows of validation text are neither compared nor trained on" in " ".join(real.notes)
