"""Conversations: what is kept equals what would have been read again."""

import io
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from cobra.data.chat import Chat
from cobra.data.processor import Processor
from cobra.data.record import Record, assistant, user
from cobra.inference.conversation import Conversation
from cobra.inference.terminal import Session, chat
from cobra.inference.text_stream import TextStream
from cobra.models.projectors.base import TileTokens
from cobra.models.sampling import Sampler
from cobra.models.vision.pictures import Picture
from cobra.models.vlm import CobraVLM
from tests.models.builders import ENCODERS, LMS, PROJECTORS

PICTURE = np.arange(64 * 64 * 3, dtype=np.uint8).reshape(64, 64, 3)


@pytest.fixture(params=sorted(LMS))
def make(request: pytest.FixtureRequest) -> Callable[..., Conversation]:
    def conversation(
        max_new_tokens: int = 5, max_length: int = 4096, sampler: Sampler | None = None
    ) -> Conversation:
        torch.manual_seed(0)
        model = CobraVLM(ENCODERS["small_vit"], PROJECTORS["pixel_unshuffle"], LMS[request.param]).eval()
        chat = Chat("cobra:data/shapes/tokenizer")
        return Conversation(model, Processor.of(model, chat), max_length, max_new_tokens, sampler)

    return conversation


def test_a_second_question_is_answered_as_if_all_had_been_read_again(
    make: Callable[..., Conversation],
) -> None:
    talk = make()
    model, processor, eos = talk.model, talk.processor, talk.processor.chat.eos_id
    "".join(talk.ask("what is it?", [PICTURE]))
    second = "".join(talk.ask("and what now?", [PICTURE]))

    first = processor.encode(Record("1", [user("what is it?", 1)], [PICTURE]), prompt=True)
    pixels = processor.collate([first], left=True).pictures.pixels
    assert isinstance(pixels, torch.Tensor)
    said = model.generate(torch.tensor([first.ids]), pixels, max_new_tokens=5, eos_id=eos)[0].tolist()
    more = processor.encode_question(Record("2", [*talk.messages[:2], talk.messages[2]], [PICTURE] * 2))
    ids = torch.tensor([first.ids + said + [eos] * (said[-1] != eos) + more.ids])
    again = model.generate(ids, torch.cat([pixels, pixels]), max_new_tokens=5, eos_id=eos)[0].tolist()
    assert second == processor.chat.decode(again)


def test_a_question_is_the_end_of_the_whole_chat() -> None:
    chat = Chat("cobra:data/shapes/tokenizer")
    processor = Processor(chat, lambda image: Picture([torch.zeros(3, 4, 4)]), TileTokens(2))
    messages = [user("where is it?", 1), assistant("top left"), user("is there a red circle?")]
    whole = processor.encode(Record("chat", messages, [PICTURE]), prompt=True)
    new = processor.encode_question(Record("chat", messages, [PICTURE]))
    assert new.ids == whole.ids[len(whole.ids) - len(new.ids) :]
    assert chat.tokenizer.decode(new.ids) == "<|user|> is there a red circle?<|assistant|>"
    assert not new.pictures


def test_an_answer_that_is_stopped_can_be_followed_by_a_question(make: Callable[..., Conversation]) -> None:
    # a greedy answer of tokens without text shows nothing to stop at
    sampler = Sampler(temperature=1.0, generator=torch.Generator().manual_seed(0))
    talk = make(max_new_tokens=50, sampler=sampler)
    answer = talk.ask("what is it?", [PICTURE])
    next(answer)
    answer.close()
    assert 1 <= talk.answer_tokens < 50
    said = talk.messages[1]
    "".join(talk.ask("and now?"))
    assert [m.role for m in talk.messages] == ["user", "assistant"] * 2
    assert talk.messages[1] is said


def test_a_reset_conversation_starts_anew(make: Callable[..., Conversation]) -> None:
    talk = make()
    first = "".join(talk.ask("what is it?", [PICTURE]))
    "".join(talk.ask("and what now?"))
    talk.reset()
    assert "".join(talk.ask("what is it?", [PICTURE])) == first


def test_a_picture_that_was_read_ahead_answers_like_one_that_was_not(
    make: Callable[..., Conversation],
) -> None:
    fresh, start = make(), make()
    expected = ["".join(fresh.ask("what is it?", [PICTURE])), "".join(fresh.ask("and what now?"))]
    start.look_at([PICTURE])
    with pytest.raises(ValueError, match="ahead of the first question only"):
        start.look_at([PICTURE])
    for _ in range(2):
        talk = start.fork()
        assert ["".join(talk.ask("what is it?")), "".join(talk.ask("and what now?"))] == expected
        assert len(talk.images) == 1
    assert not start.messages


def test_a_template_that_writes_the_question_first_reads_nothing_ahead(
    make: Callable[..., Conversation],
) -> None:
    template = "{%- for m in messages -%}{%- for part in m.content | reverse -%}"
    template += "{{- '<image>' if part.type == 'image' else part.text -}}{%- endfor -%}"
    template += (
        "{%- if m.role == 'assistant' -%}{%- generation -%}{%- endgeneration -%}{%- endif -%}{%- endfor -%}"
    )
    answers = []
    for ahead in (True, False):
        talk = make()
        talk.processor.chat.tokenizer.chat_template = template
        if ahead:
            talk.look_at([PICTURE])
        answers.append("".join(talk.ask("what is it?", [] if ahead else [PICTURE])))
    assert answers[0] == answers[1]


def test_the_text_of_a_stream_is_that_of_all_its_tokens() -> None:
    chat = Chat("cobra:data/shapes/tokenizer")
    spoken = chat.encode(" déjà  vu: 日本 🐍\n ok  ")
    noise = torch.randint(len(chat), (300,), generator=torch.Generator().manual_seed(0)).tolist()
    for ids in (spoken, noise, [], spoken[:3]):
        stream = TextStream(chat.decode_part)
        pieces = [*(stream.add(token) for token in ids), stream.end()]
        assert "".join(pieces) == chat.decode(ids)
    assert all("\ufffd" not in TextStream(chat.decode_part).add(token) for token in spoken)


def test_a_token_of_a_long_answer_decodes_few_others() -> None:
    lengths: list[int] = []

    def decode(ids: list[int]) -> str:
        lengths.append(len(ids))
        return "".join(map(chr, ids))

    stream = TextStream(decode)
    assert "".join(stream.add(97 + token % 26) for token in range(200)).startswith("abc")
    assert max(lengths) <= 3


@pytest.mark.parametrize(("question", "message"), [("  ", "is empty"), ("x" * 400, "more than the 300")])
def test_a_bad_question_leaves_the_conversation_as_it_was(
    make: Callable[..., Conversation], question: str, message: str
) -> None:
    talk, undisturbed = make(max_length=300), make(max_length=300)
    for each in (talk, undisturbed):
        "".join(each.ask("what is it?", [PICTURE]))
    before = list(talk.messages)
    with pytest.raises(ValueError, match=message):
        "".join(talk.ask(question))
    assert talk.messages == before
    assert "".join(talk.ask("ok?")) == "".join(undisturbed.ask("ok?"))


class Echo(Conversation):
    """Answers with what it was asked."""

    def __init__(self) -> None:
        self.reset()

    def look_at(self, images: object) -> None:
        self._seen = [images]  # type: ignore[list-item]

    def ask(self, question: str, images: object = ()) -> Iterator[str]:  # type: ignore[override]
        self.answer_tokens = 1
        self.messages = [user(question)]
        yield f"{question} {self._seen or images}"
        self._seen = []


def test_commands_of_a_session(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    from PIL import Image

    picture = tmp_path / "a b.png"
    Image.new("RGB", (3, 2)).save(picture)
    session = Session(Echo())
    for line in (
        f"/image {picture}",
        "one",
        "two",
        "/again",
        "three",
        "/image missing.png",
        "/nonsense",
        "/image",
        "",
        "/reset",
        "/again",
    ):
        session.handle(line)
    out, err = capsys.readouterr()
    assert out.splitlines() == [f"one {[[str(picture)]]}", "two []", f"three {[[str(picture)]]}"]
    for text in (
        "3 × 2",
        "'missing.png' does not exist",
        "no command /nonsense",
        "needs the path",
        "forgotten",
        "/again needs a conversation",
    ):
        assert text in err


def test_a_pipe_gets_answers_only(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("one\ntwo\n/exit\nthree\n"))
    chat(Echo())
    out, err = capsys.readouterr()
    assert out == "one []\ntwo []\n"
    assert err.count("1 tokens") == 2
