"""Of dialogues the answers are looked at, not what they answer."""

import numpy as np
from support.tiny import rows_of

from collapse_cli.data.dataset import MASK, PROMPT, Dataset


def dialogues() -> Dataset:
    """Four rows: a prompt of six tokens that all share, and answers, of which the second repeats itself and the last is the first's."""
    answers = [[11, 12, 13, 14, 15, 9], [21, 22, 21, 22, 21, 9], [31, 32, 9], [11, 12, 13, 14, 15, 9]]
    tokens, lengths = np.zeros((4, 12), np.int32), np.array([6 + len(answer) for answer in answers], np.int32)
    tokens[:, :6] = [4, 5, 6, 4, 5, 6]
    for row, answer in zip(tokens, answers, strict=True):
        row[6 : 6 + len(answer)] = answer
    mask = (np.arange(12) >= 6) & (np.arange(12) < lengths[:, None])
    return rows_of(tokens, lengths, **{MASK: mask, PROMPT: np.full(4, 6, np.int32)})


def test_scores_look_at_answers() -> None:
    from collapse_cli.selection.scores.length import Length
    from collapse_cli.selection.scores.repetition import Repetition

    step = type("Step", (), {"gram": 2})()
    rows = dialogues()
    assert Length(step, None).score(rows).values.tolist() == [6, 6, 3, 6]  # type: ignore[arg-type]
    assert Repetition(step, None).score(rows).values.tolist() == [0, 0.4, 0, 0]  # type: ignore[arg-type]


def test_answers_are_near_each_other_and_prompts_do_not_make_them_so() -> None:
    from collapse_cli.selection.scores.duplicates import NearDuplicates

    material = type("Material", (), {"text": None, "seed": 0})()
    score = NearDuplicates(None, material)  # type: ignore[arg-type]
    score.text = lambda rows: [str(row) for row in rows.arrays["tokens"].tolist()]
    assert score.score(dialogues()).values.tolist() == [0, 0, 0, 1]


def test_rows_of_text_are_as_they_are() -> None:
    rows = rows_of(np.ones((2, 3), np.int32))
    assert rows.answers() is rows
    said = dialogues().answers().arrays
    assert said["tokens"].tolist()[2] == [31, 32, 9, 0, 0, 0]
    assert said["lengths"].tolist() == [6, 6, 3, 6]
