"""The clock of a run."""

import time
from typing import Any, cast

import pytest

from cobra.train.clock import TrainingClock


def test_validation_does_not_count_and_a_resumed_run_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(time, "process_time", lambda: now)
    clock, anything = TrainingClock(), cast(Any, None)
    # Lightning tries validation before it trains
    clock.on_validation_start(anything, anything)
    now = 103.0
    clock.on_validation_end(anything, anything)
    now = 104.0
    clock.on_train_start(anything, anything)
    assert clock.cpu_seconds == 0.0
    now = 114.0
    clock.on_validation_start(anything, anything)
    now = 150.0
    clock.on_validation_end(anything, anything)
    now = 153.0
    assert clock.cpu_seconds == 13.0
    resumed = TrainingClock()
    resumed.load_state_dict(clock.state_dict())
    now = 500.0
    resumed.on_train_start(anything, anything)
    now = 502.0
    assert resumed.cpu_seconds == 15.0
