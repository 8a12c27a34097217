"""The mean loss of an optimizer step over all its tokens, whatever batches and devices they came in.

Every batch has a mean of its own, over another number of tokens. A mean of means would have a token count the
more, the fewer there are beside it, so that the same examples made another step on more devices. So a batch's
backward pass runs on its sum over a constant. Lightning divides by the batches and takes the mean over the
devices, and before they are clipped the gradients are divided by the tokens of all, which are known by then.
"""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

# A batch's sum is divided by it, so that a scaler for half precision sees gradients of the usual size. The
# power of two rounds nothing.
_TOKENS = 1024


class StepLoss:
    """Adds up the batches of an optimizer step.

    One batch on one device has its own mean, bit for bit.

    Args:
        batches: a step on each device.
        devices: that train together.
        reduce: the sum of a tensor over all devices; they ask together.
    """

    def __init__(self, batches: int, devices: int, reduce: Callable[[Tensor], Tensor]) -> None:
        self.batches, self.devices, self.reduce = batches, devices, reduce
        self.sum: Tensor | None = None
        self.weight = 0

    def add(self, mean: Tensor, weight: int) -> Tensor:
        """What the backward pass of a batch runs on.

        Args:
            mean: its loss.
            weight: the tokens, or examples, that it is a mean over.
        """
        if self.batches * self.devices == 1:
            self.sum, self.weight = mean.detach(), 1
            return mean
        # bf16 counts to 256
        total = mean if mean.dtype == torch.float64 else mean.float()
        total = total * weight
        self.sum = total.detach() if self.sum is None else self.sum + total.detach()
        self.weight += weight
        return total / _TOKENS

    def finish(self, gradients: Iterable[Tensor | None]) -> Tensor:
        """The mean of the step; gradients, as Lightning has added them up, are made its own, in place."""
        assert self.sum is not None, "a step without a batch"
        total, weight = self.sum, self.weight
        self.sum, self.weight = None, 0
        if self.batches * self.devices == 1:
            return total
        factor: float | Tensor = self.batches * self.devices * _TOKENS
        if self.devices == 1:
            # known here: no device is waited for
            tokens: float | Tensor = max(1, weight)
        else:
            both = self.reduce(torch.stack([total, torch.full_like(total, weight)]))
            total, tokens = both[0], both[1].clamp(min=1)
        _scale(gradients, factor / tokens)
        return total / tokens


def _scale(gradients: Iterable[Tensor | None], factor: float | Tensor) -> None:
    alike: dict[torch.dtype, list[Tensor]] = {}
    for gradient in gradients:
        if gradient is not None:
            mine = gradient.to_local() if isinstance(gradient, DTensor) else gradient
            alike.setdefault(mine.dtype, []).append(mine)
    for dtype, some in alike.items():
        torch._foreach_mul_(some, factor.to(dtype) if isinstance(factor, Tensor) else factor)
