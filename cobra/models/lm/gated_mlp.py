"""SwiGLU (arXiv 2002.05202)."""

from torch import Tensor, nn

from cobra.kernels.ops import silu_mul
from cobra.models.lm.init import scale_output
from cobra.models.lm.mixer import Mixer
from cobra.models.lm.state import LayerState
from cobra.models.lm.tokens import Tokens


class GatedMLP(Mixer):
    """An MLP whose first linear is gated by a second; each token hears itself alone.

    Args:
        d_ff: inner width.
    """

    def __init__(self, d_model: int, d_ff: int) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(d_model, d_ff, bias=False)
        self.up_proj = nn.Linear(d_model, d_ff, bias=False)
        self.down_proj = nn.Linear(d_ff, d_model, bias=False)

    def initialize(self, branches: int) -> None:
        """See `Mixer.initialize`."""
        scale_output(self.down_proj, branches)

    def forward(self, x: Tensor, state: LayerState | None, tokens: Tokens) -> Tensor:
        """See `Mixer.forward`; there is nothing to remember."""
        return self.down_proj(silu_mul(self.gate_proj(x), self.up_proj(x)))

    def step(self, x: Tensor, state: LayerState, tokens: Tokens) -> Tensor:
        """See `Mixer.step`."""
        return self.forward(x, state, tokens)
