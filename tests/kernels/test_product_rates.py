"""Timing products of matrices."""

from collections.abc import Callable

import pytest
import torch

from cobra.kernels import product_rates


def test_the_speed_is_that_of_bf16_over_that_of_fp32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(product_rates, "_product", lambda dtype: dtype)
    monkeypatch.setattr(product_rates, "_best_time", {torch.float32: 1.0, torch.bfloat16: 0.5}.__getitem__)
    assert product_rates.bf16_speed.__wrapped__() == 2.0


def test_the_products_are_the_cpus_whatever_the_context(monkeypatch: pytest.MonkeyPatch) -> None:
    timed = []

    def note(work: Callable[[], torch.Tensor]) -> float:
        timed.append(work())
        return 1.0

    monkeypatch.setattr(product_rates, "_best_time", note)
    with torch.autocast("cpu", torch.bfloat16), torch.device("meta"):
        product_rates.bf16_speed.__wrapped__()
    assert [(y.dtype, y.device.type) for y in timed] == [(torch.float32, "cpu"), (torch.bfloat16, "cpu")]


def test_the_timing_itself_runs() -> None:
    # in the same unit, of products of the same size
    assert 1 / 64 < product_rates.bf16_speed() < 64
