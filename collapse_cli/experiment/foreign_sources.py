"""Sources of someone else's text, looked up before anything is computed: what files hold, whether it is enough, and what of
it stands in the test text.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace

from collapse_cli.config import Experiment
from collapse_cli.config.foreign import CompletionServer, server_of
from collapse_cli.config.policies import Policy
from collapse_cli.data.dataset import Text, load_text, pinned
from collapse_cli.data.dialogues import Dialogue
from collapse_cli.engine.stage import Stage
from collapse_cli.errors import ConfigError, InputError
from collapse_cli.experiment.stages.asked import ASKED, AskingHints, nothing_to_answer
from collapse_cli.experiment.stages.portion import given_rows, too_few
from collapse_cli.foreign import written
from collapse_cli.foreign.asking import reach
from collapse_cli.learners import Hints


def resolve(config: Experiment, hints: Hints, test: Mapping[str, str]) -> tuple[Experiment, Hints, list[str]]:
    """The experiment with the hashes of the files that synthetic text comes from, where they are, and what the user should know.

    Args:
        test: the arguments of `load_text` by which the text that models are tested on is found.

    Raises:
        InputError: for a file that cannot be read, or is not what it was.
        ConfigError: for two that hold the same text.
    """
    sources = config.foreign_sources
    given, notes = config.foreign.sha256 or ("",) * len(sources), list[str]()
    hashes, paths = list[str](), dict[str, str]()
    for number, source in enumerate(sources):
        if server := server_of(source):
            hashes.append("")
            notes += _of_server(server, config, load_text(**test))
            continue
        text = written.read(source, config.foreign.text)
        sha256 = pinned(given[number], f"foreign.sha256[{number}]", text.sha256)
        if sha256 in paths:
            raise ConfigError(f"{source} holds the same text as {paths[sha256]}; name it once")
        hashes.append(sha256)
        paths[sha256] = source
        notes += [note if source in note else f"{source}: {note}" for note in text.notes]
        notes += written.also_in_test(source, text.rows, load_text(**test).splits["test"])
    if not sources:
        return config, hints, notes
    filled = config.foreign.model_copy(update={"sha256": tuple(hashes)})
    hints = replace(hints, foreign=paths, foreign_column=config.foreign.text)
    return config.model_copy(update={"foreign": filled}), hints, notes


def _of_server(server: CompletionServer, config: Experiment, text: Text) -> list[str]:
    """What to know before a server is asked.

    Args:
        text: the real one, of the first lineage.

    Raises:
        InputError: for dialogues that begin with their answer.
    """
    first, ends = next(iter(config.of_lineages().values())), "a text"
    asked = "continue real rows"
    if first.data.template_sha256:
        asked, ends = "answer what stands before the last answer of real rows, turn by turn", "an answer"
        if alone := sum(isinstance(row, Dialogue) and len(row.turns) == 1 for row in text.splits["train"]):
            raise InputError(nothing_to_answer(alone))
    notes = [
        f"{server} is asked to {asked}, {config.sample.new_tokens} tokens each (sample.new_tokens) or fewer where it ends {ends} "
        "itself; its answers cannot be made again, so they are kept in the store, and what is there is not asked for again"
    ]
    if not server.here:
        plain = ", and by http anyone on the way can read it" if server.address.startswith("http:") else ""
        notes.append(
            f"text leaves this machine: rows of data.source = {config.data.source} are sent to {server.host}{plain}"
        )
    return notes


def check_servers(needed: Iterable[Stage]) -> None:
    """Whether each server that stages still have to ask is there; what the store has needs none.

    Raises:
        InputError: for the first one that is not.
    """
    lines = (AskingHints.of(stage).line for stage in needed if stage.of is ASKED)
    for line in {line.address: line for line in lines}.values():
        reach(line)


def check_rows(config: Experiment, policy: Policy, members: int, rows: int, there: Mapping[str, int]) -> list[str]:
    """Whether each file of `pool.foreign` has rows enough for the corpora of a policy, and a note where its rows come again.

    Args:
        members: how many give rows to a corpus, files among them; those of `pool.foreign` are the last.
        rows: of the original corpus.
        there: by hash, how many rows a file has.

    Raises:
        InputError: when a file has fewer than one corpus takes of it, so that a row would be in that twice.
    """
    notes, sources = [], config.pool.foreign
    for number, (source, sha256) in enumerate(zip(sources, config.foreign.sha256, strict=True), members - len(sources)):
        if sha256 not in there:
            continue
        growing = config.mix.size == "growing"
        counts = [
            given_rows(policy, rows, generation, config.select.oversample, (number, members), growing=growing)
            for generation in range(1, config.loop.generations + 1)
        ]
        total, most = sum(counts), max(counts, default=0)
        needed = total if policy.accumulates else most
        if needed > there[sha256]:
            raise InputError(f"{policy}: {too_few(needed, there[sha256], f'pool.foreign: {source}')}")
        if total > there[sha256]:
            notes.append(
                f"{policy} takes {total:,} rows of {source} over {config.loop.generations} generations, and it has {there[sha256]:,}: "
                "behind its last row a later generation begins with the first again; no corpus has a row twice"
            )
    return notes
