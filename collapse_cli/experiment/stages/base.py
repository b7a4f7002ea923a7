"""What the kinds of stages have in common: how one is put together, and how its body gets its learner.

Nothing that becomes part of a key may depend on a policy's name, a run's name, a device, or a batch size of sampling or
scoring.
"""

import sys
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache, wraps
from typing import Any

from collapse_cli import families, learners
from collapse_cli.config import Experiment
from collapse_cli.engine.stage import Body, Finished, Product, Stage, StageKind, Workplace
from collapse_cli.experiment.costs import Size, trains_adapter
from collapse_cli.learners.protocol import CORPUS as CORPUS
from collapse_cli.learners.protocol import RESERVE as RESERVE
from collapse_cli.learners.protocol import TEST as TEST
from collapse_cli.where import Where

ROWS = "rows.safetensors"
SHOWN = "shown.safetensors"  # continuations of the same few rows of the corpus, whatever the policy keeps real


def stage_of(
    kind: StageKind[Size],
    config: Experiment,
    inputs: Mapping[str, Stage],
    seed: int = 0,
    hints: learners.Hints | None = None,
    *,
    verb: learners.Verb,
    **params: Any,
) -> Stage:
    """A stage with what its learner says that its work depends on.

    Args:
        verb: which part of the learner's work it is.
        params: what it depends on besides.

    Beside an input that is an adapter on the model of a stage stands that stage, as `…_base`: whoever reads the one needs both.
    """
    bases = {f"{name}_base": base for name, made in inputs.items() if (base := base_of(made))}
    if hints is None:  # where an adapter on a model that was given finds that
        hints = next((made.hints for made in inputs.values() if trains_adapter(made)), None)  # type: ignore[assignment]
    inputs = {**inputs, **bases}
    return Stage(kind, {"learner": config.learner, **own(config, verb), **params}, inputs, seed, hints)


def base_of(model: Stage) -> Stage | None:
    """The stage whose model an adapter lies on; None of a whole model, and of an adapter on a model that was given."""
    if not trains_adapter(model) or "init" not in model.inputs:
        return None
    start = model.inputs["init"]
    return model.inputs.get("init_base") if trains_adapter(start) else start


def own(config: Experiment, verb: learners.Verb) -> dict[str, Any]:
    """What a learner says that a part of its work depends on."""
    return learners.learner_class(config.learner).params(config, verb)


def learner_of(stage: Stage, inputs: Mapping[str, Finished], place: Workplace) -> learners.Learner:
    """The learner of a stage, ready to work."""
    return learners.create(stage.params["learner"], stage.params, hints_of(stage, inputs), place.tell)


def hints_of(stage: Stage, inputs: Mapping[str, Finished]) -> learners.Hints:
    """Where a stage finds things on this machine, its real data among them."""
    hints = stage.hints or learners.Hints()
    assert isinstance(hints, learners.Hints)
    bases = {
        str(made.folder): inputs[f"{name}_base"].folder for name, made in inputs.items() if f"{name}_base" in inputs
    }
    anchor = inputs["anchor"].folder if "anchor" in inputs else None
    if bases or anchor:
        hints = replace(hints, bases={**hints.bases, **bases}, anchor=anchor)
    data = inputs.get("data")
    return replace(hints, encoded=data.folder, about=data.facts) if data else hints


def with_history(stage: Stage, inputs: Mapping[str, Finished], name: str) -> dict[str, Any]:
    """What a stage hands on of one of its inputs: what is known of the corpus and the training behind it, and the seconds
    each took.
    """
    made = inputs[name]
    own = {} if stage.inputs[name].of.product is Product.DATA else made.facts
    return {**own, "seconds": {**made.facts.get("seconds", {}), made.kind: made.seconds}}


def on_one_thread(body: Body) -> Body:
    """A body whose sums do not depend on how many threads share them, where its learner computes with NumPy.

    Small products are slower on two threads, too.
    """

    @wraps(body)
    def limited(stage: Stage, inputs: Mapping[str, Finished], place: Workplace) -> dict[str, Any]:
        if not issubclass(learners.learner_class(stage.params["learner"]), learners.Family):
            return body(stage, inputs, place)
        with _libraries(len(sys.modules)).limit(limits=1, user_api="blas"):
            return body(stage, inputs, place)

    return limited


@lru_cache(maxsize=1)
def _libraries(modules: int) -> Any:
    """The libraries of this process that have threads; they are looked for again once another number of `modules` is loaded.

    The look takes 3 ms of the 12 of a tiny stage.
    """
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


def at(_: Stage, where: Where) -> str:
    """The label of a stage that works for one model."""
    return str(where)


def first_measure(stage: Stage, facts: Mapping[str, Any], kind: str = "generational") -> str:
    """The measure that a family is judged by, in words; its loss where that has not been measured."""
    from collapse_cli.metrics.numbers import perplexity

    name = families.headline(stage.params["learner"], kind).name
    if name not in facts:
        return f"loss {facts['test_loss']:.4g}" if "test_loss" in facts else ""
    value = perplexity(facts[name]) if name == "perplexity" else f"{facts[name]:.4g}"
    return f"{name.replace('_', ' ')} {value}"
