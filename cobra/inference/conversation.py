"""A conversation about pictures: questions go in, answers stream out, and nothing is read twice."""

import copy
import sys
from collections.abc import Generator, Sequence
from dataclasses import replace

import torch

from cobra.data.batch import Batch
from cobra.data.processor import Example, Processor
from cobra.data.record import ImageSource, Message, Record, assistant, user
from cobra.inference.text_stream import TextStream, before_stop
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
        stop: an answer ends before the first of these texts.
    """

    def __init__(
        self,
        model: CobraVLM,
        processor: Processor,
        max_length: int = 4096,
        max_new_tokens: int = 256,
        sampler: Sampler | None = None,
        stop: Sequence[str] = (),
    ) -> None:
        if min(max_length, max_new_tokens) < 1:
            raise ValueError(
                f"max_length {max_length} and max_new_tokens {max_new_tokens} must be at least 1"
            )
        if not all(stop):
            raise ValueError("a stop string is empty: every answer would end before it begins")
        self.model, self.processor = model, processor
        self.max_length, self.max_new_tokens = max_length, max_new_tokens
        self.sampler, self.stop = sampler or Sampler(), stop
        self._unknown = processor.chat.unknown_ids(model.lm.vocab_size).to(next(model.parameters()).device)
        self._streams = False
        self.reset()

    def reset(self) -> None:
        """Forget everything that was said and seen."""
        self._check_no_stream()
        self.messages: list[Message] = []
        self.images: list[ImageSource] = []
        # token ids of each answer
        self.said: list[list[int]] = []
        self._state: State | None = None
        # whether an error left the state inside a text
        self._broken_off = False
        # said, but not read by the model yet: the end of its last answer
        self._unread: list[int] = []
        self._see_nothing()

    def _see_nothing(self) -> None:
        # pictures of the next question; how they were cut, and the ids that were read ahead with them
        self._seen: list[ImageSource] = []
        self._seen_layouts: list[Layout] = []
        self._seen_ids: list[int] = []

    @property
    def answer_tokens(self) -> int:
        """Tokens of the last answer, its end included."""
        return len(self.said[-1]) if self.said else 0

    @property
    def sees(self) -> bool:
        """Whether the next question has pictures already."""
        return bool(self._seen)

    def look_at(self, images: Sequence[ImageSource]) -> None:
        """Read pictures ahead of the next question, which is then about them and those shown before.

        `fork` after this answers many questions about the same pictures, which are read once.

        Raises:
            ValueError: where they are no pictures or do not fit; the conversation stays as it was.
        """
        self._check_ready()
        seen = [*self._seen, *images]
        first, second = (self._record(text, seen) for text in "?!")
        example = self.processor.encode_question(first, self._seen_layouts)
        layouts = [*self._seen_layouts, *(picture.layout for picture in example.pictures)]
        ids = example.ids[: len(example.ids) - example.ids[::-1].index(IMAGE_ID)]
        batch = self._new(example, ids)
        # some chat templates write text of the question first
        if self.processor.encode_question(second, layouts).ids[: len(ids)] == ids:
            self._read(batch)
            self._seen_layouts, self._seen_ids, self._unread = layouts, ids, []
        self._seen = seen

    def fork(self) -> "Conversation":
        """Another conversation that goes on from here; the two share nothing but the model."""
        self._check_ready()
        other = copy.copy(self)
        other.sampler = self.sampler.clone()
        other._state = None if self._state is None else self._state.clone()
        return other

    def ask(self, question: str, images: Sequence[ImageSource] = ()) -> Generator[str, None, None]:
        """The answer in pieces of text as they become certain; a caller may stop early and go on asking.

        Raises:
            ValueError: where the question is empty or too long, or an answer still streams; the conversation
                stays as it was. Where logits are no numbers; it has to be reset then, as after any error of
                the model.
        """
        self._check_ready()
        if not question.strip():
            raise ValueError("the question is empty: ask something about the picture")
        record = self._record(question, [*self._seen, *images])
        batch = self._question(record)
        state = self._allocated()
        new: list[int] = []
        text = TextStream(self.processor.chat.decode_part, self.stop)
        self._streams = True
        try:
            for token in self.model.stream(
                batch.ids,
                batch.pictures,
                max_new_tokens=min(self.max_new_tokens, self._room() - batch.ids.shape[1] + 1),
                eos_id=self.processor.chat.eos_id,
                sampler=self.sampler,
                suppress=self._unknown,
                state=state,
            ):
                new.append(int(token))
                yield from filter(None, [text.add(new[-1])])
                if text.stopped:
                    break
            yield from filter(None, [text.end()])
        except (Exception, KeyboardInterrupt):
            # some layers may have read what others have not
            self._broken_off = True
            raise
        finally:
            self._streams = False
            if new:
                self._remember(record, new)

    def reread(self, record: Record, said: Sequence[list[int]]) -> "Conversation":
        """Another conversation, in which this chat was held.

        Args:
            record: questions and answers.
            said: token ids of the answers; text alone does not tell how it was cut into tokens.

        Raises:
            ValueError: where a picture is none, or the chat does not fit.
        """
        other = copy.copy(self)
        other._state = None
        other.reset()
        left = iter(record.images)
        for number, ids in enumerate(said):
            question = record.messages[2 * number]
            images = [next(left) for part in question.content if part["type"] == "image"]
            asked = Record(record.id, [*other.messages, question], [*other.images, *images])
            other._read(other._question(asked, ids[:-1]))
            other._remember(asked, ids)
        return other

    def _record(self, question: str, images: Sequence[ImageSource]) -> Record:
        """The chat so far and a question with its pictures."""
        return Record("chat", [*self.messages, user(question, len(images))], [*self.images, *images])

    def _question(self, record: Record, answer: Sequence[int] = ()) -> Batch:
        """What is new in a record whose last turn asks, and what is known of the answer."""
        example = self.processor.encode_question(record, self._seen_layouts)
        return self._new(example, example.ids, answer)

    def _new(self, example: Example, ids: list[int], answer: Sequence[int] = ()) -> Batch:
        """An example of whose turn the model is to read these ids, but for those that it has read ahead."""
        read = len(self._seen_ids)
        if ids[:read] != self._seen_ids:
            raise ValueError(
                "this model's chat template writes earlier pictures anew with each further one: reset the "
                "conversation and show all of them at once"
            )
        ids = self._unread + ids[read:]
        if len(ids) > self.max_length:
            raise ValueError(
                f"the question has {len(ids)} tokens, more than the {self.max_length} allowed: shorten it or "
                "raise max_length"
            )
        ids += answer
        if len(ids) > self._room():
            raise ValueError(
                f"the conversation is full: it has room for {self._room()} more tokens, and {len(ids)} come; "
                "reset it or raise max_length"
            )
        new = replace(example, ids=ids, labels=[IGNORE_ID] * len(ids))
        batch = self.processor.collate([new], left=True)
        return batch.to(next(self.model.parameters()).device)

    def _read(self, batch: Batch) -> None:
        # until it has read all
        self._broken_off = True
        with torch.inference_mode():
            self.model.lm.prefill(self.model.splice(batch.ids, batch.pictures), self._allocated())
        self._broken_off = False

    def _room(self) -> int:
        """Tokens that the model can still read; a state that does not grow has no end."""
        state = self._allocated()
        return self.max_length - int(state.lengths.max()) if state.grows else sys.maxsize

    def _allocated(self) -> State:
        if self._state is None:
            self._state = self.model.lm.allocate_state(1, self.max_length)
        return self._state

    def _check_ready(self) -> None:
        self._check_no_stream()
        if self._broken_off:
            raise ValueError(
                "the model failed inside a text, of which it has read a part: reset the conversation"
            )

    def _check_no_stream(self) -> None:
        if self._streams:
            raise ValueError("the last answer still streams: read it to its end, or close it")

    def _remember(self, record: Record, new: list[int]) -> None:
        chat = self.processor.chat
        # an answer that was cut short ends here: every chat template closes a turn with it
        self._unread = [new[-1]] if new[-1] == chat.eos_id else [new[-1], chat.eos_id]
        answer = before_stop(chat.decode(new), self.stop).rstrip()
        self.messages, self.images = [*record.messages, assistant(answer)], record.images
        self.said = [*self.said, new]
        self._see_nothing()
