"""Two optimizers in the place of one: Muon for matrices, AdamW for the rest."""

import math
from collections.abc import Callable
from itertools import groupby
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.optim import AdamW, Optimizer

# Muon's momentum and the odd polynomial that brings all singular values near 1 (Jordan et al. 2024)
_MOMENTUM = 0.95
_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
_ITERATIONS = 5
# Matrices of the same shape are taken together until they have as many elements: a small one alone keeps few
# cores busy.
_ELEMENTS_TOGETHER = 2**20

# Matrices (n, M, K), M <= K, of a weight, their gradient with momentum, and the learning rate.
_Change = tuple[Tensor, Tensor, float]


class MuonAdamW(Optimizer):
    """AdamW, but Muon for the groups that say so, with one schedule and one state.

    Muon (Jordan et al. 2024) makes the update of a matrix orthogonal. It is scaled to the size of AdamW's
    (Liu et al. 2025, arXiv 2502.16982, section 2.2), so both take the same learning rate and weight decay.
    torch's Muon knows whole matrices only; here one weight may stack several, each of which is stepped as
    if it were alone: together, the largest gradients would decide for all.

    Args:
        groups: as any optimizer's, each with an entry `muon`: the rows of the matrices that each of its
            parameters stacks, or None for AdamW.
        lr: learning rate.
        betas: AdamW's momentum coefficients.

    Raises:
        ValueError: if a parameter does not have the rows that `muon` says, e.g. because it was sharded.
    """

    def __init__(self, groups: list[dict[str, Any]], lr: float, betas: tuple[float, float]) -> None:
        super().__init__(groups, {"lr": lr, "weight_decay": 0.0, "muon": None})
        for group in self._of(muon=True):
            for parameter in group["params"]:
                rows, sharded = sum(group["muon"]), isinstance(parameter, DTensor)
                if sharded or parameter.ndim != 2 or len(parameter) != rows:
                    raise ValueError(
                        f"Muon needs matrices of {rows} rows, got {'a share of ' * sharded}a parameter of "
                        f"shape {tuple(parameter.shape)}: leave its part out of `muon`, or do not shard it"
                    )
        # it shares the groups, which hold the rates, and the state
        self.adamw = AdamW(self._of(muon=False), lr=lr, betas=betas, weight_decay=0.0)
        self._share()

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Step both; the loss, if `closure` computes it."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self.adamw.step()
        self._step_muon()
        return loss

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take a state that was loaded."""
        super().__setstate__(state)
        self._share()

    def _step_muon(self) -> None:
        waiting: dict[tuple[int, ...], list[_Change]] = {}
        for group in self._of(muon=True):
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                stacks = _wide_views(parameter, group["muon"])
                updates = _wide_views(self._update(parameter), group["muon"])
                for stack, update in zip(stacks, updates, strict=True):
                    alike = waiting.setdefault(stack.shape[1:], [])
                    alike.append((stack, update, group["lr"]))
                    if sum(update.numel() for _, update, _ in alike) >= _ELEMENTS_TOGETHER:
                        _change(waiting.pop(stack.shape[1:]))
        for alike in waiting.values():
            _change(alike)

    def _update(self, parameter: Tensor) -> Tensor:
        """The gradient with Nesterov's momentum, in bf16."""
        gradient, state = parameter.grad, self.state[parameter]
        assert gradient is not None
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(gradient)
        momentum = state["momentum_buffer"].lerp_(gradient, 1 - _MOMENTUM)
        return gradient.lerp(momentum, _MOMENTUM).bfloat16()

    def _share(self) -> None:
        self.adamw.param_groups, self.adamw.state = self._of(muon=False), self.state

    def _of(self, muon: bool) -> list[dict[str, Any]]:
        return [group for group in self.param_groups if (group["muon"] is not None) is muon]


def _change(alike: list[_Change]) -> None:
    """Change matrices of one shape by their orthogonal updates, scaled to the size of AdamW's."""
    # each in its own layout, so that what stands beside it changes no rounding
    updates = [update / update.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7) for _, update, _ in alike]
    changes = orthogonal(torch.cat(updates)).split([len(update) for update in updates])
    scale = 0.2 * math.sqrt(max(changes[0].shape[1:]))
    for (stack, _, rate), change in zip(alike, changes, strict=True):
        stack.add_(change, alpha=-rate * scale)


def _wide_views(stacked: Tensor, rows: tuple[int, ...]) -> list[Tensor]:
    """Views (matrices, M, K), M <= K, of a weight, one for each run of matrices of as many rows."""
    runs = [(each, len(list(run))) for each, run in groupby(rows)]
    parts = stacked.split([each * count for each, count in runs])
    views = [part.unflatten(0, (count, each)) for part, (each, count) in zip(parts, runs, strict=True)]
    return [view if view.shape[1] <= view.shape[2] else view.mT for view in views]


def orthogonal(x: Tensor) -> Tensor:
    """The nearest matrices with orthogonal rows, roughly, to some of norm 1 in bf16 (n, M, K), M <= K.

    Their singular values are 0.7 to 1.2.
    """
    a, b, c = _COEFFICIENTS
    for _ in range(_ITERATIONS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x
