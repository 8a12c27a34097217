"""How large the things are that a bench measures."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Sizes:
    """How large things are: those of the published models, or small ones to try the bench itself.

    Attributes:
        length: tokens of a sequence.
        lengths: tokens of the sequences whose cost per token must agree.
        inner: heads × head width of Mamba-2 130m, channels of Mamba-1 130m.
        gemm: side of the matrices for the rate of multiplications.
        read: MiB summed for the read bandwidth, and MiB of weights that a linear cycles over.
        small: width, layers and vocabulary of the model to prefill.
        large: of the model to decode with.
    """

    length: int = 1024
    lengths: Sequence[int] = (1024, 4096, 16384, 65536)
    inner: int = 1536
    gemm: int = 2048
    read: int = 1280
    small: Mapping[str, int] = field(
        default_factory=lambda: {"d_model": 768, "layers": 24, "vocabulary": 50288}
    )
    large: Mapping[str, int] = field(
        default_factory=lambda: {"d_model": 1024, "layers": 48, "vocabulary": 50288}
    )

    def ssd(self, **more: Any) -> dict[str, Any]:
        """A layer of Mamba-2 130m."""
        layer = {"heads": self.inner // 64, "head_dim": 64, "d_state": 128}
        return {"length": self.length, **layer, "dtype": "float32", **more}

    def selective(self, **more: Any) -> dict[str, Any]:
        """A layer of Mamba-1 130m."""
        return {"length": self.length, "channels": self.inner, "d_state": 16, "dtype": "float32", **more}


def quick_sizes() -> Sizes:
    """Small enough for a test; the values mean nothing."""
    model = {"d_model": 128, "layers": 2, "vocabulary": 512}
    return Sizes(128, (64, 128), 256, 256, 16, model, model)
