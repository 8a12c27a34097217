"""Published shapes of a chat: a record of each becomes the same turns as LLaVA's form of it."""

import base64
from pathlib import Path
from typing import Any

import pytest

from cobra.data.raw_chat import open_image, to_messages, to_turns

# as the sets are published, with shorter texts
PUBLISHED: dict[str, tuple[dict[str, Any], list[str]]] = {
    "ShareGPT4V": (
        {"id": "000000000009", "image": "coco/train2017/000000000009.jpg", "conversations": [
            {"from": "human", "value": "What do you see happening in this image?\n<image>"},
            {"from": "gpt", "value": "In the center of the image, a vibrant blue lunch tray."}]},
        ["coco/train2017/000000000009.jpg"],
    ),
    "ShareGPT4V, text alone": (
        {"id": "wgByO4Y_0", "model": "", "conversations": [
            {"from": "human", "value": "I have an app."}, {"from": "gpt", "value": "Great."}]},
        [],
    ),
    "LVIS-Instruct-4V": (
        {"id": 0, "image": "coco/train2017/000000402795.jpg", "conversations": [
            {"from": "human", "value": "<image>\nWhat is the ratio?"}, {"from": "gpt", "value": "2:1."},
            {"from": "human", "value": "Why?"}, {"from": "gpt", "value": "It is."}]},
        ["coco/train2017/000000402795.jpg"],
    ),
    "ALLaVA": (
        {"id": "allava_laion_cap_100277305", "image": "allava_laion/images/100277305.jpeg", "conversations": [
            {"from": "human", "value": "<image>\nPlease depict the image in words."},
            {"from": "gpt", "value": "The image displays a silver ring."}],
         "original_caption": "190952cz Ring", "url": "https://example.org/190952CZ-1-600x600.jpg"},
        ["allava_laion/images/100277305.jpeg"],
    ),
    "MobileVLM V2": (
        {"id": "4_iconqa", "image": "IconQA/choose_img/1/image.png", "conversations": [
            {"from": "human", "value": "<image>\nHow many?"}, {"from": "gpt", "value": "3"}]},
        ["IconQA/choose_img/1/image.png"],
    ),
    "Imp": (
        {"id": "1", "images": ["a.jpg", "b.jpg"], "conversations": [
            {"from": "human", "value": "<image>\n<image>\nAlike?"}, {"from": "gpt", "value": "No."}]},
        ["a.jpg", "b.jpg"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_shapes_are_taken_as_they_are(name: str) -> None:
    chat, images = PUBLISHED[name]
    turns = to_turns(chat)
    said = [turn["value"] for turn in chat["conversations"]]
    assert ([turn["text"] for turn in turns.turns], turns.images, turns.mended) == (said, images, "")


PIXELS = "data:image/png;base64," + base64.b64encode(b"pixels").decode()
TEXT = {"type": "text", "text": "what?"}
ANSWER = {"role": "assistant", "content": "this"}


def asked(*parts: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"role": "user", "content": [*parts]}, ANSWER]


@pytest.mark.parametrize(
    ("chat", "image"),
    [
        ({"messages": asked({"type": "image_url", "image_url": {"url": "a.jpg"}}, TEXT)}, "a.jpg"),
        ({"messages": asked({"type": "image_url", "image_url": PIXELS}, TEXT)}, PIXELS),
        ({"messages": asked({"type": "image"}, TEXT), "images": ["a.jpg"]}, "a.jpg"),
        ({"messages": asked({"type": "image", "image": "a.jpg"}, TEXT)}, "a.jpg"),
        ({"messages": asked({"type": "image", "path": "a.jpg"}, TEXT)}, "a.jpg"),
        ({"messages": asked({"type": "image", "url": "file:///a.jpg"}, TEXT)}, "file:///a.jpg"),
        ({"messages": [{"role": "user", "content": "<image>what?"}, ANSWER], "images": ["a.jpg"]}, "a.jpg"),
        (
            {"prompt": asked({"type": "image"}, TEXT)[:1], "completion": [ANSWER], "images": ["a.jpg"]},
            "a.jpg",
        ),
        ({"prompt": "<image>what?", "completion": "this", "images": ["a.jpg"]}, "a.jpg"),
        ({"texts": [{"user": "what?", "assistant": "this", "source": "x"}], "images": ["a.jpg"]}, "a.jpg"),
    ],
)
def test_messages_of_openai_hugging_face_and_trl_are_one_chat(chat: dict[str, Any], image: str) -> None:
    found = to_turns(chat)
    assert [turn["text"] for turn in found.turns] == ["<image>what?", "this"]
    assert [message.role for message in to_messages(found.turns)] == ["user", "assistant"]
    assert found.images == [image]


def test_pictures_in_parts_and_beside_the_chat_keep_their_order() -> None:
    named, unnamed = {"type": "image", "path": "named.jpg"}, {"type": "image"}
    chat = {"messages": [*asked(unnamed, named), *asked(TEXT, unnamed)], "images": ["first.jpg", "last.jpg"]}
    assert to_turns(chat).images == ["first.jpg", "named.jpg", "last.jpg"]


def test_a_system_turn_stays_in_front_and_an_empty_one_is_left_out() -> None:
    system = {"from": "system", "value": "Be brief."}
    chat = [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "hello"}]
    first, beside = {"conversations": [system, *chat]}, {"system": "Be brief.", "conversations": chat}
    assert to_turns(first) == to_turns(beside)
    assert [turn["role"] for turn in to_turns(first).turns] == ["system", "user", "assistant"]
    # a picture comes before the question, not before the system's words
    assert to_turns({**first, "image": "a.jpg"}).turns[1]["text"] == "<image>hi"
    empty = to_turns({"conversations": [{**system, "value": " "}, *chat]})
    assert ([turn["role"] for turn in empty.turns], empty.mended) == (
        ["user", "assistant"],
        "has an empty system turn",
    )
    with pytest.raises(ValueError, match="roles do not alternate"):
        to_turns({"conversations": [*chat, system]})


def test_a_benchmark_may_keep_its_answers_secret() -> None:
    chat = {"messages": asked(TEXT)[:1]}
    assert [turn["text"] for turn in to_turns(chat, may_ask=True).turns] == ["what?"]
    with pytest.raises(ValueError, match="no turns"):
        to_turns(chat)


def test_a_data_address_is_the_bytes_that_it_holds() -> None:
    root = Path("/pictures")
    assert open_image(PIXELS, root) == b"pixels"
    assert open_image("a/b.jpg", root) == root / "a/b.jpg"
    assert open_image("file:///c.jpg", root) == Path("/c.jpg")
    with pytest.raises(ValueError, match="no base64"):
        open_image(PIXELS + "!", root)
    for name, problem in {
        "http://a.b/c.jpg": "on the web",
        "data:text/html,a": "no base64 of a picture",
    }.items():
        with pytest.raises(ValueError, match=problem):
            to_turns({"messages": asked({"type": "image", "url": name}, TEXT)})
