"""CLIP and SigLIP towers in the checkpoints of vision-language models."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from cobra.convert.layout import Tree
from cobra.weights.tensors import Stored
from cobra.weights.timm_tower import LEFT_OUT, timm_name


@dataclass(frozen=True)
class Tower:
    """One published tower.

    Attributes:
        name: timm's.
        image_size: side in pixels.
        resize: of its processor in transformers, where the model's configuration does not pad.
        activation: of transformers' class, where timm's is another.
        weights: hub repository of weights that are not timm's.
    """

    name: str
    image_size: int
    resize: str
    activation: str | None = None
    weights: str | None = None


CLIP_L = Tower("vit_large_patch14_clip_336.openai", 336, "resize-crop-floor")
# squashed by PhiVA's phone app, the only model here that has it
CLIP_B = Tower("vit_base_patch16_clip_224.openai", 224, "resize-naive")
SIGLIP = Tower("vit_so400m_patch14_siglip_384.webli", 384, "resize-naive", "gelu_tanh")
SIGLIP_196 = Tower("vit_so400m_patch14_siglip_384.webli", 196, "resize-naive", "gelu_tanh")

# width, patch and positions, with that of a class token
SHAPES = {
    (1024, 14, 577): CLIP_L,
    (768, 16, 197): CLIP_B,
    (1152, 14, 729): SIGLIP,
    (1152, 14, 196): SIGLIP_196,
}
# the end of `mm_vision_tower`, for checkpoints without a tower
NAMES = {"clip-vit-large-patch14-336": CLIP_L, "siglip-so400m-patch14-384": SIGLIP}
# transformers' names of them; None is CLIP's own
_ACTIVATIONS = {None: "quick_gelu", "gelu_tanh": "gelu_pytorch_tanh"}
# towers that were trained further: Google's weights would be silently wrong
RETRAINED = "TinyLLaVA-"


def tower_tree(tensors: Mapping[str, Stored], config: dict[str, Any]) -> Tree:
    """The encoder of a LLaVA-like checkpoint: by its shapes where it is there, else by `mm_vision_tower`.

    Args:
        tensors: of the tower, by timm's names; may be empty.
        config: config.json.

    Raises:
        ValueError: where it is none of the published ones.
    """
    tower = _by_shape(tensors) if tensors else _by_name(str(config.get("mm_vision_tower")))
    aspect = config.get("image_aspect_ratio") or "square"
    if aspect not in ("square", "pad"):
        raise ValueError(f"config.json: image_aspect_ratio {aspect!r} cannot be read, only 'square' or 'pad'")
    _check_activation(tower, config.get("vision_config"))
    resize = "letterbox" if aspect == "pad" else tower.resize
    arguments = {"name": tower.name, "image_size": tower.image_size, "resize": resize}
    optional = {"activation": tower.activation, "weights": tower.weights}
    arguments |= {name: value for name, value in optional.items() if value is not None}
    return {"class_path": "cobra.models.vision.timm_encoder.TimmEncoder", "init_args": arguments}


def _check_activation(tower: Tower, described: Any) -> None:
    said = described.get("hidden_act") if isinstance(described, dict) else None
    built = _ACTIVATIONS[tower.activation]
    if said not in (None, built):
        raise ValueError(f"config.json: vision_config.hidden_act {said!r} cannot be read, only {built!r}")


def _by_shape(tensors: Mapping[str, Stored]) -> Tower:
    try:
        patches, positions = tensors["patch_embed.proj.weight"].shape, tensors["pos_embed"].shape
    except KeyError as error:
        raise ValueError(f"the vision tower has no {error}: a damaged file, or no CLIP or SigLIP") from error
    found = (patches[0], patches[-1], positions[1])
    if found not in SHAPES:
        raise ValueError(f"the vision tower's width, patch and positions {found} are none of {list(SHAPES)}")
    return SHAPES[found]


def _by_name(name: str) -> Tower:
    _, _, last = name.rstrip("/").rpartition("/")
    if last.startswith(RETRAINED):
        return Tower(SIGLIP.name, SIGLIP.image_size, SIGLIP.resize, SIGLIP.activation, weights=name)
    if last not in NAMES:
        raise ValueError(f"config.json: mm_vision_tower {name!r} is not one of {', '.join(NAMES)}")
    return NAMES[last]


def to_timm(tensors: Mapping[str, Stored]) -> dict[str, Stored]:
    """A tower of transformers by timm's names, still on disk; without pooling head."""
    renamed = {timm_name(name): tensor for name, tensor in tensors.items()}
    ours = {}
    for name, tensor in renamed.items():
        start, is_query, kind = name.rpartition(".attn.q.")
        if is_query:
            rest = [renamed[f"{start}.attn.{part}.{kind}"] for part in "kv"]
            ours[f"{start}.attn.qkv.{kind}"] = _joined([tensor, *rest])
        elif name in ("pos_embed", "cls_token"):
            shape = (1, -1, tensor.shape[-1])
            ours[name] = _changed(tensor, lambda t, shape=shape: t.reshape(shape))  # type: ignore[misc]
        elif ".attn.k." not in name and ".attn.v." not in name and not name.startswith(LEFT_OUT):
            ours[name] = tensor
    return ours


def _joined(tensors: list[Stored]) -> Stored:
    rows = sum(tensor.shape[0] for tensor in tensors)
    shape = torch.Size((rows, *tensors[0].shape[1:]))
    return Stored(shape, tensors[0].dtype, lambda: torch.cat([tensor.read() for tensor in tensors]))


def _changed(tensor: Stored, change: Callable[[Tensor], Tensor]) -> Stored:
    shape = change(torch.empty(tensor.shape, device="meta")).shape
    return Stored(shape, tensor.dtype, partial(_read, tensor, change))


def _read(tensor: Stored, change: Callable[[Tensor], Tensor]) -> Tensor:
    return change(tensor.read())
