"""Tiny parts of every kind, for tests that enumerate them."""

from collections.abc import Callable
from functools import partial

from cobra.models.lm.base import LanguageModel
from cobra.models.lm.mamba import MambaLM
from cobra.models.lm.mamba2 import Mamba2LM
from cobra.models.lm.transformer import TransformerLM
from cobra.models.projectors.base import Projector
from cobra.models.projectors.fused_mlp import FusedMLPProjector
from cobra.models.projectors.ldp import LDPProjector
from cobra.models.projectors.ldpv2 import LDPv2Projector
from cobra.models.projectors.linear import LinearProjector
from cobra.models.projectors.mamba_scan import MambaScanProjector
from cobra.models.projectors.mlp import MLPProjector
from cobra.models.projectors.pixel_unshuffle import PixelUnshuffleProjector
from cobra.models.vision.base import VisionEncoder
from cobra.models.vision.fused import FusedEncoder
from cobra.models.vision.small_vit import SmallViT
from cobra.models.vision.timm_encoder import TimmEncoder

VOCAB = 64
_LLAMA = {"num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 48, "head_dim": 8}

small_vit = partial(SmallViT, image_size=32, embed_dim=16)
timm_vit = partial(TimmEncoder, name="test_vit.r160_in1k", image_size=64, pretrained=False)

ENCODERS: dict[str, Callable[[], VisionEncoder]] = {
    "small_vit": small_vit,
    "timm": timm_vit,
    "fused": partial(FusedEncoder, [small_vit, timm_vit]),
}
PROJECTORS: dict[str, Callable[[int, int], Projector]] = {
    "cross_scan": partial(MambaScanProjector, variant="basic", paths="cross", d_state=8, head_dim=16),
    "ldp": LDPProjector,
    "ldpv2": partial(LDPv2Projector, side=3, fused=True),
    "linear": LinearProjector,
    "mamba_mlp": partial(MambaScanProjector, variant="mlp"),
    "mamba_scan": partial(MambaScanProjector, d_state=8, head_dim=16),
    "mlp": MLPProjector,
    "fused_mlp": FusedMLPProjector,
    "pixel_unshuffle": PixelUnshuffleProjector,
}
LMS: dict[str, Callable[[], LanguageModel]] = {
    "mamba2": partial(Mamba2LM, VOCAB, 32, 2, d_state=16, head_dim=16, chunk_size=8),
    "mamba2_groups": partial(Mamba2LM, VOCAB, 32, 2, d_state=8, head_dim=16, n_groups=2, chunk_size=8),
    "mamba": partial(MambaLM, VOCAB, 32, 2),
    "transformer": partial(TransformerLM, VOCAB, 32, 2, "llama", _LLAMA),
}
