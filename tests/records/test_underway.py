"""What a run is doing, read from the end of its events."""

import json
from pathlib import Path

from collapse_cli.engine import sealed
from collapse_cli.records.underway import END, underway


def event(
    what: str, work: str, key: str, name: str = "keep-0", seed: int = 0, generation: int = 1
) -> dict[str, object]:
    return {"event": what, "kind": work, "work": work, "key": key, "for": [name, seed, generation]}


def write(folder: Path, *events: dict[str, object]) -> None:
    sealed.append(folder / "events.jsonl", *events)


def test_what_was_started_and_not_finished_is_underway(tmp_path: Path) -> None:
    assert underway(tmp_path) == []
    write(tmp_path, event("started", "data", "a", "", 0, 0))
    assert underway(tmp_path) == ["data"]
    write(
        tmp_path,
        event("finished", "data", "a", "", 0, 0),
        event("cached", "train", "b"),
        event("started", "train", "c"),
    )
    write(tmp_path, event("started", "sample", "d", "keep-10", 2, 3))
    assert underway(tmp_path) == ["sample seed 2, generation 3, keep-10", "train seed 0, generation 1, keep-0"]
    write(tmp_path, event("finished", "train", "c"), event("started", "sample", "d", "keep-10", 2, 3))
    assert underway(tmp_path) == ["sample seed 2, generation 3, keep-10"], "started again, after a kill"
    assert underway(tmp_path, mixture=True) == ["sample seed 2, keep-10"]


def test_of_a_long_file_only_the_end_is_read(tmp_path: Path) -> None:
    write(tmp_path, event("started", "train", "old"))
    write(tmp_path, *(event("finished", "eval", str(number)) for number in range(END // 100)))
    write(tmp_path, event("started", "mix", "new"))
    assert underway(tmp_path) == ["mix seed 0, generation 1, keep-0"]


def test_what_is_no_event_of_ours_is_not_shown(tmp_path: Path) -> None:
    odd = [
        {"event": "started", "key": "a"}, {"event": "started", "key": "b", "work": 1, "for": ["x", 0, 0]},
        {"event": "started", "key": "c", "work": "x", "for": "abc"}, {"event": "started", "key": ["d"], "work": "x"},
        {"event": "started", "key": "e", "work": "x", "for": ["x", "0", 0]}, {"event": ["started"], "key": "f"},
    ]  # fmt: skip
    (tmp_path / "events.jsonl").write_text("torn\n" + "".join(json.dumps(one) + "\n" for one in odd) + '{"event": "st')
    assert underway(tmp_path) == []
    (tmp_path / "events.jsonl").unlink()
    (tmp_path / "events.jsonl").mkdir()
    assert underway(tmp_path) == []
