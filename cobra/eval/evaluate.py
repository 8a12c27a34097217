"""`cobra eval MODEL`: benchmarks are read, answered and scored; a run that was stopped goes on."""

import os
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from cobra.config.shown_text import harmless
from cobra.data.processor import Example
from cobra.eval.answerer import Answer, Answering, Asked
from cobra.eval.benchmarks.base import Benchmark
from cobra.eval.evaluated import Evaluated, evaluated
from cobra.eval.evaluation_folder import record_run
from cobra.eval.opening import Settings
from cobra.eval.prediction_file import PredictionFile
from cobra.eval.predictions import Prediction
from cobra.eval.processes import Processes, join_processes, this_rank
from cobra.eval.protocols.protocol import Ask, Protocol, read_protocol
from cobra.eval.results import Result, print_results, write_results
from cobra.eval.tasks import Task, picture_paths, read_tasks
from cobra.weights.saving import claim

# batches that are prepared ahead, each in a thread of its own
_AHEAD = min(4, os.cpu_count() or 1)

Batch = tuple[Sequence[Asked], Sequence[Example]]


def evaluate(
    model: str,
    benchmarks: Sequence[str],
    protocols: Sequence[str],
    data: Path,
    out: Path,
    *,
    settings: Settings,
    device: str = "cpu",
    devices: int = 1,
    batch_size: int | None = None,
    limit: int | None = None,
    allow_missing: bool = False,
) -> list[Result]:
    """Answer benchmarks, score the answers, print a table; the results, on the first process.

    Args:
        model: folder, run's checkpoint, published checkpoint in any layout that `cobra.convert` reads, or an
            export's folder.
        benchmarks: names, or Python files with one each.
        protocols: names or yamls; what they ask alike is asked once.
        data: folder of all benchmarks.
        out: folder to write to; what is answered in it is not asked again.
        settings: how a model computes; an export takes none but the usual ones.
        device: of the model.
        devices: processes on this machine.
        batch_size: questions at a time; it changes no answer. None: 32, or 1 of an export.
        limit: questions of each benchmark, drawn by lot and always the same; None: all.
        allow_missing: leave out what is not there.

    Raises:
        OSError: where the model, a file or a picture is missing.
        ValueError: where a file is damaged, or `out` holds another run's answers or is written to by one.
    """
    read = [read_protocol(name) for name in protocols]
    tasks = read_tasks(benchmarks, read, data, limit, allow_missing)
    subject, files = evaluated(model, settings, device, batch_size), prediction_files(tasks, out)
    mark, batch_size, first = subject.fingerprint, batch_size or subject.batch_size, this_rank() == 0
    with ExitStack() as stack:
        if first:
            out.mkdir(parents=True, exist_ok=True)
            stack.enter_context(claim(out / ".lock"))
            asked = [(task.benchmark, task.asks) for task in tasks]
            run = {"device": device, "batch_size": batch_size, "limit": limit, "protocols": list(protocols)}
            record_run(out, model, mark, subject.said, asked, **run)
            for file in files.values():
                file.mend(mark)
        processes = join_processes(devices, device)
        processes.wait()
        done = _answered(tasks, files, mark)
        # the first appends to what the others have read
        processes.wait()
        _answer_all(tasks, files, done, subject, processes, batch_size, allow_missing)
        processes.wait()
        return _results(tasks, files, read, out, mark) if first else []


def prediction_files(tasks: Sequence[Task], out: Path) -> dict[tuple[str, str], PredictionFile]:
    """The file of each benchmark's ask, by their names."""
    names = [(task.benchmark.name, ask.name) for task in tasks for ask in task.asks]
    return {name: PredictionFile(out, *name) for name in names}


def _answered(
    tasks: Sequence[Task], files: dict[tuple[str, str], PredictionFile], mark: str
) -> dict[tuple[str, str], set[str]]:
    """The ids of the questions that are answered.

    Raises:
        ValueError: where one has other words, or other true answers, than when it was answered, or is asked
            no more. Files that a benchmark lists are held to their hashes; a user's own need not list any.
    """
    done = {}
    for task in tasks:
        for ask in task.asks:
            key = (task.benchmark.name, ask.name)
            found = files[key].read(mark)
            if gone := found.keys() - task.ids:
                raise ValueError(
                    f"{files[key].path} answers {min(gone)!r}, which {key[0]} does not ask any more: name "
                    "another --out"
                )
            for question in task.questions:
                told = found.get(question.id)
                if told and (told.question, told.answers) != (
                    ask.render(question.fields),
                    list(question.answers),
                ):
                    raise ValueError(
                        f"question {question.id!r} of {key[0]} is another than the one that is answered in "
                        f"{files[key].path}: name another --out"
                    )
            done[key] = set(found)
    return done


def in_batches(asked: Sequence[Asked], size: int) -> list[list[Asked]]:
    """Batches of prompts of like length; questions about the same pictures stay together."""
    groups: dict[tuple[object, ...], list[Asked]] = {}
    for number, each in enumerate(asked):
        # those without pictures have nothing in common
        groups.setdefault(each.pictures or (number,), []).append(each)
    for group in groups.values():
        group.sort(key=_length)
    ordered = [each for group in sorted(groups.values(), key=lambda g: _length(g[-1])) for each in group]
    # the longest first: if one is too long for the memory, it is known at once
    ordered.reverse()
    return [ordered[start : start + size] for start in range(0, len(ordered), size)]


def predicted(asked: Asked, answer: Answer, benchmark: Benchmark, ask: Ask, mark: str) -> Prediction:
    """The line of an answer in a file of predictions."""
    question = asked.question
    return Prediction(
        split=question.split,
        question_id=question.id,
        kind=question.kind,
        question=asked.prompt,
        prediction=answer.text,
        answers=question.answers,
        benchmark=benchmark.name,
        ask=ask.name,
        images=[_name(path, benchmark.root) for path in picture_paths(question)],
        scores=answer.scores,
        truth=question.truth,
        model=mark,
    )


def _answer_all(
    tasks: Sequence[Task],
    files: dict[tuple[str, str], PredictionFile],
    done: dict[tuple[str, str], set[str]],
    subject: Evaluated,
    processes: Processes,
    batch_size: int,
    allow_missing: bool,
) -> None:
    """Answer what is not answered yet: this process's share of the batches, each ask of each benchmark."""
    pending = {
        (task.benchmark.name, ask.name): [
            Asked.of(q, ask) for q in task.questions if q.id not in done[task.benchmark.name, ask.name]
        ]
        for task in tasks
        for ask in task.asks
    }
    if not any(pending.values()):
        return
    with subject.open(processes.device) as answerer_of, _progress(processes.rank == 0) as bar:
        for task in tasks:
            for ask in task.asks:
                key = (task.benchmark.name, ask.name)
                batches = in_batches(pending[key], batch_size)[processes.rank :: processes.size]
                shown = bar.add_task(" ".join(key), total=sum(map(len, batches)))
                answerer = answerer_of(ask.max_new_tokens)
                for asked, examples in prepared(answerer, batches, allow_missing):
                    answers = answerer.answer(asked, examples)
                    lines = [
                        predicted(each, answer, task.benchmark, ask, subject.fingerprint)
                        for each, answer in zip(asked, answers, strict=True)
                    ]
                    files[key].append(lines, processes.rank)
                    bar.advance(shown, len(asked))


def prepared(
    answerer: Answering, batches: Sequence[Sequence[Asked]], allow_missing: bool = False
) -> Iterator[Batch]:
    """The batches as the model is fed them, some of them ahead, in threads: pictures are decoded there.

    Args:
        answerer: prepares them.
        batches: in order.
        allow_missing: leave out questions whose pictures cannot be read.
    """

    def prepare(asked: Sequence[Asked]) -> Batch:
        try:
            return asked, answerer.prepare(asked)
        except (ValueError, OSError) as error:
            if not allow_missing:
                kind = OSError if isinstance(error, OSError) else ValueError
                raise kind(f"{error}; or go on without such questions with --allow-missing") from error
            kept = [each for each in asked if _readable(answerer, each)]
            return kept, answerer.prepare(kept)

    rest = iter(batches)
    with ThreadPoolExecutor(_AHEAD) as threads:
        coming: deque[Future[Batch]] = deque()
        try:
            while True:
                while len(coming) < _AHEAD and (batch := next(rest, None)) is not None:
                    coming.append(threads.submit(prepare, batch))
                if not coming:
                    return
                ready = coming.popleft().result()
                if ready[0]:
                    yield ready
        finally:
            for future in coming:
                future.cancel()


def _readable(answerer: Answering, asked: Asked) -> bool:
    try:
        answerer.prepare([asked])
    except (ValueError, OSError) as error:
        print(harmless(f"left out: {error}", sys.stderr), file=sys.stderr)
        return False
    return True


def _results(
    tasks: Sequence[Task],
    files: dict[tuple[str, str], PredictionFile],
    protocols: Sequence[Protocol],
    out: Path,
    mark: str,
) -> list[Result]:
    """Join what the processes wrote, in the order of the questions, and score it."""
    results = []
    for task in tasks:
        for ask in task.asks:
            file = files[task.benchmark.name, ask.name]
            file.mend(mark)
            found = file.read(mark)
            places = {question.id: place for place, question in enumerate(task.benchmark.questions())}
            lines = sorted(found.values(), key=lambda p: places.get(p.question_id, len(places)))
            file.write(lines)
            results.append(Result.of(task.benchmark, ask, lines, task.total, protocols))
    print_results(write_results(out, results))
    return results


def _progress(shown: bool) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=Console(stderr=True), disable=not shown)


def _length(asked: Asked) -> int:
    return len(asked.prompt)


def _name(path: str | Path, root: Path) -> str:
    return str(Path(path).relative_to(root)) if Path(path).is_relative_to(root) else str(path)
