"""A share of a weight (a DTensor) has no address that a kernel could read."""

import pytest
import torch
from torch import Tensor
from torch.distributed.tensor import Shard, distribute_tensor

from cobra.kernels.ops import rms_norm
from cobra.kernels.step_graph import StepGraph
from tests.train.two_devices import one_of_two_devices


@pytest.mark.parametrize("captured", [False, True])
def test_a_kernel_refuses_a_share(captured: bool) -> None:
    with one_of_two_devices(2) as mesh, torch.no_grad():
        share = distribute_tensor(torch.ones(16), mesh, [Shard(0)])

        def norm(x: Tensor) -> Tensor:
            return rms_norm(x, share)

        with pytest.raises(RuntimeError, match=r"rms_norm.* mixed torch\.Tensor and DTensor"):
            (StepGraph(norm) if captured else norm)(torch.randn(2, 16))
