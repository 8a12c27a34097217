"""The project's own verbs: what each takes on the command line, and what it runs.

Each imports what it needs when it runs, so that `--help` answers at once.
"""

import argparse
from collections.abc import Callable
from os.path import expanduser
from pathlib import Path

from cobra.config.argument_types import path, positive, share, whole
from cobra.config.limits import MAX_SEED, MAX_SIZE

_Arguments = Callable[[argparse.ArgumentParser], None]
_Run = Callable[[argparse.Namespace], None]


def _generate_arguments(parser: argparse.ArgumentParser) -> None:
    from cobra.inference.arguments import add_generate

    add_generate(parser)


def _generate(options: argparse.Namespace) -> None:
    from cobra.inference.arguments import generate

    generate(options)


def _chat_arguments(parser: argparse.ArgumentParser) -> None:
    from cobra.inference.arguments import add_chat

    add_chat(parser)


def _chat(options: argparse.Namespace) -> None:
    from cobra.inference.arguments import chat

    chat(options)


def _kernels_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", default="cpu", help="device type to explain for (default: cpu)")
    parser.add_argument("--dtype", default="fp32", help="fp32, bf16, fp16 or fp64 (default: fp32)")


def _kernels(options: argparse.Namespace) -> None:
    from cobra.kernels.show import print_kernels

    print_kernels(options.device, options.dtype)


def _data_arguments(parser: argparse.ArgumentParser) -> None:
    sets = parser.add_subparsers(dest="set", required=True, metavar="SET")
    shapes = sets.add_parser("shapes", help="write ShapesVQA as pictures and LLaVA-style JSON")
    shapes.set_defaults(data=_shapes)
    shapes.add_argument("--out", type=path, required=True, help="folder to write to")
    shapes.add_argument("--split", choices=("train", "test", "composition"), default="train")
    shapes.add_argument("--size", type=whole(1), default=2000, help="scenes (default: 2000)")
    shapes.add_argument("--seed", type=whole(0, MAX_SEED), default=0, help="of the scenes (default: 0)")
    text = sets.add_parser("text", help="write text that is here: Python's library, Debian's documentation")
    text.set_defaults(data=_text)
    text.add_argument("--out", type=path, required=True, help="folder to write to")
    tokenizer = sets.add_parser("tokenizer", help="train a byte-level BPE on text")
    tokenizer.set_defaults(data=_tokenizer)
    tokenizer.add_argument(
        "files", type=path, nargs="+", help="JSON Lines or parquet with a column `text`, or plain text"
    )
    tokenizer.add_argument(
        "--vocab-size", type=whole(300, MAX_SIZE), default=4096, help="tokens (default: 4096)"
    )
    tokenizer.add_argument(
        "--held-out", type=share, default=0.0, help="share of documents that it does not see (default: 0)"
    )
    tokenizer.add_argument("--out", type=path, required=True, help="folder to write to")
    check = sets.add_parser("check", help="find records that a run could not use: no chats, broken pictures")
    check.set_defaults(data=_check)
    check.add_argument("json", type=path, nargs="*", help="LLaVA-style files, JSON or JSON Lines")
    check.add_argument("--image-root", type=path, help="folder that the files' image paths start from")
    run = check.add_argument_group(
        "a run", "All that its stages read, instead of files; what was found is kept: a second look is short."
    )
    run.add_argument("-c", "--config", type=path, action="append", default=[], help="yaml of the run")
    run.add_argument("--stage", action="append", default=[], help="look at this stage alone; may be repeated")
    run.add_argument("--devices", type=whole(1), help="of the run (default: the config's)")
    run.add_argument("--json", type=path, dest="report", metavar="FILE", help="write what was found as JSON")
    run.add_argument("--plot", type=path, metavar="FILE", help="write a histogram of tokens as PNG")


def _data(options: argparse.Namespace) -> None:
    options.data(options)


def _shapes(options: argparse.Namespace) -> None:
    from cobra.data.shapes.export import export_llava

    export_llava(options.out, options.split, options.size, options.seed)


def _text(options: argparse.Namespace) -> None:
    from cobra.data.text.shipped import write_shipped_text

    write_shipped_text(options.out)


def _tokenizer(options: argparse.Namespace) -> None:
    from cobra.data.text.tokenizer import make_tokenizer

    make_tokenizer(options.files, options.vocab_size, options.out, options.held_out)


def _check(options: argparse.Namespace) -> None:
    files = {"--image-root": options.image_root}
    run = {"--stage": options.stage, "--devices": options.devices}
    run |= {"--json": options.report, "--plot": options.plot}
    idle = [name for name, value in (files if options.config else run).items() if value]
    if idle:
        kind = "files are" if options.config else "a run is"
        raise ValueError(f"{', '.join(idle)}: only where {kind} checked: leave it out")
    if options.config and not options.json:
        from cobra.train.check_data import check_data

        check_data(options.config, options.stage, options.devices, options.report, options.plot)
    elif options.json and options.image_root and not options.config:
        from cobra.data.check import print_check

        print_check(options.json, options.image_root)
    else:
        raise ValueError("name files and their --image-root, or the yamls of a run with -c")


def _convert_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "source",
        type=expanduser,
        help="folder, file of weights, a run's last.ckpt or hub repository (owner/name[/folder])",
    )
    parser.add_argument("out", type=path, help="folder to write, without a model in it")
    parser.add_argument(
        "--to", choices=("cobra", "hf"), default="cobra", help="hf: the language model for transformers"
    )
    parser.add_argument(
        "--vision",
        type=path,
        nargs="+",
        default=[],
        metavar="FILE",
        help="weights of each vision tower, in channel order (default: those in the checkpoint, or timm's)",
    )
    parser.add_argument(
        "--tokenizer",
        type=expanduser,
        help="folder or hub name (default: beside the weights, or the layout's)",
    )
    _base_argument(parser)


def _base_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--base",
        type=expanduser,
        help="of an adapter: the model that it belongs to, folder or hub repository (default: what it names)",
    )


def _convert(options: argparse.Namespace) -> None:
    from cobra.convert.run import convert

    convert(options.source, options.out, options.to, options.vision, options.tokenizer, options.base)


def _merge_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("adapter", type=expanduser, help="its folder or hub repository")
    parser.add_argument("out", type=path, help="folder to write, without a model in it")
    _base_argument(parser)


def _merge(options: argparse.Namespace) -> None:
    from cobra.convert.run import merge

    merge(options.adapter, options.out, options.base)


def _models_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "systems", nargs="*", metavar="SYSTEM", help="those to show, e.g. cobra_2.8b (default: all)"
    )
    parser.add_argument("--markdown", action="store_true", help="print docs/models.md instead of a table")
    parser.add_argument(
        "--configs", type=path, default=Path("configs"), help="folder of the yamls (default: configs)"
    )
    parser.add_argument(
        "--notes",
        type=path,
        help="sources and published sizes (default: docs/models.yaml beside the configs)",
    )
    training = parser.add_argument_group(
        "training",
        "Memory of a training step on each device, counted without data, and the pace of the run, estimated "
        "from its operations: a minute for all systems.",
    )
    training.add_argument("--training", action="store_true", help="show this instead of sizes and costs")
    training.add_argument(
        "--devices", type=whole(1), nargs="+", help="of a run, several numbers to compare (default: 8)"
    )
    training.add_argument("--batch-size", type=whole(1), help="sequences a device (default: each stage's)")
    training.add_argument("--max-length", type=whole(1), help="tokens a sequence (default: the config's)")
    training.add_argument("--memory", type=positive, metavar="GB", help="of a device (default: 80)")
    training.add_argument("--tflops", type=positive, help="a device's peak (default: 312, an A100's in bf16)")
    training.add_argument("--mfu", type=positive, help="the share of it that is reached (default: 0.25)")
    training.add_argument("--text-tokens", type=whole(1), help="of an example, for the pace (default: 300)")
    training.add_argument(
        "--bandwidth", type=positive, metavar="GB/S", help="between devices of a node (default: 200)"
    )
    training.add_argument(
        "--network", type=positive, metavar="GB/S", help="of a device between nodes (default: 25)"
    )


_TRAINING = (
    "devices", "batch_size", "max_length", "memory", "tflops", "mfu", "text_tokens", "bandwidth", "network",
)  # fmt: skip


def _models(options: argparse.Namespace) -> None:
    counted = {name: value for name in _TRAINING if (value := getattr(options, name)) is not None}
    if options.training and options.markdown:
        raise ValueError("--markdown is docs/models.md, which has no training: leave one of them out")
    if options.training:
        from cobra.train.show_memory import print_memory

        print_memory(options.configs, options.systems, **counted)
        return
    if counted:
        raise ValueError(f"{', '.join(counted)}: these are of a training step: add --training")
    from cobra.bench.systems.show import print_systems

    if options.notes and not options.notes.is_file():
        raise ValueError(f"--notes {options.notes}: there is no such file")
    notes = options.notes or options.configs.resolve().parent / "docs/models.yaml"
    print_systems(options.configs, notes, options.markdown, options.systems)


def _demo_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-c", "--config", type=path, action="append", required=True, help="yaml of the run")
    parser.add_argument("--out", type=path, required=True, help="folder for everything that is written")
    parser.add_argument(
        "--precision",
        help="of training; `auto` takes bf16 where this CPU is faster in it (default: the yaml's)",
    )
    parser.add_argument(
        "--seeds",
        type=whole(0, MAX_SEED),
        nargs="+",
        default=[0],
        help="of weights and data order (default: 0)",
    )


def _demo(options: argparse.Namespace) -> None:
    from cobra.eval.demo import run_demo

    run_demo(options.config, options.out, options.seeds, options.precision)


def _reproduce_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("paper", metavar="PAPER", help="cobra, imp, llava-1.5, ml-mamba, mobilellm, ...")
    parser.add_argument(
        "--runs",
        nargs="+",
        default=[],
        metavar="[SYSTEM=]OUT",
        help="what `cobra eval --out OUT` wrote for a system of the paper; two of one system are compared",
    )
    parser.add_argument(
        "--protocol",
        nargs="+",
        default=[],
        metavar="NAME",
        help="price the differences to these: paper, llava, lmms-eval, prismatic or a yaml (default: all)",
    )
    parser.add_argument("--out", type=path, help="folder for reproduce.md and reproduce.json")


def _reproduce(options: argparse.Namespace) -> None:
    from cobra.eval.reproduce import reproduce

    reproduce(options.paper, options.runs, options.protocol, options.out)


def _rehearse_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=path, default=Path("runs/rehearsal"), help="default: runs/rehearsal")
    parser.add_argument(
        "--seeds", type=whole(0, MAX_SEED), nargs="+", default=[0], help="of weights and order (default: 0)"
    )
    parser.add_argument(
        "--configs", type=path, default=Path("configs"), help="folder of the yamls (default: configs)"
    )
    parser.add_argument(
        "--precision",
        default="auto",
        help="of training; `auto` takes bf16 where this CPU is faster in it (default: auto)",
    )
    parser.add_argument("--smoke", action="store_true", help="a few steps each, whose result is not judged")


def _rehearse(options: argparse.Namespace) -> None:
    from cobra.eval.rehearsal import rehearse

    rehearse(options.configs, options.out, options.seeds, options.smoke, options.precision)


def _compare_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("runs", nargs="+", metavar="[NAME=]FOLDER", help="what `cobra fit` wrote")
    parser.add_argument("--out", type=path, required=True, help="folder for plots and table")


def _compare(options: argparse.Namespace) -> None:
    from cobra.eval.compare import compare

    compare(options.runs, options.out)


def _bench_arguments(parser: argparse.ArgumentParser) -> None:
    from cobra.bench.arguments import add_benches

    add_benches(parser.add_subparsers(dest="subject", required=True, metavar="SUBJECT"))


def _bench(options: argparse.Namespace) -> None:
    options.bench(options)


def _eval_arguments(parser: argparse.ArgumentParser) -> None:
    from cobra.eval.arguments import add_words

    add_words(parser.add_subparsers(dest="word", required=True, metavar="WORD"))


def _eval(options: argparse.Namespace) -> None:
    options.eval(options)


def _export_arguments(parser: argparse.ArgumentParser) -> None:
    from cobra.export.arguments import add_words

    add_words(parser.add_subparsers(dest="word", required=True, metavar="WORD"))


def _export(options: argparse.Namespace) -> None:
    options.export(options)


def _conform_arguments(parser: argparse.ArgumentParser) -> None:
    from cobra.export.arguments import add_conform

    add_conform(parser)


def _conform(options: argparse.Namespace) -> None:
    options.conform(options)


def said_in_full(command: list[str]) -> list[str]:
    """The words of a command line behind `cobra`, with those that may be left out."""
    import cobra.eval.arguments
    import cobra.export.arguments

    return cobra.export.arguments.said_in_full(cobra.eval.arguments.said_in_full(command))


VERBS: list[tuple[str, str, _Arguments, _Run]] = [
    ("generate", "answer a question about a picture", _generate_arguments, _generate),
    ("chat", "talk about pictures in the terminal or through a pipe", _chat_arguments, _chat),
    ("models", "show every system: sizes, FLOPs, bytes, memory in training", _models_arguments, _models),
    ("convert", "turn a published checkpoint into a model folder, or back", _convert_arguments, _convert),
    ("merge", "join an adapter and its base into a model folder", _merge_arguments, _merge),
    ("data", "write a data set to disk, or check one", _data_arguments, _data),
    ("kernels", "show which backend runs each operator, and why not another", _kernels_arguments, _kernels),
    ("bench", "measure speed and write a report", _bench_arguments, _bench),
    ("eval", "measure accuracy on benchmarks: cobra eval MODEL", _eval_arguments, _eval),
    ("export", "write a mobile build: cobra export MODEL; check or ask one", _export_arguments, _export),
    ("conform", "hold engines to the laws of state", _conform_arguments, _conform),
    (
        "demo",
        "train a config and its blind twin, evaluate both, draw the results",
        _demo_arguments,
        _demo,
    ),
    (
        "reproduce",
        "show a paper's tables, the commands that make them here, and ours in them",
        _reproduce_arguments,
        _reproduce,
    ),
    (
        "rehearse",
        "train the tiny model from files as the large recipes do: full, packed, LoRA; hold it to the demo",
        _rehearse_arguments,
        _rehearse,
    ),
    (
        "compare",
        "draw trained runs beside each other: accuracy by steps and time, cost of a token",
        _compare_arguments,
        _compare,
    ),
]
