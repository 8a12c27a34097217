"""Training on packed rows is training on their examples."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cobra.data.batch import Batch
from cobra.data.chat import Chat
from cobra.data.processor import Example, Processor
from cobra.data.record import Record, assistant, user
from cobra.models.vlm import IGNORE_ID, IMAGE_ID, CobraVLM
from cobra.train.objectives.next_token import NextToken
from tests.models.builders import LMS, PROJECTORS, small_vit
from tests.train.test_data import TOKENIZER, data_of
from tests.train.test_lengths import Stop, fit, go_on
from tests.train.test_module import Noise, stage

SAID = ("seven", "a red ring to the left", "no", "two", "it is blue, or so it seems")


def record(number: int) -> Record:
    pixels = np.random.default_rng(number).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    pictures = number % 3
    turns = [user(f"what is {number}?", images=pictures), assistant(SAID[number % len(SAID)])]
    return Record(f"r{number}", turns, [pixels] * pictures)


def model_of(lm: str, seed: int = 0) -> CobraVLM:
    torch.manual_seed(seed)
    return CobraVLM(small_vit, PROJECTORS["pixel_unshuffle"], LMS[lm]).train()


def rows_of(processor: Processor) -> list[list[Example]]:
    examples = [processor.encode(record(number)) for number in range(7)]
    # a row of which nothing is learned but in its middle, and one that ends long before the other
    examples[3].labels = [IGNORE_ID] * len(examples[3].labels)
    # no model can be asked for a first token, and the example before must not be
    examples[1].labels[0] = examples[5].labels[0] = 5
    return [examples[:4], examples[4:6], examples[6:]]


def gradients(model: CobraVLM, batch: Batch) -> tuple[torch.Tensor, int, list[torch.Tensor]]:
    loss, _ = NextToken(model)(model, batch)
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    found = torch.autograd.grad(loss, weights, allow_unused=True)
    assert batch.places is not None
    given = [torch.zeros_like(w) if g is None else g for w, g in zip(weights, found, strict=True)]
    return loss.detach(), len(batch.places), given


@pytest.mark.parametrize("lm", ["mamba", "mamba2", "llama", "hybrid"])
def test_loss_and_gradients_of_packed_rows_are_those_of_their_examples(lm: str) -> None:
    model = model_of(lm)
    processor = Processor.of(model, Chat(TOKENIZER))
    rows = rows_of(processor)
    loss, learned, found = gradients(model, processor.pack(rows, 10**6))
    alone = [gradients(model, processor.collate([example])) for row in rows for example in row]
    assert learned == sum(count for _, count, _ in alone) > 20
    expected = sum(each * count for each, count, _ in alone) / learned
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-5)
    for number, gradient in enumerate(found):
        summed = torch.stack([each[number] * count for _, count, each in alone]).sum(0) / learned
        torch.testing.assert_close(gradient, summed, rtol=1e-4, atol=1e-5)
    # and they are those of something
    assert max(float(gradient.abs().max()) for gradient in found) > 0.01


def test_a_packed_batch_holds_its_examples_one_after_the_other() -> None:
    processor = Processor.of(model_of("mamba2"), Chat(TOKENIZER))
    rows = rows_of(processor)
    batch = processor.pack(rows, 10**6)
    assert batch.seq_idx is not None
    assert batch.mask is not None
    assert batch.examples == 7
    # an example of which nothing is learned is told, as one alone in its row is
    assert batch.empty == ["r3"]
    for row, ids, labels, numbers, mask in zip(
        rows, batch.ids, batch.labels, batch.seq_idx, batch.mask, strict=True
    ):
        assert (numbers.diff() >= 0).all()
        for number, example in enumerate(row):
            own = (numbers == number) & mask
            assert ids[own].tolist() == example.ids
            assert labels[own].tolist() == [IGNORE_ID, *example.labels[1:]]
        # padding belongs to none
        assert (numbers[~mask] >= len(row)).all()
        assert (labels[~mask] == IGNORE_ID).all()
    pixels = processor.collate([example for row in rows for example in row]).pictures.pixels
    assert isinstance(pixels, torch.Tensor)
    assert isinstance(batch.pictures.pixels, torch.Tensor)
    assert torch.equal(batch.pictures.pixels, pixels)
    assert batch.pictures.checked
    assert int((batch.ids == IMAGE_ID).sum()) == sum(e.ids.count(IMAGE_ID) for row in rows for e in row)
    with pytest.raises(ValueError, match=r"the row of records \['r0', 'r1', 'r2', 'r3'\] has \d+ tokens and"):
        processor.pack(rows, 20)


@pytest.fixture(autouse=True)
def _cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("COBRA_CACHE", str(tmp_path / "cache"))


def packed(**changes: Any) -> list[Any]:
    return [
        stage(
            "a", ["projector", "lm"], **{"batching": "packed", "batch_size": 1, "data": ["noise"], **changes}
        )
    ]


@pytest.mark.parametrize("batching", ["packed", "grouped"])
def test_a_stopped_run_goes_on_as_if_it_had_not_been(batching: str, tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    stages = packed(batching=batching, steps=6, hold=0.0)
    expected = fit(whole, stages).state_dict()
    fit(cut, stages, Stop(3))
    assert torch.load(cut / "checkpoints/last.ckpt", weights_only=True)["global_step"] == 3
    for name, tensor in go_on(cut, stages).state_dict().items():
        assert torch.equal(tensor, expected[name]), name
    with pytest.raises(ValueError, match=rf"stages\.0\.batching was {batching} and is None"):
        go_on(cut, packed(batching="random", steps=6, hold=0.0))


def test_epochs_of_packed_rows_are_steps_of_the_rows_that_there_are() -> None:
    data = data_of(max_length=64, row_length=128, world=2)
    data.stages = packed(steps=None, epochs=1, batch_size=2)
    drawn = list(data.train_dataloader())
    assert data.plan().steps == [len(drawn)]
    lengths = [len(data.processor().encode(Noise()[index]).ids) for index in range(len(Noise()))]
    least = -(-sum(lengths) // (128 * 2 * 2))
    assert least <= len(drawn) <= least + 1
    assert all(batch.seq_idx is not None and batch.ids.shape[1] <= 128 for batch in drawn)


class Broken(Noise):
    """Pictures of which one cannot be read."""

    def __getitem__(self, index: int) -> Record:
        made = super().__getitem__(index)
        return Record(made.id, made.messages, [Path("missing.png")] if index == 3 else made.images)


@pytest.mark.parametrize("row_length", [1000, 30])
def test_a_bad_record_is_left_out_of_a_row_that_it_shares_and_replaced_in_its_own(row_length: int) -> None:
    data = data_of(train={"noise": Broken}, max_length=30, row_length=row_length)
    data.stages = packed(steps=None, epochs=1)
    drawn = [data.on_before_batch_transfer(batch, 0) for batch in data.train_dataloader()]
    assert sum(batch.examples for batch in drawn) == (9 if row_length == 1000 else 10)
    assert {sample.id: times for sample, times in data.bad.items()} == {"3": 1}


def test_machines_whose_records_differ_are_told_so() -> None:
    data = data_of(max_length=64)
    data.stages = packed()
    data.trainer.strategy.broadcast = lambda mine: "that of the first machine"
    with pytest.raises(ValueError, match="records of noise have other tokens on machine 0 than on the first"):
        data.plan()


def test_what_batches_go_by_is_part_of_the_data() -> None:
    plain, one, other = (data_of(max_length=64, **more) for more in ({}, {}, {"row_length": 65}))
    one.stages = other.stages = packed()
    assert "token_counts" not in plain.identity()
    assert one.identity()["token_counts"].keys() == {"noise"}
    assert one.identity() != other.identity()
    with pytest.raises(ValueError, match="row_length 63 must be at least max_length 64"):
        data_of(max_length=64, row_length=63)
