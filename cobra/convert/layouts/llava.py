"""LLaVA-1.5, MobileVLM v1 and V2, TinyLLaVA and Imp: a tower and `mm_projector` inside the language model."""

from collections.abc import Mapping
from typing import Any

from cobra.convert.layout import Layout, Tree
from cobra.convert.llava_family import (
    PROJECTOR_TYPES,
    Prefixes,
    describe,
    prefix_map,
    renamed_tower,
    tied_head,
)
from cobra.convert.source import Source
from cobra.weights.tensors import Stored

_AT = Prefixes("model.vision_tower.vision_tower.vision_model.", "model.mm_projector.", "model.", "lm_head.")
# Imp's on these language models; all others have LLaVA's
_TEMPLATES = {"qwen2": "imp_qwen2", "phi3": "imp_phi3"}
# what LLaVA's programs may be told, and the values that this project builds; None where it need not be said
_BUILT: dict[str, tuple[Any, ...]] = {
    "mm_projector_type": (*PROJECTOR_TYPES, None),
    "mm_vision_select_layer": (-2, None),
    "mm_vision_select_feature": ("patch", None),
    "mm_use_im_start_end": (False, None),
    "mm_patch_merge_type": ("flat", None),
    "mm_resampler_type": (None,),
    "vision_tower_type": ("clip", None),
    "s2": (False, None),
}
# what is read elsewhere, concerns training, or makes a token that no prompt has
_ELSEWHERE = {
    "mm_vision_tower", "mm_hidden_size", "mm_tunable_parts", "mm_projector_lr", "mm_vision_tower_lr",
    "mm_use_im_patch_token",
}  # fmt: skip


class Llava(Layout):
    """With the tower (MobileVLM V2, TinyLLaVA, Imp) or without; after alignment `mm_projector` alone."""

    title = "LLaVA"

    def recognises(self, source: Source) -> bool:
        """Whether there is a projector with LLaVA's name."""
        return any(name.startswith(_AT.projector) for name in source.tensors)

    def parts(self, source: Source) -> dict[str, Tree]:
        """What names, shapes and config.json describe."""
        parts = describe(source, _AT)
        _check(source.config, parts)
        return parts

    def tensors(self, source: Source) -> Mapping[str, Stored]:
        """With the tower as timm has it."""
        return renamed_tower(source, _AT)

    def key_map(self, source: Source) -> dict[str, str]:
        """The parts are told apart by what follows `model.`."""
        return prefix_map(source, _AT)

    def copies(self, source: Source) -> dict[str, str]:
        """The head of a tied language model, where it is stored again."""
        return tied_head(_AT, source.config)

    def chat(self, source: Source) -> tuple[str | None, str | None] | None:
        """The tokenizer beside the weights, and LLaVA's or Imp's prompts."""
        kind = self.parts(source)["lm"]["init_args"]["model_type"]
        return None, f"cobra:data/templates/{_TEMPLATES.get(kind, 'vicuna_v1')}.jinja"


def _check(config: dict[str, Any], parts: dict[str, Tree]) -> None:
    """Refuse what would be built as plain LLaVA-1.5 and is not."""
    built = dict(_BUILT)
    # all its tokens are patches
    if "siglip" in parts["vision"]["init_args"]["name"]:
        built["mm_vision_select_feature"] += ("cls_patch",)
    unknown = {
        name: (None, False) for name in config if name.startswith("mm_") and name not in {*built, *_ELSEWHERE}
    }
    for name, values in (built | unknown).items():
        if config.get(name) not in values:
            raise ValueError(
                f"config.json: {name} {config[name]!r} cannot be read, only {' or '.join(map(repr, values))}"
            )
    said = config.get("mm_projector_type")
    if said is not None and PROJECTOR_TYPES[said] != parts["projector"]["class_path"]:
        raise ValueError(
            f"config.json: mm_projector_type {said!r} is not that of the weights, which have the names of a "
            f"{parts['projector']['class_path'].rpartition('.')[2]}"
        )
