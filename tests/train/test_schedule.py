"""Which examples make which batch."""

import itertools
from collections import Counter
from collections.abc import Iterator, Mapping

import numpy as np
import pytest

from cobra.data.record import Record, assistant, user
from cobra.data.source import Source
from cobra.train.schedule import StageSampler, Supply, make_plan
from cobra.train.stages import Plan, Stage
from cobra.train.streams import Pick

SIZES = {"a": 10, "b": 7}


class Sized(Source):
    """Records that nobody asks for."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> Record:
        return Record(str(index), [user("so?"), assistant("so")])


def supply(sizes: Mapping[str, int] = SIZES, world: int = 1, seed: int = 0) -> Supply:
    return Supply({name: Sized(size) for name, size in sizes.items()}, world, seed)


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
    return make_plan(stages, supply())


def batches(
    plan: Plan, held: Supply, accumulate: int = 1, rank: int = 0, start: int = 0
) -> Iterator[list[Pick]]:
    """The examples of each batch."""
    sampler = StageSampler(plan, held, accumulate, rank)
    sampler.start = start
    return (list(itertools.chain(*rows)) for rows in sampler)


def sampled(
    plan: Plan, sizes: Mapping[str, int], accumulate: int, rank: int, world: int, seed: int
) -> Iterator[list[Pick]]:
    """What published runs drew: one generator a batch, all of them from the first."""
    taken = dict.fromkeys(sizes, 0)
    for number in range(plan.total * accumulate):
        stage = plan.stages[plan.index(number // accumulate)]
        assert isinstance(stage.data, dict)
        rng = np.random.default_rng([seed, number])
        names, shares = list(stage.data), np.array([*stage.data.values()], dtype=float)
        name = names[rng.choice(len(names), p=shares / shares.sum())]
        first = taken[name] + rank * stage.batch_size
        taken[name] += stage.batch_size * world
        batch = []
        for position in range(first, first + stage.batch_size):
            epoch, offset = divmod(position, sizes[name])
            order = np.random.default_rng([seed, epoch, *name.encode()]).permutation(sizes[name])
            batch.append((name, int(order[offset])))
        yield batch


@pytest.mark.parametrize("start", [0, 7, 23, 61])
def test_batches_in_random_order_are_those_of_published_runs(start: int) -> None:
    stages = [
        stage(data={"b": 1.0, "a": 0.7}, steps=5),
        stage(data={"a": 2.0}, steps=3, batch_size=2),
        stage(data={"a": 0.65, "b": 0.1, "c": 0.25}, steps=30),
    ]
    sizes, held = {**SIZES, "c": 5}, supply({**SIZES, "c": 5}, 2, 3)
    whole = make_plan(stages, held, 2)
    expected = list(sampled(whole, sizes, 2, 1, 2, 3))
    assert list(batches(whole, held, 2, rank=1, start=start)) == expected[start:]


def test_a_resumed_sampler_continues_with_the_same_batches() -> None:
    whole = list(batches(plan(), supply(seed=3)))
    assert list(batches(plan(), supply(seed=3), start=9)) == whole[9:]
    assert len(whole) == len(StageSampler(plan(), supply())) == 24


def test_an_epoch_visits_every_example_once() -> None:
    taken = list(batches(plan(steps=None, epochs=3), supply()))[:10]
    assert Counter(itertools.chain(*taken)) == Counter({("a", i): 3 for i in range(10)})


def test_devices_take_disjoint_shares_of_the_same_batches() -> None:
    alone = make_plan([stage(batch_size=6, steps=5)], supply())
    shared = make_plan([stage(batch_size=3, steps=5)], supply(world=2))
    ranks = [list(batches(shared, supply(world=2), rank=rank)) for rank in (0, 1)]
    assert [one + other for one, other in zip(*ranks, strict=True)] == list(batches(alone, supply()))


def test_sources_are_mixed_as_the_stage_says() -> None:
    mixed = make_plan([stage(data={"a": 3.0, "b": 1.0}, steps=2000)], supply())
    names = Counter(batch[0][0] for batch in batches(mixed, supply()))
    assert names["a"] / 2000 == pytest.approx(0.75, abs=0.03)


def test_an_epoch_of_a_mixture_is_as_many_examples_as_its_sources_hold_drawn_by_share() -> None:
    sizes = {"small": 100, "large": 900}
    for shares, expected in ({"small": 1.0, "large": 1.0}, 500), ({"small": 1.0, "large": 9.0}, 100):
        mixed = make_plan([stage(data=shares, steps=None, epochs=2, batch_size=2)], supply(sizes))
        drawn = Counter(itertools.chain(*batches(mixed, supply(sizes))))
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
        make_plan([stage(data={"a": 1.0, "b": 1.0})], supply({"a": 10, "b": 0}))


def test_epochs_count_all_examples_of_all_devices() -> None:
    assert make_plan([stage(steps=None, epochs=2, batch_size=2)], supply(world=4)).steps == [
        3
    ]  # ceil(20 / 8)


def test_an_unknown_source_is_named() -> None:
    with pytest.raises(ValueError, match=r"unknown sources \['c'\]"):
        make_plan([stage(data={"c": 1.0})], supply())


def test_every_epoch_and_every_source_has_an_order_of_its_own() -> None:
    alone = make_plan([stage(batch_size=40, steps=4)], supply({"a": 40}))
    twins = {"a": 40, "b": 40}
    pair = make_plan([stage(data={name: 1.0}, batch_size=40, steps=1) for name in "ab"], supply(twins))
    orders = [
        tuple(index for _, index in batch)
        for taken in (
            batches(alone, supply({"a": 40})),
            batches(alone, supply({"a": 40}, seed=1)),
            batches(pair, supply(twins, seed=2)),
        )
        for batch in taken
    ]
    assert all(sorted(order) == list(range(40)) for order in orders)
    assert len(set(orders)) == len(orders) == 10


def test_a_seed_decides_which_source_comes_when() -> None:
    mixed = make_plan([stage(data={"a": 1.0, "b": 1.0}, steps=30)], supply())
    runs = [[batch[0][0] for batch in batches(mixed, supply(seed=seed))] for seed in (0, 0, 1)]
    assert runs[0] == runs[1] != runs[2]


class Halves(Sized):
    """Goes through its first half before its second."""

    def order(self, rng: np.random.Generator) -> np.ndarray:
        half = self.size // 2
        return np.concatenate([rng.permutation(half), half + rng.permutation(self.size - half)])


def test_a_source_says_in_which_order_an_epoch_goes_through_it() -> None:
    held = Supply({"a": Halves(10), "b": Halves(6)})
    alone = list(itertools.chain(*batches(make_plan([stage(batch_size=5)], held), held)))
    assert [{index for _, index in alone[i : i + 5]} for i in (0, 5, 10, 15)] == [
        {*range(5)},
        {*range(5, 10)},
    ] * 2
    # nor is it lost among others
    both = make_plan([stage(data=["a", "b"], steps=None, epochs=1)], held)
    taken = list(itertools.chain(*batches(both, held)))[:16]
    assert [index < 5 for name, index in taken if name == "a"] == [True] * 5 + [False] * 5

    class Twice(Sized):
        def order(self, rng: np.random.Generator) -> np.ndarray:
            return np.zeros(self.size, int)

    bad = Supply({"a": Twice(3)})
    with pytest.raises(ValueError, match=r"source 'a' is no permutation of its 3 records: let Twice\.order"):
        next(batches(make_plan([stage()], bad), bad))


def test_names_without_shares_come_whole_in_every_epoch_and_mixed() -> None:
    sizes = {"a": 300, "b": 60}
    mixed = make_plan([stage(data=["a", "b"], steps=None, epochs=2, batch_size=6)], supply(sizes))
    assert mixed.steps == [120]
    drawn = list(batches(mixed, supply(sizes)))
    for epoch in (drawn[:60], drawn[60:]):
        assert Counter(itertools.chain(*epoch)) == Counter((n, i) for n in sizes for i in range(sizes[n]))
        # hypergeometric: in 30 of 60 batches 30 of 60, with a deviation of 3.5
        early = Counter(name for batch in epoch[:30] for name, _ in batch)
        assert 12 <= early["b"] <= 48
    assert drawn[:60] != drawn[60:]
    with pytest.raises(ValueError, match="names a source twice"):
        stage(data=["a", "a"])
