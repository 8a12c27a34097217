# Everything runs in .venv, made on first use. On a machine without a GPU install a CPU build of torch there first, or
# set PIP_CONSTRAINT=.ci/constraints.txt: the default build brings gigabytes of CUDA.
PYTHON ?= python3
PRESET ?= full
SEEDS ?= 1
# what runs on a GPU's machine: this project's environment, or a Python that has torch and most of the rest already
GPU_PYTHON ?= .venv/bin/python
OUT ?= runs/$(if $(filter smoke,$(PRESET)),smoke,tiny)$(if $(filter-out 1,$(SEEDS)),-seeds)
BIN := .venv/bin

.DEFAULT_GOAL := help
.PHONY: help demo eval mobile rehearsal test test-triton test-slow test-native test-gpu bench-gpu check format clean

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

.venv/installed: pyproject.toml CMakeLists.txt $(wildcard cobra/kernels/cpu/csrc/*)
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -e '.[dev]'
	@touch $@

demo: .venv/installed  ## train the tiny Cobra and its blind twin, evaluate, draw (PRESET=smoke for a quick look, SEEDS=3 for three)
	$(BIN)/cobra demo -c configs/cobra_tiny.yaml $(if $(filter smoke,$(PRESET)),-c configs/presets/smoke.yaml) \
		--out $(OUT) --precision auto --seeds $$(seq 0 $$(($(SEEDS) - 1)))

# real pictures and questions, where there are some
COBRA_FIXTURES ?= ../shared/fixtures
PHOTOS := $(wildcard $(COBRA_FIXTURES)/photos/photo_vqa.jsonl)
evaluate = $(BIN)/cobra eval $(OUT)/model --out $(OUT)/eval $(if $(filter smoke,$(PRESET)),--limit 300)

eval: .venv/installed  ## the model of make demo on all that ShapesVQA asks, by generation and by likelihood (PRESET=smoke)
	$(evaluate) --benchmarks shapes,shapes_pope,shapes_vqa,shapes_refcoco
ifneq ($(PHOTOS),)
	$(evaluate) --benchmarks mmbench_samples,photos_vqa,photos_pope --data $(COBRA_FIXTURES)
endif

# What only mobile builds need: packages of the extra (the project itself is installed, and stays as it is), and llama.cpp
# in ~/.cache/cobra, ten minutes on two CPUs the first time. One thread: the tiny model's products are too small to share.
.venv/mobile: .venv/installed
	$(BIN)/python -m pip install --quiet 'cobra-vlm[export]'
	$(BIN)/cobra export llama
	@touch $@

mobile: .venv/mobile  ## the model of make demo as every mobile build: verified, asked, evaluated (PRESET=smoke)
# llama.cpp for GPUs takes some minutes more, once, where its tools are here (docs/mobile.md)
ifneq ($(PRESET),smoke)
	@command -v glslc > /dev/null || echo "no glslc: builds are not asked on Vulkan"
	if command -v glslc > /dev/null; then $(BIN)/cobra export llama --variant vulkan; fi
endif
	OMP_NUM_THREADS=1 $(BIN)/cobra eval mobile $(OUT)/model --out $(OUT)/mobile $(if $(filter smoke,$(PRESET)),--limit 300 --device cpu)

rehearsal: .venv/installed  ## the tiny model on the road of the large recipes: files, full, packed, LoRA (PRESET=smoke, SEEDS=3)
	$(BIN)/cobra rehearse --out runs/rehearsal$(if $(filter smoke,$(PRESET)),-smoke --smoke) \
		--seeds $$(seq 0 $$(($(SEEDS) - 1)))

test: .venv/installed  ## the unmarked tests, under 4 minutes: files share the processors
	$(BIN)/python -m pytest -n auto --dist loadfile

test-triton: .venv/installed  ## the GPU kernels without a GPU: in Triton's interpreter, and compiled
	$(BIN)/python -m pytest -m triton

test-slow: .venv/installed  ## slow, export and fault-injection tests
	$(BIN)/python -m pytest -m 'slow or export or faults'

test-native:  ## the C++ kernels under sanitizers, then for aarch64 under an emulator (LEVEL=avx2 for one ISA level alone)
	tests/native/run.sh $(LEVEL)

# With GPU_PYTHON nothing is installed; what that Python lacks lies in a folder on PYTHONPATH.
on_gpu := PYTHONPATH="$(CURDIR):$$PYTHONPATH" $(GPU_PYTHON)
gpu_needs := $(if $(filter .venv/bin/python,$(GPU_PYTHON)),.venv/installed)

test-gpu: $(gpu_needs)  ## the Triton kernels and what is marked gpu, on a GPU (GPU_PYTHON=python3 to install nothing)
	$(on_gpu) -m pytest -p no:cacheprovider -m 'gpu or triton'

bench-gpu: $(gpu_needs)  ## speed on a GPU, to docs/benchmarks/ and the GPU's name
	GPU_PYTHON="$(GPU_PYTHON)" docs/benchmarks/gpu.sh

check: .venv/installed  ## formatting, lint and types
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy cobra tests

format: .venv/installed  ## format and fix what can be fixed
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

clean:  ## remove the virtual environment and caches; runs/ stays
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache build dist
