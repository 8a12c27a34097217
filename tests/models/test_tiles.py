"""Pictures of different numbers of tiles, from the record to the answer; ids and pictures that do not fit."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from torch._dynamo.testing import CompileCounter

from cobra.data.chat import Chat
from cobra.data.processor import Processor
from cobra.data.record import Record, assistant, user
from cobra.inference.conversation import Conversation
from cobra.models.vision.pictures import ONE_TILE, Layout, Picture, Pictures
from cobra.models.vlm import IMAGE_ID, CobraVLM
from tests.models.builders import ENCODERS, LMS, PROJECTORS

# image tokens of a tile: 4 × 4 patches, folded by two
TILE = 4


@pytest.fixture(scope="module")
def model() -> CobraVLM:
    torch.manual_seed(0)
    return CobraVLM(ENCODERS["tiled"], PROJECTORS["pixel_unshuffle"], LMS["mamba2"]).eval()


@pytest.fixture(scope="module")
def processor(model: CobraVLM) -> Processor:
    return Processor.of(model, Chat("cobra:data/shapes/tokenizer"))


def picture(tiles: int) -> np.ndarray:
    return np.random.default_rng(tiles).integers(0, 256, (40, 40 * tiles, 3), dtype=np.uint8)


def record(*tiles: int) -> Record:
    question = user("what is it?", images=len(tiles))
    return Record(str(tiles), [question, assistant("red")], [picture(count) for count in tiles])


def test_each_picture_gets_the_tokens_of_its_tiles_in_its_row(model: CobraVLM, processor: Processor) -> None:
    examples = [processor.encode(record(*tiles)) for tiles in ((3,), (), (1, 4))]
    assert [e.ids.count(IMAGE_ID) for e in examples] == [3 * TILE, 0, 5 * TILE]
    batch = processor.collate(examples)
    embeds = model.splice(batch.ids, batch.pictures)
    for row, example in enumerate(examples):
        tiles = [tile for prepared in example.pictures for tile in prepared.tiles]
        alone = [model.projector(model.vision(tile[None]))[0] for tile in tiles]  # type: ignore[call-overload]
        expected = torch.cat([torch.empty(0, embeds.shape[-1]), *alone])
        torch.testing.assert_close(embeds[row][batch.ids[row] == IMAGE_ID], expected)


def test_a_batch_of_different_tiles_trains_what_it_should(model: CobraVLM, processor: Processor) -> None:
    batch = processor.collate([processor.encode(record(*tiles)) for tiles in ((2,), (4, 1))])
    model.zero_grad()
    model.loss(model(batch.ids, batch.pictures), batch.labels).backward()
    for part in (model.vision, model.projector):
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in part.parameters())


def test_a_batch_of_different_tiles_answers_like_its_single_questions(
    model: CobraVLM, processor: Processor
) -> None:
    examples = [processor.encode(record(*tiles), prompt=True) for tiles in ((2,), (), (4, 1))]
    generate = partial(model.generate, max_new_tokens=6)
    batch = processor.collate(examples, left=True)
    together = generate(batch.ids, batch.pictures, batch.mask)
    singles = [processor.collate([example], left=True) for example in examples]
    assert together.tolist() == [generate(s.ids, s.pictures)[0].tolist() for s in singles]


def test_a_conversation_reads_new_pictures_of_any_tiles(model: CobraVLM, processor: Processor) -> None:
    ahead, fresh = (Conversation(model, processor, max_new_tokens=5) for _ in range(2))
    first, second = [picture(3), picture(1)], [picture(2)]
    ahead.look_at(first)
    answers = ["".join(ahead.ask("what is it?")), "".join(ahead.ask("and now?", second))]
    assert answers == ["".join(fresh.ask("what is it?", first)), "".join(fresh.ask("and now?", second))]
    # the template ends an answer as the model is made to: only then is the chat rendered what was read
    whole = Record("whole", fresh.messages[:3], [*first, *second])
    assert processor.encode(whole, prompt=True).ids.count(IMAGE_ID) == 6 * TILE


def pixels(count: int) -> torch.Tensor:
    return torch.zeros(count, 3, 32, 32)


def rows(*room: int) -> torch.Tensor:
    width = max(room) + 2
    return torch.tensor([[1] + [IMAGE_ID] * count + [2] * (width - 1 - count) for count in room])


@pytest.mark.parametrize(
    ("room", "pictures", "message"),
    [
        ((7,), pixels(2), r"hold 7 placeholders, but the pictures \(2\) make 8 image tokens"),
        ((9,), pixels(2), "hold 9 placeholders, .* make 8 image tokens"),
        ((4, 4), None, r"hold 8 placeholders, but the pictures \(0\) make 0 image tokens"),
        ((0,), pixels(1), "hold 0 placeholders, .* make 4 image tokens"),
        ((3, 5), pixels(2), "row 0 of the token ids holds 3 placeholders, .* make 4, 4 image tokens"),
        # two tiles of one picture are not two pictures
        (
            (4, 8),
            Pictures(pixels(3), (Layout(2, (1, 2)), ONE_TILE)),
            "row 0 of the token ids holds 4 placeholders, .* make 8, 4 image tokens",
        ),
        ((4, 4), Pictures(pixels(2), (ONE_TILE,), checked=True), "hold 8 placeholders, .* make 4 image"),
        ((4,), Pictures(pixels(2), (ONE_TILE,)), "makes 8 image tokens of what it counts as 4"),
    ],
)
def test_ids_without_room_for_exactly_their_pictures_are_refused(
    model: CobraVLM, room: tuple[int, ...], pictures: Pictures | torch.Tensor | None, message: str
) -> None:
    for run in (model.splice, model.train(), partial(model.generate, max_new_tokens=1)):
        with pytest.raises(ValueError, match=message):
            run(rows(*room), pictures)
    model.eval()


def test_a_batch_is_refused_where_a_row_has_no_room_for_its_own_pictures(processor: Processor) -> None:
    two, none = (processor.encode(record(*tiles)) for tiles in ((1, 1), ()))
    processor.collate([two, none])
    two.pictures, none.pictures = none.pictures, two.pictures
    with pytest.raises(ValueError, match=r"'\(1, 1\)' has 8 placeholders .* pictures \(0\) make 0"):
        processor.collate([two, none])


class Distant(torch.Tensor):
    """As if on a device; nobody may wait for its values."""

    is_cpu = False

    def tolist(self) -> list:
        """Refuse."""
        raise RuntimeError("waited for the device")


def test_a_batch_that_was_checked_when_it_was_made_waits_for_no_device(
    model: CobraVLM, processor: Processor
) -> None:
    for records in ([record(2), record()], [record()]):
        batch = processor.collate([processor.encode(each) for each in records])
        ids = batch.ids.as_subclass(Distant)
        spliced = model.splice(ids, batch.pictures).as_subclass(torch.Tensor)
        torch.testing.assert_close(spliced, model.splice(batch.ids, batch.pictures))
        with pytest.raises(RuntimeError, match="waited"):
            model.splice(ids, replace(batch.pictures, checked=False))


def test_a_compiled_graph_serves_every_layout_of_as_many_tiles(model: CobraVLM) -> None:
    compiled = CompileCounter()
    splice = torch.compile(model.splice, backend=compiled, fullgraph=True)
    for layouts in ((Layout(2), Layout(2)), (Layout(3), ONE_TILE), (Layout(4),), (ONE_TILE,) * 4):
        pictures = Pictures(torch.randn(4, 3, 32, 32), layouts, checked=True)
        torch.testing.assert_close(splice(rows(16), pictures), model.splice(rows(16), pictures))
    assert compiled.frame_count == 1


def test_a_transform_that_does_not_say_what_it_made_is_refused(processor: Processor) -> None:
    with pytest.raises(ValueError, match="a picture of 2 tiles has a layout of 3"):
        Picture([torch.zeros(3, 8, 8)] * 2, Layout(3))
    bare = Processor(processor.chat, lambda image: torch.zeros(3, 8, 8), processor.num_image_tokens)  # type: ignore[arg-type,return-value]
    with pytest.raises(TypeError, match="must make a Picture"):
        bare.encode(record(1))
