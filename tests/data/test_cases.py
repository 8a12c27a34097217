"""Small files that failed in public bug reports, and what each must give.

They lie beside the repository in `shared/cases`, or where COBRA_CASES says.
"""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from cobra.data.bad_sample import BadSample
from cobra.data.chat import Chat
from cobra.data.check import bad_samples
from cobra.data.llava import LlavaJson
from cobra.data.processor import Example, Processor
from cobra.models.projectors.base import TileTokens
from cobra.models.vision.transform import SquashTransform
from cobra.models.vlm import IGNORE_ID, IMAGE_ID

CASES = Path(os.environ.get("COBRA_CASES", Path(__file__).parents[3] / "shared/cases")) / "data"
TOKENS = 3
TEMPLATE = "cobra:data/templates/vicuna_v1.jinja"
pytestmark = pytest.mark.skipif(not CASES.is_dir(), reason="the shared cases are not beside the repository")


def load(name: str, tmp_path: Path) -> LlavaJson:
    return LlavaJson(CASES / name, CASES / "imgs", tmp_path)


def encode(data: LlavaJson, index: int = 0) -> tuple[Example, Chat]:
    chat = Chat("cobra:data/shapes/tokenizer", TEMPLATE)
    transform = SquashTransform(8, (0.5,) * 3, (0.5,) * 3)
    return Processor(chat, transform, TileTokens(TOKENS)).encode(data[index]), chat


def learned(data: LlavaJson, index: int = 0) -> list[str]:
    """The answers that carry loss, each up to its end."""
    example, chat = encode(data, index)
    answers: list[list[int]] = [[]]
    for label, before in zip(example.labels, [IGNORE_ID, *example.labels], strict=False):
        if label != IGNORE_ID:
            answers += [[]] if before == IGNORE_ID else []
            answers[-1].append(label)
    return [chat.decode(ids) for ids in answers[1:]]


def whole(data: LlavaJson) -> None:
    assert [len(data[index].images) for index in range(6)] == [1, 1, 1, 0, 1, 1]
    assert not data.dropped
    assert not data.mended


def mended(what: str) -> Callable[[LlavaJson], None]:
    def check(data: LlavaJson) -> None:
        assert data.mended == {what: 1}
        assert [message.role for message in data[0].messages] == ["user", "assistant"]
        assert data[0].messages[1].text == "A cat."

    return check


def dropped(record: str, why: str) -> Callable[[LlavaJson], None]:
    def check(data: LlavaJson) -> None:
        assert list(bad_samples(data)) == [BadSample(data.source, record, why)]
        assert data.dropped == {why: 1}

    return check


def broken(*names: str) -> Callable[[LlavaJson], None]:
    def check(data: LlavaJson) -> None:
        found = list(bad_samples(data))
        assert [sample.id for sample in found] == list(names)
        assert all("drop its record" in sample.reason for sample in found)

    return check


def empty_answer(data: LlavaJson) -> None:
    assert learned(data) == ["A cat."]


def special_tokens(data: LlavaJson) -> None:
    (answer,) = learned(data)
    assert answer == "The marker <|endoftext|> ends a document."
    example, chat = encode(data)
    assert example.ids.count(chat.eos_id) == 1


def two_pictures(data: LlavaJson) -> None:
    assert encode(data)[0].ids.count(IMAGE_ID) == 2 * TOKENS


def image_only(data: LlavaJson) -> None:
    chat = Chat("cobra:data/shapes/tokenizer", TEMPLATE)
    asked, said = chat.segments([message.as_dict() for message in data[0].messages])
    assert "USER: <image>" in asked.text
    assert said.text.strip().startswith("A cat on a cushion.")


def messages(data: LlavaJson) -> None:
    assert data[0].images == [CASES / "imgs/coffee.png"]
    assert learned(data) == ["Coffee."]


def system_turn(data: LlavaJson) -> None:
    assert not data.dropped
    assert [message.text for message in data[0].messages] == [
        "Answer briefly.",
        "What animal is it?",
        "A cat.",
    ]
    with pytest.raises(
        ValueError, match=r"record 'b3' has a system turn, for which the chat template has no place"
    ):
        encode(data)
    assert learned(data, 1) == ["Ginger and white.", "To the left of the camera."]


def emoji(data: LlavaJson) -> None:
    assert data[0].messages[1].text == "\N{SMILING CAT FACE WITH OPEN MOUTH}"


def long_question(data: LlavaJson) -> None:
    assert encode(data)[0].labels[:256] == [IGNORE_ID] * 256


MUST: dict[str, Callable[[LlavaJson], None]] = {
    **dict.fromkeys(("good.json", "lines.jsonl", "bom.json"), whole),
    "gpt_first.json": mended("starts with an answer"),
    "trailing_human.json": mended("ends on a question"),
    "system_turn.json": system_turn,
    "numeric_value.json": dropped("b6", "turn 1 is no text, but int"),
    "count_differs.json": dropped("c3", "<image> and pictures differ in number"),
    "missing_image.json": broken("b8"),
    "broken_images.json": broken("b9-truncated.jpg", "b9-empty.jpg", "b9-page.jpg"),
    "empty_answer.json": empty_answer,
    "special_tokens.json": special_tokens,
    "two_pictures.json": two_pictures,
    "image_only_question.json": image_only,
    "messages.json": messages,
    "surrogate.json": emoji,
    "long_question.json": long_question,
}
ENCODED = {"utf16.json": 0, "latin1.json": 61}


@pytest.mark.parametrize("name", MUST)
def test_each_file_gives_what_it_must(name: str, tmp_path: Path) -> None:
    MUST[name](load(name, tmp_path))


@pytest.mark.parametrize("name", ENCODED)
def test_another_encoding_is_named_with_its_position_and_the_remedy(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=rf"{name} is no UTF-8 at byte {ENCODED[name]}: save it as UTF-8$"):
        load(name, tmp_path)


def test_no_file_is_without_a_line_here() -> None:
    assert {path.name for path in CASES.glob("*.json*")} == {*MUST, *ENCODED}
