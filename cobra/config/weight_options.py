"""Command-line options of whatever loads a model: device, precision, quantization. No torch here."""

import argparse

_GROUP_SIZE = 32


def add_weight_options(parser: argparse.ArgumentParser) -> None:
    """Add `--device`, `--dtype`, `--quant` and `--group-size`."""
    parser.add_argument("--device", default="cpu", help="cpu, cuda, ... (default: cpu)")
    parser.add_argument(
        "--dtype",
        choices=("fp32", "bf16", "fp16"),
        default="fp32",
        help="of weights and activations; half the memory, on a GPU also the time (default: fp32)",
    )
    parser.add_argument(
        "--quant",
        choices=("none", "bf16", "int8", "int4"),
        default="none",
        help="weights of the language model (default: none, as they are stored)",
    )
    parser.add_argument(
        "--group-size",
        type=int,
        choices=(32, 64, 128),
        help=f"weights a scale in int4 (default: {_GROUP_SIZE})",
    )


def group_size(options: argparse.Namespace) -> int:
    """Weights a scale in int4.

    Raises:
        ValueError: where it is said, and no weights are in int4.
    """
    if options.group_size is not None and options.quant != "int4":
        raise ValueError(
            f"--group-size {options.group_size} is of --quant int4, not of {options.quant}: leave it out"
        )
    return options.group_size or _GROUP_SIZE
