"""LoRA adapters: trained as peft and plain torch train them, written as peft reads them, merged where a model is used."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from support.tiny import KINDS, random_rows, tiny_model
from support.training import SETTINGS, altered, folder, identical, weights
from torch.nn import functional

from collapse_cli.data.dataset import Dataset
from collapse_cli.errors import ConfigError, InputError
from collapse_cli.lm import adapter, folders, model, train
from collapse_cli.lm import step as one_step
from collapse_cli.lm.train import fit, learning_rate

LORA = altered(SETTINGS, adapter=3, lr=1e-2)


def saved(kind: str, path: Path) -> Path:
    tiny_model(kind).save_pretrained(path)
    return path


def trained_adapter(base: Path, into: Path, scratch: Path, settings: Any = LORA, **named: Any) -> Path:
    """An adapter that was trained on the model of a folder, and saved."""
    adapted = adapter.begun(model.load(base), settings, seed=8)
    fit(adapted.base_model.model, random_rows(18, 7, ragged=True), settings, seed=4, scratch=scratch, **named)
    into.mkdir(exist_ok=True)
    adapter.save(adapted, into, str(base), "", folders.hash_weights(base))
    return into


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`base`, a whole model, and `adapter`, one that was trained on it."""
    home = tmp_path_factory.mktemp("made")
    trained_adapter(saved("opt", home / "base"), home / "adapter", home / "scratch")
    return home


def plain_lora(base: Any, settings: Any, data: Dataset, seed: int, begin: dict[str, torch.Tensor]) -> Any:
    """A model of peft's from the same numbers, trained in a plain loop: full logits, one row at a time, torch's AdamW."""
    from peft import LoraConfig, get_peft_model

    names = sorted({name.removeprefix("base_model.model.").rsplit(".lora_", 1)[0] for name in begin})
    adapted: Any = get_peft_model(
        base, LoraConfig(r=settings.adapter, lora_alpha=settings.adapter, target_modules=names)
    )
    own = dict(adapted.named_parameters())
    for name, value in begin.items():
        own[name].data.copy_(value)
    chosen = [weight for weight in adapted.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(chosen, lr=settings.lr, weight_decay=settings.weight_decay)
    steps = -(-len(data) // settings.batch_size)
    for step in range(settings.epochs * steps):
        epoch, within = divmod(step, steps)
        order = train.random_numbers(seed, "order", epoch).permutation(len(data))
        optimizer.param_groups[0]["lr"] = learning_rate(settings, step, settings.epochs * steps, steps)
        summed, predicted = torch.zeros(()), 0
        for row in order[within * settings.batch_size : (within + 1) * settings.batch_size]:
            length = int(data.arrays["lengths"][row])
            ids = torch.from_numpy(data.arrays["tokens"][row, :length].astype(np.int64))[None]
            summed = summed + functional.cross_entropy(adapted(ids).logits[0, :-1], ids[0, 1:], reduction="sum")
            predicted += length - 1
        optimizer.zero_grad()
        (summed / predicted).backward()
        torch.nn.utils.clip_grad_norm_(chosen, settings.clip)
        optimizer.step()
    return adapted


@pytest.mark.parametrize("kind", KINDS)
def test_an_adapter_is_trained_as_by_peft_and_plain_torch(kind: str, tmp_path: Path) -> None:
    data = random_rows(14, 9, ragged=True)
    mine = adapter.begun(tiny_model(kind), LORA, seed=8)
    begin = {name: weight.detach().clone() for name, weight in mine.named_parameters() if weight.requires_grad}
    frozen = {name: weight.detach().clone() for name, weight in mine.named_parameters() if not weight.requires_grad}
    fit(mine.base_model.model, data, LORA, seed=5, scratch=tmp_path)
    wanted = dict(plain_lora(tiny_model(kind), LORA, data, 5, begin).named_parameters())
    after = dict(mine.named_parameters())
    assert all(torch.equal(after[name], weight) for name, weight in frozen.items()), "the model's own weights"
    assert not all(torch.equal(after[name], weight) for name, weight in begin.items())
    for name in begin:
        torch.testing.assert_close(after[name], wanted[name], rtol=1e-3, atol=2e-5)


def test_its_folder_opens_with_peft_and_the_merged_model_is_the_same(made: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    assert sorted(path.name for path in (made / "adapter").iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
        "base.json",
    ]
    peft: Any = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(made / "base"), str(made / "adapter")
    ).eval()
    mine, base, ids = model.load(made / "adapter"), model.load(made / "base"), torch.arange(10)[None] + 4
    assert type(mine) is type(base)
    assert {name: weight.shape for name, weight in mine.named_parameters()} == {
        name: weight.shape for name, weight in base.named_parameters()
    }
    with torch.no_grad():
        logits = mine(ids).logits
        torch.testing.assert_close(logits, peft(ids).logits, rtol=1e-4, atol=1e-5)
        assert not torch.allclose(logits, base(ids).logits, atol=1e-3)
    state, layer = load_file(made / "adapter" / "adapter_model.safetensors"), "model.decoder.layers.1.fc2"
    a, b = (state[f"base_model.model.{layer}.lora_{each}.weight"] for each in "AB")
    wanted = base.get_submodule(layer).weight + b @ a
    torch.testing.assert_close(mine.get_submodule(layer).weight, wanted)
    assert all(weight.requires_grad for weight in mine.parameters()), "it can be trained as any other model"


def test_alpha_and_the_chosen_layers_are_in_it(made: Path, tmp_path: Path) -> None:
    settings = altered(LORA, adapter_alpha=12.0, adapter_modules=("q_proj", "fc2"))
    trained_adapter(made / "base", tmp_path / "adapter", tmp_path, settings)
    state = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    assert {name.split(".lora_")[0].rpartition(".")[2] for name in state} == {"q_proj", "fc2"}
    mine, base, layer = model.load(tmp_path / "adapter"), model.load(made / "base"), "model.decoder.layers.0.fc2"
    a, b = (state[f"base_model.model.{layer}.lora_{each}.weight"] for each in "AB")
    torch.testing.assert_close(mine.get_submodule(layer).weight, base.get_submodule(layer).weight + 12 / 3 * b @ a)
    untouched = "model.decoder.layers.0.self_attn.v_proj"
    assert torch.equal(mine.get_submodule(untouched).weight, base.get_submodule(untouched).weight)


def test_how_many_numbers_it_has_is_known_before(made: Path) -> None:
    state = load_file(made / "adapter" / "adapter_model.safetensors")
    counted = adapter.parameters(tiny_model("opt").config, LORA)
    assert counted == sum(weight.numel() for weight in state.values())


class Killed(BaseException):
    """The process was killed."""


@pytest.mark.usefixtures("every_step_checkpointed")
@pytest.mark.parametrize("select", ["last", "valid"])
def test_killed_and_begun_again_it_is_the_same_to_the_last_bit(made: Path, tmp_path: Path, select: str) -> None:
    settings, valid = altered(LORA, select=select), random_rows(6, 7, seed=9)
    whole = trained_adapter(made / "base", tmp_path / "whole", folder(tmp_path / "a"), settings, valid=valid)

    def kill(done: int, total: int) -> None:
        if done == 4:
            raise Killed

    scratch = folder(tmp_path / "b")
    with pytest.raises(Killed):
        trained_adapter(made / "base", tmp_path / "never", scratch, settings, valid=valid, tell=kill)
    assert (scratch / "checkpoint.safetensors").stat().st_size < (made / "base" / "model.safetensors").stat().st_size
    again = trained_adapter(made / "base", tmp_path / "again", scratch, settings, valid=valid)
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        assert (whole / name).read_bytes() == (again / name).read_bytes()


def test_it_is_trained_further_from_where_it_was(made: Path, tmp_path: Path) -> None:
    further = adapter.gone_on(model.load(made / "base"), made / "adapter")
    begin = {name: weight.detach().clone() for name, weight in one_step.named_trained(further.base_model.model)}
    state = load_file(made / "adapter" / "adapter_model.safetensors")
    assert len(begin) == len(state)
    assert all(torch.equal(state[f"base_model.model.{name.replace('.default', '')}"], begin[name]) for name in begin)
    fit(further.base_model.model, random_rows(8, 7), LORA, seed=4, scratch=tmp_path)
    assert not identical(begin, dict(one_step.named_trained(further.base_model.model)))


def test_the_same_seed_begins_with_the_same_adapter() -> None:
    def first(seed: int) -> dict[str, torch.Tensor]:
        torch.manual_seed(seed + 100)  # the global random numbers have no say, and are not moved
        before = torch.get_rng_state()
        begun = weights(adapter.begun(tiny_model("opt"), LORA, seed))
        torch.manual_seed(seed + 100)
        assert torch.equal(before, torch.get_rng_state())
        return {name: weight for name, weight in begun.items() if "lora_" in name}

    assert identical(first(1), first(1))
    assert not identical(first(1), first(2))


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"adapter": 17}, "higher rank than any of the adapted layers has, which is 16 at most"),
        (
            {"adapter_modules": ("gate_proj",)},
            "no linear layers beside its head called gate_proj; it has fc1, fc2, k_proj",
        ),
        ({"adapter_modules": ("q_proj", "lm_head")}, "no linear layers beside its head called lm_head"),
        ({"adapter_modules": ("roj",)}, "no linear layers beside its head called roj"),
    ],
)
def test_adapters_that_the_model_cannot_have(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said) as error:
        adapter.parameters(tiny_model("opt").config, altered(LORA, **changes))
    assert "\n" not in str(error.value)


def rewritten(path: Path, **fields: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def without_a_weight(at: Path) -> None:
    state = load_file(at / "adapter_model.safetensors")
    state.pop(min(state))
    save_file(state, at / "adapter_model.safetensors")


def with_a_nan(at: Path) -> None:
    state = load_file(at / "adapter_model.safetensors")
    state[min(state)][0] = float("nan")
    save_file(state, at / "adapter_model.safetensors")


WRONG: dict[str, tuple[Callable[[Path], object], str]] = {
    "a weight missing": (without_a_weight, "missing: base_model.model.model.decoder.layers.0.fc1.lora_A"),
    "another rank": (lambda at: rewritten(at / "adapter_config.json", r=2), r"of another shape: .*\(3, 16\) for \(2, 16\)"),
    "fewer layers": (lambda at: rewritten(at / "adapter_config.json", target_modules=["fc1"]), "left over: "),
    "NaN": (with_a_nan, "NaN or infinite"),
    "no pattern": (lambda at: rewritten(at / "adapter_config.json", target_modules="("), "no adapter fits this opt model: missing"),
    "another kind": (lambda at: rewritten(at / "adapter_config.json", peft_type="IA3"), "kind 'IA3', and collapse merges"),
    "a module to import": (lambda at: rewritten(at / "adapter_config.json", megatron_config={"a": 1}, megatron_core="antigravity"), "Megatron"),
    "no base": (lambda at: rewritten(at / "adapter_config.json", base_model_name_or_path=None), "does not name"),
    "a base that is gone": (lambda at: rewritten(at / "adapter_config.json", base_model_name_or_path="/nowhere"), "is not a folder"),
    "other weights below": (lambda at: (at / "base.json").write_text('{"sha256": "00"}'), "not the one it was trained beside"),
    "damaged": (lambda at: (at / "adapter_model.safetensors").write_bytes(b"\x08"), "is damaged"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_folders_that_are_no_adapter_of_their_model(made: Path, tmp_path: Path, case: str) -> None:
    at = Path(shutil.copytree(made / "adapter", tmp_path / "adapter"))
    change, said = WRONG[case]
    change(at)

    def opened() -> None:
        """As a model folder is before a run, and then in it."""
        folders.check_weights(at, "the model")
        adapter.check(at, tiny_model("opt").config)
        model.load(at)

    with pytest.raises(InputError, match=said) as error:
        opened()
    assert "\n" not in str(error.value)


def test_an_adapter_on_an_adapter(made: Path, tmp_path: Path) -> None:
    at = Path(shutil.copytree(made / "adapter", tmp_path / "adapter"))
    rewritten(at / "adapter_config.json", base_model_name_or_path=str(made / "adapter"))
    with pytest.raises(InputError, match="is an adapter itself"):
        folders.check_weights(at, "the model")


def test_its_model_is_found_beside_it_or_where_the_user_says(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    at = Path(shutil.copytree(made / "adapter", tmp_path / "both" / "adapter"))
    shutil.copytree(made / "base", tmp_path / "both" / "below")
    rewritten(at / "adapter_config.json", base_model_name_or_path="../below")
    wanted = folders.check_weights(made / "adapter", "the model")
    assert folders.check_weights(at, "the model") == wanted
    assert identical(weights(model.load(at)), weights(model.load(made / "adapter")))
    rewritten(at / "adapter_config.json", base_model_name_or_path="../gone")
    with pytest.raises(
        InputError, match=r"adapter_config.json names: .* if it is here, name it: --set model.base=FOLDER"
    ):
        folders.check_weights(at, "the model")
    assert folders.check_weights(at, "the model", str(made / "base")) == wanted
    assert identical(weights(model.load(at, made / "base")), weights(model.load(made / "adapter")))
    with pytest.raises(InputError, match=r"^model\.base: .*nowhere' is not a folder"):
        folders.check_weights(at, "the model", str(tmp_path / "nowhere"))


def test_its_hash_says_what_it_is_not_where_its_model_lies(made: Path, tmp_path: Path) -> None:
    at, moved = (Path(shutil.copytree(made / name, tmp_path / name)) for name in ("adapter", "base"))
    rewritten(at / "adapter_config.json", base_model_name_or_path=str(moved))
    assert folders.check_weights(at, "the model") == folders.check_weights(made / "adapter", "the model")
    rewritten(at / "adapter_config.json", lora_alpha=7)
    assert folders.check_weights(at, "the model") != folders.check_weights(made / "adapter", "the model")


def from_elsewhere(base: Any, at: Path, **settings: Any) -> Path:
    """An adapter with weights far from 0, written by peft itself as it writes them by default."""
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(**{"r": 3, "lora_alpha": 6, "target_modules": ["fc1"], "task_type": "CAUSAL_LM"} | settings)
    adapted = get_peft_model(base, config)
    random = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in adapted.parameters():
            if weight.requires_grad:
                weight.add_(0.3 * torch.randn(weight.shape, generator=random))
    adapted.save_pretrained(at)
    return at


@pytest.mark.filterwarnings("ignore:::peft")
@pytest.mark.parametrize(
    "settings",
    [
        {"target_modules": ["lm_head", "fc1"]},
        {"target_modules": ["embed_tokens", "fc1"]},
        {"modules_to_save": ["lm_head"]},
        {"trainable_token_indices": [1, 2]},
    ],
    ids=["head", "embeddings", "a whole head", "tokens"],
)
def test_of_embeddings_and_head_with_one_weight_just_the_adapted_one_changes(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    """Public reports of the same: peft 2018 (both change when it is merged) and 2777 (one is lost when it is saved)."""
    from peft import PeftModel

    base = tiny_model("opt")
    assert base.get_input_embeddings().weight is base.get_output_embeddings().weight
    at, ids = from_elsewhere(tiny_model("opt"), tmp_path / "adapter", **settings), torch.arange(7)[None]
    adapter.check(at, base.config)
    with torch.no_grad():
        plain = base.eval()(ids).logits.clone()
        wanted = PeftModel.from_pretrained(tiny_model("opt"), at).eval()(ids).logits
        whole = adapter.merged(base, at)
        assert (wanted - plain).abs().max() > 0.01
        assert torch.allclose(whole(ids).logits, wanted, atol=1e-4)
        whole.save_pretrained(tmp_path / "saved")
        assert torch.allclose(model.load(tmp_path / "saved")(ids).logits, wanted, atol=1e-4)


@pytest.mark.filterwarnings("ignore:::peft")
@pytest.mark.parametrize(
    "settings",
    [
        {"use_dora": True},
        {"use_rslora": True, "rank_pattern": {"layers.0.fc1": 2}},
        {"modules_to_save": ["final_layer_norm"]},
    ],
    ids=["DoRA", "rsLoRA and ranks by layer", "layers saved whole"],
)
def test_kinds_of_lora_that_others_train_are_merged_as_by_peft(settings: dict[str, Any], tmp_path: Path) -> None:
    from peft import PeftModel

    tiny_model("opt").save_pretrained(tmp_path / "base")
    at, ids = from_elsewhere(tiny_model("opt"), tmp_path / "adapter", **settings), torch.arange(7)[None]
    rewritten(at / "adapter_config.json", base_model_name_or_path=str(tmp_path / "base"))
    folders.check_weights(at, "the model")
    adapter.check(at, tiny_model("opt").config)
    with torch.no_grad():
        wanted = PeftModel.from_pretrained(tiny_model("opt"), at).eval()(ids).logits
        assert (wanted - tiny_model("opt")(ids).logits).abs().max() > 0.01
        assert torch.allclose(model.load(at)(ids).logits, wanted, atol=1e-4)


@pytest.mark.filterwarnings("ignore:::peft")
def test_an_adapter_of_a_model_with_more_tokens_and_one_that_is_no_lora_are_said(tmp_path: Path) -> None:
    from peft import PrefixTuningConfig, get_peft_model

    tiny_model("opt").save_pretrained(tmp_path / "base")
    larger = tiny_model("opt")
    larger.resize_token_embeddings(110)
    more = from_elsewhere(larger, tmp_path / "more", modules_to_save=["embed_tokens"])
    prefix = tmp_path / "prefix"
    get_peft_model(tiny_model("opt"), PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3)).save_pretrained(
        prefix
    )
    for at, said in (
        (more, r"of another shape: .*\(110, 16\) for \(97, 16\)"),
        (prefix, "kind 'PREFIX_TUNING', and collapse merges LoRA's only"),
    ):
        rewritten(at / "adapter_config.json", base_model_name_or_path=str(tmp_path / "base"))
        for use in (lambda at=at: adapter.check(at, tiny_model("opt").config), lambda at=at: model.load(at)):
            with pytest.raises(InputError, match=said) as error:
                use()
            assert "\n" not in str(error.value)


@pytest.mark.filterwarnings("ignore:::peft")
@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"layer_replication": [[0, 2], [1, 2]]}, "repeats layers of its model"),  # peft 1707: merged wrongly, nothing said
        ({"target_modules": ["q_proj"], "lora_bias": True}, "which has none, so it cannot be merged"),
    ],
)  # fmt: skip
def test_adapters_that_cannot_be_merged_are_refused_before_a_run(
    settings: dict[str, Any], said: str, tmp_path: Path
) -> None:
    def base() -> Any:
        return tiny_model("llama")

    at = from_elsewhere(base(), tmp_path / "adapter", **{"target_modules": ["q_proj"]} | settings)
    for use in (lambda: adapter.check(at, base().config), lambda: adapter.merged(base(), at)):
        with pytest.raises(InputError, match=said) as error:
            use()
        assert "\n" not in str(error.value)
