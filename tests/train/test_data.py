"""What the data module hands to a run: its own arguments, in every batch."""

import multiprocessing
import os
import signal
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from cobra.data.batch import Batch
from cobra.data.record import Record, assistant, user
from cobra.data.source import Source
from cobra.models.vlm import IMAGE_ID, CobraVLM
from cobra.train.data import DataModule
from cobra.train.schedule import StageSampler
from tests.models.builders import LMS, PROJECTORS, small_vit
from tests.train.test_module import Noise, stage

TOKENIZER = "cobra:data/shapes/tokenizer"


def data_of(rank: int = 0, world: int = 1, accumulate: int = 1, **options: Any) -> DataModule:
    """A data module that is set up for a device of a run."""
    sources: dict[str, Any] = {"train": {"noise": Noise}, "val": {"noise": Noise}, "test": {"noise": Noise}}
    data = DataModule([stage("a", ["lm"], steps=6)], TOKENIZER, **{**sources, **options})
    model = CobraVLM(small_vit, PROJECTORS["linear"], LMS["mamba2"])
    data.trainer = SimpleNamespace(
        world_size=world,
        global_rank=rank,
        local_rank=rank,
        node_rank=0,
        accumulate_grad_batches=accumulate,
        lightning_module=SimpleNamespace(model=model),
        strategy=SimpleNamespace(root_device=torch.device("cpu"), barrier=lambda name: None, broadcast=str),
    )
    data.setup("fit")
    data.setup("test")
    return data


def picks(**options: Any) -> list[Any]:
    sampler = data_of(**options).train_dataloader().batch_sampler
    assert isinstance(sampler, StageSampler)
    return [[pick for row in batch for pick in row] for batch in sampler]


def test_a_run_sees_the_batches_of_its_seed_device_and_accumulation() -> None:
    assert picks(seed=1) == picks(seed=1)
    assert picks(seed=1) != picks(seed=0)
    whole = picks(accumulate=2)
    assert len(whole) == 12
    ranks = [picks(rank=rank, world=2) for rank in (0, 1)]
    assert [one + other for one, other in zip(*ranks, strict=True)] == [
        one + other for one, other in zip(whole[::2], whole[1::2], strict=True)
    ]


def test_workers_go_on_when_all_processes_of_a_run_are_terminated() -> None:
    """The run itself goes on to the end of its step."""
    batches = iter(data_of(num_workers=1).train_dataloader())
    next(batches)
    for worker in multiprocessing.active_children():
        os.kill(worker.pid or 0, signal.SIGTERM)
    assert len(list(batches)) == 5


def test_epochs_are_counted_in_steps_of_all_devices_and_accumulated_batches() -> None:
    data = data_of(world=2, accumulate=3)
    data.stages = [stage("a", ["lm"], steps=None, epochs=3, batch_size=2)]
    assert data.plan().steps == [3]  # 30 examples, 2 × 2 × 3 a step


@pytest.mark.parametrize("split", ["val", "test", "predict"])
def test_a_question_ends_where_the_answer_begins_and_is_padded_in_front(split: str) -> None:
    data = data_of(eval_batch_size=4)
    (loader,) = getattr(data, f"{split}_dataloader")()
    batches: list[Batch] = list(loader)
    assert [len(batch.ids) for batch in batches] == [4, 4, 2]
    assert [record.id for batch in batches for record in batch.records] == [str(i) for i in range(10)]
    for batch in batches:
        assert batch.mask is not None
        assert batch.mask[:, -1].all()
        for ids, mask in zip(batch.ids, batch.mask, strict=True):
            text = data.chat.decode([token for token in ids[mask].tolist() if token != IMAGE_ID])
            assert "digit" in text
            assert "seven" not in text


def test_a_training_batch_holds_the_answers_and_no_records() -> None:
    batch = next(iter(data_of().train_dataloader()))
    assert batch.mask[:, 0].all()
    assert (batch.labels >= 0).sum(1).min() > 0
    assert batch.records == []


def test_template_length_and_blindness_reach_the_examples() -> None:
    template = Path(__file__).parents[2] / "cobra/data/templates/vicuna_v1.jinja"
    for blind in (False, True):
        processor = data_of(blind=blind, max_length=77, template=str(template)).processor()
        assert (processor.blind, processor.max_length) == (blind, 77)
        segments = processor.chat.segments([user("why?").as_dict()], prompt=True)
        assert segments[0].text.startswith("A chat between")


def test_a_batch_moves_its_tensors_and_keeps_its_records() -> None:
    batch = next(iter(data_of().val_dataloader()[0]))
    moved = batch.to("meta")
    tensors = {name for name, value in vars(batch).items() if isinstance(value, torch.Tensor)}
    assert {name for name, value in vars(moved).items() if getattr(value, "is_meta", False)} == tensors
    assert {"ids", "mask"} <= tensors
    assert moved.records == batch.records != []
    assert not batch.ids.is_meta


class Named(Source):
    """Records that tell their source."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> Record:
        return Record(f"{self.name}{index}", [user("which?"), assistant(self.name)])


def test_sources_keep_their_names_shares_and_examples() -> None:
    sources = {name: partial(Named, name) for name in ("red", "blue")}
    data = data_of(train=sources, test=sources)
    data.stages = [stage("a", ["lm"], data={"blue": 1.0}, steps=2), stage("b", ["lm"], data={"red": 1.0})]
    said = [
        {data.chat.decode(row[row >= 0].tolist()) for row in batch.labels}
        for batch in data.train_dataloader()
    ]
    assert said == [{"blue"}, {"blue"}, {"red"}, {"red"}]
    asked = [[record.id for batch in loader for record in batch.records] for loader in data.test_dataloader()]
    assert asked == [[f"{name}{i}" for i in range(4)] for name in ("red", "blue")]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_loader_starts_after_the_batches_that_were_taken(workers: int) -> None:
    whole = [batch.ids for batch in data_of().train_dataloader()]
    resumed = data_of(num_workers=workers).train_dataloader()
    resumed.load_state_dict({"batches": 2})
    rest = [batch.ids for batch in resumed]
    assert len(rest) == 4
    assert all(torch.equal(one, other) for one, other in zip(rest, whole[2:], strict=True))


def test_batches_for_a_gpu_are_pinned() -> None:
    data = data_of()
    assert not data.train_dataloader().pin_memory
    assert data.trainer is not None
    data.trainer.strategy.root_device = torch.device("cuda")
    assert data.train_dataloader().pin_memory
