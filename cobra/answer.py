"""Answer one question on the command line."""

import argparse
from collections.abc import Iterator

import torch
from torch.utils._pytree import tree_map

from cobra.data.processor import Processor
from cobra.data.record import Record, user
from cobra.models.sampling import Sampler
from cobra.models.vlm import CobraVLM
from cobra.pretrained import from_pretrained


def print_answer(options: argparse.Namespace) -> None:
    """Load the model, and print the answer while it is generated."""
    try:
        generator = torch.Generator(options.device).manual_seed(options.seed)
    except RuntimeError as error:
        raise ValueError(f"--device {options.device}: not on this machine ({error})") from error
    model, processor = from_pretrained(options.ckpt, options.device)
    sampler = Sampler(options.temperature, options.top_k, options.top_p, options.min_p, generator)
    images = [options.image] if options.image else []
    for text in stream_answer(model, processor, options.prompt, images, options.max_new_tokens, sampler):
        print(text, end="", flush=True)
    print()


def stream_answer(
    model: CobraVLM, processor: Processor, prompt: str, images: list, max_new_tokens: int, sampler: Sampler
) -> Iterator[str]:
    """The answer to one question about pictures, in pieces of text as they become certain."""
    record = Record("prompt", [user(prompt, len(images))], images)
    batch = processor.collate([processor.encode(record, prompt=True)], left=True)
    device = next(model.parameters()).device
    ids, pixels = tree_map(
        lambda x: x.to(device) if isinstance(x, torch.Tensor) else x, (batch.ids, batch.pixels)
    )
    new: list[int] = []
    shown = ""
    stream = model.stream(
        ids, pixels, max_new_tokens=max_new_tokens, eos_id=processor.chat.eos_id, sampler=sampler
    )
    for token in stream:
        new.append(int(token))
        text = processor.chat.decode(new)
        # bytes of an unfinished character decode to a replacement sign: wait for the rest
        if not text.endswith("\ufffd"):
            yield text[len(shown) :]
            shown = text
    yield processor.chat.decode(new)[len(shown) :]
