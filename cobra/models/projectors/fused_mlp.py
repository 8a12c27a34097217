"""Three linear layers for the features of fused encoders."""

from torch import Tensor, nn

from cobra.models.projectors.base import Projector


class FusedMLPProjector(Projector):
    """Linear to 4 × in_dim, GELU, linear, GELU, linear (Cobra's "fused-gelu-mlp")."""

    def __init__(self, in_dim: int, out_dim: int) -> None:
        super().__init__()
        self.projector = nn.Sequential(
            nn.Linear(in_dim, 4 * in_dim),
            nn.GELU(),
            nn.Linear(4 * in_dim, out_dim),
            nn.GELU(),
            nn.Linear(out_dim, out_dim),
        )

    def forward(self, patches: Tensor) -> Tensor:
        """Patches (B, N, in_dim) to image tokens (B, N, out_dim)."""
        return self.projector(patches)
