# make demo   the main job on embedded real data: IST, then FedAvg, then a table and a plot
# make test   lint, types and tests
# make e2e    the long tests: real processes that die, real strangers at the door
# Both make .venv on first use, with the versions in constraints.txt.

PYTHON ?= python3
BIN := .venv/bin
INPUTS := pyproject.toml constraints.txt
PIP := $(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: demo test lint types tests e2e bench clean

demo: .venv/installed
	$(BIN)/flower-ist demo

test: lint types tests

lint: .venv/installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: .venv/installed-dev
	$(BIN)/mypy

tests: .venv/installed-dev
	$(BIN)/pytest

e2e: .venv/installed-dev
	$(BIN)/pytest -m long

bench: .venv/installed-dev
	for script in $$(grep -l __main__ benchmarks/*.py); do $(BIN)/python -W ignore $$script || exit 1; done

clean:
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist

# torch goes first: a constraint picks its build before anything else can ask for another.
.venv/installed: $(INPUTS)
	$(PYTHON) -m venv .venv
	$(PIP) torch
	$(PIP) --editable '.[plot]'
	touch $@

.venv/installed-dev: .venv/installed
	$(PIP) --editable '.[plot,prep,dev]'
	touch $@
