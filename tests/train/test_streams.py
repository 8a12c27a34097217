"""Batches that are grouped by length or packed: every record once an epoch, whatever the devices."""

import itertools
from collections import Counter
from typing import Any

import numpy as np
import pytest

from cobra.data.token_counts import TokenCounts
from cobra.train.schedule import StageSampler, Supply, make_plan
from cobra.train.stages import Stage
from cobra.train.streams import Row
from tests.train.test_schedule import Sized, stage

SIZES = {"a": 400, "b": 90}
LENGTH = 100


def counts(size: int, seed: int) -> TokenCounts:
    """Those of records of which four in five have a picture of 20 tokens."""
    rng = np.random.default_rng(seed)
    pictures = (rng.random(size) < 0.8).astype(np.int32)
    tokens = (20 * pictures + rng.geometric(0.06, size)).astype(np.int32)
    return TokenCounts(tokens, tokens, tokens, tokens, pictures, tokens.astype(np.uint64), {})


COUNTS = {name: counts(size, len(name) + size) for name, size in SIZES.items()}


def supply(world: int = 1, seed: int = 0, row_length: int = LENGTH) -> Supply:
    sources = {name: Sized(size) for name, size in SIZES.items()}
    return Supply(sources, world, seed, LENGTH, row_length, COUNTS)


def batches(stages: list[Stage], held: Supply, rank: int = 0, start: int = 0) -> list[list[Row]]:
    sampler = StageSampler(make_plan(stages, held), held, 1, rank)
    sampler.start = start
    return list(sampler)


def tokens(row: Row) -> int:
    return sum(min(LENGTH, int(COUNTS[name].tokens[index])) for name, index in row)


def stages(batching: str, **changes: Any) -> list[Stage]:
    defaults = {"data": ["a", "b"], "steps": None, "epochs": 2, "batch_size": 3}
    return [stage(batching=batching, **{**defaults, **changes})]


@pytest.mark.parametrize("world", [1, 2])
@pytest.mark.parametrize("batching", ["random", "grouped", "packed"])
def test_every_record_comes_once_an_epoch_until_the_last_batch(batching: str, world: int) -> None:
    held = supply(world)
    ranks = [batches(stages(batching), held, rank) for rank in range(world)]
    assert len({len(taken) for taken in ranks}) == 1
    steps = [list(itertools.chain(*devices)) for devices in zip(*ranks, strict=True)]
    assert {len(rows) for rows in steps} == {3 * world}
    drawn = Counter(pick for rows in steps for row in rows for pick in row)
    assert set(drawn) == {(name, index) for name, size in SIZES.items() for index in range(size)}
    # what the last batches hold beyond two epochs
    assert set(drawn.values()) <= {2, 3}
    more = sum(drawn.values()) - 2 * sum(SIZES.values())
    assert more < {"random": 1, "grouped": 2, "packed": 10}[batching] * 3 * world
    if batching == "packed":
        # row by row also within a step
        rows = [row for step in steps for row in step]
        once = Counter(itertools.islice(itertools.chain(*rows), sum(SIZES.values())))
        assert max(once.values()) == 1


@pytest.mark.parametrize("batching", ["grouped", "packed"])
def test_batches_depend_on_the_seed_alone_and_a_resumed_run_goes_on_with_them(batching: str) -> None:
    plan = stages(batching, data={"a": 1.0, "b": 1.0}, epochs=1.5)
    plan += stages(batching, data={"a": 1.0}, epochs=0.3)
    whole = batches(plan, supply(2), rank=1)
    for start in (0, 7, len(whole) // 2, len(whole) - 2):
        assert batches(plan, supply(2), rank=1, start=start) == whole[start:]
    assert batches(plan, supply(2, seed=1), rank=1)[:5] != whole[:5]
    epochs = batches(stages(batching, data=["a"], epochs=2), supply())
    assert epochs[: len(epochs) // 2] != epochs[len(epochs) // 2 :]


@pytest.mark.parametrize("world", [1, 3])
def test_grouped_batches_are_of_one_kind_and_of_one_length_on_all_devices(world: int) -> None:
    ranks = [batches(stages("grouped"), supply(world), rank) for rank in range(world)]
    lengths = []
    for devices in zip(*ranks, strict=True):
        picks = [row[0] for rows in devices for row in rows]
        assert len({bool(COUNTS[name].pictures[index]) for name, index in picks}) == 1
        lengths.append([[tokens(row) for row in rows] for rows in devices])
    padded = np.array(lengths)  # (steps, devices, rows)
    waste = 1 - padded.sum() / (padded.max((1, 2)).sum() * 3 * world)
    drawn = np.random.default_rng(0).permutation(padded.flatten()).reshape(padded.shape)
    assert waste < 0.1 < 0.25 < 1 - drawn.sum() / (drawn.max((1, 2)).sum() * 3 * world)
    # what does not fit the memory is seen at once
    assert padded[0].max() == padded.max()
    # and then lengths come as they come
    assert abs(np.corrcoef(np.arange(len(padded) - 1), padded.max((1, 2))[1:])[0, 1]) < 0.4


@pytest.mark.parametrize("row_length", [LENGTH, 250])
def test_packed_rows_hold_whole_records_and_little_padding(row_length: int) -> None:
    rows = list(itertools.chain(*batches(stages("packed", epochs=1), supply(1, 0, row_length))))
    filled = np.array([tokens(row) for row in rows])
    assert filled.max() <= row_length
    assert 1 - filled.mean() / row_length < 0.05
    assert np.corrcoef(np.arange(len(filled)), filled)[0, 1] < 0.3


def test_the_shares_of_packed_sources_are_of_batches_and_an_epoch_is_as_many_records() -> None:
    drawn = batches(stages("packed", data={"a": 3.0, "b": 1.0}, epochs=4), supply())
    names = Counter(batch[0][0][0] for batch in drawn)
    assert names["a"] / len(drawn) == pytest.approx(0.75, abs=0.08)
    picks = sum(len(row) for batch in drawn for row in batch)
    assert picks == pytest.approx(4 * sum(SIZES.values()), rel=0.05)


def test_a_set_that_is_smaller_than_a_batch_comes_again_and_again() -> None:
    held = Supply({"b": Sized(5)}, 4, 0, LENGTH, LENGTH, {"b": counts(5, 3)})
    for batching in ("grouped", "packed"):
        plan = stages(batching, data=["b"], epochs=None, steps=30, batch_size=6)
        drawn = [batches(plan, held, rank) for rank in range(4)]
        times = Counter(pick for taken in drawn for batch in taken for row in batch for pick in row)
        kinds = {kind: [times["b", i] for i in range(5) if held.counts["b"].pictures[i] == kind]
                 for kind in (0, 1)}  # fmt: skip
        for of_kind in [[*times.values()]] if batching == "packed" else kinds.values():
            assert not of_kind or max(of_kind) - min(of_kind) <= 1
