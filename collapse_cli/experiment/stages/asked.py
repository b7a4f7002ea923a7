"""What a server answers to real rows: asked once, kept in the store."""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from collapse_cli.config import Experiment
from collapse_cli.config.foreign import KEY, CompletionServer
from collapse_cli.config.policies import Policy
from collapse_cli.config.selection import candidates
from collapse_cli.config.tree import SampleConfig
from collapse_cli.data.dataset import Dataset, how_many, load_text, unchanged
from collapse_cli.data.dialogues import Turn
from collapse_cli.engine.stage import Cost, Finished, Product, Stage, StageKind, Workplace, digest, seed_for
from collapse_cli.errors import InputError
from collapse_cli.experiment import mixing
from collapse_cli.experiment.costs import Size
from collapse_cli.experiment.mixing import seeded_order
from collapse_cli.experiment.stages.base import CORPUS, at, on_one_thread
from collapse_cli.experiment.stages.sample import Continued, Sharing
from collapse_cli.foreign.answers import written_down
from collapse_cli.foreign.asking import Connection, Question, answers
from collapse_cli.foreign.written import also_in_test
from collapse_cli.learners import Hints

log = logging.getLogger(__name__)
ANSWERS, PROMPTS = "answers.jsonl", "prompts.safetensors"
TURNS = "turns.jsonl"  # of dialogues: those before each answer, as they were sent
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
    which = InMixture(order, *part, chunk * ROWS_ASKED, ROWS_ASKED)
    return _stage(config, hints, server, data, seed, mixture=which)


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
    return _stage(config, hints, server, data, seed_for(seed, "sample", generation), continued=which)


def _stage(
    config: Experiment,
    hints: Hints,
    server: CompletionServer,
    data: Stage,
    seed: int,
    *,
    mixture: "InMixture | None" = None,
    continued: Continued | None = None,
) -> Stage:
    sample, foreign = config.sample, config.foreign
    dialogues = bool(config.data.template_sha256)
    question = Question(
        server.identity,
        foreign.chat or dialogues,
        sample.new_tokens,
        sample.decode.temperature,
        sample.decode.top_p,
        foreign.extra,
    )
    asked = Requests(question, None if dialogues else sample.prompt_tokens, mixture, continued)
    line = Connection(server.address, server.model, server.here, foreign.at_once, foreign.timeout, foreign.retries, KEY)
    params = {"learner": config.learner, **asked.params()}
    return Stage(ASKED, params, {"data": data}, seed, AskingHints(line, hints.text))


@dataclass(frozen=True)
class AskingHints:
    """Whom a stage asks, and which text its prompts are of; nothing of it is in its key.

    Attributes:
        text: the arguments of `load_text` by which the real text is found: its turns are sent, its test lines are looked for in answers.
    """

    line: Connection
    text: Mapping[str, str]

    @classmethod
    def of(cls, stage: Stage) -> "AskingHints":
        """That of a stage."""
        assert isinstance(stage.hints, cls)
        return stage.hints


@dataclass(frozen=True)
class InMixture:
    """Which real rows are continued for a mixture: every `of`-th place of their order from the `part`-th on, `rows` of these from the `first`.

    Attributes:
        order: the seed of the order of real rows.
    """

    order: int
    part: int
    of: int
    first: int
    rows: int

    def prompts(self, rows: int) -> tuple[np.ndarray, np.ndarray]:
        """The places of the rows among so many, and in a corpus."""
        places = self.part + self.of * np.arange(self.first, self.first + self.rows)
        return seeded_order(rows, self.order)[places % rows], places


@dataclass(frozen=True)
class Requests:
    """What a server is asked.

    Attributes:
        question: what it is asked for every row.
        prompt_tokens: how much of a row is sent; None for dialogues, of which that is all before the last answer, turn by turn.
        mixture, continued: for which rows: of a mixture, or of a lineage.
    """

    question: Question
    prompt_tokens: int | None
    mixture: InMixture | None = None
    continued: Continued | None = None

    def params(self) -> dict[str, Any]:
        """As a stage's parameters have it."""
        params = {
            "prompt_tokens": self.prompt_tokens,
            "mixture": asdict(self.mixture) if self.mixture else None,
            "continued": self.continued.params() if self.continued else None,
        }
        return {"asked": vars(self.question)} | {name: value for name, value in params.items() if value is not None}

    @classmethod
    def of(cls, stage: Stage) -> "Requests":
        """What a stage's parameters say."""
        given = stage.params
        mixture, continued = given.get("mixture"), given.get("continued")
        return cls(
            Question(**given["asked"]),
            given.get("prompt_tokens"),
            InMixture(**mixture) if mixture else None,
            Continued.of(continued) if continued else None,
        )

    @property
    def turns(self) -> bool:
        """Whether the turns of dialogues are sent."""
        return self.prompt_tokens is None

    def prompts(self, rows: int) -> tuple[np.ndarray, np.ndarray]:
        """Which of so many real rows are continued, and a number of its own for each answer: of a mixture, its place in a corpus."""
        if self.mixture:
            return self.mixture.prompts(rows)
        assert self.continued is not None
        prompts, streams = self.continued.prompts(rows, [rows])
        return mixing.spread(prompts, rows, rows, self.continued.choice), streams

    def rows(self, rows: int) -> int:
        """How many that is, of an original corpus of so many rows."""
        if self.mixture:
            return self.mixture.rows
        assert self.continued is not None
        assert self.continued.sharing is not None
        return candidates(self.continued.oversample, self.continued.sharing.rows([self.continued.new_rows(rows)]))


@on_one_thread
def body(stage: Stage, inputs: Mapping[str, Finished], place: Workplace) -> dict[str, Any]:
    from collapse_cli.learners.continuations import cut_prompts
    from collapse_cli.learners.other_texts import turns_before
    from collapse_cli.learners.text_measures import spoken

    asked, hints, encoded = Requests.of(stage), AskingHints.of(stage), inputs["data"].folder
    corpus = Dataset.load(inputs["data"].file(CORPUS))
    rows, places = asked.prompts(len(corpus))
    settings = SampleConfig() if asked.prompt_tokens is None else SampleConfig(prompt_tokens=asked.prompt_tokens)
    cut = cut_prompts(corpus.take(rows), settings, None)
    # each request has a number of its own: equal prompts are not answered alike for that
    seeds = [int(digest([stage.seed, one])[:8], 16) >> 1 for one in places.tolist()]
    text = load_text(**hints.text) if hints.text else None
    prompts: Sequence[str | Sequence[Turn]]
    if asked.turns:
        assert text is not None
        unchanged(stage.inputs["data"].params["data"]["sha256"], text.sha256, "the text")
        prompts = turns = turns_before(encoded, text.splits["train"], rows)
        if without := sum(not said for said in turns):
            raise InputError(nothing_to_answer(without))
        lines = (json.dumps([[turn.role, turn.content] for turn in said]) + "\n" for said in turns)
        (place.folder / TURNS).write_text("".join(lines), encoding="utf-8")
    else:
        prompts = spoken(cut, encoded)
    made = answers(asked.question, hints.line, prompts, seeds, place.scratch, place.tell)
    test = text.splits["test"] if text else ()
    for seen in also_in_test(f"the answers of {hints.line.address}", [answer.text for answer in made], test):
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
        "source": {
            "server": asked.question.server,
            "models": sorted({answer.model for answer in made if answer.model}),
        },
    }


def nothing_to_answer(count: int) -> str:
    """What to say of so many dialogues that begin with the answer they end in."""
    return (
        f"{how_many(count, 'row')} of the real data {'has' if count == 1 else 'have'} no turn before the answer, so there is nothing that a "
        "server could be asked; take such chats out, or raise data.block_size where they are longer than a row"
    )


def cost(stage: Stage, size: Size) -> Cost:
    asked, at_once = Requests.of(stage), AskingHints.of(stage).line.at_once
    rows = asked.rows(size.rows)
    tokens = rows * asked.question.max_tokens
    return Cost(rows=rows, tokens=tokens, disk=300 * rows + 8 * tokens, fixed_seconds=rows * SECONDS / at_once)


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
    here=False,
)
