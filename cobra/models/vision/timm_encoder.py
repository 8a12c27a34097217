"""Towers from timm: SigLIP, DINOv2, CLIP and any other plain ViT."""

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any, Literal

import cobra.torchvision_shim  # noqa: F401  (before timm)

import timm  # isort: skip
import torch
from torch import Tensor, nn

from cobra.models.vision.base import VisionEncoder
from cobra.models.vision.pictures import Pixels
from cobra.models.vision.transform import CropTransform, LetterboxTransform, SquareTransform, SquashTransform
from cobra.weights.timm_tower import download_tower, load_tower

Resize = Literal["resize-naive", "resize-crop", "resize-crop-floor", "letterbox", "letterbox-equal-bars"]


class TimmEncoder(VisionEncoder):
    """Patch features of a timm ViT's penultimate block, without final norm and prefix tokens.

    These are the features that Cobra, ML-Mamba and prismatic use (class and register tokens dropped). The
    last block, the final norm and the head are neither kept nor loaded; only on the meta device a tower is
    whole, as published (see `unused_parameters`).

    Args:
        name: timm model with its weight tag, e.g. `vit_so400m_patch14_siglip_384.webli`. The tag is required:
            timm's default for a name changes with its version.
        image_size: side of the square input in pixels. Where it is no multiple of the patch, the last pixels
            are not seen (DINOv2 at 384: 27 × 14 = 378).
        pretrained: load timm's weights (downloaded once, or taken from the local hub cache).
        weights: load this file, or the folder that holds it, instead: safetensors or a torch state, in timm's
            layout or that of transformers' SigLIP, CLIP and DINOv2.
        resize: how a picture becomes a square, by Cobra's names: `resize-naive` (all released models)
            squashes, `resize-crop` keeps the centre, `letterbox` pads; `letterbox-equal-bars` is Cobra's
            letterbox, one pixel short where the sides differ by an odd number; `resize-crop-floor` is the
            crop of CLIP's processor in transformers, half a pixel up and left where a difference is odd.
        activation: of the MLPs, by timm's name; None is the tower's own: quick_gelu for OpenAI's CLIP,
            erf-GELU for SigLIP (`gelu_tanh` in transformers' SigLIP, which TinyLLaVA and Imp use).
        drop_first: leave the first patch out, as TinyLLaVA Factory does of towers without a class token.
    """

    def __init__(
        self,
        name: str,
        image_size: int,
        pretrained: bool = True,
        weights: str | None = None,
        resize: Resize = "resize-naive",
        activation: str | None = None,
        drop_first: bool = False,
    ) -> None:
        super().__init__()
        config = _weight_config(name)
        device = torch.get_default_device()
        # on the meta device there is nothing to load into
        load = (pretrained or weights is not None) and device.type != "meta"
        with torch.device("meta") if load else nullcontext():
            self.tower = _build_tower(name, image_size, activation or _native_activation(config))
        self.layer = len(self.tower.blocks) - 2
        after = (f"blocks.{self.layer + 1}.", "norm.", "fc_norm.", "attn_pool.", "head.")
        self.unused = {n: p.numel() for n, p in self.tower.named_parameters() if n.startswith(after)}
        if device.type != "meta":
            self.tower.prune_intermediate_layers([self.layer], prune_norm=True, prune_head=True)
        if load:
            file = download_tower(name, config) if weights is None else Path(weights)
            load_tower(self.tower.to_empty(device=device), file, after)
        self.embed_dim = self.tower.embed_dim
        self.dropped = int(drop_first)
        self.num_patches = self.tower.patch_embed.num_patches - self.dropped
        self.transform = _transform(resize, name, config)(image_size, config.mean, config.std)

    def forward(self, pixels: Pixels) -> Tensor:
        """Pixels (B, 3, image_size, image_size) to patches (B, N, embed_dim)."""
        (patches,) = self.tower.forward_intermediates(
            pixels,
            indices=[self.layer],
            norm=False,
            stop_early=True,
            output_fmt="NLC",
            intermediates_only=True,
        )
        return patches[:, self.dropped :]

    def units(self) -> list[nn.Module]:
        """The tower's blocks that the features depend on."""
        return list(self.tower.blocks[: self.layer + 1])

    def unused_parameters(self) -> dict[str, int]:
        """The last block, the final norm and the pooling head."""
        return {f"tower.{name}": size for name, size in self.unused.items()}

    def arguments(self) -> dict[str, Any]:
        """The arguments; a saved model holds the tower's weights, so no others are loaded again."""
        return {**self.init_args, "pretrained": False, "weights": None}


def _weight_config(name: str) -> Any:
    """What timm knows of the weights: where they are, mean, std, crop."""
    known = timm.models.get_arch_pretrained_cfgs(name)
    if not known:
        raise ValueError(f"timm has no model {name!r}: see timm.list_pretrained('*siglip*') for names")
    if name not in known:
        raise ValueError(f"{name!r} does not say which weights: name one of {', '.join(sorted(known))}")
    return known[name]


def _native_activation(config: Any) -> str | None:
    # timm builds these towers with GELU and only notes that their weights were trained with another one
    return "quick_gelu" if any("natively QuickGELU" in note for note in config.notes or ()) else None


def _build_tower(name: str, image_size: int, activation: str | None) -> Any:
    if not timm.models.is_model_in_modules(name.partition(".")[0], ["vision_transformer"]):
        raise ValueError(f"{name!r} is no plain ViT: choose one of timm's vision_transformer module")
    tower = timm.create_model(
        # a fixed size: towers with a dynamic one refuse sizes that are no multiple of the patch
        name,
        num_classes=0,
        img_size=image_size,
        dynamic_img_size=False,
        act_layer=activation,
        # initial values on the meta device are half of the time that a model takes to be described
        weight_init="skip" if torch.get_default_device().type == "meta" else "",
    )
    if not tower.patch_embed.num_patches:
        patch = tower.patch_embed.patch_size[0]
        raise ValueError(f"image_size {image_size} is smaller than a patch of {name!r}: at least {patch}")
    return tower


def _transform(resize: Resize, name: str, config: Any) -> Callable[..., SquareTransform]:
    # prismatic resizes SigLIP and in1k towers to exactly image_size before it crops, whatever timm says
    exact = "siglip" in name or "in1k" in name
    crop_pct = 1.0 if exact else config.crop_pct
    transforms: dict[str, Callable[..., SquareTransform]] = {
        "resize-naive": SquashTransform,
        "resize-crop": partial(CropTransform, crop_pct=crop_pct),
        "resize-crop-floor": partial(CropTransform, crop_pct=crop_pct, floors=True),
        "letterbox": partial(LetterboxTransform, crop_pct=crop_pct),
        "letterbox-equal-bars": partial(LetterboxTransform, crop_pct=crop_pct, equal_bars=True),
    }
    if resize not in transforms:
        raise ValueError(f"resize {resize!r} is unknown: choose one of {', '.join(transforms)}")
    return transforms[resize]
