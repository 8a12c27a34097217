"""Command-line arguments of `cobra eval`. No torch here."""

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from cobra.config.argument_types import path, whole
from cobra.config.unsaid_word import with_word
from cobra.config.weight_options import add_weight_options, group_size
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


def _add_score(words: Any) -> None:
    score = words.add_parser("score", help="score files of predictions again, without the model")
    score.set_defaults(eval=_score)
    score.add_argument("files", type=path, nargs="+", metavar="FILE", help="what `cobra eval` wrote, *.jsonl")
    _add_benchmark(score)
    score.add_argument("--json", type=path, metavar="FILE", help="write the scores as JSON")


def _score(options: argparse.Namespace) -> None:
    from cobra.eval.score_files import score_files

    score_files(options.files, options.benchmark, options.json)


def _add_compare(words: Any) -> None:
    compare = words.add_parser(
        "compare",
        help="two models on the same questions, with intervals; or more, in one table",
        description="Compare two models on the same questions, by kinds of questions. Of more than two "
        "folders print what each loses against the first, in one table: exports with size and parity.",
    )
    compare.set_defaults(eval=_compare)
    compare.add_argument("a", type=path, metavar="A", help="file of predictions, or folder of `cobra eval`")
    compare.add_argument(
        "b", type=path, nargs="+", metavar="B", help="the other, or others; differences are B less A"
    )
    compare.add_argument(
        "--common", action="store_true", help="take the questions of both, where one has others too"
    )
    _add_benchmark(compare)
    compare.add_argument("--out", type=path, help="folder for comparison.json, .md and .png")


def _compare(options: argparse.Namespace) -> None:
    if len(options.b) > 1:
        if options.common:
            raise ValueError("--common is for two: of more, all have to answer the same questions")
        from cobra.eval.compare_several import compare_several

        compare_several(options.a, options.b, options.benchmark, options.out)
        return
    from cobra.eval.compare_answers import compare_answers

    compare_answers(options.a, options.b[0], options.common, options.benchmark, options.out)


def _add_benchmark(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--benchmark", metavar="NAME", help="or its Python file (default: what the predictions name)"
    )


def _add_show(words: Any) -> None:
    show = words.add_parser(
        "show",
        help="write predictions as one HTML page: pictures, questions, answers",
        description="Write predictions as one HTML page that needs no network: pictures, questions, answers "
        "and what they earn. Two files or folders of the same questions come side by side.",
    )
    show.set_defaults(eval=_show)
    show.add_argument(
        "predictions",
        type=path,
        nargs="+",
        metavar="FILE",
        help="predictions (*.jsonl), or a folder with them",
    )
    show.add_argument(
        "--data",
        "--images",
        type=path,
        default=Path("data"),
        help="folder of all benchmarks, where the pictures are (default: data)",
    )
    show.add_argument(
        "--out", type=path, metavar="PAGE", help="(default: answers.html beside the predictions)"
    )
    show.add_argument(
        "--limit", type=whole(1), default=10_000, help="questions on the page, evenly spread (default: 10000)"
    )
    show.add_argument(
        "--benchmark", action="append", default=[], metavar="FILE.py", help="of your own; may be repeated"
    )


def _show(options: argparse.Namespace) -> None:
    from cobra.eval.answers_page.page import write_page

    page = write_page(options.predictions, options.data, options.out, options.limit, options.benchmark)
    print(f"{page}: open it in a browser")


def _add_submit(words: Any) -> None:
    submit = words.add_parser(
        "submit",
        help="write predictions as a server or judge wants them",
        description="Write predictions in the format of the server or judge that scores them.",
    )
    submit.set_defaults(eval=_submit)
    submit.add_argument("server", choices=("vqav2", "gqa", "vizwiz", "mmbench", "mmvet"), help="whose format")
    submit.add_argument("predictions", type=path, metavar="FILE", help="predictions of a run, one ask")
    submit.add_argument("--out", type=path, required=True, metavar="FILE", help="what to upload")
    submit.add_argument(
        "--data", type=path, default=Path("data"), help="folder of all benchmarks (default: data)"
    )
    submit.add_argument(
        "--pad",
        action="store_true",
        help="give questions without a prediction an empty answer, as LLaVA does",
    )


def _submit(options: argparse.Namespace) -> None:
    from cobra.eval.submissions.submit import submit

    print(submit(options.server, options.predictions, options.data, options.out, options.pad))


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
    "score": _add_score,
    "compare": _add_compare,
    "show": _add_show,
    "submit": _add_submit,
    "data": _add_data,
    "mobile": _add_mobile,
    "lmms": _add_lmms,
    "lm": _add_lm,
}
