"""The script behind the tables in the documentation says what the console says."""

import io
import re
import subprocess
import sys
from pathlib import Path

from rich.console import Console
from support.instrumented import write_run

from collapse_cli.records.rundir import RunFolder
from collapse_cli.terminal.run_tables import perplexity_table

SCRIPT = Path(__file__).resolve().parents[2] / "docs" / "results" / "render.py"


def test_changes_are_the_geometric_means_that_the_console_shows(tmp_path: Path) -> None:
    """Over seeds whose perplexities are far apart, so that a ratio of means would be another number."""
    how = {"protocol": "block", "line_bos": False, "context": 64, "stride": 64, "dtype": "float32"}
    folder = write_run(tmp_path, "run", seeds=(0, 1, 2), generations=4, spread=1.0, noise=0.3, protocol=how)
    made = [sys.executable, str(SCRIPT), str(folder), str(tmp_path / "picture.png")]
    done = subprocess.run(made, capture_output=True, text=True, check=True)
    table = [line.strip("| ").split(" | ") for line in done.stdout.splitlines() if re.match(r"\| \d", line)]
    ours = [[re.findall(r"[(](.*)[)]", cell)[0] for cell in cells[1:]] for cells in table[1:]]
    out = io.StringIO()
    rows = RunFolder(tmp_path, "run").rows()
    Console(file=out, width=200).print(perplexity_table(rows, "perplexity"))
    shown = [line.split("│")[2:-1] for line in out.getvalue().splitlines() if re.match(r"│ +[1-4]", line)]
    assert ours == [[cell.split()[-1] for cell in cells] for cells in shown]
    assert (tmp_path / "picture.png").is_file()
    ends = [re.findall(r"([\d,.e+-]+), ([\d,.e+-]+) to ([\d,.e+-]+)", cell)[0] for cells in table for cell in cells[1:]]
    numbers = [[float(one.replace(",", "")) for one in row] for row in ends]
    assert all(0 < low < mean < high for mean, low, high in numbers), "on the logarithmic scale no end is below 0"
    assert any(high / mean > 1.5 * (2 - low / mean) for mean, low, high in numbers), "and none is symmetric"
    values = {(row.where.policy, row.where.seed, row.where.generation): row.perplexity for row in rows}
    of_means = sum(values["keep-0", seed, 4] for seed in range(3)) / sum(values["keep-0", seed, 0] for seed in range(3))
    assert ours[-1][0] not in (f"{of_means - 1:+.0%}", f"×{of_means:.3g}")
