"""Two linear layers."""

from torch import Tensor, nn

from cobra.models.projectors.base import Projector


class MLPProjector(Projector):
    """Linear, GELU, linear (LLaVA-1.5's connector; "gelu-mlp" in Cobra)."""

    def __init__(self, in_dim: int, out_dim: int) -> None:
        super().__init__()
        self.projector = nn.Sequential(nn.Linear(in_dim, out_dim), nn.GELU(), nn.Linear(out_dim, out_dim))

    def forward(self, patches: Tensor) -> Tensor:
        """Patches (B, N, in_dim) to image tokens (B, N, out_dim)."""
        return self.projector(patches)
