"""What a server answers to real rows: asked once, kept in the store; and these answers as rows that the learner can take."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from collapse_cli.config import Experiment
from collapse_cli.config.foreign import KEY, CompletionServer
from collapse_cli.config.policies import Policy
from collapse_cli.config.selection import candidates
from collapse_cli.config.tree import SampleConfig
from collapse_cli.data.dataset import Dataset, how_many, load_text
from collapse_cli.engine.stage import Cost, Finished, Product, Stage, StageKind, Workplace, digest, seed_for
from collapse_cli.experiment import mixing
from collapse_cli.experiment.costs import Size
from collapse_cli.experiment.mixing import seeded_order
from collapse_cli.experiment.stages.base import CORPUS, ROWS, at
from collapse_cli.experiment.stages.sample import Continued, Sharing
from collapse_cli.foreign.answers import all_of, written_down
from collapse_cli.foreign.asking import Connection, Question, answers
from collapse_cli.foreign.written import also_in_test
from collapse_cli.learners import Hints

log = logging.getLogger(__name__)
ANSWERS, PROMPTS = "answers.jsonl", "prompts.safetensors"
ROWS_ASKED = 64  # of a mixture: answers of a stage, whatever the grid, so that another grid finds them in the store
SECONDS = 1.0  # that an answer takes, where nothing is known of the server


def asked_of_rows(
    config: Experiment,
    hints: Hints,
    server: CompletionServer,
    data: Stage,
    seed: int,
    order: int,
    part: tuple[int, int],
    chunk: int,
) -> Stage:
    """What a server answers to real rows of a mixture.

    Args:
        order: the seed of the order of real rows.
        part: which of so many sources gives the rows: at every such place of the order.
        chunk: which `ROWS_ASKED` of its rows.
    """
    which = {"order": order, "part": part[0], "of": part[1], "first": chunk * ROWS_ASKED, "rows": ROWS_ASKED}
    return _stage(config, hints, server, data, seed, {"mixture": which})


def asked_for_corpus(
    config: Experiment,
    hints: Hints,
    server: CompletionServer,
    data: Stage,
    policy: Policy,
    sharing: Sharing,
    seed: int,
    generation: int,
) -> Stage:
    """What a server answers to the real rows of a lineage, for the corpus of a generation.

    Args:
        sharing: which part of a pool's rows it gives.
    """
    which = Continued.by(policy, seed, generation, growing=config.mix.size == "growing")
    which = replace(which, oversample=config.select.oversample, sharing=sharing)
    return _stage(config, hints, server, data, seed_for(seed, "sample", generation), {"continued": which.params()})


def _stage(
    config: Experiment, hints: Hints, server: CompletionServer, data: Stage, seed: int, which: Mapping[str, Any]
) -> Stage:
    """Answers to real rows."""
    sample, foreign = config.sample, config.foreign
    asked = {
        "server": server.identity,
        "chat": foreign.chat,
        "max_tokens": sample.new_tokens,
        "temperature": sample.decode.temperature,
        "top_p": sample.decode.top_p,
        "extra": foreign.extra,
    }
    params = {"learner": config.learner, "asked": asked, "prompt_tokens": sample.prompt_tokens, **which}
    line = Connection(
        server.address, server.model, server.here, foreign.at_once, foreign.timeout, foreign.retries, KEY, hints.text
    )
    return Stage(ASKED, params, {"data": data}, seed, line)


def places_of(stage: Stage, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Which of so many real rows are continued, and a number of its own for each answer: of a mixture, its place in a corpus."""
    if "continued" in stage.params:
        which = Continued.of(stage.params["continued"])
        prompts, streams = which.prompts(rows, [rows])
        return mixing.spread(prompts, rows, rows, which.choice), streams
    which = stage.params["mixture"]
    places = which["part"] + which["of"] * np.arange(which["first"], which["first"] + which["rows"])
    return seeded_order(rows, which["order"])[places % rows], places


def body(stage: Stage, inputs: Mapping[str, Finished], place: Workplace) -> dict[str, Any]:
    from collapse_cli.learners.continuations import cut_prompts
    from collapse_cli.learners.text_measures import spoken

    asked, line = Question(**stage.params["asked"]), stage.hints
    assert isinstance(line, Connection)
    corpus = Dataset.load(inputs["data"].file(CORPUS))
    rows, places = places_of(stage, len(corpus))
    cut = cut_prompts(corpus.take(rows), SampleConfig(prompt_tokens=stage.params["prompt_tokens"]), None)
    # each request has a number of its own: equal prompts are not answered alike for that
    seeds = [int(digest([stage.seed, one])[:8], 16) >> 1 for one in places.tolist()]
    texts = spoken(cut, inputs["data"].folder)
    made = answers(asked, line, texts, seeds, place.scratch, place.tell)
    test = load_text(**line.text).splits["test"] if line.text else ()
    for seen in also_in_test(f"the answers of {line.address}", [answer.text for answer in made], test):
        log.warning(seen)
    written_down(place.folder / ANSWERS, made)
    Dataset({**cut.arrays, "row": rows.astype(np.int32), "place": places.astype(np.int32)}, cut.origin).save(
        place.folder / PROMPTS
    )
    return {
        "rows": len(made),
        "sample_tokens": sum(answer.tokens or 0 for answer in made),
        "ended": sum(answer.ended for answer in made),
        "empty": sum(not answer.text for answer in made),
        "source": {"server": asked.server, "models": sorted({answer.model for answer in made if answer.model})},
    }


def cost(stage: Stage, size: Size) -> Cost:
    line = stage.hints
    assert isinstance(line, Connection)
    rows = ROWS_ASKED
    if "continued" in stage.params:
        which = Continued.of(stage.params["continued"])
        assert which.sharing is not None
        rows = candidates(which.oversample, which.sharing.rows([which.new_rows(size.rows)]))
    tokens = rows * stage.params["asked"]["max_tokens"]
    return Cost(rows=rows, tokens=tokens, disk=300 * rows + 8 * tokens, fixed_seconds=rows * SECONDS / line.at_once)


def note(stage: Stage, made: Finished) -> str:
    empty = f", {made.facts['empty']:,} of them empty" if made.facts["empty"] else ""
    return f"{how_many(made.facts['rows'], 'answer')}{empty}"


ASKED = StageKind[Size](
    name="answers",
    kind="answers",
    version=1,
    product=Product.ROWS,
    body=body,
    cost=cost,
    label=at,
    note=note,
    counts="sample_tokens",
)


def answered_stage(config: Experiment, data: Stage, asked: Sequence[Stage], generation: int = 1) -> Stage:
    """Answers as rows in the tokens of `data`: `sample.new_tokens` of them at most, behind their prompt where `train.target` says so.

    Args:
        generation: whose corpus they are for.
    """
    inputs = {"data": data, **{f"answers-{number:05d}": stage for number, stage in enumerate(asked)}}
    how = {"new_tokens": config.sample.new_tokens, "target": config.train.target}
    own = {"generation": generation} if generation > 1 else {}
    return Stage(ANSWERED, {"learner": config.learner, "answered": {**how, **own}}, inputs)


def make_rows(stage: Stage, inputs: Mapping[str, Finished], place: Workplace) -> dict[str, Any]:
    from collapse_cli.learners.text_inputs import rows_of_answers

    how, encoded = stage.params["answered"], inputs["data"].folder
    asked = [inputs[name] for name in sorted(inputs) if name.startswith("answers-")]
    prompts = Dataset.concat([Dataset.load(made.file(PROMPTS)) for made in asked])
    texts = [answer for made in asked for answer in all_of(made.file(ANSWERS))]
    rows, cut = rows_of_answers(
        encoded,
        prompts,
        [answer.text for answer in texts],
        [answer.ended for answer in texts],
        how["new_tokens"],
        full=how["target"] == "full",
    )
    more = {name: prompts.arrays[name] for name in ("row", "place")}
    origin = np.full(len(rows), how.get("generation", 1), np.int32)
    Dataset({**rows.arrays, **more}, origin).save(place.folder / ROWS)
    models = sorted({model for made in asked for model in made.facts["source"]["models"]})
    return {
        "rows": len(rows),
        "cut_rows": cut,
        "sample_tokens": sum(made.facts["sample_tokens"] for made in asked),
        "source": {**asked[0].facts["source"], "models": models},
    }


def cost_of_rows(stage: Stage, size: Size) -> Cost:
    rows = sum(size.rows_of(made) for name, made in stage.inputs.items() if name != "data")
    return Cost(rows=rows, disk=size.row_disk(rows, size.config.sample.new_tokens), fixed_seconds=0.5)


def note_on_rows(stage: Stage, made: Finished) -> str:
    cut = made.facts["cut_rows"]
    return f"{made.facts['rows']:,} rows" + (
        f", {cut:,} of them cut at {stage.params['answered']['new_tokens']} tokens" if cut else ""
    )


ANSWERED = StageKind[Size](
    name="foreign",
    kind="foreign",
    version=1,
    product=Product.ROWS,
    body=make_rows,
    cost=cost_of_rows,
    label=at,
    note=note_on_rows,
)
