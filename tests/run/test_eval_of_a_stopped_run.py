"""`collapse eval` of a run that stopped in its selection: models that it never made are not said to be pruned."""

from pathlib import Path

from support import e2e

WORDS = """
learner = "ngram"
[loop]
generations = 2
policies = ["keep-10"]
[ngram]
order = 2
[data]
source = "zipf"
block_size = 16
rows = 64
zipf = { vocabulary = 64, rank = 4, dependence = 2.0, train_tokens = 4096, test_tokens = 1024 }
[sample]
prompts = "none"
new_tokens = 16
decode = { beams = 1, temperature = 1.0 }
[select]
by = "length"
keep = "threshold"
threshold = 99.0
side = "above"
"""


def test_models_that_were_never_made_are_not_called_pruned(tmp_path: Path) -> None:
    (tmp_path / "words.toml").write_text(WORDS, encoding="utf-8")
    stopped = e2e.collapse("run", tmp_path / "words.toml", "--runs-dir", tmp_path / "runs")
    assert (stopped.code, "it is another run: give it a --name" in stopped.err) == (2, True)
    found = e2e.collapse("eval", "words", "--runs-dir", tmp_path / "runs", "--json").json
    assert [(row["generation"], row["pruned"]) for row in found] == [(0, False), (1, False), (2, False)]
    out = e2e.collapse("eval", "words", "--runs-dir", tmp_path / "runs").out
    assert ("pruned" in out, out.count("not made yet")) == (False, 2)
