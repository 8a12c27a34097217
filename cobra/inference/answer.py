"""Answers about pictures: a model folder becomes a conversation, one question is answered and printed."""

import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from cobra.config.shown_text import harmless
from cobra.inference.conversation import Conversation
from cobra.models.quantize import Quantization
from cobra.models.sampling import Sampler
from cobra.pretrained import from_pretrained

# as options name them
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def print_answer(conversation: Conversation, prompt: str, images: Sequence[Path] = ()) -> None:
    """Print the answer while it is generated."""
    for text in conversation.ask(prompt, images):
        print(harmless(text, sys.stdout), end="", flush=True)
    print()


def open_conversation(
    ckpt: str | Path,
    *,
    adapter: Path | None = None,
    device: str = "cpu",
    dtype: str = "fp32",
    quant: Quantization = "none",
    group_size: int = 32,
    state_dtype: str = "fp32",
    max_length: int = 4096,
    max_new_tokens: int = 256,
    temperature: float = 0.0,
    top_k: int = 0,
    top_p: float = 1.0,
    min_p: float = 0.0,
    repetition_penalty: float = 1.0,
    stop: Sequence[str] = (),
    seed: int = 0,
) -> Conversation:
    """A conversation with the model in a folder; the arguments are the options of `cobra generate`.

    Raises:
        ValueError: where an option does not fit this machine, the model or the others.
        OSError: where the folder or one of its files is missing.
    """
    if (top_k or top_p < 1 or min_p) and not temperature:
        raise ValueError("--top-k, --top-p and --min-p filter what is sampled: give a --temperature above 0")
    try:
        generator = torch.Generator(device).manual_seed(seed)
    except RuntimeError as error:
        reason = str(error).partition(". ")[0]
        raise ValueError(f"--device {device}: not on this machine ({reason})") from error
    except (OverflowError, ValueError) as error:
        raise ValueError(f"--seed {seed} has more than 64 bits: take a smaller one") from error
    sampler = Sampler(temperature, top_k, top_p, min_p, generator, repetition_penalty)
    model, processor = from_pretrained(ckpt, device, DTYPES[dtype], quant, group_size, adapter)
    model.lm.set_state_dtype(state_dtype)
    return Conversation(model, processor, max_length, max_new_tokens, sampler, stop)
