"""Trials cover the reach of the work: windows, chunks and rotations that only show in rows as long as the work's own."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
from support.sampling import continued, grouped
from support.tiny import PAD, VOCABULARY, rows_of

from collapse_cli.config.tree import TrainConfig
from collapse_cli.data.dataset import Dataset
from collapse_cli.lm import fallback, score, trial
from collapse_cli.lm.decode import _written, try_out
from collapse_cli.lm.model import without_memory_of_lengths
from collapse_cli.lm.packing import Abilities, abilities
from collapse_cli.lm.step import Work

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


def test_dynamic_frequencies_do_not_depend_on_rows_read_before() -> None:
    """The frequencies of the longest row so far were kept: 20 tokens after 40 came out otherwise than 20 alone."""
    fresh, data = dynamic(), ragged([40, 20, 30, 20, 17, 3, 25])
    model = without_memory_of_lengths(copy.deepcopy(fresh))
    alone = [scored_alone(copy.deepcopy(fresh), data.take(np.array([row])))[0] for row in range(len(data))]
    nll, _ = score.score_blocks(model, data)
    assert nll == pytest.approx(alone, rel=1e-5)
    assert scored_alone(copy.deepcopy(fresh), data) != pytest.approx(alone, rel=1e-3), "transformers' own"
    prompts = ragged([20, 3, 30])
    made = continued(model, prompts, new=12, beams=1, end=None).arrays["tokens"]
    for row, length in enumerate(prompts.arrays["lengths"]):
        for step in range(12):
            whole = np.concatenate([prompts.arrays["tokens"][row, :length], made[row, :step]]).astype(np.int64)
            with torch.no_grad():
                logits = copy.deepcopy(fresh)(input_ids=torch.from_numpy(whole)[None], use_cache=False).logits[0, -1]
            assert float(logits.max() - logits[made[row, step]]) < 1e-3


@pytest.mark.parametrize("window", [None, 8])
@torch.no_grad()
def test_greedy_samples_are_the_likeliest_tokens_whatever_the_window(window: int | None) -> None:
    model, prompts = phimoe(window), ragged([3, 20, 7, 12, 8, 9])
    made = continued(model, prompts, new=12, beams=1, end=None).arrays["tokens"]
    for row, length in enumerate(prompts.arrays["lengths"]):
        whole = np.concatenate([prompts.arrays["tokens"][row, :length], made[row]]).astype(np.int64)
        logits = model(input_ids=torch.from_numpy(whole)[None], use_cache=False).logits[0]
        assert logits[length - 1 : -1].argmax(1).tolist() == made[row].tolist()


def narrowed() -> Any:
    """A Llama whose attention is narrowed to 8 tokens by a mask alone, of which its configuration says nothing."""
    model = grouped(hidden_size=32)
    whole = model.model.forward

    def forward(input_ids: torch.Tensor, **options: Any) -> Any:
        own = model.config._attn_implementation in ("sdpa", "eager")  # ours is given no mask
        if own:
            width = input_ids.shape[1]
            behind = torch.arange(width)[:, None] - torch.arange(width)
            mask = torch.zeros(width, width).masked_fill_((behind < 0) | (behind >= 8), -torch.inf)
            options["attention_mask"] = mask.expand(len(input_ids), 1, -1, -1)
        return whole(input_ids=input_ids, **options)

    model.model.forward = forward
    return model


def test_a_window_of_the_mask_alone_is_found_in_scoring_and_training() -> None:
    model, data = narrowed(), ragged([10, 40, 16, 17, 3, 40, 10])
    assert abilities(narrowed(), 8, gradients=True).packs, "within the window our attention does the same"
    assert not abilities(model, 40, gradients=True).attends
    nll, _ = score.score_blocks(model, data)
    assert nll == pytest.approx(scored_alone(model, data), rel=1e-4)
    settings = TrainConfig(clip=0.0, dtype="float32")
    Work(model, settings, 40).gradients(data, 0, 7)
    found = [weight.grad.clone() for weight in model.parameters()]
    model.zero_grad()
    for tokens, length in zip(data.arrays["tokens"], data.arrays["lengths"], strict=True):
        ids = torch.from_numpy(tokens[None, :length].astype(np.int64))
        odds = model(input_ids=ids, use_cache=False).logits[0, :-1].log_softmax(1)
        (-odds.gather(1, ids[0, 1:, None]).sum() / (data.arrays["lengths"].sum() - len(data))).backward()
    for slope, weight in zip(found, model.parameters(), strict=True):
        assert torch.allclose(slope, weight.grad, rtol=1e-3, atol=1e-5)


def test_a_window_that_new_tokens_cross_after_a_short_prompt_is_found() -> None:
    """No prompt of the trial is long: only steps far from it show that the engine looks further back than the model."""
    model = narrowed()
    text = trial.tokens(model, 1, 40)[0]
    states, wanted = _written(model, text)
    same = (states - wanted).abs().amax(dim=1) < 1e-3 * wanted.abs().max()
    assert same[: 8 - trial.SHORT].all(), "within the window"
    assert not same[8:].any(), "beyond it"
    assert try_out(model, 40).why_not
    states, wanted = _written(grouped(hidden_size=32), text)
    assert torch.allclose(states, wanted, atol=1e-4), "of a model without one, all tokens are its own"


@pytest.mark.parametrize("beams", [1, 2])
def test_generate_is_tried_up_to_the_reach_after_short_prompts(beams: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache that goes wrong many steps after the prompt: what is continued must do without it."""
    model = phimoe(8)
    whole, steps = model.model.forward, 0

    def forward(*args: Any, **options: Any) -> Any:
        nonlocal steps
        ids, cache = options["input_ids"], options.get("past_key_values")
        steps = steps + 1 if ids.shape[1] == 1 and cache is not None else 0
        made = whole(*args, **options)
        if steps > 12:
            made.last_hidden_state = made.last_hidden_state.flip(-1)
        return made

    monkeypatch.setattr(model.model, "forward", forward)
    assert fallback.find_way(model, 12, beams, PAD) == fallback.WAYS[0], "so far it is right"
    assert fallback.find_way(model, 40, beams, PAD) == fallback.Way(mixes=False, cache=False)


def other(kind: str, **fields: Any) -> Any:
    from transformers import AutoConfig, AutoModelForCausalLM

    tokens = {"vocab_size": VOCABULARY, "pad_token_id": 1, "bos_token_id": 2, "eos_token_id": 2}
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **tokens, **fields), dtype=torch.float32)
    for weight in model.parameters():
        if weight.dim() > 1:
            torch.nn.init.normal_(weight, 0, 0.3)
    return model.eval()


FALLBACKS = {
    "RWKV": lambda: other(
        "rwkv", hidden_size=32, attention_hidden_size=32, intermediate_size=48, num_hidden_layers=2, context_length=64
    ),
    "BART": lambda: other(
        "bart", d_model=32, decoder_layers=2, decoder_attention_heads=2, decoder_ffn_dim=48, max_position_embeddings=64
    ),
    "RecurrentGemma": lambda: other(
        "recurrent_gemma",
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        lru_width=32,
        attention_window_size=16,
    ),
}


@pytest.mark.parametrize("beams", [1, 2])
@pytest.mark.parametrize("kind", FALLBACKS)
def test_what_generate_continues_is_what_it_continues_alone(kind: str, beams: int) -> None:
    """A short prompt beside a long one, and sixteen rows, against the model's own forward pass and each row alone."""
    model, prompts = FALLBACKS[kind](), ragged([3, 20, 7, 12, 20, 9] * 3)
    made = continued(model, prompts, new=6, beams=beams, end=None).arrays["tokens"]
    for row in (0, 1, 2, 3):
        alone = continued(model, prompts.take(np.array([row])), new=6, beams=beams, end=None).arrays["tokens"]
        assert made[row].tolist() == alone[0].tolist()
        length = prompts.arrays["lengths"][row]
        if beams == 1:
            for step in range(6):
                whole = np.concatenate([prompts.arrays["tokens"][row, :length], made[row, :step]]).astype(np.int64)
                with torch.no_grad():
                    logits = model(input_ids=torch.from_numpy(whole)[None], use_cache=False).logits[0, -1]
                assert float(logits.max() - logits[made[row, step]]) < 1e-3


@pytest.mark.parametrize(
    ("kind", "fields", "reach", "matters"),
    [
        ("opt", {}, 128, False),
        ("gpt2", {}, 128, False),
        ("llama", {}, 128, False),
        ("mistral", {"sliding_window": 16}, 128, True),
        ("mistral", {"sliding_window": 4096}, 128, False),
        ("mistral", {"sliding_window": None}, 128, False),
        (
            "llama",
            {"rope_scaling": {"rope_type": "llama3", "factor": 8.0, "original_max_position_embeddings": 64,
                              "low_freq_factor": 1.0, "high_freq_factor": 4.0}},
            128,
            True,
        ),
        ("rwkv", {}, 16, True),
        ("bart", {}, 16, True),
    ],
)  # fmt: skip
def test_where_the_length_of_rows_matters_stages_have_keys_of_their_own(
    kind: str, fields: dict[str, Any], reach: int, matters: bool
) -> None:
    """Before models were tried over the reach of the work, such ones were worked with wrongly, in silence."""
    from transformers import AutoConfig

    from collapse_cli.config import Experiment
    from collapse_cli.learners.lm import LanguageModel
    from collapse_cli.lm.trial import length_matters

    assert length_matters(AutoConfig.for_model(kind, **fields), reach) is matters
    plain, marked = Experiment(), Experiment.model_validate({"model": {"length_matters": matters}})
    for work in ("data", "train", "sample", "eval", "examine"):
        other = matters and work != "data"
        assert (LanguageModel.params(marked, work) != LanguageModel.params(plain, work)) is other
