"""THE LOOP. Generation 0 is fitted on real data; each later one on a mix of real rows and rows its parent made.

`plan` writes the whole experiment down as stages; `stages/` says what each is made from and what it does. Stages with
equal keys are one stage: generation 0 is trained once for all policies of a seed without a special case.
"""

from collections.abc import Mapping
from typing import Any

from collapse_cli import learners
from collapse_cli.config import Experiment
from collapse_cli.engine.stage import Generation, Plan, Stage
from collapse_cli.experiment import policies
from collapse_cli.experiment.stages.data import data_stage
from collapse_cli.experiment.stages.eval import eval_stage
from collapse_cli.experiment.stages.examine import examine_stage
from collapse_cli.experiment.stages.mix import mix_stage
from collapse_cli.experiment.stages.real import real_stage
from collapse_cli.experiment.stages.sample import sample_stage
from collapse_cli.experiment.stages.train import train_stage


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
