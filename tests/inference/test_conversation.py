"""Conversations: what is kept equals what would have been read again."""

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch

from cobra.data.chat import Chat
from cobra.data.chat_template import ChatTemplate
from cobra.data.processor import Processor
from cobra.data.record import Record, assistant, user
from cobra.inference.conversation import Conversation
from cobra.inference.text_stream import TextStream
from cobra.models.lm.mamba import MambaLM
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
    generate = partial(
        model.generate, max_new_tokens=5, eos_id=eos, suppress=processor.chat.unknown_ids(model.lm.vocab_size)
    )
    said = generate(torch.tensor([first.ids]), pixels)[0].tolist()
    more = processor.encode_question(Record("2", [*talk.messages[:2], talk.messages[2]], [PICTURE] * 2))
    ids = torch.tensor([first.ids + said + [eos] * (said[-1] != eos) + more.ids])
    again = generate(ids, torch.cat([pixels, pixels]))[0].tolist()
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
    talk = make(max_new_tokens=50, sampler=drawn())
    answer = talk.ask("what is it?", [PICTURE])
    next(answer)
    answer.close()
    assert 1 <= talk.answer_tokens < 50
    said = talk.messages[1]
    "".join(talk.ask("and now?"))
    assert [m.role for m in talk.messages] == ["user", "assistant"] * 2
    assert talk.messages[1] is said


def test_a_fork_draws_its_own_random_numbers(make: Callable[..., Conversation]) -> None:
    """Forks answer as the first would have, whatever another was asked meanwhile."""
    talk = make(sampler=Sampler(2.0, generator=torch.Generator().manual_seed(0)))
    talk.look_at([PICTURE])
    forks = [talk.fork(), talk.fork()]
    answers = ["".join(each.ask("what is it?")) for each in (*forks, talk)]
    assert answers[0] == answers[1] == answers[2]


def test_ids_that_the_tokenizer_lacks_are_never_said() -> None:
    """Nine of ten rows of this vocabulary fill it up."""
    drawn: list[int] = []

    class Noted(Sampler):
        def __call__(self, logits: torch.Tensor) -> torch.Tensor:
            chosen = super().__call__(logits)
            drawn.extend(chosen.tolist())
            return chosen

    model = CobraVLM(ENCODERS["small_vit"], PROJECTORS["linear"], partial(MambaLM, 4096, 16, 1)).eval()
    chat = Chat("cobra:data/shapes/tokenizer")
    assert chat.unknown_ids(432).tolist() == [*range(len(chat), 432)] != []
    talk = Conversation(model, Processor.of(model, chat), max_new_tokens=20, sampler=Noted(2.0))
    "".join(talk.ask("what is it?", [PICTURE]))
    assert drawn
    assert max(drawn) < len(chat)


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
    for _ in range(2):
        talk = start.fork()
        assert ["".join(talk.ask("what is it?")), "".join(talk.ask("and what now?"))] == expected
        assert len(talk.images) == 1
    assert not start.messages


OTHER = PICTURE[::-1].copy()


def test_pictures_that_are_read_ahead_of_any_question_answer_like_those_that_come_with_it(
    make: Callable[..., Conversation],
) -> None:
    whole, ahead = make(), make()
    expected = ["".join(whole.ask("what is it?", [PICTURE, OTHER])), "".join(whole.ask("and?", [OTHER]))]
    ahead.look_at([PICTURE])
    ahead.look_at([OTHER])
    answers = ["".join(ahead.ask("what is it?"))]
    ahead.look_at([OTHER])
    assert [*answers, "".join(ahead.ask("and?"))] == expected
    assert [m.as_dict() for m in ahead.messages] == [m.as_dict() for m in whole.messages]
    assert len(ahead.images) == 3


@pytest.mark.parametrize("make", ["mamba2", "llama"], indirect=True)
def test_pictures_that_do_not_fit_leave_the_conversation_as_it_was(make: Callable[..., Conversation]) -> None:
    talk, undisturbed = make(max_length=60), make(max_length=60)
    undisturbed.look_at([PICTURE])
    talk.look_at([PICTURE])
    with pytest.raises(ValueError, match="more than the 60 allowed"):
        talk.look_at([OTHER] * 60)
    with pytest.raises(ValueError, match="more than the 60 allowed"):
        "".join(talk.ask("what is it? " * 60))
    assert "".join(talk.ask("what is it?")) == "".join(undisturbed.ask("what is it?"))


@pytest.mark.parametrize("make", ["mamba2", "llama"], indirect=True)
def test_nothing_else_is_done_while_an_answer_streams(make: Callable[..., Conversation]) -> None:
    talk, undisturbed = make(sampler=drawn()), make(sampler=drawn())
    stream = talk.ask("what is it?", [PICTURE])
    pieces = [next(stream)]
    for spoils in (lambda: next(talk.ask("?")), talk.fork, talk.reset, lambda: talk.look_at([PICTURE])):
        with pytest.raises(ValueError, match="still streams"):
            spoils()
    pieces += stream
    assert "".join(pieces) == "".join(undisturbed.ask("what is it?", [PICTURE]))
    assert "".join(talk.ask("and?")) == "".join(undisturbed.ask("and?"))


def drawn(**options: float) -> Sampler:
    """Greedy answers of random weights often have no text."""
    return Sampler(temperature=1.0, generator=torch.Generator().manual_seed(0), **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("make", ["mamba2", "llama"], indirect=True)
def test_an_answer_ends_before_a_stop_string(make: Callable[..., Conversation]) -> None:
    free = make(sampler=drawn(), max_new_tokens=60)
    whole = "".join(free.ask("what is it?", [PICTURE]))
    middle = whole[len(whole) // 2 :][:3]
    talk = make(sampler=drawn(), max_new_tokens=60)
    talk.stop = ["no such text", middle]
    answer = "".join(talk.ask("what is it?", [PICTURE]))
    assert answer == whole[: whole.index(middle)].rstrip()
    assert talk.messages[1].text == answer
    assert talk.answer_tokens < free.answer_tokens
    assert "".join(talk.ask("and?")) is not None


@pytest.mark.parametrize("make", ["mamba2", "llama"], indirect=True)
@pytest.mark.parametrize("token", [0, 2])
def test_after_an_error_of_the_model_it_has_to_be_reset(
    make: Callable[..., Conversation], token: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some layers have read a token then, or a question, and others not: what came next would be wrong."""
    talk, undisturbed = make(sampler=drawn(), max_new_tokens=20), make(max_new_tokens=20)
    head, calls = talk.model.lm.head, iter(range(1000))
    with monkeypatch.context() as patch:
        patch.setattr(talk.model.lm, "head", lambda x: head(x) + (torch.nan if next(calls) == token else 0))
        with pytest.raises(ValueError, match=f"at new token {token + 1} are not finite"):
            "".join(talk.ask("what is it?", [PICTURE]))
    assert talk.answer_tokens == token
    for goes_on in (lambda: next(talk.ask("?")), talk.fork, lambda: talk.look_at([PICTURE])):
        with pytest.raises(ValueError, match=r"failed inside a text, .* reset the conversation"):
            goes_on()
    talk.reset()
    talk.sampler = Sampler()
    assert "".join(talk.ask("what is it?", [PICTURE])) == "".join(undisturbed.ask("what is it?", [PICTURE]))


def test_a_full_cache_says_so_and_goes_on_after_a_reset() -> None:
    torch.manual_seed(0)
    model = CobraVLM(ENCODERS["small_vit"], PROJECTORS["pixel_unshuffle"], LMS["llama"]).eval()
    talk = Conversation(model, Processor.of(model, Chat("cobra:data/shapes/tokenizer")), 40, 256)
    # an answer ends where the cache does
    "".join(talk.ask("what is it?", [PICTURE]))
    assert talk.answer_tokens < 40
    with pytest.raises(ValueError, match=r"the conversation is full: .* reset it or raise max_length"):
        "".join(talk.ask("and what is that?"))
    talk.reset()
    "".join(talk.ask("and what is that?"))


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
        talk.processor.chat._template = ChatTemplate(template)
        if ahead:
            talk.look_at([PICTURE])
            assert not talk._seen_ids
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


def test_a_stop_string_may_be_spread_over_tokens_and_its_beginning_is_held_back() -> None:
    for text, stop, expected in (
        ("  one two## three", ["## "], "one two"),
        ("one\n\nUser: two", ["\nUser:"], "one"),
        ("one ##", ["###"], "one ##"),
        ("#a##b###c", ["###", "zz"], "#a##b"),
        ("aab", ["ab"], "a"),
        ("abc", ["abc"], ""),
        ("one two", [" two", "one two"], ""),
    ):
        stream = TextStream(lambda ids: "".join(map(chr, ids)), stop)
        pieces = [stream.add(ord(letter)) for letter in text if not stream.stopped]
        assert "".join([*pieces, stream.end()]) == expected, (text, stop)


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
