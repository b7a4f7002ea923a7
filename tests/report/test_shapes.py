"""The script of pages that hold a run against a published curve as a shape."""

import re
import subprocess
import sys
from pathlib import Path

from support.instrumented import write_run

from collapse_cli.config import preset_path, read_toml
from collapse_cli.records.rundir import RunFolder

SCRIPT = Path(__file__).resolve().parents[2] / "docs" / "results" / "shapes.py"
HOSTILE = "</pre><script>alert(1)</script>\n# a heading\n\x1b[2J"


def test_ratios_are_those_of_the_run_and_of_the_presets(tmp_path: Path) -> None:
    """Of a run that is not done: its last generation is missing."""
    gone = [("keep-0", 0, 3), ("keep-10", 0, 3)]
    how = {"protocol": "block", "line_bos": False, "context": 64, "stride": 64, "dtype": "float32"}
    folder = write_run(tmp_path, "run", generations=3, missing=gone, texts=[HOSTILE] * 4, protocol=how)
    command = [sys.executable, str(SCRIPT), "smollm2-wikitext2", str(folder), "--into", str(tmp_path)]
    subprocess.run(command, capture_output=True, text=True, check=True)
    page = (tmp_path / "smollm2-wikitext2.md").read_text()
    assert (tmp_path / "smollm2-wikitext2.png").stat().st_size > 10_000
    cells = {
        row[1]: row[2:-1]
        for row in (line.split("|") for line in page.splitlines())
        if re.match(r"\| \d", "|".join(row))
    }
    values = {(row.where.policy, row.where.generation): row.perplexity for row in RunFolder(tmp_path, "run").rows()}
    for generation in (1, 2):
        for place, policy in enumerate(("keep-0", "keep-10")):
            ratio = (values[policy, generation] or 0) / (values[policy, 0] or 1)
            assert f"(×{ratio:.2f})" in cells[f" {generation} "][place]
    assert all(cell.strip() == "–" for cell in cells[" 3 "][:2])
    published = {one["generation"]: one["value"] for one in read_toml(preset_path("opt125m-wikitext2"))["expect"]}
    assert f"(×{published[9] / published[0]:.2f})" in cells[" 9 "][2]
    assert page.count("    </pre><script>alert(1)</script> ⏎ # a heading") >= 3
    assert "6 of 8 models" in page
    for line in page.splitlines():
        assert line.startswith("    ") or not ("<script" in line or line == "# a heading"), (
            "what a model wrote is no Markdown"
        )
    assert "\x1b" not in page
