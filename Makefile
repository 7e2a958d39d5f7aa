# Everything runs in .venv, which the first target makes; nothing else is installed by hand.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# releases that passed the tests together, so that a newer one breaks no one; `make CONSTRAINTS= …` is free of them
CONSTRAINTS = $(wildcard constraints/$(shell $(BIN)/python -c 'import sys; print("%d.%d" % sys.version_info[:2])').txt)
PIP = $(BIN)/python -m pip install --quiet $(addprefix --constraint ,$(CONSTRAINTS))
# built with the setuptools that is pinned, not with the newest
INSTALL = $(PIP) --no-build-isolation --editable
PINS := $(wildcard constraints/*.txt)
# files of tests side by side, one a core; a process with TensorFlow takes a gigabyte and more
PARALLEL := -n auto --maxprocesses 4 --dist loadfile

.PHONY: demo test test-long test-faults test-fuzz test-slurm test-fast test-latest test-floors \
	cases check pinned constraints format bench help clean
.DEFAULT_GOAL := help

help:            ## this text
	@grep -E '^[a-z-]+: .*##' $(MAKEFILE_LIST) | sed -E 's/:.*##/\t/' | expand -t 14

demo: $(VENV)/.package  ## draw a synthetic city and run the main job on it
	$(BIN)/sesgrid synth build/city --cells 22 --seed 0 --output ../demo
	$(BIN)/sesgrid run build/city/city.toml

test: $(VENV)/.test     ## run the tests but the longest, with coverage
	$(BIN)/python -m pytest $(PARALLEL) -m "not long and not faults and not slurm" --cov --cov-report=term:skip-covered

test-long: $(VENV)/.test  ## run the longest tests
	$(BIN)/python -m pytest $(PARALLEL) -m long

test-faults: $(VENV)/.test  ## kill workers, drivers and schedulers, cut networks, fill disks
	$(BIN)/python -m pytest -n 2 --dist load -m faults

test-fuzz: $(VENV)/.test  ## right, damaged and hostile inputs by seed; `make test-fuzz SEED=7` draws others
	$(BIN)/python -m benchmarks.robustness --json --seed $(or $(SEED),0) --failures build/fuzz

cases: $(VENV)/.test    ## run the scripts of ../shared/cases, where that folder is there
	test ! -d ../shared/cases || $(BIN)/python -m tests.cases ../shared/cases

test-slurm: $(VENV)/.test ## run on a real SLURM, started on this machine; as root, with Debian's slurm-wlm and munge
	$(INSTALL) '.[test,slurm]'
	$(BIN)/python -m pytest -m slurm

test-fast: $(VENV)/.test  ## run the tests that take less than a few seconds each
	$(BIN)/python -m pytest $(PARALLEL) -m "not slow and not long and not faults and not slurm"

test-latest:            ## run the fast tests with today's newest releases
	rm -rf .venv-latest
	$(MAKE) test-fast VENV=.venv-latest CONSTRAINTS=

test-floors:            ## run the fast tests with the oldest releases that setup.cfg allows, on Python 3.11
	rm -rf .venv-floors
	$(MAKE) test-fast VENV=.venv-floors CONSTRAINTS=constraints/floors.txt PYTHON="$$(.ci/python 3.11)"

check: $(VENV)/.check   ## ruff, formatting, mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

pinned:                 ## compare what is installed with the constraints
	$(BIN)/python constraints/pins.py check

constraints:            ## resolve today's newest releases anew, for each Python that is there
	for version in 3.11 3.12 3.13; do \
		python=$$(.ci/python $$version) || continue; \
		rm -rf build/constraints && $$python -m venv build/constraints && \
		build/constraints/bin/python -m pip install --quiet --upgrade pip && \
		build/constraints/bin/python constraints/pins.py write || exit 1; \
	done
	build/constraints/bin/python -m pip install --quiet uv
	build/constraints/bin/python constraints/pins.py floors

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

$(VENV)/.tools: $(VENV)/bin/python $(PINS)
	$(PIP) --upgrade pip setuptools
	touch $@

$(VENV)/.package: $(VENV)/.tools setup.cfg pyproject.toml
	$(INSTALL) .
	touch $@

$(VENV)/.test: $(VENV)/.tools setup.cfg pyproject.toml
	$(INSTALL) '.[test]'
	touch $@ $(VENV)/.package

$(VENV)/.check: $(VENV)/.tools setup.cfg pyproject.toml
	$(INSTALL) '.[test,check]'
	touch $@ $(VENV)/.package $(VENV)/.test

$(VENV)/.bench: $(VENV)/.tools setup.cfg pyproject.toml
	$(INSTALL) '.[test,bench]'
	touch $@ $(VENV)/.package $(VENV)/.test
