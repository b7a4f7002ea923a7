"""A model fitted on a corpus, from the base model or from an earlier generation's weights."""

from collections.abc import Mapping
from typing import Any

from collapse_cli import learners
from collapse_cli.config import Experiment
from collapse_cli.config.tree import TrainConfig
from collapse_cli.config.weights import Shares, Weights
from collapse_cli.data.dataset import WEIGHTS, Dataset
from collapse_cli.engine.stage import Cost, Finished, Product, Stage, StageKind, Workplace, seed_for, tokens_a_second
from collapse_cli.experiment import mixing
from collapse_cli.experiment.costs import Size, trains_adapter
from collapse_cli.experiment.stages.base import CORPUS, ROWS, at, learner_of, on_one_thread, stage_of, with_history
from collapse_cli.learners.protocol import WEIGHT_BYTES

EQUAL_SHARES = Shares()


def train_stage(
    config: Experiment,
    hints: learners.Hints,
    data: Stage,
    corpus: Stage,
    start: Stage | None,
    seed: int,
    generation: int,
    anchor: Stage | None = None,
    lineage: str = "",
    public: Stage | None = None,
    shares: Shares = EQUAL_SHARES,
) -> Stage:
    """The model of a generation; it starts from `start`, or from the base model where that is none.

    Args:
        anchor: the model that it is held to, where `train.anchor` holds it to one of a generation.
        lineage: whose random numbers it has. Generation 0 has those of all, so that it is one model for lineages that are alike.
        public: rows that all lineages train on besides.
        shares: of the loss, those of private, public and pooled rows.
    """
    config = at_generation(config, generation)
    inputs = {"data": data, "corpus": corpus} | ({"init": start} if start else {})
    if anchor:
        inputs["anchor"] = anchor
    if public:
        inputs["public"] = public
    own_seed, weights = seed_for(seed, "train", generation, lineage if generation else ""), config.mix.weights
    # generation 0 has real rows alone, so that it is one for all weights
    more: dict[str, Any] = {} if weights.equal or generation == 0 else {"weights": weights.params()}
    if not (own_shares := shares.at(generation, public=public is not None)).equal:
        more["shares"] = own_shares.params()
    return stage_of(TRAIN, config, inputs, own_seed, hints, verb="train", base=seed_for(seed, "base", 0), **more)


def at_generation(config: Experiment, generation: int) -> Experiment:
    """The configuration that a generation is fitted by: generation 0 without what begins after it.

    Its corpus are the original rows, so none are replayed; there is no generation to hold it to; where it begins with random weights,
    there is nothing for an adapter to lie on. So it is one model for all of these.
    """
    train = config.train
    if generation == 1 and train.anchor_to == "previous":  # that is generation 0
        return config.model_copy(update={"train": train.model_copy(update={"anchor_to": "gen0"})})
    if generation:
        return config
    anchor = [name for name in TrainConfig.model_fields if name.startswith("anchor")]
    later = ("replay", *anchor, *(("adapter", "adapter_alpha", "adapter_modules") if config.model.from_scratch else ()))
    plain = {name: TrainConfig.model_fields[name].default for name in later}
    return config.model_copy(update={"train": config.train.model_copy(update=plain)})


@on_one_thread
def body(stage: Stage, inputs: Mapping[str, Finished], place: Workplace) -> dict[str, Any]:
    learner = learner_of(stage, inputs, place)
    if "init" in inputs:
        learner.load(inputs["init"].folder)
    corpus = Dataset.load(inputs["corpus"].file(CORPUS))
    public, shares = inputs.get("public"), stage.params.get("shares")
    if public or shares:
        corpus, rows = mixing.with_public(corpus, Dataset.load(public.file(ROWS)) if public else None, shares)
    else:
        corpus = mixing.weighted(corpus, Weights.of(stage.params.get("weights")))
        rows = counted(corpus)
    facts = learner.fit(corpus, seed=stage.seed, scratch=place.scratch)
    learner.save(place.folder)
    return with_history(stage, inputs, "corpus") | facts | rows


def counted(corpus: Dataset) -> dict[str, int | float]:
    """How many rows of a corpus are real, and what part of its loss is theirs where rows do not count alike."""
    real = int((corpus.origin == 0).sum())
    weights = corpus.arrays.get(WEIGHTS)
    both = None if weights is None else (float(weights[corpus.origin == 0][0]), float(weights[corpus.origin > 0][0]))
    return counts(real, len(corpus) - real, both)


def counts(real: int, synthetic: int, weights: tuple[float, float] | None) -> dict[str, int | float]:
    """As `counted`, of a corpus with so many rows of each kind and their weights."""
    rows = {"train_rows": real + synthetic, "real_rows": real, "synthetic_rows": synthetic}
    return rows | ({"real_weight": weights[0] * real / (real + synthetic)} if weights else {})


def cost(stage: Stage, size: Size) -> Cost:
    """Of a dense transformer: 2 FLOPs a weight and token forward, 4 backward; 2 where the weights themselves are not trained.

    An anchor's predictions are another pass forward, and another one through the model's own head and back.
    """
    rows, train = size.rows_of(stage.inputs["corpus"]), size.config.train
    rows += size.public_rows if "public" in stage.inputs else 0
    if size.row_flops:
        amount = rows * size.passes(rows)
        return Cost(flops=rows * size.row_flops, disk=WEIGHT_BYTES * size.parameters, efficiency=0.35, amount=amount)
    per_step = train.batch_size - (train.replayed_rows if "replay" in stage.params["train"] else 0)
    steps = train.steps or train.epochs * -(-rows // per_step)
    tokens = round(rows * train.batch_size / per_step) * size.config.data.block_size * train.epochs
    if train.steps:
        tokens = steps * min(rows, train.batch_size) * size.config.data.block_size
    passes = 2 if train.adversarial else 1
    each = size.layer_parameters + size.head_parameters
    taught = (
        2.0 * each + 6.0 * size.head_parameters if stage.params["train"].get("anchor") in ("kl", "distill") else 0.0
    )
    return Cost(
        tokens=tokens,
        flops=((4.0 if trains_adapter(stage) else 6.0) * passes * each + taught) * tokens,
        disk=WEIGHT_BYTES * size.trained_parameters(stage) + size.tokenizer_bytes,
        steps=passes * steps,
        efficiency=0.35,
        step_seconds=0.006,
    )


def note(stage: Stage, made: Finished) -> str:
    loss = f"loss {made.facts['train_loss']:.3f}" if "train_loss" in made.facts else ""
    replayed = f"{made.facts['replay_tokens']:,} real tokens replayed" if "replay_tokens" in made.facts else ""
    return ", ".join(part for part in (tokens_a_second(stage, made), loss, replayed) if part)


TRAIN = StageKind[Size](
    name="train",
    kind="train",
    version=2,
    product=Product.MODEL,
    body=body,
    cost=cost,
    label=at,
    note=note,
    counts="train_tokens",
)
