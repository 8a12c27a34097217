"""Two optimizers in the place of one: Muon for matrices, AdamW for the rest."""

from collections.abc import Callable
from typing import Any

import torch
from torch.optim import AdamW, Muon, Optimizer


class MuonAdamW(Optimizer):
    """AdamW, but Muon for the groups that say `muon: True`, with one schedule and one state.

    Muon (Jordan et al. 2024) makes the update of a matrix orthogonal. It is scaled to the size of AdamW's
    (Liu et al. 2025, arXiv 2502.16982, section 2.2), so both take the same learning rate and weight decay.

    Args:
        groups: as any optimizer's, each with an entry `muon`.
        lr: learning rate.
        betas: AdamW's momentum coefficients.

    Raises:
        ValueError: if a parameter of a `muon` group is not a matrix, e.g. because it was sharded.
    """

    def __init__(self, groups: list[dict[str, Any]], lr: float, betas: tuple[float, float]) -> None:
        super().__init__(groups, {"lr": lr, "weight_decay": 0.0, "muon": False})
        # they share the groups, which hold the rates, and the state
        self.adamw = AdamW(self._of(muon=False), lr=lr, betas=betas, weight_decay=0.0)
        self.muon = Muon(self._of(muon=True), lr=lr, adjust_lr_fn="match_rms_adamw", weight_decay=0.0)
        self._share()

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Step both; the loss, if `closure` computes it."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self.adamw.step()
        self.muon.step()
        return loss

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take a state that was loaded."""
        super().__setstate__(state)
        self._share()

    def _share(self) -> None:
        for optimizer, muon in ((self.adamw, False), (self.muon, True)):
            optimizer.param_groups, optimizer.state = self._of(muon), self.state

    def _of(self, muon: bool) -> list[dict[str, Any]]:
        return [group for group in self.param_groups if group["muon"] is muon]
