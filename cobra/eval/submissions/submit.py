"""Submission of predictions: held against the questions of the server, written in its format."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from cobra.eval.benchmarks.base import Question
from cobra.eval.benchmarks.find import find_benchmark
from cobra.eval.predictions import Prediction, read_predictions
from cobra.eval.submissions import formats

# Of each server: whose predictions it takes, and how they are written.
_SERVERS: dict[str, tuple[tuple[str, ...], Callable[[Path, Sequence[formats.Answered]], None]]] = {
    "vqav2": (("vqav2_test", "vqav2"), formats.write_vqav2),
    "gqa": (("gqa",), formats.write_gqa),
    "vizwiz": (("vizwiz_test", "vizwiz"), formats.write_vizwiz),
    "mmbench": (("mmbench", "mmbench_cn", "ccbench"), formats.write_mmbench),
    "mmvet": (("mmvet",), formats.write_mmvet),
}


def submit(server: str, predictions: Path, data: Path, out: Path, pad: bool) -> str:
    """Write a submission; returns what was done, in a line.

    Args:
        server: one of `_SERVERS`.
        predictions: JSON Lines file of a run.
        data: folder of all benchmarks, whose questions the server expects answers to.
        out: the file to upload.
        pad: give questions without a prediction an empty answer, as LLaVA does: servers want all of them.

    Raises:
        ValueError: where predictions are of another benchmark, mixed, double, of unknown questions, or not of
            all questions without `pad`.
    """
    accepted, write = _SERVERS[server]
    said = _by_question(predictions, accepted)
    name = next(iter(said.values())).benchmark
    questions = list(find_benchmark(name)(data).submitted())
    _refuse_unknown(said, questions, predictions)
    missing = sum(question.id not in said for question in questions)
    if missing and not pad:
        raise ValueError(
            f"{predictions} answers {len(said):,} of {len(questions):,} questions, and servers want all: "
            f"answer the rest, or give the other {missing:,} an empty answer with --pad"
        )
    answered = [(question, _text(said.get(question.id))) for question in questions]
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = out.with_name(f"{out.name}.tmp")
    write(temporary, answered)
    os.replace(temporary, out)
    return f"{out}: {len(answered):,} answers{f', {missing:,} of them empty' if missing else ''}"


def _by_question(path: Path, accepted: Sequence[str]) -> dict[str, Prediction]:
    said: dict[str, Prediction] = {}
    sources = set()
    for each in read_predictions(path):
        if each.benchmark not in accepted:
            raise ValueError(f"{path} has answers to {each.benchmark or 'no benchmark'}, not {accepted[0]}")
        if each.question_id in said:
            raise ValueError(f"{path} answers question {each.question_id} twice")
        said[each.question_id] = each
        sources.add((each.benchmark, each.ask, each.model))
    if not said:
        raise ValueError(f"{path} has no answers")
    if len(sources) > 1:
        raise ValueError(
            f"{path} mixes {len(sources)} benchmarks, asks or models: give one run's file of one ask"
        )
    return said


def _refuse_unknown(said: dict[str, Prediction], questions: Sequence[Question], path: Path) -> None:
    unknown = said.keys() - {question.id for question in questions}
    if unknown:
        raise ValueError(
            f"{path} answers {len(unknown):,} questions that the benchmark has not, such as {min(unknown)}: "
            "its file is of another version than the one that was asked"
        )


def _text(prediction: Prediction | None) -> str:
    return prediction.prediction if prediction else ""
