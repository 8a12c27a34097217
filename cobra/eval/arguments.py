"""Command-line arguments of `cobra eval`. No torch here."""

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from cobra.config.argument_types import path, whole
from cobra.config.unsaid_word import with_word
from cobra.config.weight_options import add_weight_options, group_size
from cobra.eval.prediction_arguments import add_compare, add_score, add_show, add_submit
from cobra.export.targets import DEVICES, TARGETS

# the subcommand of `cobra eval MODEL`, which need not be said
_UNSAID = "run"


def add_words(words: Any) -> None:
    """Add all of them to the words of `cobra eval`."""
    for add in _WORDS.values():
        add(words)


def said_in_full(command: list[str]) -> list[str]:
    """The words of a command line behind `cobra`, with the one that `cobra eval MODEL` leaves out."""
    return with_word(command, "eval", _UNSAID, _WORDS)


def _add_run(words: Any) -> None:
    run = words.add_parser(
        _UNSAID,
        help="answer benchmarks and score the answers; the word may be left out: cobra eval MODEL ...",
        description="Answer benchmarks with a model and score the answers. A run that was stopped goes on.",
    )
    run.set_defaults(eval=_run)
    run.add_argument(
        "model",
        metavar="MODEL",
        help="model folder, a run's checkpoints/last.ckpt, a published checkpoint (folder or owner/name), or "
        "what `cobra export` wrote, which its own runtime answers for (--device cpu or vulkan)",
    )
    run.add_argument(
        "--benchmarks",
        type=_list,
        required=True,
        metavar="NAME,...",
        help="by name, or Python files that define one each",
    )
    run.add_argument(
        "--protocol",
        type=_list,
        default=["llava"],
        metavar="NAME,...",
        help="how they are asked: llava, prismatic, lmms-eval or a yaml (default: llava)",
    )
    run.add_argument(
        "--data", type=path, default=Path("data"), help="folder of all benchmarks (default: data)"
    )
    run.add_argument("--out", type=path, help="folder for predictions and scores")
    run.add_argument(
        "--batch-size", type=whole(1), help="questions at a time (default: 32; an export takes 1 alone)"
    )
    run.add_argument(
        "--limit",
        type=whole(1),
        help="questions of each benchmark, drawn by lot, always the same (default: all)",
    )
    add_weight_options(run)
    run.add_argument("--devices", type=whole(1), default=1, help="processes, a device each (default: 1)")
    run.add_argument("--adapter", type=path, help="folder of an adapter of that model")
    run.add_argument(
        "--allow-missing", action="store_true", help="leave out questions whose pictures are missing"
    )
    run.add_argument(
        "--check-invariance",
        action="store_true",
        help="answer at batch sizes 1, 2 and 16 and in reverse instead, and compare; status 1 if any differ; "
        "writes nothing, on one device: not with --out, --batch-size or --devices",
    )


def _add_lmms(words: Any) -> None:
    _add_harness(words, "lmms", "lmms-eval", "a model's answers", "--tasks pope --batch_size 16", _lmms)


def _add_lm(words: Any) -> None:
    about = "a language model, or that of a whole model"
    _add_harness(words, "lm", "lm-evaluation-harness", about, "--tasks commonsense --batch_size 16", _lm)


def _add_harness(words: Any, name: str, title: str, about: str, example: str, run: Any) -> None:
    harness = words.add_parser(
        name,
        help=f"let {title} score {about}",
        description=f"Let {title} score {about}. Options behind MODEL are its own, such as {example}.",
    )
    harness.set_defaults(eval=run)
    harness.add_argument("model", metavar="MODEL", help="model folder, or a run's checkpoints/last.ckpt")
    harness.add_argument("options", nargs=argparse.REMAINDER, metavar="...", help=f"options of {title}")


def _lmms(options: argparse.Namespace) -> None:
    from cobra.eval.harness.launch import run_lmms_eval

    run_lmms_eval(options.model, options.options)


def _lm(options: argparse.Namespace) -> None:
    from cobra.eval.harness.launch import run_lm_eval

    run_lm_eval(options.model, options.options)


def _list(text: str) -> list[str]:
    names = list(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    if not names:
        raise argparse.ArgumentTypeError("names nothing")
    return names


def _run(options: argparse.Namespace) -> None:
    from cobra.eval.opening import Settings

    settings = Settings(options.dtype, options.quant, group_size(options), options.adapter)
    what = (options.model, options.benchmarks, options.protocol, options.data)
    how = {
        "settings": settings,
        "device": options.device,
        "limit": options.limit,
        "allow_missing": options.allow_missing,
    }
    if options.check_invariance:
        idle = {"--out": options.out, "--batch-size": options.batch_size, "--devices": options.devices > 1}
        if said := [name for name, value in idle.items() if value]:
            raise ValueError(
                f"{', '.join(said)}: not with --check-invariance, which writes nothing and has its "
                "own batches, on one device: leave it out"
            )
        from cobra.eval.invariance import check_invariance

        sys.exit(int(check_invariance(*what, **how) > 0))
    if options.out is None:
        raise ValueError("name a folder for predictions and scores with --out")
    from cobra.eval.evaluate import evaluate

    evaluate(*what, options.out, devices=options.devices, batch_size=options.batch_size, **how)


def _add_data(words: Any) -> None:
    data = words.add_parser(
        "data",
        help="say what to download for benchmarks, and what of it is there",
        description="Say what to download for benchmarks, from where, into which folder, and what is there. "
        "Status 0 where nothing is missing.",
    )
    data.set_defaults(eval=_data)
    data.add_argument(
        "names",
        nargs="*",
        metavar="BENCHMARK",
        help="by name, or a Python file that defines one (default: all, a line each)",
    )
    data.add_argument(
        "--data", type=path, default=Path("data"), help="folder of all benchmarks (default: data)"
    )


def _data(options: argparse.Namespace) -> None:
    from cobra.eval.data_files import print_data

    if not print_data(options.names, options.data):
        sys.exit(1)


def _add_mobile(words: Any) -> None:
    mobile = words.add_parser(
        "mobile",
        help="export a model to all mobile builds; verify, ask and evaluate each",
        description="Export a model to all targets and quants of `cobra export`, verify each build, ask it "
        "about a picture in its own runtime, evaluate it, and write a page with what it weighs and loses. "
        "What this machine lacks is left out, and said. Status 1 where a build breaks a law or is silent.",
    )
    mobile.set_defaults(eval=_mobile)
    mobile.add_argument("model", type=path, metavar="MODEL", help="model folder")
    mobile.add_argument(
        "--out", type=path, required=True, metavar="DIR", help="folder for builds and README.md"
    )
    mobile.add_argument("--benchmark", default="shapes", metavar="NAME", help="(default: shapes)")
    mobile.add_argument(
        "--data", type=path, default=Path("data"), help="folder of all benchmarks (default: data)"
    )
    mobile.add_argument("--limit", type=whole(1), help="questions (default: all)")
    mobile.add_argument(
        "--target", nargs="+", choices=sorted(TARGETS), default=list(TARGETS), help="(default: all)"
    )
    mobile.add_argument(
        "--device",
        nargs="+",
        choices=DEVICES,
        default=list(DEVICES),
        help="that builds are asked on, where their targets run there (default: all)",
    )


def _mobile(options: argparse.Namespace) -> None:
    from cobra.eval.mobile import Mobile

    # else llama.cpp leaves out a GPU in software, such as lavapipe; laws are checked in
    # this very process, or in one that it starts
    os.environ.setdefault("GGML_VK_VISIBLE_DEVICES", "0")
    given = (options.model, options.out, options.benchmark, options.data, options.limit)
    if not Mobile(*given).write(options.target, options.device):
        sys.exit(1)


# the subcommands: any other first word of `cobra eval` is a MODEL
_WORDS = {
    _UNSAID: _add_run,
    "score": add_score,
    "compare": add_compare,
    "show": add_show,
    "submit": add_submit,
    "data": _add_data,
    "mobile": _add_mobile,
    "lmms": _add_lmms,
    "lm": _add_lm,
}
