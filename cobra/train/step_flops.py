"""Model FLOPs of training steps, and the peaks of devices that they are held to."""

from collections.abc import Iterable

from torch import nn

from cobra.bench.systems.flops import mixing_flops
from cobra.bench.systems.measure import measure
from cobra.models.lm.mixer import Mixer
from cobra.models.lm.stacked import StackedLM
from cobra.models.vlm import CobraVLM

# Dense products in bf16, of the makers' data sheets; the first name that a device's name holds.
PEAKS = {
    "GB200": 2.5e15, "B200": 2.25e15, "H200": 989e12, "GH200": 989e12, "H100 PCIe": 756e12, "H100": 989e12,
    "H20": 148e12, "A100": 312e12, "A800": 312e12, "L40S": 362e12, "L40": 181e12, "A6000": 155e12,
    "A40": 150e12, "L4": 121e12, "A10": 125e12, "4090": 165e12, "3090": 71e12,
}  # fmt: skip


def peak_of(device: str) -> float | None:
    """Operations a second that a device of this name can do at most; None where that is not known."""
    return next((peak for name, peak in PEAKS.items() if name in device), None)


class StepFlops:
    """Operations that the model asks for in a step, whatever is computed twice to save memory or is padding.

    A part that learns costs three times its forward pass, and a part that gradients pass through twice
    (Kaplan et al., arXiv 2001.08361, appendix B); of a part of which a share learns that share.

    Args:
        model: the model; weights that learn are those of the stage.
        reads_answers: whether the objective runs the language model.

    Raises:
        ValueError: where a part of it cannot be counted.
    """

    def __init__(self, model: CobraVLM, reads_answers: bool) -> None:
        counted = measure("", model.config())
        vision, projector, lm = _passes(model.parts().values())
        self.picture = vision * counted.vision_flops
        self.linears = self.head = 0.0
        self.mixers: list[Mixer] = []
        # what mixers multiply are no weights: gradients of both sides
        self.mixing = 3 if lm > 1 else 1
        if not reads_answers:
            return
        self.picture += projector * counted.projector_flops
        self.head = lm * 2 * model.lm.vocab_size * model.lm.d_model
        if isinstance(model.lm, StackedLM):
            self.mixers = [mixer for block in model.lm.blocks for _, mixer in block.branches()]
            self.linears = lm * 2 * sum(map(_linear_weights, self.mixers))
        else:
            # attention as in a sequence of 1024
            self.linears = lm * counted.lm.prefill_flops

    def __call__(self, pictures: int, tokens: int, answers: int, examples: int) -> float:
        """Operations for pictures, tokens in some examples, and those of the tokens that are answers'."""
        context = tokens // max(1, examples)
        token = self.linears + self.mixing * sum(mixing_flops(mixer, context) for mixer in self.mixers)
        return pictures * self.picture + tokens * token + answers * self.head


def _passes(parts: Iterable[nn.Module]) -> list[float]:
    """Of each part, in the order of the data: forward passes that its step costs."""
    passes, gradients_pass = [], False
    for part in parts:
        sizes = [(p.numel(), p.requires_grad) for p in part.parameters()]
        share = sum(n for n, learns in sizes if learns) / max(1, sum(n for n, _ in sizes))
        gradients_pass |= share > 0
        passes.append(1 + gradients_pass + share)
    return passes


def _linear_weights(module: nn.Module) -> int:
    return sum(m.weight.numel() for m in module.modules() if isinstance(m, nn.Linear))
