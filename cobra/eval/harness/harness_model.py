"""A vision-language model as harnesses use one: batches of chats go in, answers and likelihoods come out."""

import os
from collections.abc import Sequence

import torch

from cobra.data.processor import Example
from cobra.data.record import Record
from cobra.eval.answerer import Answerer, Asked
from cobra.eval.benchmarks.base import Question
from cobra.eval.harness.generation import Generation, texts
from cobra.eval.opening import Settings, model_path, open_model
from cobra.inference.text_stream import before_stop
from cobra.models.quantize import Quantization

# torch's names, which users of harnesses write, and ours
_DTYPES = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}


class HarnessModel:
    """Answers questions about pictures, several at once as each alone, and as `cobra eval` does.

    Args:
        pretrained: model folder, a run's checkpoints/last.ckpt, or a published checkpoint; see `model_path`.
        device: where the model goes; see `device_of`.
        dtype: of weights and activations: fp32, bf16, fp16 or torch's names of them.
        quant: packing of the language model's weights; see `quantize_`.
        max_length: longest question in tokens, those of its pictures included; None: any.
    """

    def __init__(
        self,
        pretrained: str,
        device: str | None = None,
        dtype: str = "fp32",
        quant: Quantization = "none",
        max_length: int | None = None,
    ) -> None:
        self.device, self.max_length = device_of(device), max_length
        settings = Settings(dtype_of(dtype), quant)
        path = model_path(os.path.expanduser(pretrained))
        self.model, self.processor = open_model(path, settings, self.device)

    def answers(self, asked: Sequence[Record], how: Generation) -> list[str]:
        """The answer to the last turn of each chat."""
        examples = self._examples(asked)
        if how.temperature:
            return [text.strip() for text in self._sampled(examples, how)]
        answerer = Answerer(self.model, self.processor, how.max_new_tokens)
        found = answerer.answer([_asked(record, []) for record in asked], examples)
        return [before_stop(answer.text, how.stop).strip() for answer in found]

    def likelihoods(
        self, asked: Sequence[Record], choices: Sequence[Sequence[str]]
    ) -> list[list[tuple[float, bool]]]:
        """Of each choice of each chat its log-likelihood, and whether a greedy answer begins with it."""
        examples, chat = self._examples(asked), self.processor.chat
        ids = {choice: chat.answer_ids(choice) for row in choices for choice in row}
        answerer = Answerer(self.model, self.processor, max(map(len, ids.values())))
        both = [_asked(record, row) for record, row in zip(asked, choices, strict=True)]
        scores = [answer.scores for answer in answerer.answer(both, examples)]
        batch = self.processor.collate(examples, left=True).to(self.device)
        greedy = self.model.generate(
            batch.ids, batch.pictures, batch.mask, max_new_tokens=answerer.max_new_tokens
        )
        return [
            [(score[choice], said[: len(ids[choice])] == ids[choice]) for choice in row]
            for score, row, said in zip(scores, choices, greedy.tolist(), strict=True)
        ]

    def _sampled(self, examples: Sequence[Example], how: Generation) -> list[str]:
        batch, chat = self.processor.collate(list(examples), left=True).to(self.device), self.processor.chat
        tokens = self.model.stream(
            batch.ids,
            batch.pictures,
            batch.mask,
            max_new_tokens=how.max_new_tokens,
            eos_id=chat.eos_id,
            sampler=how.sampler,
            suppress=chat.unknown_ids(self.model.lm.vocab_size).to(self.device),
            ahead=not how.stop,
        )
        return texts(tokens, chat.decode_part, how.stop)

    def _examples(self, asked: Sequence[Record]) -> list[Example]:
        examples = [self.processor.encode(record, prompt=True) for record in asked]
        for example in examples:
            if self.max_length is not None and len(example.ids) > self.max_length:
                raise ValueError(
                    f"question {example.record.id!r} has {len(example.ids)} tokens, more than max_length "
                    f"{self.max_length}: raise it"
                )
        return examples


def _asked(record: Record, choices: Sequence[str]) -> Asked:
    # its prompt is in the example already
    return Asked(Question(record.id, {}, record.images), "", list(choices))


def device_of(device: str | None) -> str:
    """A GPU where there is one, unless another device is named; of several processes, each one's own GPU."""
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    rank = os.environ.get("LOCAL_RANK")
    return f"cuda:{rank}" if device == "cuda" and rank is not None else device


def dtype_of(name: str) -> str:
    """fp32, bf16 or fp16.

    Raises:
        ValueError: where it is none of them, nor torch's name of one.
    """
    name = _DTYPES.get(name, name)
    if name not in _DTYPES.values():
        raise ValueError(f"dtype {name!r} must be fp32, bf16 or fp16")
    return name


def batch_size_of(said: int | str) -> int:
    """Questions at a time.

    Raises:
        ValueError: where a harness is to look for it.
    """
    if not str(said).isdecimal() or int(said) < 1:
        raise ValueError(f"batch_size {said} must be a number from 1 on: none is looked for here")
    return int(said)
