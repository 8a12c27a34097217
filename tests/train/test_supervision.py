"""Records that teach nothing are counted, and stop a stage where they are many."""

from pathlib import Path

import pytest
import torch

from cobra.data.batch import Batch
from cobra.data.record import Record, assistant, user
from cobra.models.vision.pictures import Pictures
from cobra.train.supervision import Supervision
from tests.train.test_data import data_of
from tests.train.test_module import Noise, run, stage


def batch(records: int, empty: int) -> Batch:
    ids = torch.zeros(records, 3, dtype=torch.long)
    return Batch(ids, Pictures.stack([]), ids >= 0, ids, empty=[f"r{i}" for i in range(empty)])


@pytest.mark.parametrize(
    ("records", "batches", "stops"),
    [
        # all, of few and of many
        (3, [(1, 1)], True),
        (10**6, [(2, 2), (2, 2)], False),
        (10**6, [(2, 2), (2, 2), (2, 2)], True),
        # a tenth is borne, in a stage of any length
        (40, [(10, 1)] * 4, False),
        (10**6, [(10, 1)] * 30, False),
        (10**6, [(10, 0)] * 20 + [(10, 10), (10, 10), (10, 2)], False),
        (10**6, [(10, 0)] * 20 + [(10, 10), (10, 10), (10, 10)], True),
    ],
)
def test_a_stage_stops_when_more_than_a_tenth_has_nothing_to_learn(
    records: int, batches: list[tuple[int, int]], stops: bool
) -> None:
    counted = Supervision("align", records, 256)
    for size, empty in batches[:-1]:
        counted.add(batch(size, empty))
    if stops:
        with pytest.raises(ValueError, match=r"stage 'align': .* 'r0'.*data\.max_length 256 .* raise it"):
            counted.add(batch(*batches[-1]))
    else:
        counted.add(batch(*batches[-1]))


class Long(Noise):
    """Questions that leave no room for an answer, but for the last."""

    def __getitem__(self, index: int) -> Record:
        question = "why " * (2500 if index < 9 else 1)
        return Record(f"long-{index}", [user(question), assistant("so")])


def test_a_batch_names_the_records_whose_answers_are_cut() -> None:
    data = data_of(train={"noise": Long}, max_length=64)
    processor = data.processor()
    examples = [processor.encode(Long()[index]) for index in (3, 9, 5)]
    assert processor.collate(examples).empty == ["long-3", "long-5"]
    assert processor.collate([processor.encode(Long()[3], prompt=True)], left=True).empty == []


def test_a_run_on_answers_that_are_all_cut_stops_with_their_ids(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Noise, "__getitem__", Long.__getitem__)
    with pytest.raises(ValueError, match=r"stage 'a': 2 of 2 records have no answer .* 'long-\d'"):
        run([stage("a", ["lm"])], tmp_path)
