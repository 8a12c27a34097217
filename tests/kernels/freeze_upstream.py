"""What upstream itself computes, for `test_upstream_outputs.py`: a file of small inputs and outputs.

`python -m tests.kernels.freeze_upstream MAMBA_SSM CAUSAL_CONV1D`, of the unpacked source distributions of
mamba-ssm 2.3.2.post1 and causal-conv1d 1.7.0 (with einops installed), on a machine without a GPU: Triton's
interpreter runs mamba_ssm's kernels; for kernels in CUDA upstream's own functions in PyTorch stand in.
"""

import os

os.environ["TRITON_INTERPRET"] = "1"

import importlib
import sys
from contextlib import nullcontext
from dataclasses import replace
from types import ModuleType, SimpleNamespace
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor
from triton.runtime.autotuner import Autotuner

import cobra.torchvision_shim  # noqa: F401
from cobra.kernels import dispatch, mamba_ssm
from cobra.kernels.mamba_ssm import ssd
from tests.kernels.sequence_inputs import Inputs, normal
from tests.kernels.upstream import OUTPUTS, outputs


def scan_inputs() -> dict[str, Inputs]:
    """Inputs by name, whose first word is an op; options that are no tensors are numbers or words."""
    return {
        "ssd_chunk_scan packed": {
            "x": normal(1, 20, 4, 3),
            "dt": normal(1, 20, 4),
            "A": -normal(4).exp(),
            "B": normal(1, 20, 2, 5),
            "C": normal(1, 20, 2, 5, seed=1),
            "D": normal(4),
            "dt_bias": normal(4, seed=1),
            "dt_softplus": True,
            "initial_state": normal(1, 4, 3, 5),
            # one ends inside a chunk, one at its end
            "seq_idx": torch.tensor([[0] * 7 + [1] * 9 + [2] * 4]).int(),
        },
        "ssd_chunk_scan": {
            "x": normal(1, 20, 2, 3, seed=2),
            "dt": normal(1, 20, 2, seed=2),
            "dt_softplus": True,
            "A": -normal(2).exp(),
            "B": normal(1, 20, 1, 5, seed=2),
            "C": normal(1, 20, 1, 5, seed=3),
        },
        "selective_scan": {
            "u": normal(1, 9, 6),
            "delta": normal(1, 9, 6, seed=1),
            "A": -normal(6, 3).exp(),
            "B": normal(1, 9, 2, 3),
            "C": normal(1, 9, 2, 3, seed=1),
            "D": normal(6),
            "z": normal(1, 9, 6, seed=2),
            "delta_bias": normal(6, seed=1),
            "delta_softplus": True,
        },
    }


def other_inputs() -> dict[str, Inputs]:
    """As `scan_inputs`, for convolutions, steps and norms."""
    conv = {"x": normal(1, 9, 8), "weight": normal(8, 4), "bias": normal(8), "activation": "silu"}
    step = {"D": normal(4), "dt_bias": normal(4, seed=1), "dt_softplus": True}
    return {
        "causal_conv1d": conv | {"initial_state": normal(1, 8, 3)},
        "causal_conv1d packed": conv
        | {"seq_idx": torch.tensor([[0] * 2 + [1] * 6 + [2]], dtype=torch.int32)},
        "causal_conv1d_update": conv | {"x": normal(2, 8), "state": normal(2, 8, 3)},
        "selective_state_update heads": step
        | {
            "state": normal(2, 4, 3, 5),
            "x": normal(2, 4, 3),
            "dt": normal(2, 4),
            "A": -normal(4).exp(),
            "B": normal(2, 2, 5),
            "C": normal(2, 2, 5, seed=1),
            "z": normal(2, 4, 3, seed=1),
        },
        "selective_state_update channels": step
        | {
            "state": normal(2, 4, 5),
            "x": normal(2, 4),
            "dt": normal(2, 4, seed=1),
            "A": -normal(4, 5).exp(),
            "B": normal(2, 1, 5),
            "C": normal(2, 1, 5, seed=1),
            "z": normal(2, 4, seed=1),
        },
        "rms_norm": {"x": normal(3, 7), "weight": normal(7)},
        "add_rms_norm": {"x": normal(3, 7), "residual": normal(3, 7, seed=1), "weight": normal(7)},
        "rms_norm_gated": {
            "x": normal(3, 12),
            "z": normal(3, 12, seed=1),
            "weight": normal(12),
            "group_size": 6,
        },
    }


def load(scans: str, conv: str) -> mamba_ssm.Upstream:
    """Upstream's functions, from its sources."""
    for name, folder in (("mamba_ssm", scans), ("causal_conv1d", conv)):
        package = ModuleType(name)
        # not its __init__, which imports what this machine has not
        package.__path__ = [f"{folder}/{name}"]
        sys.modules[name] = package
    for name in ("selective_scan_cuda", "causal_conv1d_cuda"):
        sys.modules[name] = ModuleType(name)
    names = {name: name for name in mamba_ssm.MODULES}
    names |= {"selective_scan_fn": "selective_scan_ref", "causal_conv1d_fn": "causal_conv1d_ref"}
    names |= {"causal_conv1d_update": "causal_conv1d_update_ref"}
    modules = {name: importlib.import_module(module) for name, module in mamba_ssm.MODULES.items()}
    # no GPU is asked for anything: neither which one, nor how many parts it has, nor what is fastest on it
    cuda: Any = torch.cuda
    cuda.device = lambda *_: nullcontext()
    cuda.get_device_properties = lambda *_: SimpleNamespace(multi_processor_count=8)
    for module in [m for n, m in sys.modules.items() if n.startswith("mamba_ssm.")]:
        for kernel in [value for value in vars(module).values() if isinstance(value, Autotuner)]:
            kernel.configs = kernel.configs[:1]
    return mamba_ssm.Upstream({name: getattr(modules[name], names[name]) for name in names})


def main(scans: str, conv: str) -> None:
    """Write the file."""
    upstream = load(scans, conv)
    backend = dispatch.adapters("mamba_ssm", lambda: None, lambda: upstream)
    dispatch.BACKENDS = (replace(backend, devices=("cpu",), by_name=()),)
    # two chunks
    ssd._CHUNK_SIZE = 16
    tensors, options = {}, {}
    with dispatch.use_backend("mamba_ssm"):
        for name, inputs in (scan_inputs() | other_inputs()).items():
            for key, value in inputs.items():
                if isinstance(value, Tensor):
                    tensors[f"{name}/in/{key}"] = value.clone()
                else:
                    options[f"{name}/in/{key}"] = str(value)
            for key, value in outputs(name, inputs).items():
                tensors[f"{name}/out/{key}"] = value.clone(memory_format=torch.contiguous_format)
    save_file(tensors, OUTPUTS, options)


if __name__ == "__main__":
    main(*sys.argv[1:])
