"""Trials cover the reach of the work: windows, chunks and rotations that only show in rows as long as the work's own."""

from typing import Any

import numpy as np
import pytest
import torch
from sampling import continued, grouped
from tiny import VOCABULARY, rows_of

from collapse_cli.data import Dataset
from collapse_cli.lm import score
from collapse_cli.lm.decode import try_out
from collapse_cli.lm.packing import Abilities, abilities

HALF = 4  # of a head's 8 dimensions
LONG_ROPE = {
    "rope_type": "longrope",
    "rope_theta": 10000.0,
    "factor": 4.0,
    "original_max_position_embeddings": 16,
    "short_factor": [1.0] * HALF,
    "long_factor": [1.0, 2.0, 4.0, 6.0],
}
DYNAMIC = {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 16}


def phimoe(window: int | None) -> Any:
    """Its window is said in the mask only, which attention functions are not given."""
    return grouped(
        "Phimoe", hidden_size=32, sliding_window=window, num_local_experts=2, num_experts_per_tok=2, head_dim=8
    )


def long_rope() -> Any:
    return grouped(
        "Phi3",
        hidden_size=32,
        rope_parameters=dict(LONG_ROPE),
        original_max_position_embeddings=16,
    )


def dynamic() -> Any:
    return grouped(hidden_size=32, max_position_embeddings=16, rope_parameters=dict(DYNAMIC))


MODELS = {"window by mask": lambda: phimoe(8), "LongRoPE": long_rope, "dynamic NTK": dynamic}


def ragged(lengths: list[int]) -> Dataset:
    tokens = np.random.default_rng(0).integers(4, VOCABULARY, (len(lengths), max(lengths)))
    return rows_of(tokens, lengths, stream=np.arange(len(lengths)))


@torch.no_grad()
def scored_alone(model: Any, data: Dataset) -> list[float]:
    """Summed negative log-likelihood of each row, by the model's own forward pass over it alone."""
    found = []
    for tokens, length in zip(data.arrays["tokens"], data.arrays["lengths"], strict=True):
        ids = torch.from_numpy(tokens[:length].astype(np.int64))[None]
        odds = model(input_ids=ids, use_cache=False).logits[0, :-1].log_softmax(1)
        found.append(-float(odds.gather(1, ids[0, 1:, None]).sum()))
    return found


@pytest.mark.parametrize("kind", MODELS)
def test_rows_of_unequal_length_score_what_each_scores_alone(kind: str) -> None:
    model, data = MODELS[kind](), ragged([10, 40, 16, 17, 3, 40, 10])
    nll, _ = score.score_blocks(model, data)
    assert nll == pytest.approx(scored_alone(model, data), rel=1e-4)


@pytest.mark.parametrize("kind", MODELS)
def test_the_engine_is_not_asked_beyond_what_it_does_right(kind: str) -> None:
    model = MODELS[kind]()
    assert not try_out(model, 8).why_not, "within the first window it is right"
    assert try_out(model, 40).why_not


@pytest.mark.parametrize("make", [long_rope, dynamic])
def test_rotations_that_depend_on_length_take_rows_of_one_length(make: Any) -> None:
    assert abilities(make(), 16, gradients=True).packs
    assert abilities(make(), 40, gradients=True) == Abilities(attends=True, mixes=False)


@pytest.mark.parametrize("window", [None, 8])
@torch.no_grad()
def test_greedy_samples_are_the_likeliest_tokens_whatever_the_window(window: int | None) -> None:
    model, prompts = phimoe(window), ragged([3, 20, 7, 12, 8, 9])
    made = continued(model, prompts, new=12, beams=1, end=None).arrays["tokens"]
    for row, length in enumerate(prompts.arrays["lengths"]):
        whole = np.concatenate([prompts.arrays["tokens"][row, :length], made[row]]).astype(np.int64)
        logits = model(input_ids=torch.from_numpy(whole)[None], use_cache=False).logits[0]
        assert logits[length - 1 : -1].argmax(1).tolist() == made[row].tolist()
