"""Token editing: tokens that a reference model is all too sure of are drawn anew (Zhu et al., arXiv 2412.14689, equation 4).

Where the probability of a row's token, given those before it in the row as they were, is above a threshold, it is drawn from the model's
`top` most probable tokens there, by their probabilities. All others stay. One forward pass, and no row depends on another.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from collapse_cli.data.dataset import MASK, Dataset
from collapse_cli.lm import score as scoring

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

LARGEST_VOCABULARY = 1 << 24  # ids travel as float32, which holds whole numbers up to here


def edited(
    model: "PreTrainedModel",
    rows: Dataset,
    *,
    above: float,
    top: int,
    seed: int,
    dtype: str = "float32",
    tell: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[Dataset, np.ndarray, np.ndarray]:
    """Rows with some of their tokens drawn anew.

    Args:
        rows: `tokens` and `lengths`. The first token of a row stays, for nothing predicts it; and of dialogues all but the answers.
        above: the probability above which a token is drawn anew.
        top: of how many of the most probable tokens.
        seed: of the draws. Each row has its own random numbers: of more rows the first are edited alike.
        dtype: of the matrix products, as `score_blocks` has it.

    Returns:
        The rows; (rows,) how many tokens were drawn anew; and (rows,) how many of them are another one now.
    """
    tokens, lengths = rows.arrays["tokens"].copy(), rows.arrays["lengths"].astype(np.int64)

    def most_probable(log_odds: "torch.Tensor", before: "torch.Tensor") -> dict[str, "torch.Tensor"]:
        values, ids = log_odds.topk(min(top, log_odds.shape[1]), dim=1)
        columns = {f"id_{place}": ids[:, place].float() for place in range(ids.shape[1])}
        return columns | {f"log_{place}": values[:, place] for place in range(ids.shape[1])}

    assert model.config.get_text_config().vocab_size <= LARGEST_VOCABULARY
    details = scoring.Details(most_probable)
    scoring.score_blocks(model, rows, tell, dtype, details)
    found = details.columns()
    order = np.argsort(found["row"], kind="stable")  # rows may have been packed; within one, tokens stand in order
    row = found["row"][order].astype(np.int64)
    counts = np.bincount(row, minlength=len(rows))
    place = 1 + np.arange(len(row)) - np.repeat(np.cumsum(counts) - counts, counts)
    if MASK in rows.arrays:
        place = 1 + np.nonzero(rows.arrays[MASK][:, 1:])[1]
    assert np.array_equal(tokens[row, place], found["label"][order]), "tokens of a row are not in their order"
    sure = -found["nll"][order] > np.log(above)
    row, place, order = row[sure], place[sure], order[sure]
    if len(row):
        size = sum(name.startswith("id_") for name in found)
        ids = np.stack([found[f"id_{one}"][order] for one in range(size)], axis=1).astype(np.int64)
        odds = np.exp(np.stack([found[f"log_{one}"][order] for one in range(size)], axis=1))
        bounds = np.cumsum(odds, axis=1) / odds.sum(axis=1, keepdims=True)
        drawn = _uniforms(len(rows), int(lengths.max()), seed)[row, place]
        chosen = np.minimum((drawn[:, None] >= bounds).sum(axis=1), size - 1)
        new = ids[np.arange(len(ids)), chosen]
        other = new != tokens[row, place]
        tokens[row, place] = new
    else:
        other = np.zeros(0, bool)
    again = np.bincount(row, minlength=len(rows))
    changed = np.bincount(row[other], minlength=len(rows))
    return Dataset({**rows.arrays, "tokens": tokens}, rows.origin), again, changed


def _uniforms(rows: int, width: int, seed: int) -> np.ndarray:
    """(rows, width) numbers in [0, 1): of each row its own, so that more or longer rows begin with the same."""
    made = np.empty((rows, width))
    for row in range(rows):
        made[row] = np.random.Generator(np.random.Philox(key=np.array([seed % 2**64, row], np.uint64))).random(width)
    return made
