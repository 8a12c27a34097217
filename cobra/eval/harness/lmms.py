"""Models for lmms-eval, which imports this file by the entry point `cobra` of its group `lmms_eval.models`.

    cobra eval lmms MODEL --tasks pope,gqa --batch_size 16 --output_path runs/lmms

Any model folder, and any task of lmms-eval or of a folder given as `--include_path`, without a network if
`HF_HUB_OFFLINE=1` and the task's data are here. Where torchvision fits torch, lmms-eval's own command does
the same: `lmms-eval --model cobra --model_args pretrained=MODEL --tasks ...`.

Tasks of lmms-eval that score choices by likelihood (`output_type: multiple_choice` or `loglikelihood`) need
`--force_simple`: lmms-eval asks for likelihoods of text alone, never of chats.

Several processes, a device each: `torchrun --nproc_per_node 2 -m cobra eval lmms MODEL ...`.
"""

from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Any

import cobra.torchvision_shim  # noqa: F401  (before lmms_eval, which imports torchvision)

import numpy as np  # isort: skip
import torch
from lmms_eval.api.instance import GenerationResult
from lmms_eval.api.model import lmms
from tqdm import tqdm

from cobra.data.image import load_rgb
from cobra.data.record import Message, Part, Record
from cobra.eval.harness.generation import Generation, batches
from cobra.eval.harness.harness_model import HarnessModel, batch_size_of

# what a task writes where a picture goes, if it does not leave that to the model
_PLACE = "<image>"


class _Model(lmms):
    """What both have in common.

    Args:
        pretrained: model folder, a run's checkpoints/last.ckpt, or a published checkpoint.
        batch_size: questions at a time, as `--batch_size`.
        device: as `--device`; a GPU where there is one.
        dtype: of weights and activations, e.g. bf16.
        quant: packing of the language model's weights: none, bf16, int8 or int4.
        max_length: longest question in tokens.
        max_batch_size: lmms-eval gives it; it is for a batch size that is looked for, which ours is not.
    """

    def __init__(
        self,
        pretrained: str,
        batch_size: int | str = 1,
        device: str | None = None,
        dtype: str = "fp32",
        quant: Any = "none",
        max_length: int | None = None,
        max_batch_size: int | None = None,
    ) -> None:
        super().__init__()
        self.batch_size = batch_size_of(batch_size)
        self.ours = HarnessModel(pretrained, device, dtype, quant, max_length)
        # lmms-eval gathers counts of several processes there
        self.device = torch.device(self.ours.device)

    def generate_until(self, requests: Sequence[Any]) -> list[str]:
        """The answer to each request, in their order."""
        hows = [Generation.of(self._options(request.args)) for request in requests]
        answers = [""] * len(requests)
        with self._bar(len(requests)) as bar:
            for places in batches(hows, [len(request.args[0]) for request in requests], self.batch_size):
                # pictures of one batch alone are in memory
                asked = [self._record(requests[place].args) for place in places]
                for place, answer in zip(places, self.ours.answers(asked, hows[places[0]]), strict=True):
                    args = requests[place].args
                    answers[place] = answer
                    self.cache_hook.add_partial("generate_until", (args[0], self._options(args)), answer)
                bar.update(len(places))
        return answers

    def generate_until_multi_round(self, requests: Sequence[Any]) -> list[str]:
        """Refused: a round would read all before it again."""
        raise NotImplementedError("tasks of several rounds cannot be asked: leave them out of --tasks")

    def _options(self, args: tuple) -> dict[str, Any]:
        raise NotImplementedError

    def _record(self, args: tuple) -> Record:
        raise NotImplementedError

    def _doc(self, args: tuple) -> Any:
        doc_id, task, split = args[3:6]
        return self.task_dict[task][split][doc_id]

    def _bar(self, count: int) -> tqdm:
        return tqdm(total=count, disable=self.rank != 0, desc="cobra")


class Cobra(_Model):
    """Asked by chats: pictures stand where a task has put them."""

    is_simple = False

    def loglikelihood(self, requests: Sequence[Any]) -> list[Any]:
        """Refused: lmms-eval has it of text alone."""
        raise NotImplementedError("likelihoods are asked for by text alone: add --force_simple")

    def _options(self, args: tuple) -> dict[str, Any]:
        return args[2]

    def _record(self, args: tuple) -> Record:
        turns, images = [], []
        for turn in args[1](self._doc(args)):
            parts: list[Part] = []
            for part in turn["content"]:
                if part["type"] not in ("text", "image"):
                    raise ValueError(f"task {args[4]} shows a {part['type']}, the model sees pictures alone")
                if part["type"] == "image":
                    images.append(_pixels(part["url"]))
                parts.append({"type": "image"} if part["type"] == "image" else dict(part))
            turns.append(Message(turn["role"], _placed(parts)))
        return Record(_name(args), turns, images)


class CobraByText(_Model):
    """Asked by a text, and pictures in front of it or at each `<image>`; knows likelihoods, too."""

    is_simple = True

    def loglikelihood(self, requests: Sequence[Any]) -> list[GenerationResult]:
        """Of each continuation the loss, summed over its tokens, and whether a greedy answer begins with it.

        The loss and not the log-likelihood, since lmms-eval takes the choice of the smallest; in an object of
        its own, since it makes text of a plain pair (both in 0.7.3). The continuations of one question are
        scored together, so that its pictures are read once.
        """
        # consecutive, as lmms-eval lists them
        questions = [list(group) for _, group in groupby(requests, key=_question)]
        found: list[list[tuple[float, bool]]] = [[]] * len(questions)
        lengths = [len(question[0].args[0]) for question in questions]
        with self._bar(len(questions)) as bar:
            for places in batches([0] * len(questions), lengths, self.batch_size):
                asked = [self._record(questions[place][0].args) for place in places]
                choices = [[self._continuation(r.args) for r in questions[place]] for place in places]
                for place, scores in zip(places, self.ours.likelihoods(asked, choices), strict=True):
                    found[place] = scores
                bar.update(len(places))
        return [GenerationResult((-likelihood, is_greedy)) for row in found for likelihood, is_greedy in row]

    def _continuation(self, args: tuple) -> str:
        target: str | Callable[[Any], str] = args[1]
        return target if isinstance(target, str) else target(self._doc(args))

    def _options(self, args: tuple) -> dict[str, Any]:
        return args[1]

    def _record(self, args: tuple) -> Record:
        images = [_pixels(image) for image in args[2](self._doc(args)) or ()]
        parts: list[Part] = [*({"type": "image"} for _ in images), {"type": "text", "text": args[0]}]
        return Record(_name(args), [Message("user", _placed(parts))], images)


def _placed(parts: list[Part]) -> list[Part]:
    """The parts of a turn; where its text says for each picture where it goes, they go there."""
    said = "".join(part["text"] for part in parts if part["type"] == "text")
    count = sum(part["type"] == "image" for part in parts)
    if not count or said.count(_PLACE) != count:
        return parts
    placed: list[Part] = []
    for number, piece in enumerate(said.split(_PLACE)):
        placed += [{"type": "image"}] if number else []
        placed += [{"type": "text", "text": piece.strip()}] if piece.strip() else []
    return placed


def _pixels(image: Any) -> Any:
    """A picture of a task, which is one of PIL's or a path, as records take it."""
    return image if isinstance(image, str) else np.asarray(load_rgb(image))


def _name(args: tuple) -> str:
    doc_id, task, split = args[3:6]
    return f"{task}/{split}/{doc_id}"


def _question(request: Any) -> tuple:
    args = request.args
    if len(args) < 6:
        raise ValueError("likelihoods without a question (acc_mutual_info) cannot be asked for: use acc")
    return args[0], args[3:6]
