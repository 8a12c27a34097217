"""ML-Mamba's checkpoint: four groups of weights (WenjunHuang94/ML-Mamba)."""

from cobra.convert.layout import Layout, Tree
from cobra.convert.published import LMS, MAMBA2_27B, TOKENIZER, vision_tree
from cobra.convert.source import Source

_CONNECTOR_GROUPS = {"model/mlp", "model/bidirectional_mamba", "model/projector"}
_LM = "model/llm_backbone/"
# what its code builds, whatever config.json says of the language model; config.json is in its package
_MODEL = {"vision_backbone_id": "dinosiglip-vit-so-384px", "image_resize_strategy": "resize-naive"}
_CONNECTOR = {"class_path": "cobra.models.projectors.mamba_scan.MambaScanProjector"}


class MLMamba(Layout):
    """Cobra's file with `mlp` and `bidirectional_mamba` beside the projector, and no `llm.` in names.

    After the align stage the language model is not in it.
    """

    title = "ML-Mamba"

    def recognises(self, source: Source) -> bool:
        """Whether it has the connector's three groups, and at most the language model's beside them."""
        groups = {"/".join(name.split("/")[:2]) for name in source.tensors}
        return groups in (_CONNECTOR_GROUPS, _CONNECTOR_GROUPS | {"model/llm_backbone"})

    def parts(self, source: Source) -> dict[str, Tree]:
        """The released model; another encoder where a config.json beside the weights names one."""
        said = source.config.get("model")
        model = {**_MODEL, **said} if isinstance(said, dict) else _MODEL
        return {"vision": vision_tree(model), "projector": _CONNECTOR, "lm": MAMBA2_27B}

    def key_map(self, source: Source) -> dict[str, str]:
        """Three of the groups are one connector here."""
        return {
            "model/mlp/": "projector.mlp.",
            "model/bidirectional_mamba/": "projector.scan.",
            "model/projector/": "projector.projector.",
            f"{_LM}backbone.": "lm.",
        }

    def copies(self, source: Source) -> dict[str, str]:
        """The head is stored again."""
        return {f"{_LM}lm_head.weight": f"{_LM}backbone.embedding.weight"}

    def chat(self, source: Source) -> tuple[str, str | None] | None:
        """Always Zephyr's prompts, though the language model is a base one."""
        return TOKENIZER, LMS["mamba-2.8b-zephyr"][1]
