"""Answers to batches of questions: a picture is read once for all that are asked about it."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from cobra.data.batch import Batch
from cobra.data.processor import Example, Processor
from cobra.data.record import ImageSource, Record, user
from cobra.eval.benchmarks.base import Question
from cobra.eval.protocols.protocol import Ask
from cobra.models.lm.state import State
from cobra.models.sampling import Sampler
from cobra.models.vision.pictures import Layout, Picture
from cobra.models.vlm import IMAGE_ID, CobraVLM

# Two logits, or two choices in nats, that are nearer than this may change places in another batch. Over 600
# answers of the tiny model a batch moved leads by 2e-5 in fp32, by 8e-4 with int8 weights, by 0.06 in bf16.
_CLOSE = {torch.float64: 1e-9, torch.float32: 1e-3, torch.float16: 0.1, torch.bfloat16: 0.5}
_CLOSE_QUANTIZED = 0.02
# that are kept as token ids
_PROMPTS = 4096


@dataclass(frozen=True, eq=False)
class Asked:
    """A question as it is put to the model.

    Attributes:
        question: of the benchmark.
        prompt: the user's turn.
        choices: what the model chooses from; empty where it answers in words.
    """

    question: Question
    prompt: str
    choices: list[str]

    @classmethod
    def of(cls, question: Question, ask: Ask) -> "Asked":
        """The question in the words of an ask."""
        return cls(question, ask.render(question.fields), ask.choices_of(question.fields))

    @cached_property
    def pictures(self) -> tuple[object, ...]:
        """The same for questions about the same pictures."""
        return tuple(_identity(image) for image in self.question.images)


@dataclass
class Answer:
    """What the model said.

    Attributes:
        text: the answer, or the likeliest choice.
        scores: log-likelihood of each choice.
        close: how near it was to another one: the smallest lead of a token, or of the choice.
    """

    text: str
    scores: dict[str, float] = field(default_factory=dict)
    close: float = float("inf")


class Answering(ABC):
    """Whoever answers questions: a model, or an export of one."""

    @abstractmethod
    def prepare(self, asked: Sequence[Asked]) -> list[Example]:
        """What is fed, not yet in a batch; in a thread of its own.

        Raises:
            ValueError: where a picture is damaged or a question does not fit.
            OSError: where a picture is missing.
        """

    @abstractmethod
    def answer(self, asked: Sequence[Asked], examples: Sequence[Example]) -> list[Answer]:
        """The answers to questions that all choose, or all answer in words."""


class Answerer(Answering):
    """A model that answers questions, the same whatever else is in their batch.

    Products of matrices of another size are summed up in another order, so that what is nearly as likely as
    the answer may come out instead. A question of which that is possible is asked again alone.

    Args:
        model: answers.
        processor: prepares what it is fed.
        max_new_tokens: longest answer.

    Attributes:
        close: leads below it may be lost to rounding.
        again: questions that were asked again.
    """

    def __init__(self, model: CobraVLM, processor: Processor, max_new_tokens: int) -> None:
        self.model, self.processor, self.max_new_tokens = model, processor, max_new_tokens
        weight = next(model.lm.parameters())
        self.device, self.close = weight.device, _CLOSE[weight.dtype]
        if model.lm.quantized:
            self.close = max(self.close, _CLOSE_QUANTIZED)
        self.unknown = processor.chat.unknown_ids(model.lm.vocab_size).to(self.device)
        self.again = 0
        self._choice_ids: dict[str, list[int]] = {}
        self._prompt_ids: dict[tuple[str, tuple[Layout, ...]], list[int]] = {}

    def prepare(self, asked: Sequence[Asked]) -> list[Example]:
        """See `Answering.prepare`; neighbours with the same pictures share them."""
        examples: list[Example] = []
        seen: list[Picture] = []
        before: tuple[object, ...] | None = None
        for each in asked:
            images, pictures = each.question.images, each.pictures
            if pictures != before:
                seen, before = [self.processor.picture(image) for image in images], pictures
            record = Record(each.question.id, [user(each.prompt, len(images))], images)
            ids = self._ids_of_prompt(each.prompt, record, tuple(picture.layout for picture in seen))
            examples.append(Example(ids, ids, seen, record))
        return examples

    def _ids_of_prompt(self, prompt: str, record: Record, layouts: tuple[Layout, ...]) -> list[int]:
        """Of a record that asks it; the same words are asked about many pictures."""
        if (prompt, layouts) not in self._prompt_ids:
            if len(self._prompt_ids) >= _PROMPTS:
                self._prompt_ids.clear()
            self._prompt_ids[prompt, layouts] = self.processor.encode_question(record, layouts).ids
        return self._prompt_ids[prompt, layouts]

    def answer(self, asked: Sequence[Asked], examples: Sequence[Example]) -> list[Answer]:
        """See `Answering.answer`."""
        answers = self._answer(asked, examples)
        if len(asked) == 1:
            return answers
        for number, answer in enumerate(answers):
            if answer.close < self.close:
                self.again += 1
                answers[number] = self._answer([asked[number]], [examples[number]])[0]
        return answers

    @torch.inference_mode()
    def _answer(self, asked: Sequence[Asked], examples: Sequence[Example]) -> list[Answer]:
        choices = [[self._ids_of(choice) for choice in each.choices] for each in asked]
        longest = max((len(ids) for given in choices for ids in given), default=0)
        batch, state, rows = self._read_pictures(asked, examples, longest or self.max_new_tokens)
        if longest:
            scores = self.model.score_choices(
                batch.ids, batch.pictures, batch.mask, choices=choices, state=state, rows=rows
            )
            return [chosen(each.choices, given.tolist()) for each, given in zip(asked, scores, strict=True)]
        leads = _Leads()
        new = self.model.stream(
            batch.ids,
            batch.pictures,
            batch.mask,
            max_new_tokens=self.max_new_tokens,
            eos_id=self.processor.chat.eos_id,
            sampler=leads,
            suppress=self.unknown,
            state=None if state is None or rows is None else state.take(rows),
            ahead=True,
        )
        tokens = torch.stack(list(new), dim=1).tolist()
        return [
            Answer(self.processor.chat.decode(ids), close=self._lead(ids, lead))
            for ids, lead in zip(tokens, leads.each().tolist(), strict=True)
        ]

    def _lead(self, ids: list[int], leads: list[float]) -> float:
        """The smallest lead up to the end of an answer."""
        end = self.processor.chat.eos_id
        return min(leads[: ids.index(end) + 1 if end in ids else len(ids)])

    def _read_pictures(
        self, asked: Sequence[Asked], examples: Sequence[Example], room: int
    ) -> tuple[Batch, State | None, list[int] | None]:
        """The batch, and no state; or what is left of it behind what prompts about the same pictures begin
        with, a state that has read that once for all of them, and its row before each.
        """
        groups = _about_the_same(asked, examples)
        cuts = [_common(*(examples[row].ids for row in rows)) for rows in groups]
        firsts = [examples[rows[0]] for rows in groups]
        read_whole = any(IMAGE_ID in e.ids[cut:] or not cut for e, cut in zip(firsts, cuts, strict=True))
        if len(groups) == len(examples) or read_whole:
            return self._collate(examples), None, None
        places = {row: place for place, rows in enumerate(groups) for row in rows}
        behind = [places[row] for row in range(len(examples))]
        seen = self._collate([_part(e, e.ids[:cut], True) for e, cut in zip(firsts, cuts, strict=True)])
        rests = [_part(e, e.ids[cuts[row] :], False) for e, row in zip(examples, behind, strict=True)]
        batch = self._collate(rests)
        state = self.model.lm.allocate_state(len(groups), seen.ids.shape[1] + batch.ids.shape[1] + room)
        self.model.lm.prefill(self.model.splice(seen.ids, seen.pictures), state, seen.mask)
        return batch, state, behind

    def _collate(self, examples: Sequence[Example]) -> Batch:
        batch = self.processor.collate(list(examples), left=True)
        if batch.mask is not None and batch.mask.all():
            # what knows of no padding has less to do
            batch.mask = None
        return batch.to(self.device)

    def _ids_of(self, choice: str) -> list[int]:
        if choice not in self._choice_ids:
            self._choice_ids[choice] = self.processor.chat.answer_ids(choice)
        return self._choice_ids[choice]


class _Leads(Sampler):
    """Greedy, and remembers by how much each token (B,) led."""

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[Tensor] = []

    def begin(self) -> "Sampler":
        """Itself, whose leads are asked for in the end."""
        return self

    def __call__(self, logits: Tensor) -> Tensor:
        """Logits (B, V) to token ids (B,)."""
        best, tokens = logits.topk(min(2, logits.shape[-1]), dim=-1)
        self.steps.append(best[:, 0] - best[:, -1])
        return tokens[:, 0]

    def each(self) -> Tensor:
        """The leads (B, tokens)."""
        return torch.stack(self.steps, dim=1)


def chosen(choices: list[str], scores: list[float]) -> Answer:
    """The likeliest choice; of equals the first."""
    best = max(range(len(choices)), key=scores.__getitem__)
    others = [score for place, score in enumerate(scores) if place != best]
    # the last digits are the order's in which a batch is computed
    said = {choice: round(score, 4) + 0.0 for choice, score in zip(choices, scores, strict=True)}
    return Answer(choices[best], said, scores[best] - max(others, default=-float("inf")))


def _about_the_same(asked: Sequence[Asked], examples: Sequence[Example]) -> list[list[int]]:
    """Rows of prompts that are the same up to the end of the same pictures."""
    groups: dict[tuple[object, ...], list[int]] = {}
    for row, (each, example) in enumerate(zip(asked, examples, strict=True)):
        ids = example.ids
        end = len(ids) - ids[::-1].index(IMAGE_ID) if IMAGE_ID in ids else 0
        groups.setdefault((each.pictures, *ids[:end]), []).append(row)
    return list(groups.values())


def _common(*prompts: list[int]) -> int:
    """How many tokens prompts begin with alike; one is left of each, whose hidden state will be asked for."""
    first, last, most = min(prompts), max(prompts), min(map(len, prompts)) - 1
    return next((place for place in range(most) if first[place] != last[place]), most)


def _part(example: Example, ids: list[int], sees: bool) -> Example:
    """A stretch of a prompt, with its pictures or behind them."""
    return replace(example, ids=ids, labels=ids, pictures=example.pictures if sees else [])


def _identity(image: ImageSource) -> object:
    return str(image) if isinstance(image, (str, Path)) else id(image)
