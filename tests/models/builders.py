"""Tiny parts of every kind, for tests that enumerate them."""

import copy
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from cobra.config.build import build
from cobra.models.lm.base import LanguageModel
from cobra.models.lm.mamba import MambaLM
from cobra.models.lm.mamba2 import Mamba2LM
from cobra.models.lm.mobile_llm import MobileLLM
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
from tests.models.tiled import TiledViT

# the tokenizer of ShapesVQA has 430 tokens
VOCAB = 432
_ATTENTION = {"num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 64}
_PUBLISHED_HEADS = _ATTENTION | {"num_key_value_heads": 4}

# transformers' architectures and what sets the published models of each apart, at tiny sizes
TRANSFORMERS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", _ATTENTION | {"head_dim": 8}),
    "phi": ("phi", _PUBLISHED_HEADS | {"partial_rotary_factor": 0.5, "hidden_act": "gelu_new"}),
    "phi3": ("phi3", _PUBLISHED_HEADS | {"pad_token_id": 0}),
    "phi3_longrope": (
        "phi3",
        _PUBLISHED_HEADS
        | {
            # int4 packs groups of 32 channels, which 48 are not
            "intermediate_size": 48,
            "pad_token_id": 0,
            "max_position_embeddings": 4096,
            "original_max_position_embeddings": 1024,
            "rope_parameters": {
                "rope_type": "longrope",
                "rope_theta": 10000.0,
                "short_factor": [1.0, 1.1, 1.2, 1.5],
                "long_factor": [1.1, 1.5, 3.0, 6.0],
            },
        },
    ),
    # the window is switched off, so it must not matter; the small ones tie their head
    "qwen2": (
        "qwen2",
        _PUBLISHED_HEADS | {"use_sliding_window": False, "sliding_window": 4, "tie_word_embeddings": True},
    ),
    "stablelm": ("stablelm", _PUBLISHED_HEADS | {"partial_rotary_factor": 0.25, "use_qkv_bias": True}),
}

# Mamba-2, attention, Mamba-2, each with an MLP, by yaml alone
HYBRID: dict[str, Any] = yaml.safe_load((Path(__file__).parent / "hybrid.yaml").read_text())
HYBRID_WITHOUT_MLP = copy.deepcopy(HYBRID)
del HYBRID_WITHOUT_MLP["init_args"]["mlp"]

small_vit = partial(SmallViT, image_size=32, embed_dim=16)
timm_vit = partial(TimmEncoder, name="test_vit.r160_in1k", image_size=64, pretrained=False)

ENCODERS: dict[str, Callable[[], VisionEncoder]] = {
    "small_vit": small_vit,
    "timm": timm_vit,
    "fused": partial(FusedEncoder, [small_vit, timm_vit]),
    "tiled": TiledViT,
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
    **{name: partial(TransformerLM, VOCAB, 32, 2, *rest) for name, rest in TRANSFORMERS.items()},
    "hybrid": build(HYBRID),
    "hybrid_without_mlp": build(HYBRID_WITHOUT_MLP),
    "mobile_llm": partial(MobileLLM, VOCAB, 32, 2, 4, 2, 64),
    "mobile_llm_shared": partial(MobileLLM, VOCAB, 32, 2, 4, 2, 64, share_blocks=True),
}
