"""The preset `remedies`, every remedy of it, cut down in size: it runs, is compared, and is shown with its price."""

import re
from pathlib import Path

import pytest

from collapse_cli.config import preset_path
from collapse_cli.findings.remedies import OneRun, remedies
from collapse_cli.records.rundir import RunFolder
from tests.support.e2e import collapse

pytestmark = pytest.mark.slow

CUT = {
    "generations = 9": "generations = 1",
    "seeds = [0, 1, 2]": "seeds = [0]",
    "rows = 600": "rows = 80",
    "train_documents = 1140, test_documents = 400": "train_documents = 160, test_documents = 40",
    "epochs = 6": "epochs = 1",
    "new_tokens = 80": "new_tokens = 40",
    "psi = 0.0": "psi = 0.6",  # a model of one epoch writes nothing that is right
}


def test_every_remedy_runs_and_stands_beside_the_baseline_with_its_price(tmp_path: Path) -> None:
    text = preset_path("remedies").read_text(encoding="utf-8")
    for whole, short in CUT.items():
        assert text.count(whole) == 1, whole
        text = text.replace(whole, short)
    file = tmp_path / "cut.toml"
    file.write_text(text, encoding="utf-8")
    done = collapse("run", file, "--runs-dir", tmp_path / "runs", "--name", "cut")
    assert done.code == 0, done.err
    variants = list(dict.fromkeys(re.findall(r"^\[variants\.([\w-]+)", text, re.MULTILINE)))
    folders = {name: RunFolder(tmp_path / "runs", f"cut-{name}") for name in variants}
    found = remedies([OneRun(name, folder.record()["config"], folder.rows()) for name, folder in folders.items()])
    assert found is not None
    assert found.baseline == ("none", "keep-0")
    assert {remedy.run for remedy in found.remedies} == set(variants)
    without = {remedy.run for remedy in found.remedies if not remedy.what}
    assert without == {"none", "real", "schedule"}, "all others say what they are"
    price = {remedy.run: remedy.price for remedy in found.remedies if str(remedy.arm) == "keep-0"}
    assert price["surprise"].thrown == 40
    assert price["reward"].thrown == 240
    assert price["replay"].real
    assert (price["replay"].trained or 0) > (price["none"].trained or 0)
    page = (tmp_path / "runs" / "cut-none" / "report.html").read_text(encoding="utf-8")
    assert "What stopped it, and at what price" in page
