"""One optimizer does what torch's two do side by side, and goes on after a checkpoint as if never stopped."""

import copy
import io

import pytest
import torch
from torch import Tensor, nn
from torch.optim import AdamW, Muon

from cobra.muon_adamw import MuonAdamW


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 4))


def parts(model: nn.Module) -> tuple[list[Tensor], list[Tensor]]:
    parameters = list(model.parameters())
    return [p for p in parameters if p.dim() == 2], [p for p in parameters if p.dim() != 2]


def ours(model: nn.Module) -> MuonAdamW:
    matrices, others = parts(model)
    groups = [{"params": matrices, "muon": True, "weight_decay": 0.1}, {"params": others, "muon": False}]
    return MuonAdamW(groups, lr=0.01, betas=(0.9, 0.98))


def train(model: nn.Module, optimizers: list, steps: range) -> None:
    for number in steps:
        x = torch.randn(5, 8, generator=torch.Generator().manual_seed(number))
        model.zero_grad()
        model(x).square().mean().backward()
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = 0.01 / (1 + number)
            optimizer.step()


def test_it_steps_as_muon_and_adamw_do() -> None:
    expected, model = net(), net()
    matrices, others = parts(expected)
    muon = Muon(matrices, lr=0.01, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    train(expected, [muon, AdamW(others, lr=0.01, betas=(0.9, 0.98), weight_decay=0.0)], range(5))
    train(model, [ours(model)], range(5))
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), expected.parameters(), strict=True))


def test_it_resumes_from_its_state() -> None:
    model = net()
    optimizer = ours(model)
    train(model, [optimizer], range(3))
    copied, file = copy.deepcopy(model), io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    resumed = ours(copied)
    resumed.load_state_dict(torch.load(file, weights_only=True))
    train(model, [optimizer], range(3, 6))
    train(copied, [resumed], range(3, 6))
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), copied.parameters(), strict=True))


def test_muon_refuses_what_is_no_matrix() -> None:
    groups = [{"params": [nn.Parameter(torch.ones(3))], "muon": muon} for muon in (True, False)]
    with pytest.raises(ValueError, match="Muon only supports 2D"):
        MuonAdamW(groups, lr=0.1, betas=(0.9, 0.98))
