"""Command-line arguments of `cobra generate` and `cobra chat`. No torch here."""

import argparse
from typing import TYPE_CHECKING

from cobra.config.argument_types import path, whole
from cobra.config.limits import MAX_SEED
from cobra.config.weight_options import add_weight_options, group_size

if TYPE_CHECKING:
    from cobra.inference.conversation import Conversation


def add_generate(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `cobra generate`."""
    add_chat(parser)
    parser.add_argument("--prompt", required=True, help="the question")


def add_chat(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `cobra chat`."""
    parser.add_argument(
        "--ckpt", type=path, required=True, help="folder of a trained model, or a run's checkpoints/last.ckpt"
    )
    parser.add_argument(
        "--adapter", type=path, help="folder of an adapter of that model, e.g. a run's adapter/"
    )
    parser.add_argument(
        "--image",
        type=path,
        nargs="+",
        action="extend",
        default=[],
        metavar="FILE",
        help="the pictures, in order; none asks about text alone",
    )
    parser.add_argument("--max-new-tokens", type=whole(1), default=256, help="longest answer (default: 256)")
    parser.add_argument(
        "--max-length",
        type=whole(1),
        default=4096,
        help="longest question in tokens, and the length of a transformer's cache (default: 4096)",
    )
    parser.add_argument("--temperature", type=float, default=0.0, help="0 is greedy (default: 0)")
    parser.add_argument(
        "--top-k", type=whole(0), default=0, help="sample from the k likeliest tokens (default: all)"
    )
    parser.add_argument(
        "--top-p", type=float, default=1.0, help="sample from the likeliest that reach p (default: 1)"
    )
    parser.add_argument(
        "--min-p", type=float, default=0.0, help="drop tokens less likely than this share of the best"
    )
    parser.add_argument(
        "--repetition-penalty",
        type=float,
        default=1.0,
        help="above 1 makes less likely what the answer has said (default: 1)",
    )
    parser.add_argument(
        "--stop",
        action="append",
        default=[],
        metavar="TEXT",
        help="end the answer before this; may be repeated",
    )
    parser.add_argument("--seed", type=whole(0, MAX_SEED), default=0, help="of sampling (default: 0)")
    add_weight_options(parser)
    parser.add_argument(
        "--state-dtype", choices=("fp32", "bf16"), default="fp32", help="of a recurrent state (default: fp32)"
    )


def generate(options: argparse.Namespace) -> None:
    """Print an answer."""
    from cobra.inference.answer import print_answer

    print_answer(_conversation(options), options.prompt, options.image)


def chat(options: argparse.Namespace) -> None:
    """Talk in the terminal."""
    from cobra.inference.terminal import chat

    chat(_conversation(options), options.image)


def _conversation(options: argparse.Namespace) -> "Conversation":
    from cobra.inference.answer import open_conversation

    return open_conversation(
        options.ckpt,
        adapter=options.adapter,
        device=options.device,
        dtype=options.dtype,
        quant=options.quant,
        group_size=group_size(options),
        state_dtype=options.state_dtype,
        max_length=options.max_length,
        max_new_tokens=options.max_new_tokens,
        temperature=options.temperature,
        top_k=options.top_k,
        top_p=options.top_p,
        min_p=options.min_p,
        repetition_penalty=options.repetition_penalty,
        stop=options.stop,
        seed=options.seed,
    )
