# make demo   the main job on embedded real data: IST, then FedAvg, then a table and a plot
# make test   lint, types and tests
# make e2e    the long tests: real processes that die, real strangers at the door
# make bench  the benchmarks of the machinery
# make attacks  a real federation under attack: what held
# Each makes .venv if it is not there, with the versions in constraints.txt.

PYTHON ?= python3
BIN := .venv/bin
INPUTS := pyproject.toml constraints.txt
PIP := $(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt

# What needs no tokens and no hours; the others say at their top what they need.
BENCHMARKS := take_merge local_training overhead wire_dtypes epoch_over_shard encode_loop \
	encode_ratio rate_distortion scale_ablation client_footprint cli_start large_models \
	many_registered per_client round_floor model_zoo quickstart_pytorch modules_learn scale_choices \
	exported predict_stream prep_sizes licenses

.PHONY: demo test lint types tests e2e bench attacks clean

demo: .venv/installed
	$(BIN)/flower-ist demo

test: lint types tests

lint: .venv/installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports

types: .venv/installed-dev
	$(BIN)/mypy
	$(BIN)/mypy benchmarks/*.py benchmarks/hostile/*.py benchmarks/probe/*.py

tests: .venv/installed-dev
	$(BIN)/pytest

e2e: .venv/installed-dev
	$(BIN)/pytest -m long

bench: .venv/installed-dev
	for name in $(BENCHMARKS); do $(BIN)/python -W ignore benchmarks/$$name.py || exit 1; done

attacks: .venv/installed-dev
	$(BIN)/python -W ignore benchmarks/attacks.py

clean:
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist

.venv/installed: $(INPUTS)
	$(PYTHON) -m venv .venv
	$(PIP) --editable '.[plot,simulation]'
	touch $@

# torch goes first: a constraint picks its build before anything else can ask for another.
.venv/installed-dev: .venv/installed
	$(PIP) torch
	$(PIP) --editable '.[plot,simulation,torch,prep,dev]'
	touch $@
