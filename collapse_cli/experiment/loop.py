"""THE LOOP. Generation 0 is fitted on real data; each later one on a mix of real rows and rows its parent made.

`plan` writes the whole experiment down as stages (`stages.py` says what each is made from); the functions below it are
the bodies of those stages. Stages with equal keys are one stage: generation 0 is trained once for all policies of a
seed without a special case.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from collapse_cli import learners
from collapse_cli.config import Experiment
from collapse_cli.data.dataset import Dataset
from collapse_cli.engine.stage import Body, Finished, Generation, Plan, Stage, Workplace
from collapse_cli.experiment import policies
from collapse_cli.experiment.policies import Policy
from collapse_cli.experiment.stages import (
    data_stage,
    eval_stage,
    examine_stage,
    mix_stage,
    real_stage,
    sample_stage,
    train_stage,
)

CORPUS = "train.safetensors"
ROWS = "rows.safetensors"
SHOWN = "shown.safetensors"  # continuations of the same few rows of the corpus, whatever the policy keeps real
SHOWN_ROWS = 8


def plan(config: Experiment, hints: Mapping[str, Any]) -> Plan:
    """The stages of an experiment. `config` is resolved (hashes filled in); `hints` say where its inputs are."""
    made, loop = Plan(), config.loop
    mixers = {name: policies.parse(name) for name in loop.policies}
    examines = config.eval.samples and learners.learner_class(config.learner).examines
    for seed in loop.seeds:
        data = data_stage(config, hints, seed)  # one for all seeds, but where the source is a distribution
        corpora = dict.fromkeys(mixers, data)
        samples: dict[str, list[Stage]] = {name: [] for name in mixers}
        models: dict[str, list[Stage]] = {name: [] for name in mixers}
        firsts: dict[str, Generation] = {}
        for generation in range(loop.generations + 1):
            for name, policy in mixers.items():
                where = (name, seed, generation)
                made.add(data, *where)
                if generation > 0:
                    newest = samples[name] if policy.accumulates else samples[name][-1:]
                    mixed = mix_stage(config, policy, data, newest if policy.needs_samples else [], seed, generation)
                    corpora[name] = made.add(mixed, *where)
                parents = {"base": [], "gen0": models[name][:1], "previous": models[name][-1:]}[loop.init]
                trained = made.add(train_stage(config, hints, data, corpora[name], parents, seed, generation), *where)
                models[name].append(trained)
                first = firsts.get(name)
                measured = made.add(eval_stage(config, trained, data, first.eval if first else None), *where)
                examined = None
                if examines or (policy.needs_samples and generation < loop.generations):
                    sampled = sample_stage(config, policy, trained, data, corpora[name], seed, generation + 1)
                    samples[name].append(made.add(sampled, *where))
                if examines:
                    reference, before = (first.train, first.samples) if first else (trained, None)
                    real = made.add(real_stage(config, data, reference), *where)
                    made_rows = samples[name][-1]
                    examined = examine_stage(config, made_rows, data, corpora[name], real, reference, before)
                    examined = made.add(examined, *where)
                made.generations.append(Generation(*where, trained, measured, examined))
                firsts.setdefault(name, made.generations[-1])
    return made


# --- the bodies: what each does ---------------------------------------------------------------------------------------


def data_body(stage: Stage, inputs: Mapping[str, Finished], place: Workplace) -> dict[str, Any]:
    """Real data as rows the learner can take."""
    learner = learner_of(stage, inputs, place)
    learner.encode(place.folder, seed=stage.seed)
    return learner.facts


def train_body(stage: Stage, inputs: Mapping[str, Finished], place: Workplace) -> dict[str, Any]:
    """A model fitted on a corpus, from the base model or from an earlier generation's weights."""
    learner = learner_of(stage, inputs, place)
    if "init" in inputs:
        learner.load(inputs["init"].folder)
    corpus = Dataset.load(inputs["corpus"].file(CORPUS))
    learner.fit(corpus, seed=stage.seed, scratch=place.scratch)
    learner.save(place.folder)
    return with_history(inputs["corpus"]) | learner.facts | counted(corpus)


def counted(corpus: Dataset) -> dict[str, int]:
    """How many rows of a corpus are real."""
    real = int((corpus.origin == 0).sum())
    return {"train_rows": len(corpus), "real_rows": real, "synthetic_rows": len(corpus) - real}


def sample_body(stage: Stage, inputs: Mapping[str, Finished], place: Workplace) -> dict[str, Any]:
    """Rows made by a model: it continues rows of the original corpus, or of the one it was fitted on."""
    learner = learner_of(stage, inputs, place)
    learner.load(inputs["model"].folder)
    corpus = Dataset.load(inputs["prompts"].file(CORPUS))
    rows = inputs["data"].facts["splits"]["train"]["rows"]
    # the same prompts in every generation, for people to read
    shown = np.unique(np.linspace(0, rows - 1, SHOWN_ROWS).round().astype(np.int64))
    made, seen = continued(learner, corpus, rows, stage.params, seed=stage.seed, scratch=place.scratch, shown=shown)
    made.save(place.folder / ROWS)
    seen.save(place.folder / SHOWN)
    return learner.facts


def continued(
    learner: learners.Learner,
    corpus: Dataset,
    rows: int,
    params: Mapping[str, Any],
    *,
    seed: int,
    scratch: Path,
    shown: np.ndarray,
) -> tuple[Dataset, Dataset]:
    """The synthetic rows that a model makes for the next generation, and what it makes of the rows `shown`.

    Args:
        corpus: rows to continue: the original corpus, of `rows` rows, or the model's own.
        params: which of them, as `stages.sampling` says.
    """
    chosen = policies.prompt_rows(
        Policy(**params["policy"]), rows, params["generation"], params["choice"], growing=params["growing"]
    )
    wanted = np.concatenate([chosen, shown[~np.isin(shown, chosen)]]) if len(shown) else chosen
    row = policies.spread(wanted, rows, len(corpus), params["choice"])
    prompts = corpus.take(row)
    extra = np.arange(len(wanted)) >= len(chosen)
    prompts = Dataset({**prompts.arrays, "stream": wanted, "extra": extra}, prompts.origin)
    made = learner.sample(prompts, seed=seed, scratch=scratch)
    origin = np.full(len(made), params["generation"], np.int32)
    made = Dataset({**made.arrays, "row": row.astype(np.int32)}, origin)
    if not len(shown):
        return made, made.take(np.arange(0))
    return made.take(np.flatnonzero(~extra)), made.take(
        np.array([np.flatnonzero(wanted == one)[0] for one in shown], np.int64)
    )


def mix_body(stage: Stage, inputs: Mapping[str, Finished], place: Workplace) -> dict[str, Any]:
    """The next corpus: real rows and synthetic rows, as the policy says."""
    params, data = stage.params, inputs["data"]
    names = sorted(name for name in inputs if name.startswith("synthetic-"))
    corpus = policies.mix(
        Policy(**params["policy"]),
        Dataset.load(data.file(CORPUS)),
        Dataset.load(data.file("reserve.safetensors")),
        [Dataset.load(inputs[name].file(ROWS)) for name in names],
        params["generation"],
        stage.seed,
        growing=params["growing"],
        trials=params.get("trials", 1),
    )
    corpus.save(place.folder / CORPUS)
    return with_history(inputs[names[-1]]) if names else {"sample_tokens": 0}


def eval_body(stage: Stage, inputs: Mapping[str, Finished], place: Workplace) -> dict[str, Any]:
    """A model measured on real test data; the facts are those of its training and these. Or what a model made, or real
    text, under the model of generation 0.
    """
    if stage.work != "eval":
        return (examine_body if stage.work == "examine" else real_body)(stage, inputs, place)
    learner = learner_of(stage, inputs, place)
    learner.load(inputs["model"].folder)
    test = Dataset.load(inputs["data"].file("test.safetensors"))
    first = Dataset.load(inputs["first"].file(ROWS)) if "first" in inputs else None
    learner.measure(test, first).save(place.folder / ROWS)
    return with_history(inputs["model"]) | learner.facts


def real_body(stage: Stage, inputs: Mapping[str, Finished], place: Workplace) -> dict[str, Any]:
    """Real text as the model of generation 0 sees it, for samples to be compared with."""
    learner = learner_of(stage, inputs, place)
    learner.load(inputs["reference"].folder)
    learner.look_at_real(place.folder)
    return learner.facts


def examine_body(stage: Stage, inputs: Mapping[str, Finished], place: Workplace) -> dict[str, Any]:
    """The rows a model made, measured under the model of generation 0."""
    learner = learner_of(stage, inputs, place)
    learner.load(inputs["reference"].folder)
    made = inputs["samples"]
    learner.examine(
        Dataset.load(made.file(ROWS)),
        Dataset.load(made.file(SHOWN)),
        Dataset.load(inputs["prompts"].file(CORPUS)),
        real=inputs["real"].folder,
        first=Dataset.load(inputs["first"].file(ROWS)) if "first" in inputs else None,
    ).save(place.folder / ROWS)
    return learner.facts


BODIES: dict[str, Body] = {
    "data": data_body,
    "train": train_body,
    "sample": sample_body,
    "mix": mix_body,
    "eval": eval_body,
}


def learner_of(stage: Stage, inputs: Mapping[str, Finished], place: Workplace) -> learners.Learner:
    """The learner of a stage, ready to work."""
    encoded = {"encoded": inputs["data"].folder, "about": inputs["data"].facts} if "data" in inputs else {}
    return learners.create(stage.params["learner"], stage.params, {**stage.hints, **encoded}, place.tell)


def with_history(made: Finished) -> dict[str, Any]:
    """What a stage hands on: what is known of the corpus and the training behind it, and the seconds each took."""
    own = {} if made.kind == "data" else made.facts
    return {**own, "seconds": {**made.facts.get("seconds", {}), made.kind: made.seconds}}
