# Everything runs in .venv, made on first use. On a machine without a GPU install a CPU build of torch there first, or
# set PIP_CONSTRAINT=.ci/constraints.txt: the default build brings gigabytes of CUDA.
PYTHON ?= python3
PRESET ?= full
SEEDS ?= 1
OUT ?= runs/$(if $(filter smoke,$(PRESET)),smoke,tiny)$(if $(filter-out 1,$(SEEDS)),-seeds)
BIN := .venv/bin

.DEFAULT_GOAL := help
.PHONY: help demo test test-slow test-native check format clean

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

.venv/installed: pyproject.toml CMakeLists.txt $(wildcard cobra/kernels/cpu/csrc/*)
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -e '.[dev]'
	@touch $@

demo: .venv/installed  ## train the tiny Cobra and its blind twin, evaluate, draw (PRESET=smoke for a quick look, SEEDS=3 for three)
	$(BIN)/cobra reproduce -c configs/cobra_tiny.yaml $(if $(filter smoke,$(PRESET)),-c configs/presets/smoke.yaml) \
		--out $(OUT) --precision auto --seeds $$(seq 0 $$(($(SEEDS) - 1)))

test: .venv/installed  ## the unmarked tests, under 4 minutes
	$(BIN)/python -m pytest

test-slow: .venv/installed  ## slow, export and fault-injection tests
	$(BIN)/python -m pytest -m 'slow or export or faults'

test-native:  ## the C++ kernels under sanitizers, then for aarch64 under an emulator (LEVEL=avx2 for one ISA level alone)
	tests/native/run.sh $(LEVEL)

check: .venv/installed  ## formatting, lint and types
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy cobra tests

format: .venv/installed  ## format and fix what can be fixed
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

clean:  ## remove the virtual environment and caches; runs/ stays
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache build dist
