"""ML-Mamba's connector: the patches see each other through Mamba-2 before they are projected."""

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from cobra.models.projectors.base import Projector
from cobra.models.projectors.fused_mlp import FusedMLPProjector
from cobra.models.projectors.grid import square_side
from cobra.models.projectors.scan_mixer import Paths, ScanMixer

Variant = Literal["mlp", "basic", "advanced"]


class MambaScanProjector(Projector):
    """Linear and GELU, blocks that scan the patches, then three linear layers (arXiv 2407.19832).

    "advanced" over "bidirectional" is what ML-Mamba released, layer for layer. The paper's other rows are
    built from the same parts: its tables do not say more.

    Args:
        variant: `advanced` follows each scan by a SwiGLU, `basic` does not, `mlp` scans nothing.
        paths: `bidirectional` reads rows forward and backward; `cross` columns too (a re-creation).
        n_layers: blocks.
        d_state: state size of the scan.
        head_dim: channels of a head.
        expand: inner width as a multiple of out_dim.
        d_conv: width of the causal convolution.
        chunk_size: tokens a chunk of the scan; a hint, which changes speed and not results.
    """

    def __init__(
        self,
        in_dim: int,
        out_dim: int,
        variant: Variant = "advanced",
        paths: Paths = "bidirectional",
        n_layers: int = 2,
        d_state: int = 128,
        head_dim: int = 64,
        expand: int = 2,
        d_conv: int = 4,
        chunk_size: int = 64,
    ) -> None:
        super().__init__()
        if variant not in ("mlp", "basic", "advanced"):
            raise ValueError(f"variant {variant!r} is unknown: choose one of mlp, basic, advanced")
        self.needs_square = variant != "mlp" and paths == "cross"
        self.mlp = nn.Sequential(nn.Linear(in_dim, out_dim), nn.GELU())
        mixers = [
            ScanMixer(out_dim, paths, d_state, head_dim, expand, d_conv, chunk_size)
            for _ in range(0 if variant == "mlp" else n_layers)
        ]
        for mixer in mixers:
            mixer.initialize(n_layers)
        block = SwiGLUBlock if variant == "advanced" else ScanBlock
        self.scan = Scan(out_dim, [block(out_dim, mixer) for mixer in mixers]) if mixers else nn.Identity()
        self.projector = FusedMLPProjector(out_dim, out_dim)
        for module in self.projector.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_normal_(module.weight)
                nn.init.zeros_(module.bias)

    def forward(self, patches: Tensor) -> Tensor:
        """Patches (B, N, in_dim) to image tokens (B, N, out_dim)."""
        return self.projector(self.scan(self.mlp(patches)))

    def num_tokens(self, num_patches: int) -> int:
        """M = num_patches."""
        return square_side(num_patches) ** 2 if self.needs_square else num_patches


class Scan(nn.Module):
    """The blocks and a final norm."""

    def __init__(self, dim: int, blocks: list["ScanBlock"]) -> None:
        super().__init__()
        self.layers = nn.Sequential(*blocks)
        self.norm_f = nn.LayerNorm(dim)

    def forward(self, patches: Tensor) -> Tensor:
        """Patches (B, N, dim) to the same shape."""
        return self.norm_f(self.layers(patches))


class ScanBlock(nn.Module):
    """A mixer and its residual; as released, without a norm before it."""

    def __init__(self, dim: int, mixer: ScanMixer) -> None:
        super().__init__()
        self.mixer = mixer

    def forward(self, patches: Tensor) -> Tensor:
        """Patches (B, N, dim) to the same shape."""
        return patches + self.mixer(patches)


class SwiGLUBlock(ScanBlock):
    """A mixer, then a SwiGLU of the normed sum."""

    def __init__(self, dim: int, mixer: ScanMixer) -> None:
        super().__init__(dim, mixer)
        self.norm = nn.LayerNorm(dim)
        self.mlp = SwiGLU(dim)

    def forward(self, patches: Tensor) -> Tensor:
        """Patches (B, N, dim) to the same shape."""
        patches = super().forward(patches)
        return patches + self.mlp(self.norm(patches))


class SwiGLU(nn.Module):
    """w3(silu(w1 x) × w2 x), as wide inside as outside."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.w1, self.w2, self.w3 = (nn.Linear(dim, dim) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, dim) to the same shape."""
        return self.w3(F.silu(self.w1(x)) * self.w2(x))
