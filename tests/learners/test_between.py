"""What is measured between lineages, from folders of models and rows to fields, beside the slow way to the same numbers."""

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.tiny import losses, rows_of, tiny_model

from collapse_cli.data.dataset import MASK, Dataset
from collapse_cli.learners import between, text_measures
from collapse_cli.learners.between import Member
from collapse_cli.learners.lm import LanguageModel
from collapse_cli.learners.ngram import NGram
from collapse_cli.learners.protocol import Facts, Hints, silent
from collapse_cli.lm import text as texts
from collapse_cli.lm.text import train_bpe

PROSE = [
    f"the {size} {beast} sees a {colour} house by the river in {month}\n"
    for size in ("old", "small", "quiet")
    for beast in ("dog", "cat", "heron", "badger")
    for colour in ("red", "white", "green")
    for month in ("May", "June", "autumn")
]
OTHER = [line.replace("house", "boat").replace("sees", "paints") for line in PROSE]
BLOCK = 8
LM = {"sample": {"prompts": "real", "prompt_tokens": 4}, "eval": {"dtype": "float32"}}
NGRAM = {"model": {"order": 2, "floor": 1e-9}, "prompt": {"prompts": "real", "prompt_tokens": 4}}


def data(folder: Path, prose: list[str]) -> Path:
    """A data stage's folder with a tokenizer of its own."""
    folder.mkdir()
    train_bpe(prose, 330).save_pretrained(folder / "tokenizer")
    return folder


def blocks(encoded: Path, prose: list[str]) -> Dataset:
    tokenizer = texts.load_tokenizer(encoded / "tokenizer")
    return texts.blocks(texts.encode(tokenizer, prose, line_bos=False), BLOCK, "test")


def language_model(
    home: Path, name: str, encoded: Path, kind: str, seed: int
) -> tuple[Path, Callable[[], LanguageModel]]:
    folder, size = home / name, texts.id_range(texts.load_tokenizer(encoded / "tokenizer"))
    tiny_model(kind, seed=seed, vocabulary=size).save_pretrained(folder)

    def make() -> LanguageModel:
        learner = LanguageModel(LM, Hints(encoded=encoded), silent)
        learner.load(folder)
        return learner

    return folder, make


def sampled(encoded: Path, prose: list[str], seed: int) -> dict[str, Dataset]:
    """Continuations of ragged lengths, one of them empty, and the prompts they continue."""
    rows = blocks(encoded, prose)
    chosen = np.random.default_rng(seed).permutation(len(rows))[:9]
    cut = rows.take(chosen)
    lengths = np.random.default_rng(seed).integers(1, BLOCK + 1, 9)
    lengths[4] = 0
    prompts = rows_of(rows.take((chosen + 1) % len(rows)).arrays["tokens"][:, :4])
    return {"samples": rows_of(cut.arrays["tokens"], lengths), "prompts": prompts}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("between")


COMMON = PROSE[60:80] + OTHER[70:80]  # the test text of all


@pytest.fixture(scope="module")
def members(home: Path) -> dict[str, Member]:
    """Two that read the same tokens, of two architectures; and one with tokens of its own."""
    first, second = data(home / "data", PROSE), data(home / "other", OTHER)
    made = {}
    for name, encoded, kind, prose in (
        ("ada", first, "opt", PROSE[:60]),
        ("bob", first, "gpt2", OTHER[:20]),
        ("cleo", second, "llama", OTHER[40:60]),
    ):
        folder, make = language_model(home, name, encoded, kind, len(made))
        own, test = blocks(encoded, prose), blocks(encoded, COMMON)
        made[name] = Member(folder, make, encoded, BLOCK + 4, test, own, name, **sampled(encoded, prose, len(made)))
    return made


def model_of(member: Member) -> Any:
    return loaded(member.model)


@cache
def loaded(folder: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder).eval()


def each(model: Any, rows: Dataset) -> np.ndarray:
    pairs = zip(rows.arrays["tokens"], rows.arrays["lengths"], strict=True)
    return np.concatenate([losses(model, ids[:length]) for ids, length in pairs])


def measured(members: Mapping[str, Member], scratch: Path) -> dict[str, Facts]:
    scratch.mkdir(exist_ok=True)
    return between.measure(members, scratch, silent)


@pytest.fixture(scope="module")
def found(members: dict[str, Member], home: Path) -> dict[str, Facts]:
    return measured(members, home / "scratch")


# --- the matrix -------------------------------------------------------------------------------------------------------


def some_of(member: Member) -> Dataset:
    """Of its own rows as many as there are to test on, evenly spaced."""
    count = min(len(member.own), len(member.test))
    return member.own.take(np.unique(np.linspace(0, len(member.own) - 1, count).round().astype(int)))


def test_each_model_is_scored_on_the_own_text_of_each(members: dict[str, Member], found: dict[str, Facts]) -> None:
    for name in ("ada", "bob"):
        for other in ("ada", "bob"):
            wanted = each(model_of(members[name]), some_of(members[other])).mean()
            assert found[name]["nll_on"][other] == pytest.approx(wanted, rel=1e-5)
    assert {tuple(fields["nll_on"]) for fields in found.values()} == {("ada", "bob", "cleo")}
    assert len(some_of(members["ada"])) < len(members["ada"].own)


def test_text_of_other_tokens_is_encoded_again_and_compares_by_bytes(
    members: dict[str, Member], found: dict[str, Facts]
) -> None:
    ada, cleo = members["ada"], members["cleo"]
    spoken = text_measures.spoken(some_of(cleo), cleo.encoded)
    tokenizer = texts.load_tokenizer(ada.encoded / "tokenizer")
    coded = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in spoken]
    assert max(map(len, coded)) > ada.most, "some are cut in two"
    pieces = [np.array(ids[first : first + ada.most]) for ids in coded for first in range(0, len(ids), ada.most)]
    wanted = np.concatenate([losses(model_of(ada), ids) for ids in pieces]).mean()
    assert found["ada"]["nll_on"]["cleo"] == pytest.approx(wanted, rel=1e-5)
    tokens, size = sum(map(len, coded)), sum(len(text.encode()) for text in spoken)
    assert found["ada"]["bits_per_byte_on"]["cleo"] == pytest.approx(wanted * tokens / size / math.log(2), rel=1e-5)


def test_lineages_with_one_text_have_no_matrix(members: dict[str, Member], tmp_path: Path) -> None:
    alike = {name: replace(members[name], own_text="one") for name in ("ada", "bob")}
    found = measured(alike, tmp_path / "scratch")
    assert not found["ada"].keys() & {"nll_on", "bits_per_byte_on"}
    assert found["ada"]["js_distance"] > 0


def test_of_dialogues_only_what_an_assistant_says_counts(members: dict[str, Member], tmp_path: Path) -> None:
    def answered(rows: Dataset) -> Dataset:
        mask = np.broadcast_to(np.arange(BLOCK) >= 5, rows.arrays["tokens"].shape)
        return Dataset({**rows.arrays, MASK: mask}, rows.origin)

    chats = {
        name: replace(member, test=answered(member.test), own=answered(member.own), samples=None, most=6)
        for name, member in members.items()
    }
    found = measured(chats, tmp_path / "scratch")["ada"]
    own = chats["bob"].own.take(np.arange(len(chats["bob"].own)))
    spoken = len("".join(text_measures.spoken(rows_of(own.arrays["tokens"][:, 5:]), chats["bob"].encoded)).encode())
    # rows of 8 tokens as 6 and 2: of the first the last token counts, of the second the last, for nothing stands before the first
    both = np.array(
        [
            [*losses(model_of(members["ada"]), ids[:6])[-1:], *losses(model_of(members["ada"]), ids[6:])]
            for ids in own.arrays["tokens"]
        ]
    )
    assert found["nll_on"]["bob"] == pytest.approx(both.mean(), rel=1e-5)
    assert found["bits_per_byte_on"]["bob"] == pytest.approx(
        both.mean() * 3 * len(own) / spoken / math.log(2), rel=1e-5
    )
    assert found["nll_on"]["cleo"] is None
    assert found["between"]["js_tokens"] == found["between"]["test_tokens"] == 2 * len(chats["ada"].test)


# --- how alike --------------------------------------------------------------------------------------------------------


def test_the_distance_is_taken_where_tokens_are_equal(members: dict[str, Member], found: dict[str, Facts]) -> None:
    """Against both models' distributions at each token of the test text, from all logits."""
    ada, bob = members["ada"], members["bob"]
    given = torch.from_numpy(ada.test.arrays["tokens"].astype(np.int64))
    with torch.no_grad():
        p, q = (model_of(member)(given).logits[:, :-1].double().softmax(2).numpy() for member in (ada, bob))
    m = (p + q) / 2
    apart = ((p * np.log2(p / m)).sum(2) + (q * np.log2(q / m)).sum(2)) / 2
    assert found["ada"]["js_distance_to"] == {"bob": pytest.approx(math.sqrt(apart.mean()), abs=1e-6)}
    assert found["bob"]["js_distance_to"] == {"ada": found["ada"]["js_distance"]}
    assert found["ada"]["between"]["js_tokens"] == apart.size
    assert not found["cleo"].keys() & {"js_distance", "js_distance_to", "mixture_nll"}


def test_the_mixture_is_that_of_the_models_which_read_the_same_tokens(
    members: dict[str, Member], found: dict[str, Facts]
) -> None:
    nll = np.array([each(model_of(members[name]), members["ada"].test) for name in ("ada", "bob")])
    wanted = -np.log(np.exp(-nll).mean(axis=0)).mean()
    for name in ("ada", "bob"):
        assert found[name]["mixture_nll"] == pytest.approx(wanted, rel=1e-5)
        assert found[name]["mixture_models"] == 2
        assert found[name]["mixture_gain"] == pytest.approx(nll.mean() - wanted, rel=1e-4)
        assert "mixture_unseen_share" not in found[name]
        assert found[name]["between"]["test_tokens"] == nll.shape[1]


def test_lineages_with_one_model_are_at_no_distance_and_it_is_looked_at_once(
    members: dict[str, Member], tmp_path: Path
) -> None:
    made = []

    def make() -> Any:
        made.append(1)
        return members["ada"].make()

    twins = {name: replace(members["ada"], make=make) for name in ("ada", "twin")}
    found = measured(twins, tmp_path / "scratch")
    assert found["ada"]["js_distance_to"] == {"twin": 0.0}
    assert found["ada"]["mixture_gain"] == 0
    assert "nll_on" not in found["ada"]
    assert len(made) == 1


# --- samples of others ------------------------------------------------------------------------------------------------


def test_what_a_model_finds_of_the_samples_of_others(members: dict[str, Member], found: dict[str, Facts]) -> None:
    ada = model_of(members["ada"])
    for name in ("ada", "bob"):
        samples, prompts = members[name].samples, members[name].prompts
        assert samples is not None
        assert prompts is not None
        joined = texts.join(prompts, samples)
        total = sum(
            losses(ada, ids[:length])[3:].sum()  # behind a prompt of 4 tokens
            for ids, length in zip(joined.arrays["tokens"], joined.arrays["lengths"], strict=True)
        )
        wanted = math.exp(total / samples.arrays["lengths"].sum())
        assert found["ada"]["cross_perplexity"][name] == pytest.approx(wanted, rel=1e-4)
    both = [found["ada"]["cross_perplexity"][other] for other in ("bob", "cleo")]
    assert found["ada"]["others_perplexity"] == pytest.approx(math.sqrt(both[0] * both[1]))
    assert found["ada"]["between"]["sample_rows"] == 8


def test_samples_in_other_tokens_are_counted_by_the_bytes_that_are_scored(
    members: dict[str, Member], tmp_path: Path
) -> None:
    """What is no text (halves of a character at the ends of a sample) is left out on the way to other tokens."""
    cleo = members["cleo"]
    assert cleo.samples is not None
    half = texts.load_tokenizer(cleo.encoded / "tokenizer").encode("é", add_special_tokens=False)[0]
    tokens = cleo.samples.arrays["tokens"].copy()
    tokens[np.arange(len(tokens)), np.maximum(cleo.samples.arrays["lengths"] - 1, 0)] = half
    broken = replace(cleo, samples=Dataset({**cleo.samples.arrays, "tokens": tokens}, cleo.samples.origin))
    found = measured({**members, "cleo": broken}, tmp_path / "scratch")
    spoken = text_measures.spoken(broken.samples, cleo.encoded)
    said = [text.strip("\ufffd") for text in spoken]
    size = sum(len(text.encode()) for text in said)
    assert size < sum(len(text.encode()) for text in spoken)
    ada = texts.load_tokenizer(members["ada"].encoded / "tokenizer")
    count = sum(len(ada.encode(text, add_special_tokens=False)) for text in said)
    total = count * math.log(found["ada"]["cross_perplexity"]["cleo"])
    assert found["ada"]["cross_bits_per_byte"]["cleo"] == pytest.approx(total / size / math.log(2), rel=1e-3)


def test_samples_that_are_too_long_for_a_model_are_cut(members: dict[str, Member], tmp_path: Path) -> None:
    """Of a continuation its end, of a prompt its beginning."""
    short = {"ada": replace(members["ada"], most=6), "bob": members["bob"], "cleo": members["cleo"]}
    found = measured(short, tmp_path / "scratch")
    ada, bob, total, kept, whole = model_of(short["ada"]), short["bob"], 0.0, 0, 0
    assert bob.samples is not None
    assert bob.prompts is not None
    for ids, length, prompt in zip(*bob.samples.arrays.values(), bob.prompts.arrays["tokens"], strict=True):
        new = ids[: min(length, 5)]
        if length:
            before = prompt[-(6 - len(new)) :]
            total += losses(ada, np.concatenate([before, new]))[len(before) - 1 :].sum()
        kept, whole = kept + len(new), whole + length
    assert kept < whole
    assert found["ada"]["cross_perplexity"]["bob"] == pytest.approx(math.exp(total / kept), rel=1e-4)
    size = sum(len(text.encode()) for text in text_measures.spoken(bob.samples, bob.encoded)) * kept / whole
    assert found["ada"]["cross_bits_per_byte"]["bob"] == pytest.approx(total / size / math.log(2), rel=1e-2)
    assert math.isfinite(found["ada"]["cross_bits_per_byte"]["cleo"])
    # rows of 8 tokens as 6 and 2, also for the other model that reads the same tokens
    assert {found[name]["between"]["test_tokens"] for name in ("ada", "bob")} == {6 * len(bob.test)}
    without = {name: replace(member, samples=None) for name, member in short.items()}
    assert not measured(without, tmp_path / "none")["ada"].keys() & {"cross_perplexity", "others_perplexity"}


# --- a kill -----------------------------------------------------------------------------------------------------------


def test_a_kill_loses_one_model_or_one_pair(
    members: dict[str, Member], found: dict[str, Facts], tmp_path: Path
) -> None:
    made: list[str] = []

    def counted(name: str, dies: bool) -> Callable[[], Any]:
        def make() -> Any:
            if dies and "cleo" in made:
                raise KeyboardInterrupt
            made.append(name)
            return members[name].make()

        return make

    first = {name: replace(member, make=counted(name, True)) for name, member in members.items()}
    with pytest.raises(KeyboardInterrupt):
        measured(first, tmp_path / "scratch")
    assert made == ["ada", "bob", "cleo"]
    made.clear()
    second = {name: replace(member, make=counted(name, False)) for name, member in members.items()}
    assert measured(second, tmp_path / "scratch") == found
    assert made == ["ada", "bob"], "for the pair alone"


# --- n-grams ----------------------------------------------------------------------------------------------------------


def counted(encoded: Path, prose: list[str], folder: Path) -> Member:
    rows = blocks(encoded, prose)
    learner = NGram(NGRAM, Hints(encoded=encoded), silent)
    learner.fit(rows, seed=0, scratch=folder)
    return Member(folder, lambda: learner, encoded, 64, rows, rows, folder.name)


def test_n_grams_are_compared_without_a_floor(
    members: dict[str, Member], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded, test = members["ada"].encoded, blocks(members["ada"].encoded, PROSE[50:80] + OTHER[:9])
    both = {
        name: replace(counted(encoded, prose, tmp_path / name), test=test)
        for name, prose in (("one", PROSE[:40]), ("two", OTHER[20:70]))
    }
    found = measured(both, tmp_path / "scratch")
    models = [member.make() for member in both.values()]
    each_nll = [model.token_losses(test) for model in models]
    nll = np.stack([np.where(np.isinf(one), -math.log(1e-9), one).ravel() for one in each_nll])
    assert 0 < np.isinf(each_nll[0]).mean() < 1
    assert found["one"]["mixture_nll"] == pytest.approx(-np.log(np.exp(-nll).mean(axis=0)).mean())
    unseen = np.isinf(each_nll[0]) & np.isinf(each_nll[1])
    assert found["two"]["mixture_unseen_share"] == pytest.approx(unseen.mean())
    assert found["one"]["js_distance"] == pytest.approx(math.sqrt(slow_divergences(models, test).mean()))
    assert found["one"]["nll_on"]["one"] < found["one"]["nll_on"]["two"]
    monkeypatch.setattr(between, "ROWS", 5)  # evenly spaced, of many
    own = both["two"].own
    five = models[0].token_losses(own.take(np.linspace(0, len(own) - 1, 5).round().astype(int)))
    again = measured(both, tmp_path / "five")["one"]["nll_on"]["two"]
    assert again == pytest.approx(np.where(np.isinf(five), -math.log(1e-9), five).mean())
    assert again != found["one"]["nll_on"]["two"]


def slow_divergences(models: list[Any], rows: Dataset) -> np.ndarray:
    """By the definition, from the count of every token behind the longest context that each model knows."""
    found = []
    for ids in rows.arrays["tokens"]:
        for last in ids[:-1].tolist():
            p, q = (behind(model, last) for model in models)
            m = (p + q) / 2
            with np.errstate(divide="ignore", invalid="ignore"):
                found.append(sum(np.nan_to_num(one * np.log2(one / m)).sum() for one in (p, q)) / 2)
    return np.array(found)


def behind(model: Any, last: int) -> np.ndarray:
    """(400,) what a bigram model draws behind a token."""
    tables, counts = model._tables, np.zeros(400)
    pairs = dict(zip(tables.keys[1].tolist(), tables.counts[1].tolist(), strict=True))
    number = tables.tokens(0).tolist().index(last) if last in tables.tokens(0) else -1
    for key, count in pairs.items():
        if key >> 32 == number:
            counts[key & 0xFFFFFFFF] += count
    if not counts.sum():
        counts[tables.tokens(0)] = tables.counts[0]
    return counts / counts.sum()
