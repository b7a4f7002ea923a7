"""What a run is doing at the moment, as the end of its `events.jsonl` says."""

from pathlib import Path
from typing import Any

from collapse_cli import files
from collapse_cli.engine import sealed
from collapse_cli.errors import InputError
from collapse_cli.where import Where

END = 65_536  # bytes of the file that are looked at: some hundreds of events


def underway(folder: Path, *, mixture: bool = False) -> list[str]:
    """The stages that were started and not yet finished, the last one first: `train seed 0, generation 2, keep-0`.

    Of a run that is not at work these are the stages it was killed in. Nothing where the file cannot be read.
    """
    try:
        with files.opened(folder / "events.jsonl", growing=True) as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - END))
            end = file.read(END)
    except InputError:
        return []
    started: dict[str, dict[str, Any]] = {}
    for event in sealed.in_lines(end)[0]:
        key = event.get("key")
        if isinstance(key, str):
            started.pop(key, None)
            if event.get("event") == "started":
                started[key] = event
    return [words for event in reversed(started.values()) if (words := _in_words(event, mixture))]


def _in_words(event: dict[str, Any], mixture: bool) -> str:
    """A stage in words; empty where the event is not one of ours."""
    match event:
        case {"work": str(work), "for": [str(name), int(seed), int(generation), *_]}:
            where = Where("", seed, generation, cell=name) if mixture else Where(name, seed, generation)
            return work if not name and generation == 0 else f"{work} {where}"
    return ""
