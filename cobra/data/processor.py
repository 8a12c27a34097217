"""Records to examples to batches."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from PIL.Image import Image
from torch import Tensor
from torch.utils._pytree import tree_map

from cobra.data.batch import Batch
from cobra.data.chat import Chat
from cobra.data.image import load_rgb
from cobra.data.plain_chat import Segment
from cobra.data.record import Record
from cobra.data.turn_ids import rendered, rendered_question, token_ids
from cobra.models.vision.pictures import Layout, Picture, Pictures
from cobra.models.vlm import IGNORE_ID, IMAGE_ID, CobraVLM, label_places


@dataclass
class Example:
    """One encoded record.

    Attributes:
        ids: token ids, IMAGE_ID repeated where a picture's tokens go.
        labels: as ids in the assistant's turns that say something, IGNORE_ID elsewhere.
        pictures: in reading order.
        record: where it came from.
        seq_idx: number of the text that each token belongs to, rising; None where all are one.
    """

    ids: list[int]
    labels: list[int]
    pictures: list[Picture]
    record: Record
    seq_idx: list[int] | None = None


class Processor:
    """Turns records into what a certain model is fed.

    Args:
        chat: tokenizer and chat template.
        transform: RGB picture to the encoder's tiles.
        num_image_tokens: image tokens of a picture, by its layout.
        max_length: longest sequence in training, image tokens included; what is longer is cut.
        blind: feed zeros instead of pixels, to measure what can be answered without looking.
    """

    def __init__(
        self,
        chat: Chat,
        transform: Callable[[Image], Picture],
        num_image_tokens: Callable[[Layout], int],
        max_length: int = 2048,
        blind: bool = False,
    ) -> None:
        self.chat = chat
        self.transform = transform
        self.num_image_tokens = num_image_tokens
        self.max_length = max_length
        self.blind = blind

    @classmethod
    def of(cls, model: CobraVLM, chat: Chat, max_length: int = 2048, blind: bool = False) -> "Processor":
        """The processor that feeds a model; arguments as for the class.

        Raises:
            ValueError: where the tokenizer has tokens that the model does not know.
        """
        chat.check_vocabulary(model.lm.vocab_size)
        return cls(chat, model.vision.transform, model.num_image_tokens, max_length, blind)

    def encode(self, record: Record, prompt: bool = False) -> Example:
        """A training example; with `prompt`, all but the last answer, ready to be continued."""
        if record.tokens is not None:
            return self._text(record, record.tokens)
        messages = (
            record.messages[:-1] if prompt and record.messages[-1].role == "assistant" else record.messages
        )
        segments = rendered(self.chat, record.id, messages, prompt)
        pictures = [self.picture(image) for image in record.images]
        ids, labels = self._ids(segments, record, [picture.layout for picture in pictures])
        if not prompt and len(ids) > self.max_length:
            if IMAGE_ID in ids[self.max_length :]:
                raise ValueError(
                    f"record {record.id!r}: max_length {self.max_length} cuts a picture: raise it"
                )
            ids, labels = ids[: self.max_length], labels[: self.max_length]
        return Example(ids, labels, pictures, record)

    def count(self, record: Record) -> tuple[int, int, int, int]:
        """What `encode` would make of a record, however long: its tokens, image tokens included; labels; the
        place of the first label, or the end; the end of the last picture. Opens no picture that need not be.
        """
        if record.tokens is not None:
            text = self._text(record, record.tokens)
            ids, labels = text.ids, text.labels
        else:
            segments = rendered(self.chat, record.id, record.messages)
            ids, labels = self._ids(segments, record, [self._layout(image) for image in record.images])
        # nothing comes before the first token
        learned = [place for place, label in enumerate(labels) if place and label != IGNORE_ID]
        seen = len(ids) - ids[::-1].index(IMAGE_ID) if IMAGE_ID in ids else 0
        return len(ids), len(learned), learned[0] if learned else len(ids), seen

    def _layout(self, image: object) -> Layout:
        fixed: Layout | None = getattr(self.transform, "layout", None)
        return self.picture(image).layout if fixed is None else fixed

    def _text(self, record: Record, tokens: np.ndarray) -> Example:
        """Plain text, in which every token is learned that has one before it."""
        if len(tokens) > self.max_length:
            raise ValueError(
                f"record {record.id!r} has {len(tokens)} tokens, more than max_length "
                f"{self.max_length}: raise it"
            )
        ids, labels = tokens.tolist(), tokens.tolist()
        if record.borders is None:
            return Example(ids, labels, [], record)
        for border in record.borders.tolist():
            labels[border] = IGNORE_ID
        numbers = np.searchsorted(record.borders, np.arange(len(ids)), side="right")
        return Example(ids, labels, [], record, numbers.tolist())

    def encode_question(self, record: Record, seen: Sequence[Layout] = ()) -> Example:
        """What a chat adds after its last answer, to be read from the state that this answer left.

        Args:
            record: the chat; its last turn asks.
            seen: layouts of that turn's first pictures, whose pixels are not needed any more.
        """
        segments = rendered_question(self.chat, record)
        images = sum(part["type"] == "image" for part in record.messages[-1].content)
        new = record.images[len(record.images) - images + len(seen) :]
        pictures = [self.picture(image) for image in new]
        layouts = [*seen, *(picture.layout for picture in pictures)]
        ids, labels = self._ids(segments, record, layouts)
        return Example(ids, labels, pictures, record)

    def collate(self, examples: list[Example], left: bool = False) -> Batch:
        """Pad and stack; on the left before generation, on the right in training.

        Raises:
            ValueError: where an example's ids have no place for exactly its pictures.
        """
        return self._batch([[example] for example in examples], left)

    def pack(self, rows: list[list[Example]], room: int) -> Batch:
        """A batch for training whose rows are examples laid end to end, told apart by `seq_idx`.

        Raises:
            ValueError: where an example's ids have no place for exactly its pictures, or a row has more than
                `room` tokens.
        """
        batch = self._batch(rows, left=False)
        for row in rows:
            if (tokens := sum(len(e.ids) for e in row)) > room:
                raise ValueError(
                    f"the row of records {[e.record.id for e in row]} has {tokens} tokens and room for "
                    f"{room}: they have changed since they were counted; empty $COBRA_CACHE/measured"
                )
        return batch

    def _batch(self, rows: list[list[Example]], left: bool) -> Batch:
        examples = [e for row in rows for e in row]
        ids = _pad([[token for e in row for token in e.ids] for row in rows], self.chat.pad_id, left)
        for e in examples:
            self._check_room(e, e.ids.count(IMAGE_ID))
        lengths = torch.tensor([[sum(len(e.ids) for e in row)] for row in rows])
        places = torch.arange(ids.shape[1])
        mask = places >= ids.shape[1] - lengths if left else places < lengths  # (B, T)
        # nothing predicts an example's first token, least of all the last of the one before
        labels = _pad([[x for e in row for x in (IGNORE_ID, *e.labels[1:])] for row in rows], IGNORE_ID, left)
        empty = [e.record.id for e in examples if not any(label != IGNORE_ID for label in e.labels)]
        cells = [e.record.labels for e in examples if e.record.labels is not None]
        batch = Batch(
            ids=ids,
            pictures=Pictures.stack([p for e in examples for p in e.pictures], checked=True),
            mask=mask,
            labels=labels,
            cells=torch.stack([torch.as_tensor(c) for c in cells]).long() if cells else None,
            records=[e.record for e in examples] if left else [],
            empty=[] if left else empty,
            places=None if left else label_places(labels),
            seq_idx=_numbers(rows, left) if any(len(row) > 1 or row[0].seq_idx for row in rows) else None,
        )
        batch.examples = len(examples)
        return batch

    def _ids(
        self, segments: Sequence[Segment], record: Record, layouts: Sequence[Layout]
    ) -> tuple[list[int], list[int]]:
        """Token ids and labels of rendered chat that places pictures of these layouts."""
        return token_ids(self.chat, segments, record.id, [self.num_image_tokens(x) for x in layouts])

    def _check_room(self, example: Example, room: int) -> None:
        made = sum([self.num_image_tokens(picture.layout) for picture in example.pictures])
        if room != made:
            raise ValueError(
                f"record {example.record.id!r} has {room} placeholders in its token ids, but its pictures "
                f"({len(example.pictures)}) make {made} image tokens: change ids and pictures together"
            )

    def picture(self, image: object) -> Picture:
        """A picture of a record as the encoder takes it.

        Raises:
            ValueError: where it is damaged, naming it.
            OSError: where it is missing.
        """
        picture = self.transform(load_rgb(image))  # type: ignore[arg-type]
        if not isinstance(picture, Picture):
            raise TypeError(
                f"a transform must make a Picture, such as Picture([pixels]), not {type(picture)}"
            )
        return replace(picture, tiles=tree_map(torch.zeros_like, picture.tiles)) if self.blind else picture


def _numbers(rows: list[list[Example]], left: bool) -> Tensor:
    """The number of the sequence (B, T) that a token belongs to, rising in a row."""
    numbers: list[list[int]] = []
    for row in rows:
        numbers.append([])
        for e in row:
            first = numbers[-1][-1] + 1 if numbers[-1] else 0
            numbers[-1] += [first + number for number in e.seq_idx or [0] * len(e.ids)]
    # padding comes behind the last of any row
    return _pad(numbers, max(row[-1] for row in numbers) + 1, left).int()


def _pad(rows: list[list[int]], value: int, left: bool) -> Tensor:
    width = max(map(len, rows))
    padded = [[value] * (width - len(r)) + r if left else r + [value] * (width - len(r)) for r in rows]
    return torch.tensor(padded, dtype=torch.long)
