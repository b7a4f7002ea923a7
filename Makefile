# make setup|demo|test|test-lowest|check|bench|clean: each works from a clean clone with Python 3.11+ and make alone.
PYTHON ?= python3
BIN := .venv/bin
LOW := .venv-lowest
# An environment is made again when what goes into it changes. The mark is written last: a killed setup is not taken for a whole one.
READY := .venv/ready
# Another Python asked for (make test PYTHON=python3.12) than .venv is of: the environment is made anew, never used silently.
VERSION := -c 'import sys; print(sys.version.split()[0])'
ifneq ($(origin PYTHON),file)
ifneq ($(wildcard $(READY)),)
ifneq ($(shell $(PYTHON) $(VERSION) 2>/dev/null),$(shell $(BIN)/python $(VERSION) 2>/dev/null))
OTHER := other
endif
endif
endif

.PHONY: setup demo test test-fast test-lowest check format bench clean other

setup: $(READY)

# pip would compile 23,000 files one after another, which takes as long as all else. A few are not for this Python: never mind.
COMPILE := $(BIN)/python -m compileall -q -j 0 .venv/lib collapse_cli > /dev/null 2>&1 || true

$(READY): pyproject.toml constraints.txt $(OTHER)
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "collapse needs Python 3.11 or newer; say make PYTHON=python3.12")'
	$(PYTHON) -m venv $(if $(OTHER),--clear) .venv
	$(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	$(COMPILE)
	touch $(READY)

# What only tests need, and few machines have: where it does not install, that is said, and the tests that want it skip.
MORE := cluster
$(READY)-tests: $(READY)
	$(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check --constraint constraints.txt --editable '.[$(MORE)]' \
	  || echo "could not be installed here: $(MORE); tests that want it will skip"
	$(COMPILE)
	touch $(READY)-tests

# The oldest versions that pyproject.toml allows, in an environment of their own; uv works out which these are.
$(LOW)/ready: pyproject.toml
	$(PYTHON) -m venv --clear $(LOW)
	$(LOW)/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt uv
	$(LOW)/bin/uv pip install --quiet --python $(LOW)/bin/python --resolution lowest-direct --editable '.[dev]'
	touch $(LOW)/ready

# The main job: ten generations of a small language model under keep-0, keep-10 and keep-20, in minutes, offline: text that can be read.
demo: $(READY)
	$(BIN)/collapse run --preset world

# Files side by side in two processes of one thread each.
test: $(READY)-tests
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

# The same tests with the lowest versions (their wheels are of Python 3.11 and 3.12).
test-lowest: $(LOW)/ready
	$(LOW)/bin/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

test-fast: $(READY)-tests
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m 'not slow'

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
	rm -rf .venv $(LOW) .mypy_cache .ruff_cache .pytest_cache build dist
