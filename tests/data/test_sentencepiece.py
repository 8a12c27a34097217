"""SentencePiece's spaces at the seams of a prompt: token ids of whole chats are the published programs'."""

import json
from pathlib import Path

import numpy as np
import pytest

import cobra.torchvision_shim  # noqa: F401  (before transformers)
from cobra.data.chat import Chat
from cobra.data.processor import Processor
from cobra.data.record import Message, Record, assistant, user
from cobra.models.projectors.base import TileTokens
from cobra.models.vision.transform import SquashTransform
from cobra.models.vlm import IGNORE_ID, IMAGE_ID
from tests.data.sentencepiece_model import IMAGE, SYSTEM, Published, write_model

PICTURE = np.zeros((8, 8, 3), dtype=np.uint8)
SAID = [("What is it?", "A red cat."), ("Is it  é 😀\n12?", "No"), ("USER", "US")]
PHI3 = ["<|system|>", "<|user|>", "<|assistant|>", "<|end|>"]


@pytest.fixture(scope="module", params=[False, True, None], ids=["legacy false", "legacy true", "absent"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bool]:
    """A folder, and whether its tokenizer is legacy: to the published programs it is if nothing is said."""
    settings = {} if request.param is None else {"legacy": request.param}
    return write_model(tmp_path_factory.mktemp("llama"), **settings), request.param is not False


def processor(folder: Path, template: str) -> Processor:
    chat = Chat(str(folder), f"cobra:data/templates/{template}.jinja")
    return Processor(chat, SquashTransform(8, (0.5,) * 3, (0.5,) * 3), TileTokens(1))


def record(turns: int, pictures: int, stop: int | None = None) -> Record:
    messages = [
        message
        for number, (question, answer) in enumerate(SAID[:turns])
        for message in (user(question, 0 if number else pictures), assistant(answer))
    ]
    return Record("r", messages[:stop], [PICTURE] * pictures)


def vicuna(turns: int, pictures: int) -> list[str]:
    """LLaVA's prompt, cut where answers start and end."""
    parts = [f"{SYSTEM} "]
    for number, (question, answer) in enumerate(SAID[:turns]):
        shown = "" if number else "<image>\n" * pictures
        parts = [*parts[:-1], f"{parts[-1]}USER: {shown}{question} ASSISTANT:", f" {answer}</s>", ""]
    return parts


@pytest.mark.parametrize("turns", [1, 3])
@pytest.mark.parametrize("pictures", [0, 1])
def test_ids_of_whole_chats_are_llavas(model: tuple[Path, bool], turns: int, pictures: int) -> None:
    theirs = Published(*model)
    ours = processor(model[0], "vicuna_v1")
    parts = vicuna(turns, pictures)
    whole = theirs.prompt("".join(parts))
    assert theirs.spaced.id_to_piece(whole[:4]) == ["<s>", "▁A", "▁chat", "▁between"]
    example = ours.encode(record(turns, pictures))
    assert [IMAGE if token == IMAGE_ID else token for token in example.ids] == whole
    # what is learned: the answers with their ends, and nothing else
    learned, at = [], 1
    for number in range(len(parts) - 1):
        until = len(theirs.prompt("".join(parts[: number + 1])))
        learned += whole[at:until] if number % 2 else [IGNORE_ID] * (until - at)
        at = until
    assert example.labels[1:] == learned
    # a question asked now, and one that goes on from an answer
    asked = record(turns, pictures, -1)
    prompt = theirs.prompt("".join(parts[:-2]))
    assert [IMAGE if i == IMAGE_ID else i for i in ours.encode(asked, prompt=True).ids] == prompt
    read = len(theirs.prompt("".join(parts[:-3]))) if turns > 1 else 0
    assert [IMAGE if i == IMAGE_ID else i for i in ours.encode_question(asked).ids] == prompt[read:]


@pytest.mark.parametrize("template", ["vicuna_v1", "phiva"])
def test_choices_begin_as_llavas_answers_do(model: tuple[Path, bool], template: str) -> None:
    """With a space, behind `ASSISTANT:`; the letter alone is another token, which no answer begins with."""
    chat = Chat(str(model[0]), f"cobra:data/templates/{template}.jinja")
    for choice in ("Yes", "No"):
        assert chat.tokenizer.convert_ids_to_tokens(chat.answer_ids(choice)) == [f"▁{choice}"]


def test_the_user_of_later_turns_is_spelled_as_the_tokenizers_file_says(model: tuple[Path, bool]) -> None:
    chat, (_, legacy) = Chat(str(model[0]), "cobra:data/templates/vicuna_v1.jinja"), model
    token = chat.tokenizer.convert_ids_to_tokens(chat.encode("USER:", "Yes</s>"))
    assert "".join(token) == ("▁USER:" if legacy else "USER:")


def test_a_caption_has_llavas_ids(model: tuple[Path, bool]) -> None:
    messages = [Message("user", [{"type": "image"}]), assistant("A red cat.")]
    ids = processor(model[0], "vicuna_v1").encode(Record("r", messages, [PICTURE])).ids
    expected = Published(*model).prompt("<image>A red cat.\n")
    assert [IMAGE if token == IMAGE_ID else token for token in ids] == expected


@pytest.mark.parametrize("turns", [1, 3])
def test_ids_of_phi3_are_imps(turns: int, tmp_path: Path) -> None:
    """`<s>` comes first, and the newlines after its tokens, which strip what follows them, are none."""
    added = {
        str(420 + n): {"content": token, "rstrip": True, "special": True} for n, token in enumerate(PHI3)
    }
    folder = write_model(tmp_path / "phi3", legacy=False, added_tokens_decoder=added)
    text = f"<|system|>\n{SYSTEM}<|end|>"
    for number, (question, answer) in enumerate(SAID[:turns]):
        shown = "" if number else "<image>\n"
        text += f"\n<|user|>\n{shown}{question}<|end|>\n<|assistant|>\n{answer}<|end|>"
    expected = Published(folder, False, {token: 420 + n for n, token in enumerate(PHI3)}).prompt(text)
    assert expected[:2] == [1, 420]
    ids = processor(folder, "imp_phi3").encode(record(turns, 1)).ids
    assert [IMAGE if token == IMAGE_ID else token for token in ids] == expected


def test_what_is_saved_has_the_same_ids(model: tuple[Path, bool], tmp_path: Path) -> None:
    before = processor(model[0], "vicuna_v1")
    before.chat.save(tmp_path)
    after = Processor(Chat(str(tmp_path)), before.transform, TileTokens(1))
    assert after.encode(record(3, 1)).ids == before.encode(record(3, 1)).ids


def test_special_tokens_that_a_user_writes_are_text(model: tuple[Path, bool]) -> None:
    said = "say </s> and <s>, <unk> or </s></s>"
    ours = processor(model[0], "vicuna_v1")
    ids = ours.encode(Record("r", [user(said), assistant(said)], [])).ids
    assert [ids.count(special) for special in (0, 1, 2)] == [0, 1, 1]
    answer = ours.encode(Record("r", [user("a"), assistant(said)], []))
    assert ours.chat.decode([label for label in answer.labels if label != IGNORE_ID]) == said


@pytest.mark.parametrize(
    ("number", "message"),
    [(500, "<big> would not have its id 500"), (4 * 10**9, "a token has the id 4000000000, more than")],
)
@pytest.mark.parametrize("file", ["tokenizer_config.json", "added_tokens.json"])
def test_a_token_that_cannot_have_its_id_is_refused(
    number: int, message: str, file: str, tmp_path: Path
) -> None:
    """The tokenizers library would silently give it the next one, which is another row of the embedding."""
    added = {"added_tokens_decoder": {str(number): {"content": "<big>", "special": True}}}
    write_model(tmp_path, **(added if file == "tokenizer_config.json" else {}))
    if file == "added_tokens.json":
        (tmp_path / file).write_text(json.dumps({"<big>": number}))
    with pytest.raises(ValueError, match=message):
        Chat(str(tmp_path), "cobra:data/templates/vicuna_v1.jinja")
