"""One optimizer does what torch's two do side by side, and goes on after a checkpoint as if never stopped."""

import copy
import io
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import AdamW, Muon

from cobra.train import muon_adamw
from cobra.train.muon_adamw import MuonAdamW


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 4))


def parts(model: nn.Module) -> tuple[list[Tensor], list[Tensor]]:
    parameters = list(model.parameters())
    return [p for p in parameters if p.dim() == 2], [p for p in parameters if p.dim() != 2]


def ours(model: nn.Module) -> MuonAdamW:
    matrices, others = parts(model)
    groups = [{"params": [m], "muon": (len(m),), "weight_decay": 0.1} for m in matrices]
    return MuonAdamW([*groups, {"params": others}], lr=0.01, betas=(0.9, 0.98))


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


def test_stacked_matrices_are_stepped_as_if_each_were_alone() -> None:
    # two alike, which are stepped in one product
    rows = (3, 3, 6, 1)
    stacked, bias = torch.randn(13, 5), nn.Parameter(torch.zeros(1))
    alone = [nn.Parameter(matrix.clone()) for matrix in stacked.split(rows)]
    together = nn.Parameter(stacked)
    muon = Muon(alone, lr=0.1, weight_decay=0.0, adjust_lr_fn="match_rms_adamw")
    groups: list[dict[str, Any]] = [{"params": [together], "muon": rows}, {"params": [bias]}]
    optimizer = MuonAdamW(groups, lr=0.1, betas=(0.9, 0.98))
    for _ in range(3):
        together.grad = torch.randn(13, 5)
        for parameter, gradient in zip(alone, together.grad.split(rows), strict=True):
            parameter.grad = gradient
        muon.step()
        optimizer.step()
    torch.testing.assert_close(together.data, torch.cat([*alone]).data)


@pytest.mark.parametrize("together", [1, 2**20])
def test_matrices_of_several_weights_are_stepped_as_if_each_were_alone(
    monkeypatch: pytest.MonkeyPatch, together: int
) -> None:
    monkeypatch.setattr(muon_adamw, "_ELEMENTS_TOGETHER", together)
    # wide, tall and stacked, all of (8, 16), with rates and decays of their own; the last has no gradient
    shapes, rows = ((8, 16), (16, 8), (24, 16), (8, 16)), ((8,), (16,), (8, 8, 8), (8,))
    weights = [nn.Parameter(torch.randn(shape)) for shape in shapes]
    alone = [[nn.Parameter(m.clone()) for m in w.split(each)] for w, each in zip(weights, rows, strict=True)]
    settings: list[dict[str, Any]] = [{"lr": 0.1 / (1 + i), "weight_decay": 0.1 * i} for i in range(4)]
    groups: list[dict[str, Any]] = [
        {"params": [w], "muon": each, **setting}
        for w, each, setting in zip(weights, rows, settings, strict=True)
    ]
    optimizer = MuonAdamW([*groups, {"params": [nn.Parameter(torch.zeros(1))]}], lr=0.1, betas=(0.9, 0.98))
    muons = [
        Muon(matrices, adjust_lr_fn="match_rms_adamw", **setting)
        for matrices, setting in zip(alone, settings, strict=True)
    ]
    for _ in range(3):
        for weight, matrices, each in list(zip(weights, alone, rows, strict=True))[:3]:
            weight.grad = torch.randn_like(weight)
            for matrix, gradient in zip(matrices, weight.grad.split(each), strict=True):
                matrix.grad = gradient
        for stepped in (*muons, optimizer):
            stepped.step()
    for weight, matrices in zip(weights, alone, strict=True):
        torch.testing.assert_close(weight.data, torch.cat([*matrices]).data)


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
    groups = [{"params": [nn.Parameter(torch.ones(3))], "muon": muon} for muon in ((3,), None)]
    with pytest.raises(ValueError, match=r"matrices of 3 rows, got a parameter of shape \(3,\)"):
        MuonAdamW(groups, lr=0.1, betas=(0.9, 0.98))
