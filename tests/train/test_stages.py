"""Learning rates and the order of stages."""

import math

import pytest

from cobra.train.stages import Plan, Stage


def stage(**changes: object) -> Stage:
    defaults: dict = {
        "name": "s",
        "train": ["lm"],
        "data": {"a": 1.0},
        "batch_size": 1,
        "lr": 2.0,
        "steps": 100,
    }
    return Stage(**{**defaults, **changes})


def test_warmup_then_half_cosine_as_in_cobras_training() -> None:
    rates = [stage(warmup=0.03).rate(step, 100) for step in range(101)]
    assert rates[:4] == [0.0, 2.0 / 3, 4.0 / 3, 2.0]
    expected = [2.0 * 0.5 * (1 + math.cos(math.pi * (step - 3) / 97)) for step in range(3, 101)]
    assert rates[3:] == pytest.approx(expected)


def test_hold_keeps_the_peak_and_final_lr_is_reached() -> None:
    held = stage(warmup=0.0, hold=0.5, decay="linear", final_lr=0.1)
    assert {held.rate(step, 100) for step in range(51)} == {2.0}
    assert held.rate(75, 100) == pytest.approx(1.1)
    assert held.rate(100, 100) == pytest.approx(0.2)


def test_a_plan_knows_the_stage_of_every_step() -> None:
    plan = Plan([stage(warmup=0.0, decay="linear"), stage(warmup=0.0, lr=1.0, hold=1.0)], [100, 3])
    assert [plan.index(step) for step in (0, 99, 100, 102, 103)] == [0, 0, 1, 1, 1]
    assert plan.rate(100) == 1.0
    assert plan.total == 103


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": None}, "steps or epochs"),
        ({"decay": "step"}, "decay"),
        ({"data": {"a": 0.0}}, "share"),
        ({"steps": None, "epochs": 0.0}, "epochs must be positive, got 0.0"),
        ({"warmup": 1.5}, "warmup 1.5 .* are shares of its steps"),
        ({"hold": -0.1}, "hold -0.1 are shares of its steps"),
        ({"final_lr": -0.1}, "final_lr -0.1"),
    ],
)
def test_a_stage_that_makes_no_sense_is_refused(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        stage(**changes)


@pytest.mark.parametrize("decay", ["linear", "cosine"])
@pytest.mark.parametrize("step", [-1, 101, 150])
def test_no_rate_is_known_outside_of_the_plan(decay: str, step: int) -> None:
    """A linear one would be negative, a cosine rise again."""
    plan = Plan([stage(decay=decay)], [100])
    assert plan.rate(100) == pytest.approx(0.0)
    with pytest.raises(ValueError, match=f"stage 's' has no learning rate at step {step}: it has 100 steps"):
        plan.rate(step)


def test_parts_may_have_rates_of_their_own() -> None:
    """MobileVLM V2's first stage: both learn, the projector fifty times as fast."""
    plan = Plan([stage(train=["projector", "lm"], lr={"projector": 1e-3, "lm": 2e-5}, warmup=0.1)], [100])
    for step in (5, 10, 60):
        assert plan.rate(step, "projector") == pytest.approx(50 * plan.rate(step, "lm"))
    assert plan.rate(10, "lm") == 2e-5
    with pytest.raises(ValueError, match=r"trains \['projector'\], but lr names \['lm'\]"):
        stage(train=["projector"], lr={"lm": 1.0})
    with pytest.raises(ValueError, match="must be positive"):
        stage(train=["lm"], lr={"lm": 0.0})


def test_rates_are_named_by_part_also_where_a_part_learns_in_part() -> None:
    halves = stage(train=["vision.blocks.1-", "lm"], lr={"vision": 1.0, "lm": 2.0})
    assert halves.rate(50, 100, "vision") * 2 == halves.rate(50, 100, "lm")
    with pytest.raises(ValueError, match="name the same parts"):
        stage(train=["vision.blocks.1-"], lr={"vision.blocks.1-": 1.0})
