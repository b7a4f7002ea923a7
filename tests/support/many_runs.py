"""A folder of many runs: copies of one, each of another time."""

import shutil
from pathlib import Path

from collapse_cli.engine import sealed


def copies(run: Path, count: int) -> list[str]:
    """Copy a run's folder so often beside itself, as `NAME-000` and so on, each changed a minute after the one before. Returns the names."""
    record = sealed.read(run / "run.json")
    names = [f"{run.name}-{number:03d}" for number in range(count)]
    for number, name in enumerate(names):
        shutil.copytree(run, run.parent / name)
        updated = f"2026-01-{1 + number // 1440:02d}T{number // 60 % 24:02d}:{number % 60:02d}:00+00:00"
        text = sealed.sealed(record | {"name": name, "updated": updated}, allow_nan=True)
        (run.parent / name / "run.json").write_text(text)
    return names
