"""The clock of a run."""

import time
from typing import Any, cast

import pytest

from cobra.training_clock import TrainingClock


def test_validation_does_not_count_and_a_resumed_run_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(time, "process_time", lambda: now)
    clock, anything = TrainingClock(), cast(Any, None)
    clock.on_train_start(anything, anything)
    now = 110.0
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
