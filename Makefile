# Everything runs in .venv, which the first target makes; nothing else is installed by hand.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# files of tests side by side, one a core; a process with TensorFlow takes a gigabyte and more
PARALLEL := -n auto --maxprocesses 4 --dist loadfile

.PHONY: demo test test-long test-faults test-slurm test-fast check format bench help clean
.DEFAULT_GOAL := help

help:            ## this text
	@grep -E '^[a-z-]+: .*##' $(MAKEFILE_LIST) | sed -E 's/:.*##/\t/' | expand -t 14

demo: $(VENV)/.package  ## draw a synthetic city and run the main job on it
	$(BIN)/sesgrid synth build/city --cells 22 --seed 0 --output ../demo
	$(BIN)/sesgrid run build/city/city.toml

test: $(VENV)/.test     ## run the tests but the longest, with coverage
	NUMBA_JIT_COVERAGE=1 $(BIN)/python -m pytest $(PARALLEL) -m "not long and not faults and not slurm" --cov --cov-report=term:skip-covered

test-long: $(VENV)/.test  ## run the longest tests
	$(BIN)/python -m pytest $(PARALLEL) -m long

test-faults: $(VENV)/.test  ## kill workers, drivers and schedulers, cut networks, fill disks
	$(BIN)/python -m pytest -n 2 --dist load -m faults

test-slurm: $(VENV)/.test ## run on a real SLURM, started on this machine; as root, with Debian's slurm-wlm and munge
	$(BIN)/python -m pip install --quiet -e '.[test,slurm]'
	$(BIN)/python -m pytest -m slurm

test-fast: $(VENV)/.test  ## run the tests that take less than a few seconds each
	$(BIN)/python -m pytest $(PARALLEL) -m "not slow and not faults and not slurm"

check: $(VENV)/.check   ## ruff, formatting, mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.check  ## format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.bench   ## ratios against peers; see benchmarks/RESULTS.md
	$(BIN)/python -m benchmarks.burn
	$(BIN)/python -m benchmarks.class_sums
	$(BIN)/python -m benchmarks.codec
	$(BIN)/python -m benchmarks.explain
	$(BIN)/python -m benchmarks.loader
	$(BIN)/python -m benchmarks.mosaic
	$(BIN)/python -m benchmarks.noisy_labels
	$(BIN)/python -m benchmarks.training

clean:                  ## remove what demo and the tests made, not the environment
	rm -rf build .coverage .pytest_cache .hypothesis .mypy_cache .ruff_cache

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit("sesgrid needs Python 3.11 or newer, found " + sys.version.split()[0] if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip

$(VENV)/.package: $(VENV)/bin/python setup.cfg pyproject.toml
	$(BIN)/python -m pip install --quiet -e .
	touch $@

$(VENV)/.test: $(VENV)/bin/python setup.cfg pyproject.toml
	$(BIN)/python -m pip install --quiet -e '.[test]'
	touch $@ $(VENV)/.package

$(VENV)/.check: $(VENV)/bin/python setup.cfg pyproject.toml
	$(BIN)/python -m pip install --quiet -e '.[test,check]'
	touch $@ $(VENV)/.package $(VENV)/.test

$(VENV)/.bench: $(VENV)/bin/python setup.cfg pyproject.toml
	$(BIN)/python -m pip install --quiet -e '.[test,bench]'
	touch $@ $(VENV)/.package $(VENV)/.test
