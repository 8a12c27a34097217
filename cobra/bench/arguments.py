"""Command-line arguments of `cobra bench`. No torch here."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cobra.bench.runtimes import QUANTS
from cobra.config.argument_types import path, whole
from cobra.config.limits import MAX_THREADS

# The papers' number of new tokens.
_NEW_TOKENS = 256
_CONTEXTS = (0, 2048, 8192, 32768, 131072)
_LENGTHS = (128, 512, 1024, 4096, 16384)


def add_benches(subjects: Any) -> None:
    """Add all of them to the subjects of `cobra bench`."""
    e2e = subjects.add_parser("e2e", help="the papers' protocol: one picture, one question, 256 new tokens")
    _add_models(e2e)
    e2e.add_argument(
        "--new-tokens",
        type=whole(2),
        default=_NEW_TOKENS,
        help=f"generated, exactly (default: {_NEW_TOKENS})",
    )
    e2e.set_defaults(bench=_e2e)
    decode = subjects.add_parser("decode", help="tokens a second against the context")
    _add_models(decode)
    _add_lengths(decode, "--contexts", _CONTEXTS, "tokens of context", 0)
    decode.add_argument("--tokens", type=whole(1), default=16, help="steps of a repeat (default: 16)")
    decode.add_argument(
        "--real-prefill", action="store_true", help="read the context instead of making its state up"
    )
    decode.set_defaults(bench=_decode)
    prefill = subjects.add_parser("prefill", help="tokens a second against the length of the prompt")
    _add_models(prefill)
    _add_lengths(prefill, "--lengths", _LENGTHS, "tokens of a prompt", 1)
    prefill.set_defaults(bench=_prefill)
    train = subjects.add_parser(
        "train", help="tokens a second of training, and its share of the machine's rate"
    )
    _add_models(train)
    _add_lengths(train, "--lengths", (512,), "tokens of text a picture", 2)
    train.add_argument("--batch", type=whole(1), default=1, help="pictures of a step (default: 1)")
    train.set_defaults(bench=_train)
    kernels = subjects.add_parser("kernels", help="our kernels beside their peers and the machine's ceilings")
    _add_run(kernels)
    kernels.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    kernels.add_argument("--quick", action="store_true", help="small sizes: tries the bench, judges nothing")
    kernels.add_argument("--no-peers", action="store_true", help="leave transformers and torch's own out")
    kernels.add_argument(
        "--only", nargs="*", default=[], metavar="WORD", help="operators whose name in the report has a WORD"
    )
    kernels.set_defaults(bench=_kernels)
    compare = subjects.add_parser("compare", help="what changed between two reports, with intervals")
    compare.add_argument("before", type=path, help="JSON of the first run")
    compare.add_argument("after", type=path, help="JSON of the second")
    compare.set_defaults(bench=_compare)


def _add_models(parser: argparse.ArgumentParser) -> None:
    known = "; ".join(f"{runtime}: {', '.join(quants)}" for runtime, quants in QUANTS.items())
    parser.add_argument(
        "--models",
        nargs="+",
        required=True,
        metavar="NAME",
        help="config (cobra_2.8b, or a variant: cobra_2.8b/ldpv2) or language model (mamba2-1.3b)",
    )
    _add_run(parser)
    parser.add_argument(
        "--quant",
        nargs="+",
        default=[],
        metavar="QUANT",
        help=f"language model's weights; a runtime takes those that it knows (default: the first of {known})",
    )
    parser.add_argument(
        "--state-dtype",
        nargs="+",
        choices=("fp32", "bf16"),
        default=["fp32"],
        help="of a recurrent state in our engine; a transformer has none (default: fp32)",
    )
    parser.add_argument(
        "--runtime",
        nargs="+",
        choices=tuple(QUANTS),
        default=["torch"],
        help="torch is our engine; gguf (llama.cpp) and executorch run mobile builds, with random weights, "
        "kept in $COBRA_CACHE/exports (default: torch)",
    )
    parser.add_argument(
        "--dtype",
        choices=("float32", "bfloat16", "float16"),
        default="bfloat16",
        help="of activations, and of weights that are not quantized (default: bfloat16)",
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument(
        "--configs", type=path, default=Path("configs"), help="folder of the yamls (default: configs)"
    )
    parser.add_argument(
        "--read-mebibytes",
        type=whole(1),
        default=1280,
        help="read to measure the bandwidth (default: 1280)",
    )


def _add_run(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=path, required=True, help="folder to write the reports to")
    parser.add_argument(
        "--threads", type=whole(1, MAX_THREADS), default=1, help="of each process (default: 1)"
    )
    parser.add_argument("--repeats", type=whole(1), default=5, help="in turn with the others (default: 5)")


def _add_lengths(
    parser: argparse.ArgumentParser, name: str, default: Sequence[int], what: str, least: int
) -> None:
    text = " ".join(map(str, default))
    parser.add_argument(
        name, nargs="+", type=whole(least), default=list(default), help=f"{what} (default: {text})"
    )


def _e2e(options: argparse.Namespace) -> None:
    _run(options, "e2e", [0], new_tokens=options.new_tokens)


def _decode(options: argparse.Namespace) -> None:
    more = {"real": True} if options.real_prefill else {}
    _run(options, "decode", sorted(set(options.contexts)), "context", tokens=options.tokens, **more)


def _prefill(options: argparse.Namespace) -> None:
    _run(options, "prefill", sorted(set(options.lengths)), "length")


def _train(options: argparse.Namespace) -> None:
    _run(options, "train", sorted(set(options.lengths)), "length", batch=options.batch)


def _run(
    options: argparse.Namespace, case: str, lengths: Sequence[int], name: str = "", **arguments: Any
) -> None:
    from cobra.bench.engines import Point, Settings
    from cobra.bench.model_bench import bench_models
    from cobra.bench.subjects import read_subjects

    settings = Settings(
        list(dict.fromkeys(options.quant)),
        options.dtype,
        options.device,
        list(dict.fromkeys(options.runtime)),
        options.threads,
        options.read_mebibytes,
        list(dict.fromkeys(options.state_dtype)),
    )
    points = [Point(case, length, {**arguments, **({name: length} if name else {})}) for length in lengths]
    subjects = read_subjects(list(dict.fromkeys(options.models)), options.configs)
    bench_models(subjects, points, settings, options.repeats, options.out)


def _kernels(options: argparse.Namespace) -> None:
    from cobra.bench.op_bench import bench_kernels

    bench_kernels(
        options.out,
        options.repeats,
        options.threads,
        options.quick,
        not options.no_peers,
        options.only,
        options.device,
    )


def _compare(options: argparse.Namespace) -> None:
    from cobra.bench.compare import compare

    compare(options.before, options.after)
