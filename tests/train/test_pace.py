"""The pace of a run, as `cobra models --training` estimates it."""

from pathlib import Path

import pytest

from cobra.bench.systems.configs import read_systems
from cobra.bench.systems.measure import LMCost, System, measure
from cobra.train.memory import Memory, Step
from cobra.train.pace import Assumptions, example_flops, pace
from tests.train.test_module import stage

# the head takes 1000 a token
LM = LMCost("lm", 0, prefill_flops=500, decode_flops=1500, decode_bytes=0, state_bytes=(0, 0, 0))
SYSTEM = System("s", "e", "p", 20, 0, 0, vision_flops=7000, projector_flops=300, lm=LM)
STEP = Step(Memory(4_000, 1_000, 0, 0, 0), (0, 0), [])
FORWARD = 500 * (20 + 10) + 1000 * 10


@pytest.mark.parametrize(
    ("train", "recompute", "expected"),
    [
        (["projector", "lm"], {}, 7000 + 3 * 300 + 3 * FORWARD),
        # gradients pass through the frozen model to the projector, and its blocks run again
        (["projector"], {"lm": 2}, 7000 + 3 * 300 + 2.5 * FORWARD),
        (["vision.blocks.1-"], {"vision": 1}, 4 * 7000 + 2 * 300 + 2 * FORWARD),
        # nothing behind a frozen tower is kept of it
        (["lm"], {"vision": 1, "lm": 1}, 7000 + 300 + 4 * FORWARD),
    ],
)
def test_operations_of_an_example(train: list[str], recompute: dict[str, int], expected: float) -> None:
    assert example_flops(SYSTEM, stage("a", train), recompute, text=10) == expected


def test_the_longer_of_computing_and_exchanging_is_the_pace() -> None:
    learns, assumed = stage("a", ["lm"]), Assumptions(1e-9, 0.5, 10, bandwidth=1e-6, network=1e-7)
    compute = 4 * example_flops(SYSTEM, learns, {}, 10) / 500
    alone = pace(SYSTEM, learns, STEP, {}, 1, False, 4, assumed)
    assert (alone.compute, alone.exchange) == pytest.approx((compute, 0))
    assert alone.examples == pytest.approx(4 / compute)
    assert alone.tokens == pytest.approx(30 * alone.examples)
    assert alone.hours == pytest.approx(compute / 4 * 1e6 / 3600)
    node = pace(SYSTEM, learns, STEP, {}, 8, True, 4, assumed)
    assert node.exchange == pytest.approx(3 * 4000 * 7 / 8 / 1000)
    many = pace(SYSTEM, learns, STEP, {}, 16, False, 4, assumed)
    assert many.exchange == pytest.approx(2 * 1000 * 15 / 16 / 100)
    far = pace(SYSTEM, learns, Step(Memory(10**9, 0, 0, 0, 0), (0, 0), []), {}, 16, True, 4, assumed)
    assert far.examples == pytest.approx(64 / far.exchange)


@pytest.mark.slow
def test_cobra_takes_about_as_long_as_published() -> None:
    """26.5 hours on 8 A100, two epochs of 1.231 million examples (arXiv 2403.14520, section 4)."""
    system = measure("cobra_2.8b", read_systems(Path("configs"))["cobra_2.8b"])
    step = Step(Memory(14 * 10**9, 11 * 10**9, 0, 0, 0), (0, 0), [])
    found = pace(system, stage("a", ["projector", "lm"]), step, {"lm": 1}, 8, True, 16, Assumptions())
    assert 2 * 1.231 * found.hours == pytest.approx(26.5, rel=0.05)
