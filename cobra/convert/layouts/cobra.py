"""Cobra's checkpoints: `latest-checkpoint.pt` and config.json (OpenHelix-Team/cobra)."""

from typing import Any

from cobra.convert.layout import Layout, Tree
from cobra.convert.published import LMS, TOKENIZER, lookup, vision_tree
from cobra.convert.source import Source

_LM = "model/llm_backbone/llm."
# the end of `arch_specifier`; `no-align+` before it says how it was trained
_PROJECTORS: dict[str, Tree] = {
    "linear": {"class_path": "cobra.models.projectors.linear.LinearProjector"},
    "gelu-mlp": {"class_path": "cobra.models.projectors.mlp.MLPProjector"},
    "fused-gelu-mlp": {"class_path": "cobra.models.projectors.fused_mlp.FusedMLPProjector"},
    "fused-ldpnet": {
        "class_path": "cobra.models.projectors.ldpv2.LDPv2Projector",
        "init_args": {"side": 14, "fused": True},
    },
}


class Cobra(Layout):
    """Groups `projector` and `llm_backbone` (the first alone after the align stage); no towers."""

    title = "Cobra"

    def recognises(self, source: Source) -> bool:
        """Whether its groups are Cobra's: ML-Mamba has more, and no `llm.`."""
        groups = {"/".join(name.split("/")[:2]) for name in source.tensors}
        return groups in ({"model/projector", "model/llm_backbone"}, {"model/projector"})

    def parts(self, source: Source) -> dict[str, Tree]:
        """What the identifiers under `model` in config.json stand for."""
        model = _described(source)
        arch = {"arch_specifier": str(model.get("arch_specifier")).removeprefix("no-align+")}
        return {
            "vision": vision_tree(model),
            "projector": lookup(_PROJECTORS, arch, "arch_specifier"),
            "lm": lookup(LMS, model, "llm_backbone_id")[0],
        }

    def key_map(self, source: Source) -> dict[str, str]:
        """Groups become parts; the projectors' own names are Cobra's."""
        return {"model/projector/": "projector.", f"{_LM}backbone.": "lm."}

    def copies(self, source: Source) -> dict[str, str]:
        """The head is stored again."""
        return {f"{_LM}lm_head.weight": f"{_LM}backbone.embedding.weight"}

    def chat(self, source: Source) -> tuple[str, str | None] | None:
        """GPT-NeoX's tokenizer, and the prompts that Cobra builds for the language model."""
        return TOKENIZER, lookup(LMS, _described(source), "llm_backbone_id")[1]


def _described(source: Source) -> dict[str, Any]:
    model = source.config.get("model")
    if not isinstance(model, dict):
        raise ValueError(
            f"{source.path} has no config.json with a `model` beside it or one folder up, which says what "
            f"its weights are for: download it too"
        )
    return model
