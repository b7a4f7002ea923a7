"""Packed rows give what each text alone gives; models that cannot take them are found out."""

from typing import Any

import numpy as np
import pytest
import torch
from support.tiny import KINDS, random_rows, tiny_model
from torch.nn import functional

from collapse_cli.lm import attention, packing
from collapse_cli.lm.attention import Causal, attending
from collapse_cli.lm.loss import IGNORED, summed_loss, token_losses
from collapse_cli.lm.packing import Abilities, abilities, attention_for, first_fit, lay_out

CPU = torch.device("cpu")
LENGTHS = [3, 9, 2, 7, 1, 5, 4, 0, 9, 2]


def texts() -> tuple[np.ndarray, np.ndarray]:
    """(texts, 9) tokens and how many of them are used."""
    return random_rows(len(LENGTHS), 9).arrays["tokens"], np.array(LENGTHS, np.int32)


def test_the_longest_is_put_first_and_each_where_it_fits() -> None:
    assert first_fit(np.array([3, 9, 2, 7, 5, 4]), 9) == [[1], [3, 2], [4, 5], [0]]
    assert first_fit(np.array([4, 4, 4]), 8) == [[0, 1], [2]]
    assert first_fit(np.array([], np.int32), 8) == []


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("tokens_at_once", [1, 20, 1000])
def test_everything_that_is_predicted_is_laid_out_once(packed: bool, tokens_at_once: int) -> None:
    tokens, lengths = texts()
    found, rows = [], 0
    for batch in lay_out(tokens, lengths, tokens_at_once, CPU, Abilities(packs=packed)):
        assert batch.ids.shape[0] == 1 or batch.ids.numel() <= tokens_at_once
        assert batch.labels.shape == (batch.ids.shape[0], batch.ids.shape[1] - 1)
        rows += len(batch.ids)
        for row, column in (batch.labels != IGNORED).nonzero().tolist():
            assert batch.labels[row, column] == batch.ids[row, column + 1]
            text = int(batch.owners[row, column])
            assert text == batch.owners[row, column + 1]
            place = column if batch.positions is None else int(batch.positions[row, column])
            assert tokens[text, place] == batch.ids[row, column]
            found.append((text, place))
    assert sorted(found) == [(text, place) for text, length in enumerate(lengths) for place in range(length - 1)]
    assert rows == (5 if packed else 8), "41 tokens do not go into four rows of nine"


def test_full_rows_stay_as_they_are() -> None:
    data = random_rows(5, 6)
    tokens, lengths = data.arrays["tokens"], data.arrays["lengths"]
    batches = list(lay_out(tokens, lengths, 12, CPU, Abilities(packs=True)))
    assert [len(batch.ids) for batch in batches] == [2, 2, 1]
    assert np.array_equal(torch.cat([batch.ids for batch in batches]).numpy(), tokens)
    assert all(batch.segments is None and batch.positions is None for batch in batches)


def test_texts_that_predict_nothing_make_no_batch() -> None:
    assert list(lay_out(np.zeros((2, 3), np.int32), np.array([1, 0]), 10, CPU, Abilities(packs=True))) == []


def test_without_packing_texts_of_like_length_go_together() -> None:
    tokens, lengths = texts()
    widths = [batch.ids.shape[1] for batch in lay_out(tokens, lengths, 18, CPU, Abilities())]
    assert widths == [9, 7, 4]


@pytest.mark.parametrize("limit", [0, 128], ids=["torch's attention", "products"])
@pytest.mark.parametrize("kind", KINDS)
def test_packed_rows_give_the_loss_and_gradients_of_each_text_alone(
    monkeypatch: pytest.MonkeyPatch, kind: str, limit: int
) -> None:
    monkeypatch.setattr(attention, "MATH_WIDTH", limit)
    monkeypatch.setattr(attention, "prefers_fused", lambda: limit == 0)
    model = tiny_model(kind, tied=kind != "llama")
    tokens, lengths = texts()
    wanted = torch.zeros(())
    alone = {}
    for text in np.flatnonzero(lengths > 1):
        ids = torch.from_numpy(tokens[text, : lengths[text]].astype(np.int64))[None]
        losses = functional.cross_entropy(model(input_ids=ids).logits[0, :-1], ids[0, 1:], reduction="none")
        alone[int(text)] = losses.detach().numpy()
        wanted = wanted + losses.sum()
    wanted.backward()
    gradients = {name: weight.grad.clone() for name, weight in model.named_parameters()}
    model.zero_grad()
    able = abilities(model, 9)
    assert able == Abilities(attends=True, packs=True)
    total = 0.0
    for batch in lay_out(tokens, lengths, 20, CPU, Abilities(packs=True)):
        inputs: dict[str, Any] = {"plain_head": True, "positions": batch.positions}
        with attention_for(model, able, batch):
            loss = summed_loss(model, batch.ids, batch.labels, **inputs)
            each = token_losses(model, batch.ids, batch.labels, **inputs).numpy()
        loss.backward()
        total += loss.item()
        for text in np.unique(batch.owners[batch.owners >= 0]):
            mine = (batch.owners[:, :-1] == text) & (batch.labels != IGNORED).numpy()
            assert each[mine] == pytest.approx(alone[int(text)], rel=1e-5, abs=1e-5)
    assert total == pytest.approx(wanted.item(), rel=1e-6)
    for name, weight in model.named_parameters():
        torch.testing.assert_close(weight.grad, gradients[name], rtol=1e-4, atol=1e-5, msg=name)


@pytest.mark.parametrize("fused", [True, False], ids=["torch's attention", "products"])
@pytest.mark.parametrize("heads", [4, 2], ids=["heads", "grouped"])
@torch.no_grad()
def test_causal_attention_is_that_of_a_plain_loop(monkeypatch: pytest.MonkeyPatch, fused: bool, heads: int) -> None:
    monkeypatch.setattr(attention, "prefers_fused", lambda: fused)
    torch.manual_seed(0)
    query, (key, value) = torch.randn(2, 4, 6, 8), torch.randn(2, 2, heads, 6, 8)
    segments = torch.tensor([[0, 0, 0, 1, 1, -1], [2, 2, 2, 2, 2, 2]])
    for parts in (segments, None):
        causal = Causal(parts, 6)
        for _ in range(2):  # what it keeps between layers must not change it
            found = causal(torch.nn.Identity(), query, key, value, 0.3, 0.0)
        for row in range(2):
            for head in range(4):
                for token in range(6):
                    own = [t for t in range(token + 1) if parts is None or parts[row, t] == parts[row, token]]
                    group = head * heads // 4
                    odds = (query[row, head, token] @ key[row, group, own].T * 0.3).softmax(0)
                    torch.testing.assert_close(found[row, token, head], odds @ value[row, group, own])


@pytest.mark.parametrize("packed", [True, False], ids=["packed", "one text a row"])
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("fused", [True, False], ids=["torch's attention", "products"])
@torch.no_grad()
def test_attention_gives_a_row_the_same_bits_among_any_number_of_rows(
    monkeypatch: pytest.MonkeyPatch, fused: bool, threads: int, packed: bool
) -> None:
    monkeypatch.setattr(attention, "prefers_fused", lambda: fused)
    torch.manual_seed(0)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for width in (1, 3, 31, 33, 64, 90):
            rows = torch.randn(3, 9, width, 2, 16).transpose(2, 3)
            segments = (torch.arange(width) > width // 3).long().expand(9, -1) if packed else None
            all_rows = Causal(segments, width)(torch.nn.Identity(), *rows, 1.0, 0.0)
            for first, last in ((0, 1), (4, 6), (2, 9)):
                part = None if segments is None else segments[first:last]
                some = Causal(part, width)(torch.nn.Identity(), *rows[:, first:last], 1.0, 0.0)
                assert torch.equal(some, all_rows[first:last]), (width, first, last)
    finally:
        torch.set_num_threads(before)


@torch.no_grad()
def test_attention_with_dropout_is_made_of_products_on_every_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whose dropout is ours: what several devices promise rests on it (`train._drops_alike`)."""
    monkeypatch.setattr(attention, "prefers_fused", lambda: True)
    asked: list[float] = []
    monkeypatch.setattr(functional, "dropout", lambda odds, share: asked.append(share) or odds)  # type: ignore[func-returns-value]
    rows = torch.randn(3, 2, 2, 5, 8)
    Causal(None, 5)(torch.nn.Identity(), *rows, 1.0, 0.25)
    assert asked == [0.25]


def small(kind: str, **fields: Any) -> Any:
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    common = {"vocab_size": 97, "pad_token_id": 1, "bos_token_id": 2, "eos_token_id": 2}
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **common, **fields)).eval()


HEADS = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
GROUPED = HEADS | {"num_key_value_heads": 2}
OTHERS = {
    "gemma2": GROUPED | {"head_dim": 8, "attn_logit_softcapping": 0.5},
    "bloom": {"hidden_size": 16, "n_layer": 2, "n_head": 2},
    "mamba": {"hidden_size": 16, "num_hidden_layers": 2, "state_size": 4},
}


@pytest.mark.parametrize("kind", OTHERS)
def test_models_whose_attention_is_another_keep_it(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    packing.warn_once.cache_clear()
    model = small(kind, **OTHERS[kind]).train()
    before = model.config._attn_implementation
    assert abilities(model, 9) == abilities(model, 9) == Abilities()
    assert model.config._attn_implementation == before
    assert model.training
    assert [f"{kind} models keep their own attention" in message for message in caplog.messages].count(True) == 1


def test_a_sliding_window_matters_where_rows_are_longer() -> None:
    model = small("mistral", **GROUPED, sliding_window=8)
    assert abilities(model, 8).attends
    assert not abilities(model, 9).attends


def test_a_model_that_mixes_packed_texts_is_not_given_any(monkeypatch: pytest.MonkeyPatch) -> None:
    """As families would with a state of their own: here one whose positions cannot be set."""
    model = tiny_model("opt")
    forward = model.forward
    monkeypatch.setattr(
        model, "forward", lambda **given: forward(**{k: v for k, v in given.items() if k != "position_ids"})
    )
    assert abilities(model, 9) == Abilities(attends=True, packs=False)


def test_models_are_left_as_they_were() -> None:
    model = tiny_model("opt", dropout=0.5).train()
    state, before = torch.get_rng_state(), model.config._attn_implementation
    assert abilities(model, 9).packs, "dropout must not disturb the comparison"
    assert model.training
    assert torch.equal(torch.get_rng_state(), state)
    with attending(model, Causal(None, 9)):
        assert model.config._attn_implementation != before
    assert model.config._attn_implementation == before
