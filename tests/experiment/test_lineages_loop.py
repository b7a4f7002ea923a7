"""Several lineages: whose rows are in which corpus, held against a plain loop over lists; and whose keys depend on what."""

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.selected import rows_in

from collapse_cli import config, learners
from collapse_cli.config import Experiment
from collapse_cli.config.policies import Policy
from collapse_cli.data.dataset import WEIGHTS, Dataset
from collapse_cli.engine import scheduler
from collapse_cli.engine.executors.local import LocalExecutor
from collapse_cli.engine.folder_store import FolderStore
from collapse_cli.engine.stage import Plan, seed_for
from collapse_cli.experiment import mixing, pool
from collapse_cli.experiment.kinds import plan
from collapse_cli.experiment.stages.base import CORPUS
from collapse_cli.families.section import for_key
from collapse_cli.learners import Facts, Hints, Outcome, Tell, Verb
from collapse_cli.run.observers.computed import Computed

REAL, WIDTH, MOST = 20, 2, 10_007
RULES = ("own", "all", "others", "segments")


def fitted(rows: Sequence[Sequence[int]], seed: int) -> int:
    """The model of a corpus: one number."""
    return (sum(map(sum, rows)) + 3 * len(rows) + seed) % MOST


def made(model: int, seed: int, prompt: Sequence[int], stream: int) -> list[int]:
    """What a model makes of a row."""
    return [MOST + (model + seed + prompt[0]) % MOST, MOST + (7 * model + stream) % MOST]


class Adder:
    """A learner that does `fitted` and `made`. Its rows have as many numbers as their first one says is the vocabulary's."""

    examines = False
    block = 1

    def __init__(self, params: Mapping[str, Any], hints: Hints, tell: Tell) -> None:
        self.model, self.params_of = 0, params

    @classmethod
    def trials(cls, config: Experiment) -> int:
        return 1

    @classmethod
    def drawn(cls, config: Experiment) -> bool:
        return False

    @classmethod
    def written_in(cls, config: Experiment) -> Mapping[str, Any]:
        return {}

    @classmethod
    def params(cls, config: Experiment, verb: Verb) -> dict[str, Any]:
        if verb == "data":
            return {"data": config.data.sha256, "segment": [config.data.segment.part, config.data.segment.of]}
        return {"train": for_key(config.train)} if verb == "train" else {"sample": for_key(config.sample)}

    def encode(self, folder: Path, *, seed: int) -> Facts:
        part, of = self.params_of["segment"]
        arrays = {"tokens": np.array(real_rows(), np.int32), "lengths": np.full(REAL, WIDTH, np.int32)}
        every = Dataset(arrays, np.zeros(REAL, np.int32))
        rows = every.take(np.arange(REAL)[(part - 1) * REAL // of : part * REAL // of])
        for name, some in (("train", rows), ("reserve", every.take(np.arange(0))), ("test", every)):
            some.save(folder / f"{name}.safetensors")
        about = {"train": {"rows": len(rows)}, "test": {"rows": REAL}, "reserve": {"rows": 0}}
        return {"splits": about, "notes": []}

    def fit(self, data: Dataset, *, seed: int, scratch: Path) -> Facts:
        self.model = fitted(data.arrays["tokens"].tolist(), seed % MOST)
        return {"train_loss": 1.0}

    def sample(self, prompts: Dataset, *, seed: int, scratch: Path) -> Outcome:
        rows = [
            made(self.model, seed % MOST, prompt, stream)
            for prompt, stream in zip(prompts.arrays["tokens"].tolist(), prompts.arrays["stream"].tolist(), strict=True)
        ]
        tokens = np.array(rows, np.int32).reshape(-1, WIDTH)
        facts = {"sample_tokens": int((~prompts.arrays["extra"]).sum()) * WIDTH}
        lengths = np.full(len(tokens), WIDTH, np.int32)
        return Outcome(Dataset({"tokens": tokens, "lengths": lengths}, prompts.origin), facts)

    def measure(self, test: Dataset, first: Dataset | None = None) -> Outcome:
        return Outcome(test, {"perplexity": float(self.model)})

    def save(self, folder: Path) -> None:
        (folder / "model.safetensors").write_text(str(self.model))

    def load(self, folder: Path) -> None:
        self.model = int((folder / "model.safetensors").read_text())


def real_rows() -> list[list[int]]:
    return [[row, row + 1] for row in range(REAL)]


@pytest.fixture(autouse=True)
def adder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(learners.LEARNERS, "adder", f"{__name__}:Adder")
    monkeypatch.setattr("os.fsync", lambda _: None)  # what is synced is tested with the store


def planned(policies: Sequence[str], generations: int = 3, **changes: Any) -> Plan:
    tree: dict[str, Any] = {"learner": "adder", "loop": {"policies": list(policies), "generations": generations}}
    return plan(config.load(config.merge(tree, changes), "the test"), Hints())


def compute(one: Plan, folder: Path) -> FolderStore:
    store = FolderStore(folder)
    scheduler.run(list(one.stages.values()), LocalExecutor(store), Computed())
    return store


def corpora(one: Plan, store: FolderStore) -> dict[tuple[str, str, int], list[list[int]]]:
    """What each model was fitted on, in order, by policy, lineage and generation."""
    return {
        (made.where.policy, made.where.lineage, made.where.generation): rows_in(
            store, made.train.inputs["corpus"], CORPUS
        )
        .arrays["tokens"]
        .tolist()
        for made in one.generations
    }


def dealt(rows: int, among: int) -> list[int]:
    """How many each of several gets of rows that are dealt out one by one."""
    counts = [0] * among
    for row in range(rows):
        counts[row % among] += 1
    return counts


def slow(rule: str, names: Sequence[str], texts: Sequence[list[list[int]]], policy: str, last: int) -> Any:
    """The corpora of lineages whose real rows are `texts`, by a plain loop over lists: keep-P and accumulate."""
    kept_share = Policy.parse(policy).percent / 100 if policy != "accumulate" else 0.0
    of_all: dict[tuple[str, str, int], list[list[int]]] = {}
    models = [fitted(text, seed_for(0, "train", 0) % MOST) for text in texts]
    so_far: list[list[list[int]]] = [[] for _ in names]
    for name, text in zip(names, texts, strict=True):
        of_all[policy, name, 0] = text
    for generation in range(1, last + 1):
        orders = []
        for text in texts:
            seed = seed_for(0, "mix", generation)
            orders.append(mixing.seeded_order(len(text), seed).tolist())
        kept = [round(len(text) * kept_share) for text in texts]
        needed = [len(text) - few for text, few in zip(texts, kept, strict=True)]
        givers = [
            [maker for maker in range(len(names)) if rule in ("all", "segments") or (maker == taker) == (rule == "own")]
            for taker in range(len(names))
        ]
        pooled: list[list[list[int]]] = []
        for maker, (name, text) in enumerate(zip(names, texts, strict=True)):
            prompts = orders[maker][kept[maker] :]
            wanted = needed[maker]
            if rule in ("all", "others"):  # as many as the one takes who takes most
                wanted = max(
                    dealt(needed[taker], len(givers[taker]))[givers[taker].index(maker)]
                    for taker in range(len(names))
                    if maker in givers[taker]
                )
                places = [
                    prompts[at]
                    for first in range(len(names))
                    for at in range((maker + first) % len(names), len(prompts), len(names))
                ]
                prompts = places
            again = [(row, number // len(prompts)) for number, row in zip(range(wanted), itertools.cycle(prompts))]
            seed = seed_for(0, "sample", generation, name) % MOST
            pooled.append([made(models[maker], seed, text[row], row + round_ * len(text)) for row, round_ in again])
        every = [row for rows in pooled for row in rows]
        order = np.random.Generator(np.random.Philox(seed_for(0, "pool", generation))).permutation(len(every)).tolist()
        cards = iter(every[place] for place in order)
        for taker, (name, text) in enumerate(zip(names, texts, strict=True)):
            if rule == "segments":
                taken = list(itertools.islice(cards, needed[taker]))
            else:
                counts = dealt(needed[taker], len(givers[taker]))
                taken = [
                    row for maker, count in zip(givers[taker], counts, strict=True) for row in pooled[maker][:count]
                ]
            so_far[taker] = [*so_far[taker], *taken] if policy == "accumulate" else taken
            real = text if policy == "accumulate" else [text[row] for row in orders[taker][: kept[taker]]]
            of_all[policy, name, generation] = [*real, *so_far[taker]]
            models[taker] = fitted(of_all[policy, name, generation], seed_for(0, "train", generation, name) % MOST)
    return of_all


def cut(rows: list[list[int]], parts: int) -> list[list[list[int]]]:
    """Parts next to each other that differ by a row at most."""
    ends = [part * len(rows) // parts for part in range(parts + 1)]
    return [rows[first:last] for first, last in itertools.pairwise(ends)]


@pytest.mark.parametrize(("lineages", "real"), [(2, "common"), (3, "segments")])
@pytest.mark.parametrize("rule", RULES)
def test_corpora_are_those_of_a_plain_loop_over_lists(tmp_path: Path, rule: str, lineages: int, real: str) -> None:
    policies = ["keep-0", "keep-30", "accumulate"]
    one = planned(policies, pool={"rule": rule, "lineages": lineages, "real": real})
    got, names = corpora(one, compute(one, tmp_path)), [f"model-{number}" for number in range(1, lineages + 1)]
    texts = cut(real_rows(), lineages) if real == "segments" else [real_rows()] * lineages
    assert len({len(text) for text in texts}) == (2 if (lineages, real) == (3, "segments") else 1), "6, 7 and 7 rows"
    wanted: dict[Any, Any] = {}
    for policy in policies:
        wanted |= slow(rule, names, texts, policy, 3)
    assert got == wanted


def test_makers_of_one_corpus_continue_different_prompts_and_make_no_row_that_nobody_takes(tmp_path: Path) -> None:
    one = planned(["keep-0"], 2, pool={"rule": "all", "lineages": 3})
    store = compute(one, tmp_path)
    sampled = [stage for stage in one.stages.values() if stage.work == "sample"]
    rows = [rows_in(store, stage) for stage in sampled]
    assert sorted(len(some) for some in rows) == [6, 6, 7, 7, 7, 7]
    assert sorted(int(row) for some in rows[:3] for row in some.arrays["row"]) == list(range(REAL))
    facts = [store.get(made.eval.key).facts for made in one.generations if made.where.generation == 1]
    each = [fact["sample_tokens"] for fact in facts]
    assert sum(each) == pytest.approx(REAL * WIDTH, abs=len(each) / 2), "each token was sampled once, but for rounding"


def test_all_rows_of_a_pool_that_is_cut_go_to_one_lineage_each(tmp_path: Path) -> None:
    one = planned(["keep-0"], 1, pool={"rule": "segments", "lineages": 3, "real": "segments"})
    store = compute(one, tmp_path)
    sampled = Counter(
        tuple(row)
        for stage in one.stages.values()
        if stage.work == "sample"
        for row in rows_in(store, stage).arrays["tokens"].tolist()
    )
    taken = Counter(tuple(row) for (_, _, g), rows in corpora(one, store).items() if g == 1 for row in rows)
    assert taken == sampled
    assert len(sampled) == REAL


def test_candidates_for_a_choice_are_made_by_all_and_the_first_ones_are_those_without_a_choice(tmp_path: Path) -> None:
    plain = planned(["keep-0"], 1, pool={"rule": "all", "lineages": 2})
    more = planned(
        ["keep-0"],
        1,
        pool={"rule": "all", "lineages": 2},
        select={"oversample": 1.5, "by": "duplicates", "keep": "lowest"},
    )
    pooled = []
    for name, one in (("plain", plain), ("more", more)):
        store = compute(one, tmp_path / name)
        stage = next(stage for stage in one.stages.values() if stage.work == "pool")
        pooled.append(rows_in(store, stage).arrays["tokens"].tolist())
    assert len(pooled[1]) == 30
    assert pooled[1][:REAL] == pooled[0]


def keys_of(one: Plan, lineage: str) -> list[str]:
    """Of the stages that work for a lineage."""
    return sorted(key for key, serves in one.serves.items() if any(where.lineage == lineage for where in serves))


def test_generation_0_of_lineages_that_are_alike_is_one_model_and_later_ones_are_not() -> None:
    one = planned(["keep-0", "keep-30"], pool={"lineages": 3})
    trained = Counter(made.where.generation for made in one.generations)
    assert trained == dict.fromkeys(range(4), 6)
    models = {(made.where.generation, made.train.key) for made in one.generations}
    assert Counter(generation for generation, _ in models) == {0: 1, 1: 6, 2: 6, 3: 6}


def test_a_lineage_that_takes_nothing_of_another_has_keys_that_know_nothing_of_it() -> None:
    tables = {"a": {}, "b": {"train": {"lr": 1e-3}}}
    other = {"a": {}, "c": {"train": {"lr": 1e-4}, "data": {"segment": "1/2"}}, "d": {}}
    before, after = planned(["keep-30"], lineages=tables), planned(["keep-30"], lineages=other)
    assert keys_of(before, "a") == keys_of(after, "a")
    assert set(keys_of(before, "b")).isdisjoint(keys_of(before, "a")) is False, "they share the real data"
    exchanging = [
        planned(["keep-30"], lineages=one, pool={"rule": "others"})
        for one in (tables, {**tables, "b": {"train": {"lr": 1e-4}}})
    ]
    first, second = (
        {
            (stage.work, place.generation)
            for key, stage in one.stages.items()
            for place in one.serves[key]
            if place.lineage == "a" and key not in other.stages
        }
        for one, other in (exchanging, exchanging[::-1])
    )
    assert first == second
    assert ("train", 0) not in first
    assert ("sample", 0) not in first, "what a makes of generation 0 does not depend on who takes it"
    assert ("train", 1) in first


def test_a_run_of_one_lineage_has_keys_without_any() -> None:
    assert planned(["keep-30"]).stages.keys() == planned(["keep-30"], pool={"lineages": 1, "rule": "all"}).stages.keys()
    assert {where.lineage for serves in planned(["keep-30"]).serves.values() for where in serves} == {""}


def test_more_generations_ask_for_the_same_stages(tmp_path: Path) -> None:
    for rule in (*RULES, "random"):
        few, many = (planned(["keep-30"], last, pool={"rule": rule, "lineages": 3}) for last in (2, 4))
        assert few.stages.keys() <= many.stages.keys(), rule


def test_a_chain_goes_on_with_the_lineage_that_is_drawn(tmp_path: Path) -> None:
    tables = {"a": {"train": {"lr": 1e-3}}, "b": {"train": {"lr": 2e-3}}, "c": {"data": {"segment": "1/2"}}}
    one = planned(["keep-30", "accumulate"], 6, lineages=tables, pool={"rule": "random"})
    store = compute(one, tmp_path)
    turns = pool.turns(3, 6, 0)
    assert len(set(turns)) > 1
    at_work = [made.where for made in one.generations if made.where.policy == "keep-30"]
    assert [(where.generation, where.lineage) for where in at_work] == [
        (0, "a"),
        (0, "b"),
        (0, "c"),
        *((generation, "abc"[turns[generation]]) for generation in range(1, 7)),
    ]
    got = corpora(one, store)
    texts = {"a": real_rows(), "b": real_rows(), "c": real_rows()[:10]}
    for policy in ("keep-30", "accumulate"):
        maker, earlier = "abc"[turns[0]], list[list[int]]()
        model = fitted(texts[maker], seed_for(0, "train", 0) % MOST)
        for generation in range(1, 7):
            taker = "abc"[turns[generation]]
            seed = seed_for(0, "mix", generation)
            orders = {name: mixing.seeded_order(len(text), seed).tolist() for name, text in texts.items()}
            kept = {name: 0 if policy == "accumulate" else round(len(text) * 0.3) for name, text in texts.items()}
            prompts = orders[maker][kept[maker] :]
            wanted, seed = len(texts[taker]) - kept[taker], seed_for(0, "sample", generation, maker) % MOST
            places = [(prompts[at % len(prompts)], at // len(prompts)) for at in range(wanted)]
            rows = [made(model, seed, texts[maker][row], row + again * len(texts[maker])) for row, again in places]
            earlier = [*earlier, *rows] if policy == "accumulate" else rows
            real = (
                texts[taker] if policy == "accumulate" else [texts[taker][row] for row in orders[taker][: kept[taker]]]
            )
            assert got[policy, taker, generation] == [*real, *earlier], (policy, generation)
            model, maker = fitted([*real, *earlier], seed_for(0, "train", generation, taker) % MOST), taker


def rows_of(*origins: int) -> Dataset:
    tokens = np.arange(2 * len(origins), dtype=np.int32).reshape(-1, 2)
    return Dataset({"tokens": tokens, "other": np.arange(len(origins))}, np.array(origins, np.int32))


def test_each_kind_of_rows_has_its_share_of_the_loss_however_many_there_are() -> None:
    public = Dataset({"tokens": np.full((4, 2), 9, np.int32)}, np.zeros(4, np.int32))
    rows, counts = mixing.with_public(rows_of(0, 0, 3, 3, 3), public, [0.25, 0.25, 0.5])
    weights = rows.arrays[WEIGHTS]
    assert rows.arrays["tokens"][:, 0].tolist() == [0, 2, 4, 6, 8, 9, 9, 9, 9]
    shares = [weights[:2].sum(), weights[5:].sum(), weights[2:5].sum()]
    assert np.allclose(np.array(shares) / 9, [0.25, 0.25, 0.5])
    assert counts == {
        "train_rows": 9,
        "real_rows": 6,
        "public_rows": 4,
        "synthetic_rows": 3,
        "real_weight": pytest.approx(0.5),
    }


def test_rows_without_a_share_are_left_out_and_without_shares_all_count_alike() -> None:
    public = Dataset({"tokens": np.full((4, 2), 9, np.int32)}, np.zeros(4, np.int32))
    rows, counts = mixing.with_public(rows_of(0, 0, 3), public, [1.0, 1.0, 0.0])
    assert len(rows) == 6
    assert np.allclose(rows.arrays[WEIGHTS], [1.5, 1.5, 0.75, 0.75, 0.75, 0.75])
    assert (counts["synthetic_rows"], counts["real_weight"]) == (0, 1.0)
    plain, counted = mixing.with_public(rows_of(0, 3), public, None)
    assert WEIGHTS not in plain.arrays
    assert (len(plain), counted["public_rows"]) == (6, 4)
    alone, _ = mixing.with_public(rows_of(0, 3, 3), None, [0.5, 0.0, 0.5])
    assert np.allclose(alone.arrays[WEIGHTS], [1.5, 0.75, 0.75])


def test_generation_0_is_one_model_for_all_shares_that_give_private_and_public_rows_the_same() -> None:
    def trained(shares: str) -> dict[int, set[str]]:
        one = planned(
            ["keep-50"],
            1,
            pool={"lineages": 2, "rule": "all", "public": "text", "public_sha256": "0" * 64, "weights": shares},
        )
        return {g: {made.train.key for made in one.generations if made.where.generation == g} for g in (0, 1)}

    first, second, third = trained("1:1:2"), trained("0.25:0.25:1"), trained("1:2:3")
    assert len(first[0]) == 1
    assert first[0] == second[0] != third[0]
    assert first[1].isdisjoint(second[1])
