# make setup|demo|test|check|bench|clean: each works from a clean clone with Python 3.11+ and make alone.
PYTHON ?= python3
BIN := .venv/bin
# The environment is made again when what goes into it changes. The mark is written last: a killed setup is not taken for a whole one.
READY := .venv/ready

.PHONY: setup demo test test-fast check format bench clean

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "collapse needs Python 3.11 or newer; say make PYTHON=python3.12")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $(READY)

# The main job: ten generations of a small language model under keep-0, keep-10 and keep-20, in minutes, offline.
demo: $(READY)
	$(BIN)/collapse run --preset quick

# Files side by side in two processes of one thread each.
test: $(READY)
	$(BIN)/python -m pytest -n 2 --dist loadfile

test-fast: $(READY)
	$(BIN)/python -m pytest -n 2 --dist loadfile -m 'not slow'

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Our engine beside transformers, and both beside the roof of this machine; options in BENCH, as in docs/benchmarks.md.
bench: $(READY)
	$(BIN)/python benchmarks/engine.py $(BENCH)

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache build dist
