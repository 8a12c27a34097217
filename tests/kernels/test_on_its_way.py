"""Copies to the host: what is waited for."""

from unittest.mock import Mock

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from cobra.kernels.on_its_way import OnItsWay


def test_the_stream_of_the_numbers_is_waited_for_whatever_device_is_current(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    event = Mock()
    monkeypatch.setattr(torch, "Event", Mock(return_value=event))
    monkeypatch.setattr(torch.accelerator, "current_stream", lambda device: f"stream of {device}")
    with FakeTensorMode():
        coming = OnItsWay(torch.empty(2, device="cuda:1"), torch.empty(3, device="cuda:1"))
    event.record.assert_called_once_with("stream of cuda:1")
    assert not event.synchronize.called
    assert [copy.device.type for copy in coming.arrived()] == ["cpu", "cpu"]
    assert event.synchronize.called


def test_numbers_of_the_host_are_there() -> None:
    coming = OnItsWay(torch.ones(2))
    assert coming.are_there()
    assert coming.arrived()[0].tolist() == [1, 1]
