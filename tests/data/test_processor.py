"""From records to batches: labels, pictures, padding, templates."""

# before lightning
import cobra.torchvision_shim  # noqa: F401  isort: skip

from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.fabric.utilities.apply_func import move_data_to_device
from torch import Tensor
from torch.utils.data._utils.pin_memory import pin_memory

from cobra.data.batch import Batch
from cobra.data.chat import Chat
from cobra.data.processor import Processor
from cobra.data.record import Message, Record, assistant, user
from cobra.models.projectors.base import TileTokens
from cobra.models.vision.transform import SquashTransform
from cobra.models.vlm import IGNORE_ID, IMAGE_ID

TOKENIZER = "cobra:data/shapes/tokenizer"
PICTURE = np.zeros((9, 7, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def processor() -> Processor:
    return Processor(Chat(TOKENIZER), SquashTransform(8, (0.5,) * 3, (0.5,) * 3), TileTokens(4))


def chat_record(name: str = "r", turns: int = 2) -> Record:
    words = ["red", "blue", "top left"]
    messages = [
        m for i in range(turns) for m in (user(f"what is {i}?", images=int(i == 0)), assistant(words[i]))
    ]
    return Record(name, messages, [PICTURE])


def test_labels_are_the_answers_and_their_ends(processor: Processor) -> None:
    example = processor.encode(chat_record())
    chat = processor.chat
    spans: list[list[int]] = [[]]
    for label in example.labels:
        if label == IGNORE_ID:
            spans.append([])
        else:
            spans[-1].append(label)
    said = [chat.tokenizer.decode(span) for span in spans if span]
    assert [text.strip() for text in said] == ["red<|endoftext|>", "blue<|endoftext|>"]
    assert all(label in (IGNORE_ID, token) for label, token in zip(example.labels, example.ids, strict=True))


def test_image_tokens_stand_where_the_record_puts_the_picture(processor: Processor) -> None:
    parts = [{"type": "text", "text": "look"}, {"type": "image"}, {"type": "text", "text": "well"}]
    record = Record("r", [user("x"), assistant("y")], [])
    record.messages[0].content[:] = parts
    record.images.append(PICTURE)
    ids = processor.encode(record).ids
    first = ids.index(IMAGE_ID)
    assert ids[first : first + 4] == [IMAGE_ID] * 4
    assert ids.count(IMAGE_ID) == 4
    assert "look" in processor.chat.tokenizer.decode(ids[:first])
    assert "well" in processor.chat.tokenizer.decode(ids[first + 4 :])


def test_a_prompt_is_the_training_text_up_to_the_last_answer(processor: Processor) -> None:
    example, prompt = processor.encode(chat_record()), processor.encode(chat_record(), prompt=True)
    answer = sum(label != IGNORE_ID for label in processor.encode(chat_record(turns=1)).labels)
    assert prompt.ids == example.ids[: len(example.ids) - answer]


def test_batches_are_padded_on_the_side_that_is_asked_for(processor: Processor) -> None:
    examples = [processor.encode(chat_record(turns=1)), processor.encode(chat_record(turns=3))]
    lengths = [len(e.ids) for e in examples]
    for left in (False, True):
        batch = processor.collate(examples, left)
        assert batch.mask is not None
        assert batch.mask.sum(1).tolist() == lengths
        for row, example in enumerate(examples):
            assert batch.ids[row][batch.mask[row]].tolist() == example.ids
            assert (batch.labels[row][~batch.mask[row]] == IGNORE_ID).all()
        assert bool(batch.mask[0, 0]) != left
        assert isinstance(batch.pictures.pixels, torch.Tensor)
        assert batch.pictures.pixels.shape == (2, 3, 8, 8)


def test_a_batch_goes_to_a_device_or_into_pinned_memory_whole(
    processor: Processor, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = processor.collate([processor.encode(chat_record()), processor.encode(chat_record())], left=True)
    meta = torch.device("meta")
    # there is no pinned memory without a device
    monkeypatch.setattr(Tensor, "pin_memory", lambda tensor: tensor.to(meta))
    for moved in (move_data_to_device(batch, meta), pin_memory(batch)):
        assert isinstance(moved, Batch)
        tensors = [moved.ids, moved.mask, moved.labels, moved.pictures.pixels]
        assert all(isinstance(tensor, Tensor) and tensor.is_meta for tensor in tensors)
        assert moved.records is batch.records
        assert moved.pictures.layouts == batch.pictures.layouts
        assert moved.pictures.checked
    assert not batch.ids.is_meta


def test_text_that_pretends_to_be_a_picture_is_refused(processor: Processor) -> None:
    with pytest.raises(ValueError, match="remove '<image>'"):
        processor.encode(Record("bad", [user("see <image> here"), assistant("no")], []))


def test_a_blind_processor_shows_nothing_and_says_the_same() -> None:
    transform = SquashTransform(8, (0.5,) * 3, (0.5,) * 3)
    seeing, blind = (Processor(Chat(TOKENIZER), transform, TileTokens(4), blind=b) for b in (False, True))
    assert seeing.encode(chat_record()).ids == blind.encode(chat_record()).ids
    for processor, value in ((seeing, -1), (blind, 0)):
        ((tile,),) = (picture.tiles for picture in processor.encode(chat_record()).pictures)
        assert (tile == value).all()  # type: ignore[union-attr]


def test_long_sequences_are_cut_in_training_and_prompts_are_not() -> None:
    short = Processor(
        Chat(TOKENIZER), SquashTransform(8, (0.5,) * 3, (0.5,) * 3), TileTokens(4), max_length=10
    )
    assert len(short.encode(chat_record()).ids) == 10
    assert len(short.encode(chat_record(), prompt=True).ids) > 10


def test_a_cut_leaves_each_label_under_its_token(processor: Processor) -> None:
    whole = processor.encode(chat_record())
    first = whole.labels.index(next(label for label in whole.labels if label != IGNORE_ID))
    for length in range(first + 1, len(whole.ids) + 1):
        short = Processor(processor.chat, processor.transform, processor.num_image_tokens, max_length=length)
        cut = short.encode(chat_record())
        assert (cut.ids, cut.labels) == (whole.ids[:length], whole.labels[:length])
        assert any(label != IGNORE_ID for label in cut.labels)


def test_a_system_turn_goes_where_the_template_has_a_place_and_is_refused_where_not(
    processor: Processor, tmp_path: Path
) -> None:
    said = "{% for m in messages %}{{ m.role ~ ': ' ~ m.content[0].text }}\n{% endfor %}"
    (tmp_path / "plain.jinja").write_text(said)
    system = Message("system", [{"type": "text", "text": "be <|endoftext|> brief"}])
    record = Record("s", [system, user("why?"), assistant("so")])
    chat = Chat(TOKENIZER, str(tmp_path / "plain.jinja"))
    ids = Processor(chat, processor.transform, TileTokens(4)).encode(record).ids
    assert chat.decode(ids).startswith("system: be <|endoftext|> brief\nuser: why?")
    assert chat.eos_id not in ids
    for encode in (processor.encode, processor.encode_question):
        with pytest.raises(
            ValueError, match="record 's' has a system turn, for which the chat template has no"
        ):
            encode(record)
