"""Loss of a language model in 8da4w behind each layer, computed by PyTorch: a program shows no layer."""

import torch
from torch import Tensor, nn

from cobra.export.executorch.lower import quantize_linears
from cobra.export.executorch.programs import Embedding, example
from cobra.export.executorch.stack import Stack
from cobra.models.lm.base import LanguageModel


@torch.no_grad()
def layer_losses(lm: LanguageModel, ids: Tensor) -> list[float]:
    """Relative RMS of hidden states behind each branch, the last branch behind the last token, and of logits.

    Args:
        lm: its linears are quantised by this, in place.
        ids: a text (T,).
    """
    stack = Stack(lm, len(ids), len(ids))
    expected = stack_layers(stack, lm.embed(ids[None])[0])
    rows = Embedding(lm.embed(torch.arange(lm.vocab_size)[None])[0], 8)
    quantize_linears([stack], 4, 32)
    found = stack_layers(stack, rows(ids))
    pairs = zip(found, expected, strict=True)
    return [float((layer - exact).norm() / exact.norm()) for layer, exact in pairs]


def stack_layers(stack: Stack, embeds: Tensor) -> list[Tensor]:
    """What norms read, but the first: hidden states (T, D), at last (1, D); and logits (1, V)."""
    read: list[Tensor] = []

    def keep(norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        read.append(inputs[0].clone())

    norms = [*(branch.norm for branch in stack.order[1:]), stack.norm]
    hooks = [norm.register_forward_pre_hook(keep) for norm in norms]
    given = example(stack)
    position, memory = (given[0], given[1:]) if stack.positions else (None, given)
    logits, *_ = stack(embeds, torch.tensor([len(embeds)], dtype=torch.int32), position, memory)
    for hook in hooks:
        hook.remove()
    return [*read, logits]
