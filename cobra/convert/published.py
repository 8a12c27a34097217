"""Identifiers in Cobra's and ML-Mamba's config.json, and what they stand for (their registries of models)."""

from typing import Any

_LM = "cobra.models.lm"
_TEMPLATES = "cobra:data/templates"
# The tokenizer of all Mamba language models; state-spaces/mamba repositories hold none of their own.
TOKENIZER = "EleutherAI/gpt-neox-20b"

MAMBA_28B = {
    "class_path": f"{_LM}.mamba.MambaLM",
    "init_args": {"vocab_size": 50280, "d_model": 2560, "n_layers": 64},
}
MAMBA2_27B = {
    "class_path": f"{_LM}.mamba2.Mamba2LM",
    "init_args": {"vocab_size": 50288, "d_model": 2560, "n_layers": 64},
}

# `llm_backbone_id`: the language model's tree and the chat template that Cobra picks for it.
LMS: dict[str, tuple[dict[str, Any], str]] = {
    "mamba-2.8b-zephyr": (MAMBA_28B, f"{_TEMPLATES}/zephyr.jinja"),
    "mamba-2.8b-slimpj": (MAMBA_28B, f"{_TEMPLATES}/mamba_base.jinja"),
    "mamba-2.8b": (MAMBA_28B, f"{_TEMPLATES}/mamba_base.jinja"),
}

# `vision_backbone_id`: timm's towers in channel order, with the weight tag that the id meant, and their size.
TOWERS: dict[str, tuple[tuple[str, ...], int]] = {
    "clip-vit-b": (("vit_base_patch16_clip_224.openai",), 224),
    "clip-vit-l": (("vit_large_patch14_clip_224.openai",), 224),
    "clip-vit-l-336px": (("vit_large_patch14_clip_336.openai",), 336),
    "siglip-vit-b16-224px": (("vit_base_patch16_siglip_224.webli",), 224),
    "siglip-vit-b16-256px": (("vit_base_patch16_siglip_256.webli",), 256),
    "siglip-vit-b16-384px": (("vit_base_patch16_siglip_384.webli",), 384),
    "siglip-vit-so400m": (("vit_so400m_patch14_siglip_224.webli",), 224),
    "siglip-vit-so400m-384px": (("vit_so400m_patch14_siglip_384.webli",), 384),
    "dinov2-vit-l": (("vit_large_patch14_reg4_dinov2.lvd142m",), 224),
    "in1k-vit-l": (("vit_large_patch16_224.augreg_in21k_ft_in1k",), 224),
    "dinoclip-vit-l-336px": (
        ("vit_large_patch14_reg4_dinov2.lvd142m", "vit_large_patch14_clip_336.openai"),
        336,
    ),
    "dinosiglip-vit-so-384px": (
        ("vit_large_patch14_reg4_dinov2.lvd142m", "vit_so400m_patch14_siglip_384.webli"),
        384,
    ),
}

# Cobra leaves timm's erf-GELU in this CLIP; CLIP alone gets the quick GELU that it was trained with.
_ACTIVATIONS = {("dinoclip-vit-l-336px", "vit_large_patch14_clip_336.openai"): {"activation": "gelu"}}

# `image_resize_strategy`; Cobra's letterbox has bars of equal width, whatever the parity.
_RESIZES = {
    "resize-naive": "resize-naive",
    "resize-crop": "resize-crop",
    "letterbox": "letterbox-equal-bars",
}


def vision_tree(model: dict[str, Any]) -> dict[str, Any]:
    """The encoder of the `vision_backbone_id` and `image_resize_strategy` in config.json's `model`."""
    names, size = lookup(TOWERS, model, "vision_backbone_id")
    resize = lookup(_RESIZES, model, "image_resize_strategy")
    towers = [
        {
            "class_path": "cobra.models.vision.timm_encoder.TimmEncoder",
            "init_args": {
                "name": name,
                "image_size": size,
                "resize": resize,
                **_ACTIVATIONS.get((model["vision_backbone_id"], name), {}),
            },
        }
        for name in names
    ]
    if len(towers) == 1:
        return towers[0]
    return {"class_path": "cobra.models.vision.fused.FusedEncoder", "init_args": {"encoders": towers}}


def lookup(table: dict[str, Any], model: dict[str, Any], field: str) -> Any:
    """The entry of the identifier in a field of config.json's `model`.

    Raises:
        ValueError: where there is none, naming those that are known.
    """
    key = model.get(field)
    if key not in table:
        raise ValueError(f"config.json: model.{field} {key!r} is not one of {', '.join(table)}")
    return table[key]
