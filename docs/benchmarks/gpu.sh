#!/usr/bin/env bash
# What is measured on a GPU: its operators, decoding, and a step of training, into a folder of its name.
set -euo pipefail
cd "$(dirname "$0")/../.."
export PYTHONPATH="$PWD:${PYTHONPATH:-}"
python="${GPU_PYTHON:-.venv/bin/python}"
name=$("$python" -c 'import torch; print(torch.cuda.get_device_name().lower().replace(" ", "_"))')
out="docs/benchmarks/$name"
bench() {
    "$python" -m cobra bench "$@" --device cuda --repeats 3 --out "$out"
}

"$python" -m cobra kernels --device cuda --dtype bfloat16
bench kernels
bench train --models cobra_2.8b --lengths 512 --batch 4
bench decode --models mamba2-2.7b mobilellama-2.7b --quant none int8 int4 --contexts 0 2048 --tokens 64
