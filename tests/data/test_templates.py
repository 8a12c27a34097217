"""The published prompt formats to the letter, and how they are cut into tokens."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

import cobra.torchvision_shim  # noqa: F401  (before transformers)
from cobra.data.chat import Chat
from cobra.data.llava import LlavaCaptions
from cobra.data.processor import Processor
from cobra.data.record import Message, Record, assistant, user
from cobra.models.projectors.base import TileTokens
from cobra.models.vision.transform import SquashTransform
from cobra.models.vlm import IGNORE_ID, IMAGE_ID

from transformers import PreTrainedTokenizerFast  # isort: skip

PICTURE = np.zeros((8, 8, 3), dtype=np.uint8)
NAMES = ["zephyr", "mamba_base"]
# what Cobra's two prompt builders write for " Hi? ", "Yes", "More\n" and an empty answer
TURNS = {
    "zephyr": [
        "<|user|>\nHi?<|endoftext|>\n<|assistant|>\n",
        "Yes<|endoftext|>",
        "\n<|user|>\nMore<|endoftext|>\n<|assistant|>\n",
        " <|endoftext|>",
    ],
    "mamba_base": ["In: Hi?\nOut: ", "Yes<|endoftext|>", "\nIn: More\nOut: ", " <|endoftext|>"],
}


def record() -> Record:
    messages = [user(" Hi? ", images=1), assistant("Yes"), user("More\n"), assistant("")]
    return Record("r", messages, [PICTURE])


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built like GPT-NeoX-20B's: byte-level, end of text is id 0, double spaces, no padding token."""
    bpe = Tokenizer(models.BPE())
    bpe.normalizer = normalizers.NFC()
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    bpe.train_from_iterator(["Out: Yes. In: More Yes", "Yes and More"] * 9, trainer)
    bpe.add_tokens([AddedToken("  ", normalized=True)])
    folder = tmp_path_factory.mktemp("neox")
    PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token="<|endoftext|>").save_pretrained(folder)
    return folder


def load(tokenizer: Path, name: str) -> Chat:
    return Chat(str(tokenizer), f"cobra:data/templates/{name}.jinja")


@pytest.mark.parametrize("name", NAMES)
def test_turns_are_written_to_the_letter(tokenizer: Path, name: str) -> None:
    segments = load(tokenizer, name).segments([m.as_dict() for m in record().messages])
    said = [(segment.text, segment.is_answer) for segment in segments]
    first, *others = TURNS[name]
    assert said == [(f"<image>{first}", False), *((text, not n % 2) for n, text in enumerate(others))]


@pytest.mark.parametrize("name", NAMES)
def test_a_system_prompt_is_ignored_and_other_roles_are_refused(tokenizer: Path, name: str) -> None:
    chat = load(tokenizer, name)
    messages: list[dict[str, Any]] = [
        {"role": "system", "content": "You are kind."},
        {"role": "user", "content": " Hi?\n"},
        {"role": "assistant", "content": "Yes"},
    ]
    assert [segment.text for segment in chat.segments(messages)] == TURNS[name][:2]
    with pytest.raises(ValueError, match=r"the template of .* fails \(role tool is unknown"):
        chat.segments([{"role": "tool", "content": "Hi?"}])


@pytest.mark.parametrize("name", NAMES)
def test_captions_follow_their_picture_without_a_question(tokenizer: Path, name: str, tmp_path: Path) -> None:
    turns = [{"from": "human", "value": "Describe it.\n<image>"}, {"from": "gpt", "value": " A cat.\n"}]
    row = {"id": "0", "image": "cat.jpg", "conversations": turns}
    (tmp_path / "chat.json").write_text(json.dumps([row]), encoding="utf-8")
    record = LlavaCaptions(tmp_path / "chat.json", tmp_path, tmp_path / "cache")[0]
    segments = load(tokenizer, name).segments([m.as_dict() for m in record.messages])
    assert [(s.text, s.is_answer) for s in segments] == [("<image>", False), ("A cat.<|endoftext|>", True)]
    # a chat that shows another picture later keeps its turns
    later = [*record.messages, Message("user", [{"type": "image"}])]
    text = "".join(segment.text for segment in load(tokenizer, name).segments([m.as_dict() for m in later]))
    assert text.endswith("<image>" + TURNS[name][2].replace("More", ""))


@pytest.mark.parametrize("name", NAMES)
def test_labels_are_the_answers_with_their_ends_and_every_turn_is_tokenised_apart(
    tokenizer: Path, name: str
) -> None:
    chat = load(tokenizer, name)
    turns = [chat.encode(text) for text in TURNS[name]]
    example = Processor(chat, SquashTransform(8, (0.5,) * 3, (0.5,) * 3), TileTokens(2)).encode(record())
    assert example.ids == [IMAGE_ID] * 2 + [token for turn in turns for token in turn]
    assert example.labels == [IGNORE_ID] * 2 + [
        # the last answer is empty
        token if number == 1 else IGNORE_ID
        for number, turn in enumerate(turns)
        for token in turn
    ]
    assert [label for label in example.labels if label == chat.eos_id == 0] == [0]


@pytest.mark.parametrize("name", [*NAMES, "vicuna_v1", None])
@pytest.mark.parametrize("answer", ["Yes", " Yes and More ", "top left", "<|endoftext|>"])
def test_a_choice_has_the_tokens_of_an_answer_without_its_end(
    tokenizer: Path, name: str | None, answer: str
) -> None:
    chat = load(tokenizer, name) if name else Chat("cobra:data/shapes/tokenizer")
    processor = Processor(chat, SquashTransform(8, (0.5,) * 3, (0.5,) * 3), TileTokens(2))
    asked = Record("r", [user("Hi?", images=1), assistant(answer)], [PICTURE])
    prompt, whole = processor.encode(asked, prompt=True).ids, processor.encode(asked).ids
    assert whole[: whole.index(chat.eos_id, len(prompt))] == prompt + chat.answer_ids(answer)
    with pytest.raises(ValueError, match="no token"):
        chat.answer_ids(" ")


@pytest.mark.parametrize("name", NAMES)
def test_special_tokens_in_data_are_words(tokenizer: Path, name: str) -> None:
    """They neither end a text nor an answer, and come out as they went in."""
    said = "<|endoftext|> ends, <|endo<|endoftext|>"
    chat = load(tokenizer, name)
    example = Processor(chat, SquashTransform(8, (0.5,) * 3, (0.5,) * 3), TileTokens(2)).encode(
        Record("r", [user(said), assistant(said)], [])
    )
    learned = [label for label in example.labels if label != IGNORE_ID]
    assert example.ids.count(chat.eos_id) == "".join(TURNS[name][:2]).count("<|endoftext|>")
    assert learned.count(chat.eos_id) == 1
    assert chat.decode(learned) == said


@pytest.mark.parametrize(("name", "matters"), [("zephyr", False), ("mamba_base", True)])
def test_tokenising_a_chat_in_one_piece_would_move_the_border_after_out(
    tokenizer: Path, name: str, matters: bool
) -> None:
    """`Out: ` ends in the space that byte-level BPE gives to the next word; Zephyr ends in a newline."""
    chat = load(tokenizer, name)
    asked, said = TURNS[name][:2]
    assert (chat.encode(asked) + chat.encode(said) != chat.encode(asked + said)) == matters
