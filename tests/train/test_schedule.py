"""Which examples make which batch."""

import itertools
from collections import Counter

import pytest

from cobra.train.schedule import StageSampler, make_plan
from cobra.train.stages import Plan, Stage

SIZES = {"a": 10, "b": 7}


def stage(**changes: object) -> Stage:
    defaults: dict = {
        "name": "s",
        "train": ["lm"],
        "data": {"a": 1.0},
        "batch_size": 3,
        "lr": 1.0,
        "steps": 4,
    }
    return Stage(**{**defaults, **changes})


def plan(**changes: object) -> Plan:
    stages = [stage(**changes), stage(name="t", data={"a": 0.5, "b": 0.5}, steps=20)]
    return make_plan(stages, SIZES, 1)


def test_a_resumed_sampler_continues_with_the_same_batches() -> None:
    whole = list(StageSampler(plan(), SIZES, seed=3))
    resumed = StageSampler(plan(), SIZES, seed=3)
    resumed.start = 9
    assert list(resumed) == whole[9:]
    assert len(whole) == len(resumed) == 24


def test_an_epoch_visits_every_example_once() -> None:
    batches = list(StageSampler(plan(steps=None, epochs=3), SIZES))[:10]
    assert Counter(itertools.chain(*batches)) == Counter({("a", i): 3 for i in range(10)})


def test_devices_take_disjoint_shares_of_the_same_batches() -> None:
    alone = make_plan([stage(batch_size=6, steps=5)], SIZES, 1)
    shared = make_plan([stage(batch_size=3, steps=5)], SIZES, 2)
    ranks = [list(StageSampler(shared, SIZES, rank=r, world=2)) for r in (0, 1)]
    assert [one + other for one, other in zip(*ranks, strict=True)] == list(StageSampler(alone, SIZES))


def test_sources_are_mixed_as_the_stage_says() -> None:
    mixed = make_plan([stage(data={"a": 3.0, "b": 1.0}, steps=2000)], SIZES, 1)
    names = Counter(batch[0][0] for batch in StageSampler(mixed, SIZES))
    assert names["a"] / 2000 == pytest.approx(0.75, abs=0.03)


def test_an_epoch_of_a_mixture_is_as_many_examples_as_its_sources_hold_drawn_by_share() -> None:
    sizes = {"small": 100, "large": 900}
    for shares, expected in ({"small": 1.0, "large": 1.0}, 500), ({"small": 1.0, "large": 9.0}, 100):
        mixed = make_plan([stage(data=shares, steps=None, epochs=2, batch_size=2)], sizes, 1)
        drawn = Counter(itertools.chain(*StageSampler(mixed, sizes)))
        assert drawn.total() == 2000
        counts = Counter(name for name, _ in drawn.elements())
        # batches of 2, each of a source that is drawn: binomial
        assert (
            abs(counts["small"] - 2 * expected)
            < 4 * 2 * (1000 * shares["small"] / sum(shares.values())) ** 0.5
        )
        # none of a source comes again before all others of it came
        for name, size in sizes.items():
            times = [drawn[name, index] for index in range(size)]
            assert max(times) - min(times) <= 1


def test_a_source_without_records_is_named() -> None:
    with pytest.raises(ValueError, match=r"stage 's': its sources \['b'\] hold no records"):
        make_plan([stage(data={"a": 1.0, "b": 1.0})], {"a": 10, "b": 0}, 1)


def test_epochs_count_all_examples_of_all_devices() -> None:
    assert make_plan([stage(steps=None, epochs=2, batch_size=2)], SIZES, 4).steps == [3]  # ceil(20 / 8)


def test_an_unknown_source_is_named() -> None:
    with pytest.raises(ValueError, match=r"unknown sources \['c'\]"):
        make_plan([stage(data={"c": 1.0})], SIZES, 1)


def test_every_epoch_and_every_source_has_an_order_of_its_own() -> None:
    alone = make_plan([stage(batch_size=40, steps=4)], {"a": 40}, 1)
    twins = {"a": 40, "b": 40}
    pair = make_plan([stage(data={name: 1.0}, batch_size=40, steps=1) for name in "ab"], twins, 1)
    orders = [
        tuple(index for _, index in batch)
        for sampler in (
            StageSampler(alone, {"a": 40}),
            StageSampler(alone, {"a": 40}, seed=1),
            StageSampler(pair, twins, seed=2),
        )
        for batch in sampler
    ]
    assert all(sorted(order) == list(range(40)) for order in orders)
    assert len(set(orders)) == len(orders) == 10


def test_a_seed_decides_which_source_comes_when() -> None:
    mixed = make_plan([stage(data={"a": 1.0, "b": 1.0}, steps=30)], SIZES, 1)
    runs = [[batch[0][0] for batch in StageSampler(mixed, SIZES, seed=seed)] for seed in (0, 0, 1)]
    assert runs[0] == runs[1] != runs[2]
