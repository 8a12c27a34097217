"""Answers by an engine, one question at a time: a picture is read once for all that are asked about it."""

from collections.abc import Sequence
from itertools import groupby, pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from PIL.Image import Image
from scipy.special import log_softmax

from cobra.data.chat import Chat
from cobra.data.image import load_rgb
from cobra.data.processor import Example, Processor
from cobra.data.record import ImageSource, Record, user
from cobra.eval.answerer import Answer, Answering, Asked, chosen
from cobra.export.engine import Engine, Floats
from cobra.models.vision.pictures import ONE_TILE, Picture
from cobra.models.vlm import IMAGE_ID


class EngineAnswerer(Answering):
    """An engine that answers as `Answerer` lets a model answer.

    Args:
        engine: answers.
        chat: its tokenizer.
        max_new_tokens: longest answer.
    """

    def __init__(self, engine: Engine, chat: Chat, max_new_tokens: int) -> None:
        self.engine, self.chat, self.max_new_tokens = engine, chat, max_new_tokens
        # how many tokens a picture has is not known before it is read: each stands as one
        self._processor = Processor(chat, _unseen, lambda layout: 1)
        self._unknown = chat.unknown_ids(engine.vocab_size).numpy()
        # pictures and prompt up to the last of them, and what the engine was behind them
        self._begin: tuple[object, ...] = ()
        self._behind: tuple[Any, Floats] | None = None

    def prepare(self, asked: Sequence[Asked]) -> list[Example]:
        """Token ids, one for each picture, which is opened for a test.

        Raises:
            ValueError: where a picture is damaged, or the engine reads none.
            OSError: where a picture is missing.
        """
        examples = []
        for each in asked:
            images = each.question.images
            if images and "pictures" in self.engine.lacks:
                raise ValueError(f"this export reads no pictures: {self.engine.lacks['pictures']}")
            for image in images:
                load_rgb(image)
            record = Record(each.question.id, [user(each.prompt, len(images))], images)
            examples.append(self._processor.encode_question(record, [ONE_TILE] * len(images)))
        return examples

    def answer(self, asked: Sequence[Asked], examples: Sequence[Example]) -> list[Answer]:
        """See `Answering.answer`."""
        return [self._answer(*pair) for pair in zip(asked, examples, strict=True)]

    def _answer(self, asked: Asked, example: Example) -> Answer:
        logits = self._read(asked.pictures, example)
        if not np.isfinite(logits).all():
            raise ValueError("the logits are not finite: the export is damaged; see `cobra export verify`")
        if asked.choices:
            return chosen(asked.choices, self._scores(logits, asked.choices))
        return Answer(self.chat.decode(self._tokens(logits)))

    def _read(self, pictures: tuple[object, ...], example: Example) -> Floats:
        """Logits behind a prompt; what is known of its pictures is not read again."""
        ids = example.ids
        cut = len(ids) - ids[::-1].index(IMAGE_ID) if IMAGE_ID in ids else 0
        begin = (pictures, *ids[:cut])
        if cut and begin == self._begin:
            assert self._behind is not None
            snapshot, logits = self._behind
            self.engine.restore(snapshot)
        else:
            self.engine.reset()
            if cut:
                logits = self._read_pictures(ids[:cut], example.record.images)
                self._begin, self._behind = begin, (self.engine.snapshot(), logits)
        return self.engine.prefill(np.array(ids[cut:])) if ids[cut:] else logits.copy()

    def _read_pictures(self, ids: list[int], images: Sequence[ImageSource]) -> Floats:
        with TemporaryDirectory() as folder:
            seen = iter(self.engine.read_pictures([_file(image, Path(folder)) for image in images]))
        for is_picture, run in groupby(ids, lambda token: token == IMAGE_ID):
            piece = np.array(list(run))
            logits = self.engine.prefill(np.concatenate([next(seen) for _ in piece]) if is_picture else piece)
        return logits

    def _tokens(self, logits: Floats) -> list[int]:
        """The likeliest tokens, one after the other, to the end of text or the longest answer."""
        ids: list[int] = []
        while True:
            logits[self._unknown] = -np.inf
            ids.append(int(logits.argmax()))
            if ids[-1] == self.chat.eos_id or len(ids) == self.max_new_tokens:
                return ids
            logits = self.engine.step(ids[-1])

    def _scores(self, logits: Floats, choices: Sequence[str]) -> list[float]:
        """Log-likelihood of each choice behind what was read, as `score_choices` defines it."""
        first = log_softmax(logits.astype(np.float64))
        chosen_ids = [self.chat.answer_ids(choice) for choice in choices]
        prompt = self.engine.snapshot() if any(len(ids) > 1 for ids in chosen_ids) else None
        scores = []
        for ids in chosen_ids:
            score = first[ids[0]]
            if len(ids) > 1:
                self.engine.restore(prompt)
            for read, said in pairwise(ids):
                score += log_softmax(self.engine.step(read).astype(np.float64))[said]
            scores.append(float(score))
        return scores


def _file(image: ImageSource, folder: Path) -> Path:
    """The picture as a file, which an engine reads: itself, or what is the same to the last bit."""
    if isinstance(image, (str, Path)):
        return Path(image)
    path = folder / f"{len(list(folder.iterdir()))}.png"
    load_rgb(image).save(path)
    return path


def _unseen(image: Image) -> Picture:
    return Picture([torch.empty(0)])
