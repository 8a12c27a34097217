"""Mamba and Mamba-2 as llama.cpp has them."""

import torch
from torch import Tensor

from cobra.export.gguf.described import Description, Part, described
from cobra.export.gguf.file import Value
from cobra.models.lm.mamba import MambaLM, MambaMixer
from cobra.models.lm.mamba2 import Mamba2LM, Mamba2Mixer
from cobra.models.lm.stacked import StackedLM

# llama.cpp takes a state of any length, but wants to be told one
_CONTEXT = 1 << 20
# what is on a phone's GPU else, in a sentence
_NO_SCAN = (
    "a GPU build: llama.cpp's Vulkan backend scans Mamba-2 alone, with a state of 128 or 256 and heads of a "
    "multiple of 16, and this is {}"
)


@described.register
def _(lm: Mamba2LM) -> Description:
    mixer: Mamba2Mixer = lm.layers[0].mixer  # type: ignore[assignment]
    heads, groups = mixer.n_heads, mixer.n_groups
    parts = {
        "ssm_in.weight": Part("in_proj.weight", is_matrix=True),
        "ssm_conv1d.weight": Part("conv1d.weight", _filters),
        "ssm_conv1d.bias": Part("conv1d.bias"),
        "ssm_dt.bias": Part("dt_bias"),
        "ssm_a": Part("A_log", lambda A_log: -torch.exp(A_log.float()).view(heads, 1)),
        "ssm_d": Part("D", lambda D: D.view(heads, 1)),
        "ssm_norm.weight": Part("norm.weight", lambda scale: scale.view(groups, -1)),
        "ssm_out.weight": Part("out_proj.weight", is_matrix=True),
    }
    sizes: dict[str, Value] = {"ssm.time_step_rank": heads, "ssm.group_count": groups}
    *_, width, state = lm.layouts()[0]["ssm"].shape
    lacks = []
    if state not in (128, 256) or width % 16:
        lacks.append(_NO_SCAN.format(f"one with a state of {state} and heads of {width}"))
    return _stack(lm, "mamba2", mixer.splits[0], sizes, parts, lacks=tuple(lacks))


@described.register
def _(lm: MambaLM) -> Description:
    mixer: MambaMixer = lm.layers[0].mixer  # type: ignore[assignment]
    inner = mixer.in_proj.out_features // 2
    if inner != 2 * lm.d_model:
        raise ValueError(
            f"llama.cpp's mamba has expand 2, this model has {inner / lm.d_model:g}: its inner width cannot "
            "be exported"
        )
    parts = {
        "ssm_in.weight": Part("in_proj.weight", is_matrix=True),
        "ssm_conv1d.weight": Part("conv1d.weight", _filters),
        "ssm_conv1d.bias": Part("conv1d.bias"),
        "ssm_x.weight": Part("x_proj.weight", is_matrix=True),
        "ssm_dt.weight": Part("dt_proj.weight", is_matrix=True),
        "ssm_dt.bias": Part("dt_proj.bias"),
        "ssm_a": Part("A_log", lambda A_log: -torch.exp(A_log.float())),
        "ssm_d": Part("D"),
        "ssm_out.weight": Part("out_proj.weight", is_matrix=True),
    }
    # the time steps and what makes them are small, and every error in them is one of all that follows
    kept = (r"ssm_x\.weight", r"ssm_dt\.weight")
    lacks = (_NO_SCAN.format("a Mamba-1"),)
    return _stack(lm, "mamba", inner, {"ssm.time_step_rank": mixer.splits[0]}, parts, kept, lacks)


def _stack(
    lm: StackedLM,
    architecture: str,
    inner: int,
    sizes: dict[str, Value],
    mixer: dict[str, Part],
    kept: tuple[str, ...] = (),
    lacks: tuple[str, ...] = (),
) -> Description:
    """The description of a stack whose blocks are a norm and a mixer of these parts."""
    layout = lm.layouts()[0]
    parts = {"token_embd.weight": Part("embedding.weight", is_matrix=True)}
    for number in range(len(lm.layers)):
        parts[f"blk.{number}.attn_norm.weight"] = Part(f"layers.{number}.norm.weight")
        for name, part in mixer.items():
            source = f"layers.{number}.mixer.{part.source}"
            parts[f"blk.{number}.{name}"] = Part(source, part.change, part.is_matrix)
    settings: dict[str, Value] = {
        "context_length": _CONTEXT,
        "embedding_length": lm.d_model,
        "feed_forward_length": 0,
        "attention.head_count": 0,
        "block_count": len(lm.layers),
        "vocab_size": lm.vocab_size,
        "attention.layer_norm_rms_epsilon": float(lm.init_args["norm_eps"]),
        "ssm.conv_kernel": layout["conv"].shape[-1] + 1,
        "ssm.inner_size": inner,
        "ssm.state_size": layout["ssm"].shape[-1],
        **sizes,
    }
    parts["output_norm.weight"] = Part("norm_f.weight")
    return Description(architecture, settings, parts, kept, lacks)


def _filters(weight: Tensor) -> Tensor:
    """(C, 1, K) to (C, K)."""
    return weight.squeeze(1)
