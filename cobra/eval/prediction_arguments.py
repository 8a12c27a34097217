"""Command-line arguments of the words of `cobra eval` that read predictions and no model. No torch here."""

import argparse
from pathlib import Path
from typing import Any

from cobra.config.argument_types import path, whole


def add_score(words: Any) -> None:
    """Add `score`."""
    score = words.add_parser("score", help="score files of predictions again, without the model")
    score.set_defaults(eval=_score)
    score.add_argument("files", type=path, nargs="+", metavar="FILE", help="what `cobra eval` wrote, *.jsonl")
    _add_benchmark(score)
    score.add_argument("--json", type=path, metavar="FILE", help="write the scores as JSON")


def _score(options: argparse.Namespace) -> None:
    from cobra.eval.score_files import score_files

    score_files(options.files, options.benchmark, options.json)


def add_compare(words: Any) -> None:
    """Add `compare`."""
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


def add_show(words: Any) -> None:
    """Add `show`."""
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


def add_submit(words: Any) -> None:
    """Add `submit`."""
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
