"""The page of a preset's results: .venv/bin/python docs/results/pages.py PRESET [--runs-dir DIR]

Runs the preset if it has not been run (`collapse run --preset PRESET`, anything finished is not run again), and writes
`docs/results/PRESET.md` with command, machine, time, what was found, the table against published numbers and theory, and a
picture beside it. What people have to say about it stands in `docs/results/prose/PRESET.md` and is put in unchanged.
"""

import argparse
import json
import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import side
import statements
from rich.console import Console

from collapse_cli import report
from collapse_cli.config import load, merge, preset_path, read_toml, variant_experiments
from collapse_cli.findings.diagnosis import diagnose_run
from collapse_cli.findings.expectations import judge
from collapse_cli.metrics.numbers import spread, value
from collapse_cli.records.rundir import RunFolder
from collapse_cli.run import runner

HERE = Path(__file__).parent


def first_sentence(preset: str) -> str:
    """What the preset's file says first."""
    lines = []
    for line in preset_path(preset).read_text(encoding="utf-8").splitlines():
        if not line.startswith("#") or not line.strip("# "):
            break
        lines.append(line.lstrip("# "))
    text = " ".join(lines)
    return text.partition(". ")[0].rstrip(".") + "."


def judged_table(folders: Sequence[RunFolder]) -> list[str]:
    """Every expectation of every run, as Markdown; nothing where there are none."""
    lines: list[str] = []
    for folder in folders:
        rows = folder.rows()
        for one in judge(rows, folder.record()["config"]):
            ours = "–" if one.ours is None else spread(one.ours)
            wanted = "–" if one.value is None else f"{value(one.value)} {one.limits}"
            note = f"; {one.note}" if one.note else ""
            name = one.what.replace("_", " ")
            where = f"{folder.name}: {one.where}" if len(folders) > 1 else one.where
            lines.append(f"| {name} | {where} | {wanted} | {ours} | {one.verdict} | {one.source}{note} |")
    if not lines:
        return []
    head = ["| what | where | published or theory | ours (95% interval) | | from |", "|---|---|---:|---:|---|---|"]
    return [*head, *(line.replace("**", "") for line in lines)]


def main() -> None:
    """Run, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("preset")
    parser.add_argument("--runs-dir", type=Path, default=Path("runs"))
    parser.add_argument("--picture", default="", help="which figure of the report; the first by default")
    parser.add_argument("--seeds", default="", help="with commas, in place of the preset's")
    parser.add_argument("--generations", type=int, default=-1, help="the last one, in place of the preset's")
    options = parser.parse_args()
    preset, runs = options.preset, options.runs_dir
    tree = load(read_toml(preset_path(preset)), preset)
    if options.generations >= 0:
        tree = load(merge(tree.model_dump(mode="json"), {"loop": {"generations": options.generations}}), preset)
    if options.seeds:
        tree = load(
            merge(tree.model_dump(mode="json"), {"loop": {"seeds": [int(seed) for seed in options.seeds.split(",")]}}),
            preset,
        )
    start = time.monotonic()
    results = runner.run_all(tree, runs, preset, Console())
    took = time.monotonic() - start
    folders = [RunFolder(runs, result.run) for result in results.runs]
    records = [folder.record() for folder in folders]
    clock = HERE / "times.json"
    times = json.loads(clock.read_text(encoding="utf-8")) if clock.exists() else {}
    if any(result.computed for result in results.runs):
        times[preset] = round(took)
        clock.write_text(json.dumps(times, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    with tempfile.TemporaryDirectory() as temporary:
        made = report.write_figures(folders, Path(temporary), formats=("png",))
        chosen = [path for path in made if path.stem == options.picture] or made
        picture = HERE / f"{preset}.png"
        shutil.copy(chosen[0], picture)
    variants = variant_experiments(tree.model_dump(mode="json"), preset)
    asked = f" --seeds {options.seeds}" if options.seeds else ""
    asked += f" --generations {options.generations}" if options.generations >= 0 else ""
    parts = [f"# {preset}", "", first_sentence(preset), "", f"    collapse run --preset {preset}{asked}", ""]
    hardware = records[0]["hardware"]
    when = records[0]["updated"][:10]
    # a run whose stages other runs made says nothing of the time that they took
    took_s = f"{times[preset]} s on" if preset in times else "On"
    many = f"{len(variants)} variants, " if variants else ""
    seeds = ", ".join(sorted({str(len(one["config"]["loop"]["seeds"])) for one in records}))
    parts += [
        f"{took_s} {hardware['cores']} cores of a shared machine "
        f"({hardware['machine']}, no GPU), {when}; {many}seeds a run: {seeds}.",
        "",
        f"![{preset}]({picture.name})",
        "",
    ]
    several = any(folder.config().lineage_names != ("",) for folder in folders)
    compared = None if several else side.of(folders)  # whose baseline is one run without lineages
    if compared is not None:  # a table instead of a sentence on each
        parts += side.sections(compared, f"{preset}-", picture)
    for folder, record in zip(folders, records, strict=True) if compared is None else ():
        said = diagnose_run(folder.rows(), record["config"]).verdict
        parts += [f"> {f'**{folder.name}**: ' if len(folders) > 1 else ''}{said}", ""]
    if lines := judged_table(folders):
        parts += ["## Measured against published numbers and theory", "", *lines, ""]
    for folder in folders if compared is None and not several else ():
        if folder.config().data.source == "world":
            parts += statements.sections(folder, HERE / f"{preset}-breeds.png")
    prose = HERE / "prose" / f"{preset}.md"
    if prose.exists():
        parts += [prose.read_text(encoding="utf-8").strip(), ""]
    parts += [f"Made by `docs/results/pages.py {preset}{asked}` from the run folder; nothing in it was typed."]
    (HERE / f"{preset}.md").write_text("\n".join(parts) + "\n", encoding="utf-8")
    print(HERE / f"{preset}.md")


if __name__ == "__main__":
    main()
