"""A whole run on text that would command a terminal, a page or a parser: shown in all places, harmful in none."""

import random
import re
from pathlib import Path

from support import e2e

PARTS = [
    *(
        "\x1b[31mred\x1b[0m",
        "\x1b]8;;http://x\x07link\x1b]8;;\x07",
        "\x9b2J",
        "a\0b",
        "lone\rreturn",
        "x\u2028y",
        "x\u2029y",
    ),
    *("\u202eevil\u202c", "\u2066x\u2069", "\ufeff", "a" + "\u0301" * 50, "[red]", "[/red]", "[/]", "|pipe|", "`code`"),
    *("<script>window.pwned=1</script>", "<img src=x onerror=window.pwned=1>", "</script>", "![x](javascript:1)"),
    *("{{figures}}", "$x$", "&lt;b&gt;"),
]
COMMANDS = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ufeff]")
SHORT = {"data.rows": 60, "data.eval_rows": 20, "data.block_size": 32, "train.epochs": 20, "train.lr": 0.01}


def write(folder: Path) -> Path:
    draw, words = random.Random(0), ["the", "a", "cat", "dog", "bird", "runs", "sees", "likes"]
    folder.mkdir()
    for split, lines in {"train": 150, "valid": 30, "test": 40}.items():
        rows = [" ".join(draw.choice(words) + " " + draw.choice(PARTS) for _ in range(3)) for _ in range(lines)]
        long = "Z" * 100_000 if split == "train" else "end"
        (folder / f"{split}.txt").write_bytes("\n".join([*rows, long]).encode())
    return folder


def test_hostile_text_through_a_whole_run(tmp_path: Path) -> None:
    source, runs = write(tmp_path / "[red]\u202etext"), tmp_path / "runs"
    sets = [f"--set={name}={value}" for name, value in SHORT.items()]
    one = ("--generations", "1", "--policy", "keep-0", "--seeds", "0", "--jobs", "1", "--name", "hostile")
    commands = [
        ["run", "--preset", "smoke", "--data", source, *one, *sets],
        ["status", "hostile"],
        ["compare", "hostile"],
        ["report", "hostile", "--md"],
    ]
    for command in commands:
        made = e2e.collapse(*command, "--runs-dir", runs)
        assert made.code == 0, made.err
        assert not COMMANDS.findall(made.out + made.err)
        assert max(map(len, made.out.splitlines())) < 1000
    page = (runs / "hostile" / "report.html").read_text(encoding="utf-8")
    start = page.index("<script>")
    page = page[:start] + page[page.index("</script>", start) :]  # without the text of plotly
    notes = (runs / "hostile" / "report.md").read_text(encoding="utf-8")
    for text in (page, notes):
        assert not COMMANDS.findall(text.replace("\t", " "))
        assert "\u0301" * 10 not in text
        assert "Z" * 10_000 not in text
    assert "window.pwned" in page, "the samples stand in the page"
    assert not re.search("<script>window|<img src=x", page)
