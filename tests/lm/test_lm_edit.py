"""Token editing, against a plain forward pass over each row."""

import numpy as np
import pytest
import torch
from support.tiny import KINDS, random_rows, tiny_model

from collapse_cli.data.dataset import Dataset
from collapse_cli.lm.edit import edited


def plainly(model: torch.nn.Module, row: np.ndarray) -> np.ndarray:
    """(len - 1, vocabulary) probabilities of each next token."""
    with torch.no_grad():
        logits = model(torch.from_numpy(row.astype(np.int64))[None]).logits[0, :-1].double()
    probabilities: np.ndarray = logits.softmax(dim=1).numpy()
    return probabilities


def certain_rows(model: torch.nn.Module, rows: Dataset) -> Dataset:
    """Rows with many tokens that the model is rather sure of: most are its own favourites."""
    tokens, random = rows.arrays["tokens"].copy(), np.random.default_rng(0)
    for row, length in zip(tokens, rows.arrays["lengths"], strict=True):
        for place in range(1, length):
            if random.random() < 0.7:
                row[place] = plainly(model, row[: place + 1])[-1].argmax()
    return Dataset({**rows.arrays, "tokens": tokens}, rows.origin)


@pytest.mark.parametrize("kind", KINDS)
def test_only_tokens_above_the_threshold_change_and_only_to_the_most_probable(kind: str) -> None:
    model = tiny_model(kind)
    rows = certain_rows(model, random_rows(40, 20, ragged=True))
    new, again, changed = edited(model, rows, above=0.05, top=4, seed=1)
    looked = 0
    for index, length in enumerate(rows.arrays["lengths"].tolist()):
        before, after = rows.arrays["tokens"][index], new.arrays["tokens"][index]
        assert after[0] == before[0]
        assert (after[length:] == before[length:]).all()
        probabilities = plainly(model, before[:length])
        sure = probabilities[np.arange(length - 1), before[1:length]] > 0.05
        assert again[index] == sure.sum()
        assert changed[index] == (after != before).sum()
        for place in range(1, length):
            if not sure[place - 1]:
                assert after[place] == before[place]
            else:
                assert after[place] in np.argsort(-probabilities[place - 1])[:4]
                looked += 1
    assert looked > 30
    assert 0 < changed.sum() < again.sum()


def test_tokens_are_drawn_by_their_probabilities() -> None:
    """One row many times: the shares of what stands at a place are those of the model's top 3."""
    model, copies = tiny_model("gpt2"), 4000
    one = certain_rows(model, random_rows(1, 6))
    rows = one.take(np.zeros(copies, np.int64))
    probabilities = plainly(model, one.arrays["tokens"][0])
    place = int(np.argmax(probabilities[np.arange(5), one.arrays["tokens"][0, 1:]])) + 1
    new, _, _ = edited(model, rows, above=0.01, top=3, seed=4)
    best = np.argsort(-probabilities[place - 1])[:3]
    shares = probabilities[place - 1][best] / probabilities[place - 1][best].sum()
    found = (new.arrays["tokens"][:, place][:, None] == best).mean(axis=0)
    assert found.sum() == 1
    assert (np.abs(found - shares) <= 4 * np.sqrt(shares * (1 - shares) / copies) + 1e-4).all()


def test_a_row_does_not_depend_on_those_beside_it() -> None:
    model = tiny_model("llama")
    rows = certain_rows(model, random_rows(30, 16))
    new, again, _ = edited(model, rows, above=0.2, top=8, seed=2)
    few, _, _ = edited(model, rows.take(np.arange(11)), above=0.2, top=8, seed=2)
    assert (few.arrays["tokens"] == new.arrays["tokens"][:11]).all()
    assert again.sum() > 0
    other, _, _ = edited(model, rows, above=0.2, top=8, seed=3)
    assert (other.arrays["tokens"] != new.arrays["tokens"]).any()


def test_where_the_model_is_sure_of_nothing_all_stays() -> None:
    model, rows = tiny_model("gpt2"), random_rows(10, 12)
    new, again, changed = edited(model, rows, above=0.9999, top=8, seed=0)
    assert (new.arrays["tokens"] == rows.arrays["tokens"]).all()
    assert again.sum() == changed.sum() == 0
    none, _, _ = edited(model, rows.take(np.arange(0)), above=0.5, top=8, seed=0)
    assert len(none) == 0
