"""A vision-language model as harnesses use one: batches of chats go in, answers and likelihoods come out."""

import os
from collections.abc import Sequence

import torch
from torch import Tensor

from cobra.data.batch import Batch
from cobra.data.record import Record
from cobra.eval.harness.generation import Generation, texts
from cobra.models.quantize import Quantization
from cobra.pretrained import from_pretrained

DTYPES = {
    "fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16,
    "float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16,
}  # fmt: skip


class Answerer:
    """Answers questions about pictures, several at once as each alone.

    Args:
        pretrained: model folder or a run's checkpoints/last.ckpt.
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
        self.device = device_of(device)
        self.model, self.processor = from_pretrained(
            os.path.expanduser(pretrained), self.device, dtype_of(dtype), quant
        )
        self.max_length = max_length
        self._unknown = self.processor.chat.unknown_ids(self.model.lm.vocab_size).to(self.device)

    def answers(self, asked: Sequence[Record], how: Generation) -> list[str]:
        """The answer to the last turn of each chat."""
        batch, chat = self._batch(asked), self.processor.chat
        tokens = self.model.stream(
            batch.ids,
            batch.pictures,
            batch.mask,
            max_new_tokens=how.max_new_tokens,
            eos_id=chat.eos_id,
            sampler=how.sampler,
            suppress=self._unknown,
            ahead=not how.stop,
        )
        return [text.strip() for text in texts(tokens, chat.decode_part, how.stop)]

    def likelihoods(
        self, asked: Sequence[Record], choices: Sequence[Sequence[str]]
    ) -> list[list[tuple[float, bool]]]:
        """Of each choice of each chat its log-likelihood, and whether a greedy answer begins with it."""
        batch, chat = self._batch(asked), self.processor.chat
        ids = [[chat.answer_ids(choice) for choice in row] for row in choices]
        scores = self.model.score_choices(batch.ids, batch.pictures, batch.mask, choices=ids)
        longest = max(len(choice) for row in ids for choice in row)
        likeliest = self.model.generate(batch.ids, batch.pictures, batch.mask, max_new_tokens=longest)
        return [
            [(float(score), begins(answer, choice)) for score, choice in zip(row, own, strict=True)]
            for row, own, answer in zip(scores, ids, likeliest, strict=True)
        ]

    def _batch(self, asked: Sequence[Record]) -> Batch:
        examples = [self.processor.encode(record, prompt=True) for record in asked]
        for example in examples:
            if self.max_length is not None and len(example.ids) > self.max_length:
                raise ValueError(
                    f"question {example.record.id!r} has {len(example.ids)} tokens, more than max_length "
                    f"{self.max_length}: raise it"
                )
        return self.processor.collate(examples, left=True).to(self.device)


def begins(answer: Tensor, choice: Sequence[int]) -> bool:
    """Whether token ids (L,) begin with those of a choice."""
    return answer[: len(choice)].tolist() == list(choice)


def device_of(device: str | None) -> str:
    """A GPU where there is one, unless another device is named; of several processes, each one's own GPU."""
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    rank = os.environ.get("LOCAL_RANK")
    return f"cuda:{rank}" if device == "cuda" and rank is not None else device


def dtype_of(name: str) -> torch.dtype:
    """The dtype of one of the names in `DTYPES`.

    Raises:
        ValueError: where it is none of them.
    """
    if name not in DTYPES:
        raise ValueError(f"dtype {name!r} must be one of {', '.join(DTYPES)}")
    return DTYPES[name]
