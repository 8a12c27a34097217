"""Parts that the layouts of LLaVA-like models share: tower, projector and language model by their names."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from cobra.convert.layout import Tree
from cobra.convert.source import Source
from cobra.convert.towers import to_timm, tower_tree
from cobra.convert.transformers_lm import kind_of, lm_tree
from cobra.weights.tensors import Stored

_PROJECTORS = "cobra.models.projectors"
# a name that only this projector has, its class, and published prefixes to ours
_KINDS: dict[str, tuple[str, dict[str, str]]] = {
    "model.mb_block.1.block.0.0.weight": (
        f"{_PROJECTORS}.ldp.LDPProjector",
        {
            "model.mlp.1.": "mlp.0.",
            "model.mlp.3.": "mlp.2.",
            "model.mb_block.1.": "blocks.0.",
            "model.mb_block.2.": "blocks.1.",
        },
    ),
    "peg.peg.0.weight": (
        f"{_PROJECTORS}.ldpv2.LDPv2Projector",
        {"mlp.mlp.": "projector.", "peg.peg.": "projector.4.peg."},
    ),
    "2.weight": (f"{_PROJECTORS}.mlp.MLPProjector", {"": "projector."}),
    "linear_2.weight": (
        f"{_PROJECTORS}.mlp.MLPProjector",
        {"linear_1.": "projector.0.", "linear_2.": "projector.2."},
    ),
    "weight": (f"{_PROJECTORS}.linear.LinearProjector", {"": "projector."}),
}
# LLaVA's and MobileVLM's names of them
PROJECTOR_TYPES = {
    "linear": f"{_PROJECTORS}.linear.LinearProjector",
    "mlp2x_gelu": f"{_PROJECTORS}.mlp.MLPProjector",
    "ldpnet": f"{_PROJECTORS}.ldp.LDPProjector",
    "ldpnetv2": f"{_PROJECTORS}.ldpv2.LDPv2Projector",
}
_COMPUTED = re.compile(r"\.(rotary_emb\.inv_freq|position_ids)$")


@dataclass(frozen=True)
class Prefixes:
    """Where the parts stand in a checkpoint.

    Attributes:
        vision: what is before transformers' names of a tower.
        projector: before the projector's.
        lm: before `layers.`.
        head: before `weight` of the head.
    """

    vision: str
    projector: str
    lm: str
    head: str


def describe(source: Source, prefixes: Prefixes, lm_config: dict | None = None) -> dict[str, Tree]:
    """The parts of a LLaVA-like checkpoint.

    Raises:
        ValueError: where one is none that this project builds.
    """
    config = source.config if lm_config is None else lm_config
    if not config:
        raise ValueError(f"{source.path} has no config.json beside it, which says what its weights are for")
    tower = to_timm(_inside(source.tensors, prefixes.vision))
    return {
        "vision": tower_tree(tower, source.config),
        "projector": {"class_path": _projector(source, prefixes.projector)[0]},
        "lm": lm_tree(kind_of(lm_names(source, prefixes), config), config),
    }


def lm_names(source: Source, prefixes: Prefixes) -> list[str]:
    """Names in the language model, without the tower and projector that may stand inside."""
    others = (prefixes.vision, prefixes.projector)
    return [
        name.removeprefix(prefixes.lm)
        for name in source.tensors
        if name.startswith(prefixes.lm) and not name.startswith(others)
    ]


def renamed_tower(source: Source, prefixes: Prefixes) -> dict[str, Stored]:
    """The checkpoint with its tower by timm's names, under the same prefix, and without computed buffers."""
    kept = without_computed(source.tensors)
    rest = {name: tensor for name, tensor in kept.items() if not name.startswith(prefixes.vision)}
    tower = to_timm(_inside(kept, prefixes.vision))
    return rest | {f"{prefixes.vision}{name}": tensor for name, tensor in tower.items()}


def without_computed(tensors: Mapping[str, Stored]) -> dict[str, Stored]:
    """Without the rotary frequencies and position numbers that older versions of transformers saved."""
    return {name: tensor for name, tensor in tensors.items() if not _COMPUTED.search(name)}


def prefix_map(source: Source, prefixes: Prefixes) -> dict[str, str]:
    """Published prefix to this project's."""
    inside = _projector(source, prefixes.projector)[1]
    return {
        prefixes.vision: "vision.tower.",
        **{f"{prefixes.projector}{theirs}": f"projector.{ours}" for theirs, ours in inside.items()},
        prefixes.lm: "lm.causal_lm.model.",
        prefixes.head: "lm.causal_lm.lm_head.",
    }


def tied_head(prefixes: Prefixes, lm_config: dict) -> dict[str, str]:
    """The name of a head that may repeat the embedding, where config.json says they are one."""
    if not lm_config.get("tie_word_embeddings"):
        return {}
    return {f"{prefixes.head}weight": f"{prefixes.lm}embed_tokens.weight"}


def _projector(source: Source, prefix: str) -> tuple[str, dict[str, str]]:
    names = _inside(source.tensors, prefix)
    for name, kind in _KINDS.items():
        if name in names and not _has_more_layers(names):
            return kind
    raise ValueError(f"{source.path}: no projector is known with the names {sorted(names)[:5]}")


def _has_more_layers(names: Iterable[str]) -> bool:
    """Whether it is an `mlp3x_gelu` or longer, which would be taken for two layers."""
    return any(re.fullmatch(r"[4-9]\.weight", name) for name in names)


def _inside(tensors: Mapping[str, Stored], prefix: str) -> dict[str, Stored]:
    return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
