"""THE LOOP. Generation 0 is fitted on real data; each later one on a mix of real rows and rows its parent made.

`plan` writes the whole experiment down as stages (`stages.py` says what each is made from); the functions below it are
the bodies of those stages. Stages with equal keys are one stage: generation 0 is trained once for all policies of a
seed without a special case.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from collapse_cli import learners, policies
from collapse_cli.config import Experiment
from collapse_cli.data import Dataset, load_text
from collapse_cli.policies import Policy
from collapse_cli.stage import Body, Finished, Generation, Plan, Stage, Workplace
from collapse_cli.stages import data_stage, eval_stage, mix_stage, sample_stage, train_stage

CORPUS = "train.safetensors"
ROWS = "rows.safetensors"


def plan(config: Experiment, hints: Mapping[str, Any]) -> Plan:
    """The stages of an experiment. `config` is resolved (hashes filled in); `hints` say where its inputs are."""
    made, loop = Plan(), config.loop
    mixers = {name: policies.parse(name) for name in loop.policies}
    data = data_stage(config, hints)
    for seed in loop.seeds:
        corpora = dict.fromkeys(mixers, data)
        samples: dict[str, list[Stage]] = {name: [] for name in mixers}
        models: dict[str, list[Stage]] = {name: [] for name in mixers}
        for generation in range(loop.generations + 1):
            for name, policy in mixers.items():
                where = (name, seed, generation)
                made.add(data, *where)
                if generation > 0:
                    if policy.needs_samples:
                        sampled = sample_stage(config, policy, models[name][-1], data, corpora[name], seed, generation)
                        samples[name].append(made.add(sampled, *where))
                    newest = samples[name] if policy.accumulates else samples[name][-1:]
                    mixed = mix_stage(config, policy, data, newest, seed, generation)
                    corpora[name] = made.add(mixed, *where)
                parents = {"base": [], "gen0": models[name][:1], "previous": models[name][-1:]}[loop.init]
                trained = made.add(train_stage(config, hints, data, corpora[name], parents, seed, generation), *where)
                models[name].append(trained)
                measured = made.add(eval_stage(config, trained, data), *where)
                made.generations.append(Generation(*where, trained, measured))
    return made


# --- the bodies: what each does ---------------------------------------------------------------------------------------


def data_body(stage: Stage, inputs: Mapping[str, Finished], place: Workplace) -> dict[str, Any]:
    """Real text, cut into rows the learner can take."""
    learner = _learner(stage, inputs, place)
    learner.encode(load_text(**stage.hints["text"]), place.folder)
    return learner.facts


def train_body(stage: Stage, inputs: Mapping[str, Finished], place: Workplace) -> dict[str, Any]:
    """A model fitted on a corpus, from the base model or from an earlier generation's weights."""
    learner = _learner(stage, inputs, place)
    if "init" in inputs:
        learner.load(inputs["init"].folder)
    corpus = Dataset.load(inputs["corpus"].folder / CORPUS)
    learner.fit(corpus, seed=stage.seed, scratch=place.scratch)
    learner.save(place.folder)
    real = int((corpus.origin == 0).sum())
    rows = {"train_rows": len(corpus), "real_rows": real, "synthetic_rows": len(corpus) - real}
    return _history(inputs["corpus"]) | learner.facts | rows


def sample_body(stage: Stage, inputs: Mapping[str, Finished], place: Workplace) -> dict[str, Any]:
    """Rows made by a model: it continues rows of the original corpus, or of the one it was fitted on."""
    learner, params = _learner(stage, inputs, place), stage.params
    learner.load(inputs["model"].folder)
    corpus = Dataset.load(inputs["prompts"].folder / CORPUS)
    rows = inputs["data"].facts["splits"]["train"]["rows"]
    chosen = policies.prompt_rows(
        Policy(**params["policy"]), rows, params["generation"], params["choice"], growing=params["growing"]
    )
    prompts = corpus.take(policies.spread(chosen, rows, len(corpus), params["choice"]))
    prompts = Dataset({**prompts.arrays, "stream": chosen}, prompts.origin)
    made = learner.sample(prompts, seed=stage.seed, scratch=place.scratch)
    origin = np.full(len(made), params["generation"], np.int32)
    Dataset(made.arrays, origin).save(place.folder / ROWS)
    return learner.facts


def mix_body(stage: Stage, inputs: Mapping[str, Finished], place: Workplace) -> dict[str, Any]:
    """The next corpus: real rows and synthetic rows, as the policy says."""
    params, data = stage.params, inputs["data"].folder
    names = sorted(name for name in inputs if name.startswith("synthetic-"))
    corpus = policies.mix(
        Policy(**params["policy"]),
        Dataset.load(data / CORPUS),
        Dataset.load(data / "reserve.safetensors"),
        [Dataset.load(inputs[name].folder / ROWS) for name in names],
        params["generation"],
        stage.seed,
        growing=params["growing"],
    )
    corpus.save(place.folder / CORPUS)
    return _history(inputs[names[-1]]) if names else {"sample_tokens": 0}


def eval_body(stage: Stage, inputs: Mapping[str, Finished], place: Workplace) -> dict[str, Any]:
    """A model measured on real test data; the facts are those of its training and these."""
    learner = _learner(stage, inputs, place)
    learner.load(inputs["model"].folder)
    learner.measure(Dataset.load(inputs["data"].folder / "test.safetensors")).save(place.folder / ROWS)
    return _history(inputs["model"]) | learner.facts


BODIES: dict[str, Body] = {
    "data": data_body,
    "train": train_body,
    "sample": sample_body,
    "mix": mix_body,
    "eval": eval_body,
}


def _learner(stage: Stage, inputs: Mapping[str, Finished], place: Workplace) -> learners.Learner:
    encoded = {"encoded": inputs["data"].folder, "about": inputs["data"].facts} if "data" in inputs else {}
    return learners.create(stage.params["learner"], stage.params, {**stage.hints, **encoded}, place.tell)


def _history(made: Finished) -> dict[str, Any]:
    """What a stage hands on: what is known of the corpus and the training behind it, and the seconds each took."""
    own = {} if made.kind == "data" else made.facts
    return {**own, "seconds": {**made.facts.get("seconds", {}), made.kind: made.seconds}}
