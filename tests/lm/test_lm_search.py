"""Greedy and beam search give token for token what transformers' `generate` gives, whichever way a model goes."""

import copy
import logging
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.sampling import FAMILIES, continued, family, generated, grouped
from support.tiny import END, PAD, VOCABULARY, random_rows, rows_of, tiny_model

from collapse_cli.config import load
from collapse_cli.config.tree import DecodeConfig
from collapse_cli.data.dataset import Dataset
from collapse_cli.lm import memory, sample
from collapse_cli.lm.decode import try_out
from collapse_cli.lm.sample import SampleError
from collapse_cli.lm.search import FinishedBeams, Rules, SeenTokens, Watch

# --- against transformers ---------------------------------------------------------------------------------------------


def in_one_or_alone(model: Any, prompts: Dataset, penalty: float, **options: Any) -> np.ndarray:
    """`generated`; with a penalty each row by itself, since older versions penalize padding as if it were text."""
    if penalty == 1.0:
        return generated(model, prompts, **options)
    found = []
    for row, length in enumerate(prompts.arrays["lengths"]):
        alone = rows_of(prompts.arrays["tokens"][row : row + 1, :length])
        found.append(generated(model, alone, repetition_penalty=penalty, **options))
    return np.concatenate(found)


@settings(max_examples=50)
@given(
    name=st.sampled_from(FAMILIES),
    seed=st.integers(0, 3),
    beams=st.sampled_from([1, 2, 3, 5, 8]),
    rows=st.integers(1, 5),
    width=st.integers(1, 9),
    new=st.integers(1, 9),
    ragged=st.booleans(),
    least=st.sampled_from([-1, 0, 2]),
    penalty=st.sampled_from([1.0, 1.0, 1.0, 1.7, 0.8]),
    power=st.sampled_from([1.0, 0.0, 2.5, -1.0]),
)
def test_search_equals_transformers_token_for_token(
    name: str,
    seed: int,
    beams: int,
    rows: int,
    width: int,
    new: int,
    ragged: bool,
    least: int,
    penalty: float,
    power: float,
) -> None:
    model, least = family(name, seed % 2, eager=4.0), min(least, new)
    prompts = random_rows(rows, width, seed=seed, ragged=ragged and width > 1)
    options: dict[str, Any] = {"num_beams": beams} | ({"length_penalty": power} if beams > 1 else {})
    wanted = in_one_or_alone(model, prompts, penalty, new=new, least=least, **options)
    how: dict[str, Any] = {
        "beams": beams,
        "repetition_penalty": penalty,
        "length_penalty": power,
        "min_new_tokens": least,
    }
    found = continued(model, prompts, new=new, **how)
    assert found.arrays["tokens"].tolist() == wanted.tolist()


@pytest.mark.parametrize("least", [-1, 0, 3])
@pytest.mark.parametrize("beams", [1, 5])
@pytest.mark.parametrize("name", FAMILIES)
def test_many_rows_some_of_which_end_equal_transformers(name: str, beams: int, least: int) -> None:
    model, prompts = family(name, eager=4.0), random_rows(24, 7, seed=3, ragged=True)
    assert not try_out(model).why_not, "this is about the engine"
    found = continued(model, prompts, new=12, beams=beams, min_new_tokens=least)
    wanted = generated(model, prompts, new=12, least=least, num_beams=beams)
    assert found.arrays["tokens"].tolist() == wanted.tolist()
    assert found.arrays["tokens"].dtype == found.arrays["lengths"].dtype == np.int32
    lengths = [[*row, END].index(END) + 1 for row in wanted.tolist()]
    assert found.arrays["lengths"].tolist() == [min(length, 12) for length in lengths]
    if least < 0:
        assert set(lengths) == {13}
    else:
        assert len(set(lengths)) > 2, "the comparison is to include rows that end, and rows that do not"
        assert min(lengths) > least


@pytest.mark.parametrize("name", FAMILIES)
def test_long_samples_equal_transformers_when_slots_were_dropped(name: str) -> None:
    model, prompts = family(name), random_rows(6, 7, seed=5, ragged=True)
    for beams in (3, 5):
        found = continued(model, prompts, new=44, beams=beams)
        assert found.arrays["tokens"].tolist() == generated(model, prompts, new=44, num_beams=beams).tolist()


def test_a_length_penalty_chooses_among_beams_that_ended() -> None:
    model, prompts = family("opt", eager=4.0), random_rows(30, 5, seed=2)
    found = {
        power: continued(model, prompts, new=10, min_new_tokens=0, length_penalty=power).arrays["lengths"].mean()
        for power in (-2.0, 1.0, 4.0)
    }
    assert found[-2.0] < found[1.0] < found[4.0]


@pytest.mark.parametrize("new", [2, 10, 64])
def test_the_extremes_of_the_length_penalty_that_are_taken_still_rank_beams(new: int) -> None:
    """The longest text that is very unlikely comes before what must not win, and two of one length are told apart."""
    for power in (-1e300, 1e300):
        with pytest.raises(ValueError, match="length_penalty must be between") as said:
            load({"sample": {"new_tokens": new, "decode": {"length_penalty": power, "min_new_tokens": 0}}}, "x")
        low, high = map(float, re.findall(r"between (\S+) and (\S+) with", str(said.value))[0])
        edge = (low + 0.06 * abs(low)) if power < 0 else high * 0.94  # the message rounds
        load({"sample": {"new_tokens": new, "decode": {"length_penalty": edge, "min_new_tokens": 0}}}, "x")
        rules = Rules(DecodeConfig(length_penalty=edge), new, 0, END, PAD)
        done = FinishedBeams(1, 2, rules, torch.device("cpu"))
        totals = torch.tensor([[-25.0 * new, -25.1 * new, -25.2 * new, -25.3 * new]])
        texts = torch.arange(4 * new).view(1, 4, new)
        done.add(new - 1, texts, totals, torch.ones(1, 4, dtype=torch.bool))
        assert done.sequences.tolist() == texts[:, :2].tolist()
        assert done.scores.isfinite().all()
        assert done.scores[0, 0] > done.scores[0, 1] > -1e9


@pytest.mark.parametrize(("vocabulary", "beams"), [(5, 3), (5, 5), (9, 5)])
@pytest.mark.parametrize("least", [-1, 0])
def test_more_beams_than_a_vocabulary_can_fill(vocabulary: int, beams: int, least: int) -> None:
    model = tiny_model("opt", vocabulary=vocabulary, tied=False)
    prompts = rows_of(np.random.default_rng(0).integers(3, vocabulary, (4, 4)), stream=np.arange(4))
    found = continued(model, prompts, beams=beams, min_new_tokens=least)
    assert found.arrays["tokens"].tolist() == generated(model, prompts, least=least, num_beams=beams).tolist()


def test_more_beams_than_tokens_are_refused() -> None:
    prompts = rows_of(np.full((4, 4), 3), stream=np.arange(4))
    with pytest.raises(SampleError, match=r"beams = 8 is more than the vocabulary of 5"):
        continued(tiny_model("opt", vocabulary=5, tied=False), prompts, beams=8)


def test_what_a_model_folder_suggests_does_not_change_the_settings() -> None:
    for model in (tiny_model("opt"), with_bias(tiny_model("opt"), END, 0.0)):
        prompts = random_rows(4, 5)
        wanted = continued(model, prompts, beams=1)
        model.generation_config.repetition_penalty = 5.0
        model.generation_config.max_length = 6
        model.generation_config.do_sample = True
        model.generation_config.suppress_tokens = wanted.arrays["tokens"][0].tolist()
        found = continued(model, prompts, beams=1)
        assert np.array_equal(found.arrays["tokens"], wanted.arrays["tokens"])


# --- the parts of a search --------------------------------------------------------------------------------------------


def test_a_history_holds_the_prompt_without_its_padding_and_what_was_written() -> None:
    history = SeenTokens(torch.tensor([[5, 6, 7], [8, 9, 9]]), torch.tensor([3, 1]))
    seen = history.of(torch.tensor([[[11], [12]], [[13], [14]]]))
    assert [set(row) for row in seen.tolist()] == [{5, 6, 7, 11}, {5, 6, 7, 12}, {8, 13}, {8, 14}]


def test_a_watch_keeps_the_first_step_that_was_not_finite() -> None:
    watch = Watch(3, torch.device("cpu"))
    good, bad = 1.0, float("nan")
    for step, masses in enumerate([[good] * 3, [good, bad, good], [float("inf"), bad, good]]):
        watch.see(step, torch.tensor(masses))
    watch.see(3, torch.tensor([[good, good], [bad, good], [good, bad]]).flatten())
    assert watch.bad.tolist() == [2, 1, 3]


# --- models that the engine cannot take -------------------------------------------------------------------------------


def with_bias(model: Any, token: int, by: float) -> Any:
    """A head with a bias, which the engine does not take."""
    head = model.get_output_embeddings()
    head.bias = torch.nn.Parameter(torch.zeros(head.weight.shape[0]))
    head.bias.data[token] = by
    return model


def bloom() -> Any:
    from transformers import BloomConfig, BloomForCausalLM

    torch.manual_seed(0)
    return BloomForCausalLM(
        BloomConfig(vocab_size=VOCABULARY, hidden_size=16, n_layer=2, n_head=2, initializer_range=0.3)
    ).eval()


def mamba() -> Any:
    from transformers import MambaConfig, MambaForCausalLM

    torch.manual_seed(0)
    config = MambaConfig(vocab_size=VOCABULARY, hidden_size=16, num_hidden_layers=2, state_size=4)
    return MambaForCausalLM(config).eval()


def deepseek() -> Any:
    sizes: dict[str, Any] = {
        "q_lora_rank": 8,
        "kv_lora_rank": 8,
        "qk_rope_head_dim": 4,
        "v_head_dim": 4,
        "qk_nope_head_dim": 4,
    }
    experts: dict[str, Any] = {"n_routed_experts": 4, "n_group": 1, "topk_group": 1, "num_experts_per_tok": 1}
    layers: dict[str, Any] = {"first_k_dense_replace": 1, "moe_intermediate_size": 16, "num_key_value_heads": 4}
    return grouped("DeepseekV3", **sizes, **experts, **layers)


def padding_lover() -> Any:
    """As a bias would, but in a way that the engine takes: all hidden states end in 1, by a layer norm's bias."""
    model = tiny_model("opt", tied=False)
    norm, head = model.model.decoder.final_layer_norm, model.get_output_embeddings()
    norm.weight.data[-1], norm.bias.data[-1] = 0.0, 1.0
    head.weight.data[PAD, -1] = 40.0
    return model


def neox() -> Any:
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

    torch.manual_seed(0)
    config = GPTNeoXConfig(
        vocab_size=VOCABULARY,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=64,
        initializer_range=0.3,
    )
    return GPTNeoXForCausalLM(config).eval()


MODELS: dict[str, tuple[Callable[[], Any], str]] = {  # and why the engine does not take them
    "GPT-NeoX": (neox, ""),
    "Mistral": (lambda: grouped("Mistral", sliding_window=None), ""),
    "Mistral, window as long as the row": (lambda: grouped("Mistral", sliding_window=19), ""),
    "Mistral, window within the row": (lambda: grouped("Mistral", sliding_window=10), "sees 10 tokens only"),
    "Mistral, window within the prompt": (lambda: grouped("Mistral", sliding_window=4), "sees 4 tokens only"),
    "Gemma 2": (lambda: grouped("Gemma2", head_dim=4), "its output head"),
    "Gemma 2, plain head": (lambda: grouped("Gemma2", head_dim=4, final_logit_softcapping=None), "softcap"),
    "GPT-OSS": (lambda: grouped("GptOss", head_dim=4, num_local_experts=2, num_experts_per_tok=1), "s_aux"),
    "Granite": (lambda: grouped("Granite", logits_scaling=4.0), "its output head"),
    "DeepSeek": (deepseek, "take other arguments"),
    "Bloom": (bloom, "more than keys and values"),
    "Mamba": (mamba, "more than keys and values"),
    "OPT with a bias": (lambda: with_bias(tiny_model("opt", tied=False), END, 8.0), "its output head"),
}


@pytest.mark.parametrize("name", MODELS)
def test_every_model_gives_the_tokens_of_generate_and_says_once_when_they_come_from_there(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    make, why_not = MODELS[name]
    model, prompts = make(), random_rows(6, 7, seed=1, ragged=True)
    memory.warn_once.cache_clear()
    with caplog.at_level(logging.WARNING):
        for beams in (1, 3):
            found = continued(model, prompts, new=12, beams=beams, min_new_tokens=0)
            wanted = generated(model, prompts, new=12, least=0, num_beams=beams)
            assert found.arrays["tokens"].tolist() == wanted.tolist()
    said = [record.message for record in caplog.records if record.name.startswith("collapse_cli")]
    assert len(said) == bool(why_not)
    assert all(f"{model.config.model_type} models are sampled through" in each and why_not in each for each in said)


@pytest.mark.parametrize("kind", ["GPT-NeoX", "Mistral", "Gemma 2", "Granite", "Bloom", "Mamba"])
def test_a_trial_says_what_sampling_will_do(kind: str) -> None:
    make, why_not = MODELS[kind]
    trial = try_out(make())
    assert why_not in trial.why_not
    assert bool(why_not) == bool(trial.why_not)
    assert trial.states == {"GPT-NeoX": 2 * 2 * 16, "Mistral": 2 * 2 * 8}.get(kind, 0)


def test_a_trial_leaves_the_model_as_it_was() -> None:
    for model in (tiny_model("opt"), bloom()):
        before = model.config._attn_implementation, {name: each.clone() for name, each in model.state_dict().items()}
        try_out(model)
        assert model.config._attn_implementation == before[0]
        assert all(torch.equal(each, before[1][name]) for name, each in model.state_dict().items())
        assert not model.training


def test_a_prompt_s_padding_is_not_penalized_as_if_it_were_text() -> None:
    """Its tokens are chosen so that the one that pads is by far the likeliest, until it is penalized."""
    for model in (with_bias(tiny_model("opt", tied=False), PAD, 40.0), padding_lover()):
        prompts = rows_of(np.full((2, 5), 9), [5, 2], stream=np.arange(2))
        found = continued(model, prompts, beams=1, repetition_penalty=100.0)
        assert found.arrays["tokens"][:, 0].tolist() == [PAD, PAD]
        assert PAD not in found.arrays["tokens"][:, 1]


# --- on a GPU ---------------------------------------------------------------------------------------------------------


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device, or none asked for by -m gpu")
@pytest.mark.parametrize("beams", [1, 5])
@pytest.mark.parametrize("name", FAMILIES)
def test_a_gpu_gives_the_tokens_of_a_cpu(name: str, beams: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Several batches over recorded steps, slots dropped in between, the last batch not full."""
    monkeypatch.setattr(sample, "MOST_SEQUENCES", {"cpu": 640, "cuda": 8 * beams})
    model, prompts = copy.deepcopy(family(name)), random_rows(21, 7, seed=4, ragged=True)
    wanted = continued(model, prompts, new=40, beams=beams, min_new_tokens=20)
    found = continued(model.to("cuda"), prompts, new=40, beams=beams, min_new_tokens=20)
    assert found.arrays["tokens"].tolist() == wanted.arrays["tokens"].tolist()
    drawn: dict[str, Any] = {"beams": 1, "temperature": 1.0, "top_k": 20}
    cpu, gpu = copy.deepcopy(family(name)), model
    wanted, found = (continued(each, prompts, new=20, **drawn) for each in (cpu, gpu))
    assert (found.arrays["tokens"] == wanted.arrays["tokens"]).all(axis=1).mean() > 0.9, "but for rounding"
