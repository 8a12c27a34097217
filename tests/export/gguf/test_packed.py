"""Matrices in 8 bits."""

import numpy as np
import pytest
import torch

from cobra.export.gguf.packed import PackedWeight
from cobra.weights.tensors import in_memory
from tests.export.gguf.exported import NO_LLAMA

pytestmark = [pytest.mark.export, pytest.mark.skipif(bool(NO_LLAMA), reason=NO_LLAMA)]


@pytest.mark.parametrize("width", [1, 31, 32, 33, 100])
def test_values_are_within_half_a_step_and_rows_end_in_zeros(width: int) -> None:
    values = torch.randn((5, width), generator=torch.Generator().manual_seed(0)).to(torch.bfloat16)
    packed = PackedWeight(in_memory({"w": values})["w"])
    rows, whole = packed.shape
    assert (rows, whole % 32) == (5, 0)
    assert width <= whole < width + 32
    data = packed.data()
    assert len(data) == packed.nbytes == 5 * whole // 32 * 34
    # as ggml defines it: a scale in fp16, then 32 numbers
    blocks = np.frombuffer(data, np.dtype([("scale", "<f2"), ("number", "i1", 32)])).reshape(5, -1)
    steps = np.repeat(blocks["scale"].astype(np.float32), 32, axis=1)
    found = steps * blocks["number"].reshape(5, whole)
    assert not found[:, width:].any()
    # the scale itself is rounded to 11 bits
    error = np.abs(found[:, :width] - values.float().numpy())
    assert (error <= steps[:, :width] * (0.5 + 127 * 2**-11)).all()
