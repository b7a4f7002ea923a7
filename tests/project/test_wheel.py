"""The package as it is installed: built, put into an environment of its own, and run from anywhere."""

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from support import e2e

pytestmark = pytest.mark.slow


def output(*command: str | Path, cwd: Path) -> str:
    """What a command prints; it must succeed. Nothing of this process's import path reaches it."""
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    made = subprocess.run([str(part) for part in command], cwd=cwd, env=environment, capture_output=True, text=True)
    assert made.returncode == 0, made.stdout + made.stderr
    return made.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new virtual environment with the wheel in it; the dependencies are those of this one."""
    home = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
    output(*pip, "wheel", e2e.ROOT, "--no-deps", "--no-build-isolation", "-w", home, cwd=home)
    (wheel,) = home.glob("collapse_cli-*.whl")
    output(sys.executable, "-m", "venv", "--without-pip", home / "env", cwd=home)
    (site,) = (home / "env").glob("lib/python*/site-packages")
    # Only its own files are on the path first, and `.pth` files of the other environment are not read: the checkout
    # that is installed there stays out.
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    output(*pip, "--python", home / "env" / "bin" / "python", "install", "--no-deps", "--no-index", wheel, cwd=home)
    return home / "env"


def test_the_wheel_carries_the_code_and_the_presets(installed: Path, tmp_path: Path) -> None:
    """What is imported is the installed copy; every preset of the checkout is there."""
    ask = "import collapse_cli; print(collapse_cli.__file__)"
    assert Path(output(installed / "bin" / "python", "-c", ask, cwd=tmp_path).strip()).is_relative_to(installed)
    listed = output(installed / "bin" / "collapse", "presets", cwd=tmp_path)
    for preset in (e2e.ROOT / "configs").glob("*.toml"):
        assert preset.stem in listed


def test_the_installed_command_runs_a_preset_from_another_folder(installed: Path, tmp_path: Path) -> None:
    """`collapse run --preset smoke`: a run folder below the current one, and no git commit of a checkout in it."""
    assert "metrics.jsonl" in output(installed / "bin" / "collapse", "run", "--preset", "smoke", cwd=tmp_path)
    rows = e2e.metrics(tmp_path / "runs", "smoke")
    assert set(rows) == {(policy, 0, g) for policy in ("keep-0", "keep-10") for g in range(3)}
    assert '"git": null' in (tmp_path / "runs" / "smoke" / "run.json").read_text()
