"""Models of true size with random weights, made without ever holding them in fp32."""

import torch
from torch import nn

from cobra.bench.subjects import Tree
from cobra.config.build import build, build_on_meta
from cobra.models.lm.base import LanguageModel
from cobra.models.quantize import Quantization, matrices_on_meta, quantize_
from cobra.models.vlm import CobraVLM
from cobra.pretrained import cast_weights


def random_lm(tree: Tree, quantization: Quantization, dtype: torch.dtype, device: str) -> LanguageModel:
    """A language model for speed alone.

    Args:
        tree: its class path and arguments.
        quantization: of its linears, embedding and head.
        dtype: of its activations, and of what is not quantized.
        device: where it goes.
    """
    torch.manual_seed(0)
    with matrices_on_meta():
        lm = build(tree)()
    return _filled_lm(lm, quantization, dtype).to(device).eval()


def random_vlm(tree: Tree, quantization: Quantization | None, dtype: torch.dtype, device: str) -> CobraVLM:
    """A whole model for speed alone; encoder and projector have `dtype`, the rest is as for `random_lm`.

    None as quantization leaves the language model without weights, on the meta device.
    """
    # a model's own description asks for no download
    described = build_on_meta(tree).config()
    torch.manual_seed(0)
    with matrices_on_meta():
        vlm = build(described)()
    for part in (vlm.vision, vlm.projector):
        _fill(part, dtype)
        part.to(device)
    if quantization is None:
        vlm.lm.to("meta")
    else:
        _filled_lm(vlm.lm, quantization, dtype).to(device)
    return vlm.requires_grad_(False).eval()


def weight_bytes(module: nn.Module) -> int:
    """Bytes of parameters and buffers, those that share memory once."""
    tensors = {tensor.data_ptr(): tensor.nbytes for tensor in [*module.parameters(), *module.buffers()]}
    return sum(tensors.values())


def _filled_lm(lm: LanguageModel, quantization: Quantization, dtype: torch.dtype) -> LanguageModel:
    cast_weights(lm, dtype)
    quantize_(lm, quantization)
    return lm


def _fill(part: nn.Module, dtype: torch.dtype) -> None:
    """Random weights where there are none."""
    cast_weights(part, dtype)
    for module in part.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.is_meta:
                random = torch.empty_like(parameter, device="cpu").normal_(std=0.02)
                setattr(module, name, nn.Parameter(random, requires_grad=False))
