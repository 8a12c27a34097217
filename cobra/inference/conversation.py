"""A conversation about pictures: questions go in, answers stream out, and nothing is read twice."""

import copy
from collections.abc import Generator, Sequence
from dataclasses import replace

import torch

from cobra.data.batch import Batch
from cobra.data.processor import Example, Processor
from cobra.data.record import ImageSource, Message, Record, assistant, user
from cobra.inference.text_stream import TextStream
from cobra.models.lm.state import State
from cobra.models.sampling import Sampler
from cobra.models.vision.pictures import Layout
from cobra.models.vlm import IGNORE_ID, IMAGE_ID, CobraVLM


class Conversation:
    """A model with its decode state: every question reads only what is new since the last answer.

    Args:
        model: answers.
        processor: prepares what it is fed.
        max_length: longest question in tokens, image tokens included. A transformer's cache has this length,
            so it bounds the whole conversation there; a state-space model may be asked for ever.
        max_new_tokens: longest answer.
        sampler: how a token is chosen; greedy by default.
    """

    def __init__(
        self,
        model: CobraVLM,
        processor: Processor,
        max_length: int = 4096,
        max_new_tokens: int = 256,
        sampler: Sampler | None = None,
    ) -> None:
        self.model, self.processor = model, processor
        self.max_length, self.max_new_tokens = max_length, max_new_tokens
        self.sampler = sampler or Sampler()
        self.reset()

    def reset(self) -> None:
        """Forget everything that was said and seen."""
        self.messages: list[Message] = []
        self.images: list[ImageSource] = []
        self._state: State | None = None
        # tokens of the last answer, its end included
        self.answer_tokens = 0
        # said, but not read by the model yet: the end of its last answer
        self._unread: list[int] = []
        # pictures of the first question; how they were cut, and the ids that were read ahead with them
        self._seen: list[ImageSource] = []
        self._seen_layouts: list[Layout] = []
        self._seen_ids: list[int] = []

    def look_at(self, images: Sequence[ImageSource]) -> None:
        """Read pictures ahead of the first question, which is then about them.

        `fork` after this answers many questions about the same pictures, which are read once.

        Raises:
            ValueError: where something was said or seen before.
        """
        if self.messages or self._seen:
            raise ValueError("pictures are read ahead of the first question only: reset the conversation")
        first, second = (Record("chat", [user(text, len(images))], [*images]) for text in "?!")
        example = self.processor.encode_question(first)
        layouts = [picture.layout for picture in example.pictures]
        ids = example.ids[: len(example.ids) - example.ids[::-1].index(IMAGE_ID)]
        batch = self._batch(example, ids)
        self._seen = [*images]
        if self.processor.encode_question(second, layouts).ids[: len(ids)] != ids:
            return  # this chat template writes text of the question first
        state = self.model.lm.allocate_state(1, self.max_length)
        with torch.inference_mode():
            self.model.lm.prefill(self.model.splice(batch.ids, batch.pictures), state)
        self._state, self._seen_layouts, self._seen_ids = state, layouts, ids

    def fork(self) -> "Conversation":
        """Another conversation that goes on from here; the two share nothing but the model."""
        other = copy.copy(self)
        other._state = None if self._state is None else self._state.clone()
        return other

    def ask(self, question: str, images: Sequence[ImageSource] = ()) -> Generator[str, None, None]:
        """The answer in pieces of text as they become certain; a caller may stop early and go on asking.

        Raises:
            ValueError: where the question is empty or too long; the conversation stays as it was.
        """
        if not question.strip():
            raise ValueError("the question is empty: ask something about the picture")
        images = [*self._seen, *images]
        record = Record("chat", [*self.messages, user(question, len(images))], [*self.images, *images])
        batch = self._question(record)
        if self._state is None:
            self._state = self.model.lm.allocate_state(1, self.max_length)
        new: list[int] = []
        text = TextStream(self.processor.chat.decode_part)
        try:
            for token in self.model.stream(
                batch.ids,
                batch.pictures,
                max_new_tokens=self.max_new_tokens,
                eos_id=self.processor.chat.eos_id,
                sampler=self.sampler,
                state=self._state,
            ):
                new.append(int(token))
                yield from filter(None, [text.add(new[-1])])
            yield from filter(None, [text.end()])
        finally:
            if new:
                self._remember(record, new)

    def _question(self, record: Record) -> Batch:
        """What is new in a record whose last turn asks."""
        example = self.processor.encode_question(record, self._seen_layouts)
        read = len(self._seen_ids)
        assert example.ids[:read] == self._seen_ids
        return self._batch(example, self._unread + example.ids[read:])

    def _batch(self, example: Example, ids: list[int]) -> Batch:
        """An example of which the model is to read these ids."""
        if len(ids) > self.max_length:
            raise ValueError(
                f"the question has {len(ids)} tokens, more than the {self.max_length} allowed: shorten it or "
                "raise max_length"
            )
        new = replace(example, ids=ids, labels=[IGNORE_ID] * len(ids))
        batch = self.processor.collate([new], left=True)
        return batch.to(next(self.model.parameters()).device)

    def _remember(self, record: Record, new: list[int]) -> None:
        self.answer_tokens = len(new)
        eos = self.processor.chat.eos_id
        # an answer that was cut short ends here: every chat template closes a turn with it
        self._unread = [new[-1]] if new[-1] == eos else [new[-1], eos]
        self.messages = [*record.messages, assistant(self.processor.chat.decode(new))]
        self.images = record.images
        self._seen, self._seen_layouts, self._seen_ids = [], [], []
