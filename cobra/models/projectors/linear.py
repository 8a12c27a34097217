"""A single linear layer."""

from torch import Tensor, nn

from cobra.models.projectors.base import Projector


class LinearProjector(Projector):
    """One linear layer (the connector of the first LLaVA)."""

    def __init__(self, in_dim: int, out_dim: int) -> None:
        super().__init__()
        self.projector = nn.Linear(in_dim, out_dim)

    def forward(self, patches: Tensor) -> Tensor:
        """Patches (B, N, in_dim) to image tokens (B, N, out_dim)."""
        return self.projector(patches)
