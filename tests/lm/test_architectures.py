"""benchmarks/architectures.py in small: samples, scores and gradients of other architectures against independent code."""

from types import ModuleType

import pytest
from support.scripts import script

FEW = [
    ("opt", ""),
    ("gemma3", ""),  # of several parts
    ("mistral", ""),  # a window
    ("phimoe", ""),  # a window of the mask alone
    ("llama", "longrope"),
    ("bart", ""),
    ("mamba", ""),  # a state
    ("falcon", ""),
    ("mpt", ""),
]
MORE = [
    "gpt2",
    "bloom",
    "rwkv",
    "recurrent_gemma",
    "gptj",
    "gpt_neo",
    "gpt_neox",
    "gemma2",
    "gemma3_text",
    "cohere2",
    "qwen3_next",
]
MORE += ["deepseek_v3", "llama4_text", "lfm2", "jamba", "mamba2", "bert", "prophetnet", "xglm", "minicpm3", "gpt_oss"]

ROWS = 6  # whose tokens are checked


@pytest.fixture(scope="module")
def architectures() -> ModuleType:
    """With fewer prompts and new tokens, which still go past windows and switches from both sides."""
    made = script("benchmarks/architectures.py")
    made.PROMPTS, made.NEW = made.PROMPTS[:8], 14
    checked = made.PROMPTS[:ROWS]
    assert min(checked) < made.WINDOW < made.SWITCH < min(checked) + made.NEW
    assert max(checked) > made.SWITCH
    return made


def check(architectures: ModuleType, kind: str, rope: str) -> None:
    found = architectures.look(kind, rope, rows=ROWS, searched=1)
    if "left out" in found:
        pytest.skip(f"this transformers makes no such model: {found['left out']}")
    assert found["sampling"] != "refused"
    assert architectures.faults_of(found) == []


@pytest.mark.parametrize(("kind", "rope"), FEW)
def test_samples_scores_and_gradients_are_those_of_rows_alone(architectures: ModuleType, kind: str, rope: str) -> None:
    check(architectures, kind, rope)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "rope"), [*((kind, "") for kind in MORE), ("qwen2", "dynamic"), ("phi3", "longrope")])
def test_so_they_are_of_more_architectures(architectures: ModuleType, kind: str, rope: str) -> None:
    check(architectures, kind, rope)


def test_the_check_sees_faults(architectures: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tokens that are not the likeliest, scores beside other rows, and gradients of other rows, said as what they are."""
    made = architectures.continued
    monkeypatch.setattr(
        architectures, "continued", lambda model, prompts, beams: (made(model, prompts, beams) + 1) % 97
    )
    scored = architectures.score_blocks
    monkeypatch.setattr(architectures, "score_blocks", lambda model, data: (scored(model, data)[0] + 0.01, None))
    monkeypatch.setattr(architectures, "ROWS", (40, 3))
    alone = architectures.slopes_alone
    monkeypatch.setattr(architectures, "slopes_alone", lambda model, data: [2 * slope for slope in alone(model, data)])
    said = "; ".join(architectures.faults_of(architectures.look("opt", rows=ROWS, searched=1)))
    assert "6 rows greedy" in said
    assert "1 rows beams" in said
    assert "scores differ" in said
    assert "gradients differ by 49.9%" in said
