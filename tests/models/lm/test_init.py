"""Time scales at initialization come from all of their ranges with every seed; stacked weights are marked."""

import pytest
import torch
import torch.nn.functional as F

from cobra.models.lm.mamba2 import Mamba2LM, Mamba2Mixer
from cobra.models.projectors.mamba_scan import MambaScanProjector

A_RANGES = [(0.25, 4.0), (1.0, 16.0)]


def mixers(seed: int = 0) -> list[Mamba2Mixer]:
    torch.manual_seed(seed)
    lm = Mamba2LM(64, 64, 2, d_state=8, head_dim=16, A_range=A_RANGES)
    return [module for module in lm.modules() if isinstance(module, Mamba2Mixer)]


@pytest.mark.parametrize("seed", range(3))
def test_a_layer_has_a_head_in_each_part_of_both_ranges(seed: int) -> None:
    for mixer, (low, high) in zip(mixers(seed), A_RANGES, strict=True):
        heads = torch.arange(8)
        dt = F.softplus(mixer.dt_bias.detach()).log10()  # 1e-3 to 1e-1
        assert torch.equal((8 * (dt + 3) / 2).floor().long(), heads)
        rates = mixer.A_log.detach().exp()
        assert torch.equal((8 * (rates - low) / (high - low)).floor().long().sort().values, heads)


def test_as_many_ranges_as_layers() -> None:
    with pytest.raises(ValueError, match="2 ranges for 3 layers"):
        Mamba2LM(64, 64, 3, d_state=8, head_dim=16, A_range=A_RANGES)


def test_stacked_weights_have_the_rows_that_they_are_said_to_stack() -> None:
    projector = MambaScanProjector(16, 32, d_state=8, head_dim=16)
    marked = [p for m in (*mixers(), projector) for p in m.parameters() if hasattr(p, "_stacked_rows")]
    assert len(marked) >= 3
    assert all(len(p) == sum(p._stacked_rows) for p in marked)
