"""Sources of someone else's text, looked up before anything is computed: what files hold, and what of it stands in the test text."""

from collections.abc import Mapping
from dataclasses import replace

from collapse_cli.config import Experiment
from collapse_cli.config.foreign import CompletionServer, server_of
from collapse_cli.data.dataset import load_text, pinned
from collapse_cli.errors import ConfigError
from collapse_cli.foreign import written
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
            notes += _of_server(server, config)
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


def _of_server(server: CompletionServer, config: Experiment) -> list[str]:
    """What to know before a server is asked."""
    notes = [
        f"{server} is asked to continue real rows, {config.sample.new_tokens} tokens each (sample.new_tokens) or fewer where it ends a text "
        "itself; its answers cannot be made again, so they are kept in the store, and what is there is not asked for again"
    ]
    if not server.here:
        plain = ", and by http anyone on the way can read it" if server.address.startswith("http:") else ""
        notes.append(
            f"text leaves this machine: rows of data.source = {config.data.source} are sent to {server.host}{plain}"
        )
    return notes
