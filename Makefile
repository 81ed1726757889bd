# Each target sets up what it needs by itself: one virtual environment in .venv, made again when pyproject.toml
# or constraints.txt changed. Nothing is installed outside of it. Needs git, make and Python 3.11 or newer.

PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
READY := $(VENV)/ready
# Passed on: make test ARGS="tests/buffers -x", make bench ARGS="--quick", make demo ARGS="--json"
ARGS ?=

export PIP_DISABLE_PIP_VERSION_CHECK := 1
# An activated environment or a path of the caller's must not leak into ours.
unexport VIRTUAL_ENV
unexport PYTHONPATH
unexport PYTHONHOME

.DEFAULT_GOAL := help
.PHONY: help demo test lint format bench regress soak docs clean

help:
	@echo "make demo    run the main job on real input and check every figure"
	@echo "make test    run the whole test suite"
	@echo "make lint    formatter, linter and strict types"
	@echo "make bench   measure against the rivals; prints a table, leaves report and pictures in build/bench"
	@echo "make regress look for what got slower; ARGS=\"--against HEAD~5\", else the kept counters"
	@echo "make soak    ten minutes of mixed load: memory level, counts exact, idle memory back"
	@echo "make docs    the documentation as a site, in build/docs; a link that leads nowhere fails it"
	@echo "make format  let the formatter and the linter mend what they can"
	@echo "make clean   remove everything that make made"

demo: $(READY)
	$(VENV)/bin/daramjwee demo $(ARGS)

# Not under coverage: its tracer holds a lock that a fork, or an interrupt, in its midst leaves taken for ever.
test: $(READY)
	$(RUN) -m pytest $(ARGS)

lint: $(READY)
	$(RUN) -m ruff format --check .
	$(RUN) -m ruff check .
	$(RUN) -m mypy

format: $(READY)
	$(RUN) -m ruff format .
	$(RUN) -m ruff check --fix .

bench: $(READY)
	$(RUN) -m daramjwee.bench --keep build/bench $(ARGS)

regress: $(READY)
	$(VENV)/bin/daramjwee regress $(or $(ARGS),--baseline tests/bench/baseline.json)

soak: $(READY)
	$(RUN) tools/soak.py $(ARGS)

# Made anew each time (-E): of a page that did not change Sphinx would not repeat the warnings.
docs: $(READY)
	rm -rf build/docs
	$(RUN) -m sphinx -q -n -W -E -d build/docs.state -c docs . build/docs
	@echo build/docs/index.html

# The mark is written last, so an interrupted set-up starts again from nothing.
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "daramjwee needs Python 3.11 or newer, but $(PYTHON) is: $$($(PYTHON) --version 2>&1). Name another one: make PYTHON=python3.11 ..." >&2; exit 1; }
	rm -rf $(VENV)
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --constraint constraints.txt hatchling editables
	$(RUN) -m pip install --quiet --constraint constraints.txt --no-build-isolation --editable '.[dev]'
	@touch $(READY)

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage
	find src tests tools -name __pycache__ -type d -prune -exec rm -rf {} +
