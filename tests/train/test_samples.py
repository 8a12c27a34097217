"""Samples that cannot be read: passed over or the end of a run, always told."""

import logging
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cobra.data.batch import Batch
from cobra.data.record import Record, assistant, user
from cobra.data.source import Source
from cobra.train.data import DataModule
from cobra.train.samples import Encoded
from tests.train import test_module
from tests.train.test_data import data_of
from tests.train.test_module import stage

SIZE = 10


class Partly(Source):
    """Pictures of which some are missing; each answer is the record's number."""

    def __init__(self, missing: set[int]) -> None:
        self.missing = missing

    def __len__(self) -> int:
        return SIZE

    def __getitem__(self, index: int) -> Record:
        images: list[Any] = [Path("missing.png")] if index in self.missing else []
        messages = [user("what?", images=len(images)), assistant(f"number {index}")]
        return Record(f"id{index}", messages, images, meta={"type": "number"})


def taken(data: DataModule) -> list[list[str]]:
    """What the batches of a run teach, as the run is given them."""
    # all are fetched first: workers that an error leaves behind are waited for
    fetched = list(data.train_dataloader())
    batches = [data.on_before_batch_transfer(batch, 0) for batch in fetched]
    return [[data.chat.decode(row[row >= 0].tolist()) for row in batch.labels] for batch in batches]


@pytest.mark.parametrize("workers", [0, 2])
def test_the_next_record_takes_the_place_of_a_bad_one(workers: int, caplog: pytest.LogCaptureFixture) -> None:
    missing = {2, 3, 9}
    whole = taken(data_of(train={"noise": partial(Partly, set())}))
    data = data_of(train={"noise": partial(Partly, missing)}, num_workers=workers)
    with caplog.at_level(logging.WARNING, "cobra.train.data"):
        found = taken(data)
    instead = {"number 2": "number 4", "number 3": "number 4", "number 9": "number 0"}
    assert found == [[instead.get(said, said) for said in batch] for batch in whole]
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 3  # each once, though twelve are drawn of ten
    assert all(text.endswith(f"({number} so far)") for number, text in enumerate(told, 1))
    for index in missing:
        assert any(
            f"skipped record 'id{index}' of noise: image 'missing.png' does not" in text for text in told
        )


class Kinds(Partly):
    """Pictures in every second record, the odd ones; some are missing."""

    def __getitem__(self, index: int) -> Record:
        images: list[Any] = [np.zeros((8, 8, 3), np.uint8)] * (index % 2)
        if index in self.missing:
            images = [Path("missing.png")]
        elif index == 4:
            raise ValueError("no turns")
        messages = [user("what?", images=len(images)), assistant(f"number {index}")]
        return Record(f"id{index}", messages, images)


def test_one_of_the_same_kind_takes_the_place_of_a_bad_one() -> None:
    data = data_of(train={"noise": partial(Kinds, {2, 3, 5})})
    encoded = Encoded(data.datasets["train"], data.processor())
    # of 4 nobody knows what it was about; nothing is behind 9 but the beginning
    instead = {2: 7, 3: 7, 4: 6, 5: 7, 9: 9}
    for index, other in instead.items():
        filled = encoded[(("noise", index),)]
        assert [example.record.id for example in filled.examples] == [f"id{other}"]
    assert [bad.id for bad in encoded[(("noise", 3),)].bad] == ["id3", "id5"]
    # where there is no other of its kind any is better than none
    data = data_of(train={"noise": partial(Kinds, {1, 3, 5, 7, 9})})
    filled = Encoded(data.datasets["train"], data.processor())[(("noise", 1),)]
    assert [example.record.id for example in filled.examples] == ["id2"]


def test_a_packed_row_of_bad_samples_alone_is_given_up_as_others_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cobra.train.samples.MAX_BAD_SAMPLES", 2)
    data = data_of(train={"noise": partial(Partly, set(range(SIZE)))})
    filled = Encoded(data.datasets["train"], data.processor())[(("noise", 1), ("noise", 2), ("noise", 3))]
    assert [bad.id for bad in filled.bad] == ["id1", "id2", "id3"]


def test_what_was_skipped_is_counted_at_the_end(caplog: pytest.LogCaptureFixture) -> None:
    data = data_of(train={"noise": partial(Partly, {2, 3})})
    taken(data)
    caplog.clear()
    with caplog.at_level(logging.WARNING, "cobra.train.data"):
        data.teardown("fit")
    (line,) = (record.getMessage() for record in caplog.records)
    assert line == f"skipped 2 records of noise, {sum(data.bad.values())} times in all"
    assert sum(data.bad.values()) >= 3


@pytest.mark.parametrize("workers", [0, 2])
def test_a_run_that_shall_stop_ends_with_the_record_in_one_line(workers: int) -> None:
    data = data_of(train={"noise": partial(Partly, {2})}, num_workers=workers, on_bad_sample="raise")
    with pytest.raises(
        ValueError, match=r"^record 'id2' of noise: image .* on_bad_sample: skip goes on"
    ) as error:
        taken(data)
    assert "\n" not in str(error.value)


def test_a_source_of_bad_samples_alone_ends_a_run() -> None:
    with pytest.raises(
        ValueError, match=r"^10 records in a row cannot be read, from record 'id\d' of noise: "
    ):
        taken(data_of(train={"noise": partial(Partly, set(range(SIZE)))}))


@pytest.mark.parametrize("missing", [{0, 5}, {0, 1, 2, 3}, set(range(SIZE))])
def test_a_bad_question_is_left_out_and_no_other_takes_its_place(missing: set[int]) -> None:
    data = data_of(val={"noise": partial(Partly, missing)}, eval_batch_size=4)
    batches: list[Batch] = [data.on_before_batch_transfer(batch, 0) for batch in data.val_dataloader()[0]]
    asked = [record.id for batch in batches for record in batch.records]
    assert asked == [f"id{index}" for index in range(SIZE) if index not in missing]
    assert {sample.id for sample in data.bad} == {f"id{index}" for index in missing}


def test_a_run_goes_on_past_bad_samples_in_training_and_validation(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(test_module, "Noise", partial(Partly, {0, 1, 2}))
    module = test_module.run([stage("a", ["projector", "lm"], steps=4)], tmp_path)
    assert module.trainer.global_step == 4
    assert module.counts["number"][1] == SIZE - 3
    assert len(module.trainer.datamodule.bad) == 3
    # nor does a batch without any question end it
    batches = data_of(val={"noise": partial(Partly, set(range(SIZE)))}).val_dataloader()[0]
    assert [module.answer(batch, "noise") for batch in batches] == [[]]
