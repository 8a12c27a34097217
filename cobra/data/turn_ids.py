"""Token ids of turns that place pictures; no torch."""

from collections.abc import Sequence

from cobra.data.plain_chat import PlainChat, Segment
from cobra.data.record import Message, Record
from cobra.data.token_ids import IMAGE_TEXT
from cobra.models.special_ids import IGNORE_ID, IMAGE_ID


def rendered(
    chat: PlainChat, record: str, messages: Sequence[Message], prompt: bool = False
) -> list[Segment]:
    """The turns of a record as the chat template writes them; `prompt`: ready for the assistant's next.

    Raises:
        ValueError: where there is a system turn, and the template has no place for one.
    """
    if messages[0].role == "system" and not chat.has_system:
        raise ValueError(
            f"record {record!r} has a system turn, for which the chat template has no place: drop the "
            "turn, or set `template` to one that writes it"
        )
    return chat.segments([message.as_dict() for message in messages], prompt)


def rendered_question(chat: PlainChat, record: Record) -> list[Segment]:
    """What a chat whose last turn asks adds after its last answer; errors as of `rendered`."""
    segments = rendered(chat, record.id, record.messages, prompt=True)
    read = max((number for number, segment in enumerate(segments, 1) if segment.is_answer), default=0)
    return segments[read:]


def token_ids(
    chat: PlainChat, segments: Sequence[Segment], record: str, image_tokens: Sequence[int]
) -> tuple[list[int], list[int]]:
    """Token ids and labels of rendered chat, with a place for each image token.

    Args:
        chat: that rendered it.
        segments: of a record.
        record: its name.
        image_tokens: of each picture that the segments place.

    Raises:
        ValueError: where they place another number of pictures.
    """
    ids: list[int] = []
    labels: list[int] = []
    left, placed = iter(image_tokens), 0
    for segment in segments:
        # pieces are encoded apart, so that no token spans the border of a turn or of a picture
        for number, piece in enumerate(segment.text.split(IMAGE_TEXT)):
            new = chat.encode(piece, "" if number else segment.before)
            if number:
                new = [IMAGE_ID] * next(left, 0) + new
                placed += 1
            ids += new
            labels += new if segment.is_learned else [IGNORE_ID] * len(new)
    if placed != len(image_tokens):
        raise ValueError(
            f"record {record!r} has {len(image_tokens)} pictures but its text places {placed}: remove "
            f"{IMAGE_TEXT!r} from the text"
        )
    return ids, labels
