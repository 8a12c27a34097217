"""Answer one question on the command line."""

import argparse

import torch

from cobra.conversation import Conversation
from cobra.models.lm.state_dtype import set_state_dtype
from cobra.models.quantise import quantise_
from cobra.models.sampling import Sampler
from cobra.pretrained import from_pretrained


def print_answer(options: argparse.Namespace) -> None:
    """Load the model, and print the answer while it is generated."""
    conversation = open_conversation(options)
    for text in conversation.ask(options.prompt, [options.image] if options.image else []):
        print(text, end="", flush=True)
    print()


def open_conversation(options: argparse.Namespace) -> Conversation:
    """A conversation with the model that the command line names, sampled as it says."""
    filtered = options.top_k or options.top_p < 1 or options.min_p
    if filtered and not options.temperature:
        raise ValueError("--top-k, --top-p and --min-p filter what is sampled: give a --temperature above 0")
    try:
        generator = torch.Generator(options.device).manual_seed(options.seed)
    except RuntimeError as error:
        reason = str(error).partition(". ")[0]
        raise ValueError(f"--device {options.device}: not on this machine ({reason})") from error
    except (OverflowError, ValueError) as error:
        raise ValueError(f"--seed {options.seed} has more than 64 bits: take a smaller one") from error
    sampler = Sampler(options.temperature, options.top_k, options.top_p, options.min_p, generator)
    model, processor = from_pretrained(options.ckpt, options.device)
    quantise_(model.lm, options.quant, options.group_size)
    set_state_dtype(model.lm, options.state_dtype)
    return Conversation(model, processor, options.max_length, options.max_new_tokens, sampler)
