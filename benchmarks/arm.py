"""One whole arm of the Nature experiment (keep-0, generations 0..9): its minutes from measured rates, or by running it."""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from common import WIDTH

GENERATIONS = 10
ROWS, TEST_ROWS = 37354, 4600  # blocks of 64 tokens of WikiText-2's training and test text under OPT's tokenizer
EPOCHS = 5
PARTS = {"train": "", "sample": "beams 5", "score": f"blocks of {WIDTH}"}  # and what of each part an arm is made of
TOKENS = {
    "train": GENERATIONS * EPOCHS * ROWS * WIDTH,
    "sample": (GENERATIONS - 1) * ROWS * WIDTH,
    "score": GENERATIONS * TEST_ROWS * WIDTH,
}
# For machines without the Hub: OPT-125m's shape with random weights, on made-up text. Rates do not depend on either.
MADE_UP = (
    'model.config={ model_type = "opt", vocab_size = 50272 }',
    'model.tokenizer="bpe"',
    f"data.eval_rows={TEST_ROWS}",
    "data.line_bos=false",
)


def estimate(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Minutes of an arm by side and dtype, where the rates of all its parts were measured; scoring is in float32."""
    found = []
    for dtype in dict.fromkeys(row["dtype"] for row in rows):
        for side in ("ours", "plain"):
            minutes = {}
            for part, what in PARTS.items():
                wanted = "float32" if part == "score" else dtype
                rates = [
                    row[f"{side}_tokens_per_s"]
                    for row in rows
                    if row["part"] == part and row["dtype"] == wanted and (not what or row["what"] == what)
                ]
                if rates:
                    minutes[part] = round(TOKENS[part] / rates[-1] / 60, 1)
            if len(minutes) == len(PARTS):
                found.append({"side": side, "dtype": dtype, **minutes, "total": round(sum(minutes.values()), 1)})
    return found


def run(*, made_up: bool, rows: int = ROWS, generations: int = GENERATIONS - 1, jobs: int = 0) -> dict[str, Any]:
    """Run the preset `opt125m-wikitext2` under keep-0 in a fresh folder: minutes in all and by kind of stage.

    Args:
        rows: of training; fewer make a shorter run.
        generations: the last one.
        jobs: how many stages at a time; 0: as `collapse run` likes.
    """
    from loop import collapse_run

    arguments = ["--preset", "opt125m-wikitext2", "--policy", "keep-0", "--seeds", "0", "--set", f"data.rows={rows}"]
    arguments += ["--generations", str(generations), *(["--jobs", str(jobs)] if jobs else [])]
    with tempfile.TemporaryDirectory(prefix="collapse-arm-") as name:
        folder = Path(name)
        if made_up:
            _write_text(folder / "text")
            arguments += ["--data", str(folder / "text"), *(word for each in MADE_UP for word in ("--set", each))]
        made = collapse_run(Path(__file__).parent.parent, folder / "runs", arguments)
    minutes = {kind: round(seconds / 60, 2) for kind, seconds in made["seconds"].items()}
    speeds = {work: round(rate, 1) for work, rate in made["tokens_per_s"].items()}
    about = {"made_up": made_up, "rows": rows, "generations": generations, "jobs": jobs}
    return about | {"minutes": round(made["wall"] / 60, 2), "by_kind": minutes, "tokens_per_s": speeds}


def lines(whole: Mapping[str, Any]) -> list[list[str]]:
    """What `run` found, for a table."""
    kinds = [[kind, f"{minutes:.2f}"] for kind, minutes in whole["by_kind"].items()]
    speeds = ", ".join(f"{kind} {speed:,.0f} tokens/s" for kind, speed in whole["tokens_per_s"].items())
    return [*kinds, [f"the whole command ({speeds})", f"{whole['minutes']:.2f}"]]


def _write_text(folder: Path) -> None:
    """Text of made-up words, long enough for every row under a tokenizer of 512 entries."""
    folder.mkdir()
    random = np.random.default_rng(0)
    letters = np.frombuffer(b"etaoinshrdlucmfwypvbgk", np.uint8)
    for name, rows in (("train.txt", ROWS), ("test.txt", TEST_ROWS)):
        count = rows * WIDTH * 4
        text = random.choice(letters, count)
        text[random.random(count) < 0.18] = ord(" ")
        text[::80] = ord("\n")
        (folder / name).write_bytes(text.tobytes())
