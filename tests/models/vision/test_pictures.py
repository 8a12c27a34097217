"""What travels to worker processes, and what comes back from them."""

import pickle
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils._pytree import tree_leaves
from torch.utils.data import DataLoader

from cobra.data.batch import Batch
from cobra.data.chat import Chat
from cobra.data.processor import Processor
from cobra.data.record import Record, assistant, user
from cobra.models.vision.fused import FusedEncoder
from cobra.models.vlm import CobraVLM
from tests.models.builders import ENCODERS, LMS, PROJECTORS, small_vit

RECORDS = [
    Record(str(width), [user("what?", images=1), assistant("it")], [np.full((20, width, 3), 7, np.uint8)])
    for width in (20, 61)
]


def make(encoder: str) -> Processor:
    model = CobraVLM(ENCODERS[encoder], PROJECTORS["linear"], LMS["mamba2"])
    assert len(pickle.dumps(model.vision.transform)) < 10_000
    return Processor.of(model, Chat("cobra:data/shapes/tokenizer"))


def encode_all(processor: Processor, records: list[Record]) -> Batch:
    return processor.collate([processor.encode(record) for record in records])


@pytest.mark.parametrize("encoder", sorted(ENCODERS))
def test_a_processor_travels_without_weights(encoder: str) -> None:
    processor = make(encoder)
    packed = pickle.dumps(processor)
    assert len(packed) < 100_000
    check_same(encode_all(pickle.loads(packed), RECORDS), encode_all(processor, RECORDS))


@pytest.mark.slow
@pytest.mark.parametrize("encoder", ["fused", "tiled"])
def test_a_spawned_worker_prepares_what_this_process_would(encoder: str) -> None:
    processor = make(encoder)
    loader: DataLoader[Batch] = DataLoader(
        RECORDS,  # type: ignore[arg-type]
        batch_size=2,
        collate_fn=partial(encode_all, processor),
        num_workers=1,
        multiprocessing_context="spawn",
    )
    check_same(next(iter(loader)), encode_all(processor, RECORDS))


def check_same(one: Batch, other: Batch) -> None:
    assert one.ids.tolist() == other.ids.tolist()
    assert one.pictures.layouts == other.pictures.layouts
    for mine, its in zip(*(tree_leaves(batch.pictures.pixels) for batch in (one, other)), strict=True):
        torch.testing.assert_close(mine, its, rtol=0, atol=0)


def test_fused_encoders_must_cut_a_picture_alike() -> None:
    encoder = FusedEncoder([small_vit, ENCODERS["tiled"]])
    assert len(encoder.transform(Image.new("RGB", (20, 20))).tiles) == 1
    with pytest.raises(ValueError, match="one common layout"):
        encoder.transform(Image.new("RGB", (40, 20)))
