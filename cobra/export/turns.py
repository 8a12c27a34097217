"""Turns of a conversation in pieces, for a program that has the vocabulary but runs no chat template.

A turn is a list: an id is that token, None a picture, and a list of texts one text with the question between
each two of them, which is to be cut into tokens as a whole.
"""

from collections.abc import Callable, Iterator, Sequence

from cobra.data.plain_chat import PlainChat
from cobra.data.record import Message, Record, assistant, user
from cobra.data.token_ids import IMAGE_TEXT
from cobra.data.turn_ids import rendered_question, token_ids
from cobra.models.special_ids import IMAGE_ID

Turn = list[int | list[str] | None]

# among a manifest's settings
TURNS = "turns"
# what stands for a question, to which Unicode gives no meaning
_QUESTION = "\ue000"
# SentencePiece's space, which is written where a text starts
_SPACE = "▁"
_PROBES = ("What is it?", "a", "¿Qué color   tiene?\n3.14", "IS this one's LEFT 🙂", "日本語の文章")


class CannotCut(ValueError):
    """A chat template whose turns are not the same pieces around every question."""


def turns_of(chat: PlainChat, cut: Callable[[str], list[int]]) -> dict[str, Turn]:
    """The pieces of a first turn, without a picture and with one, and those of any later turn.

    A later turn begins behind the end of an answer, `chat.eos_id`.

    Args:
        chat: writes turns.
        cut: the program's own ids of a text in which there are no special tokens.

    Raises:
        CannotCut: where a turn depends on what was said before, or the program makes other ids of it.
    """
    later = [_turn(chat, [*before, user(_QUESTION, 0)]) for before in _conversations()]
    if any(turn != later[0] for turn in later):
        raise CannotCut("its chat template writes later turns in more than one way")
    first, picture = ([user(_QUESTION, images)] for images in (0, 1))
    turns = {"first": _turn(chat, first), "picture": _turn(chat, picture), "later": later[0]}
    for name, turn in turns.items():
        for question in _PROBES:
            before = next(_conversations()) if name == "later" else []
            if turn_ids(turn, question, cut) != _ids(chat, [*before, user(question, name == "picture")]):
                raise CannotCut(f"its chat template, in pieces, makes other tokens of {question!r}")
    return turns


def turn_ids(turn: Turn, question: str, cut: Callable[[str], list[int]]) -> list[int]:
    """Ids of a turn, IMAGE_ID where a picture's tokens go."""
    ids: list[int] = []
    for piece in turn:
        if isinstance(piece, list):
            ids += cut(question.join(piece))
        else:
            ids.append(IMAGE_ID if piece is None else piece)
    return ids


def _conversations() -> Iterator[list[Message]]:
    """What may come before a later turn."""
    for images, answers in ((0, ["a"]), (1, ["b c.", "d"]), (1, [""])):
        messages: list[Message] = []
        for number, answer in enumerate(answers):
            messages += [user("a b?", 0 if number else images), assistant(answer)]
        yield messages


def _turn(chat: PlainChat, messages: Sequence[Message]) -> Turn:
    turn: Turn = []
    for segment in rendered_question(chat, _record(messages)):
        for number, text in enumerate(segment.text.split(IMAGE_TEXT)):
            if number:
                turn.append(None)
            for piece in chat.pieces(text, "" if number else segment.before):
                turn.append(piece if isinstance(piece, int) else _texts(piece))
    if sum(len(piece) - 1 for piece in turn if isinstance(piece, list)) != 1:
        raise CannotCut("its chat template does not write a question as it is, once")
    return turn


def _texts(piece: str) -> list[str]:
    return piece.replace(_SPACE, " ").split(_QUESTION)


def _ids(chat: PlainChat, messages: Sequence[Message]) -> list[int]:
    record = _record(messages)
    shown = sum(part["type"] == "image" for part in messages[-1].content)
    return token_ids(chat, rendered_question(chat, record), record.id, [1] * shown)[0]


def _record(messages: Sequence[Message]) -> Record:
    """Of pictures nothing is looked at."""
    shown = sum(part["type"] == "image" for message in messages for part in message.content)
    return Record("chat", list(messages), [b""] * shown)
