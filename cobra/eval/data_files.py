"""Files of benchmarks: what to fetch, from where, into which folder, and what of it is there."""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.progress import Progress
from rich.table import Table

from cobra.eval.benchmarks.base import Benchmark, Download
from cobra.eval.benchmarks.find import benchmark_names, find_benchmark
from cobra.eval.missing import missing_pictures
from cobra.weights.file_hash import stream_hash

# of missing pictures so many are named, and of files in a benchmark's line of the table of all
_NAMED, _LISTED = 10, 2


@dataclass(frozen=True)
class Found:
    """A file or folder that a benchmark reads, and what was found in its place.

    Attributes:
        download: what it should be.
        state: for people.
        is_whole: whether it is there, as far as one can see without reading it as a benchmark.
        is_usable: likewise, or a folder with some of its pictures; a benchmark may ask about no others.
    """

    download: Download
    state: str
    is_whole: bool
    is_usable: bool

    @property
    def mark(self) -> str:
        """For people."""
        return "✓" if self.is_whole else "–" if self.download.optional or self.is_usable else "✗"


def look(benchmark: Benchmark, sha256: Callable[[Path], str] | None = None) -> Iterator[Found]:
    """What of a benchmark's files is there.

    Args:
        benchmark: it is not read.
        sha256: of a file, for those whose hash is known; without it none is compared.
    """
    for download in benchmark.downloads:
        path = benchmark.root / download.path
        found = _folder(path, download) if download.path.endswith("/") else _file(path, download)
        if found.is_whole and download.sha256 and sha256 is not None:
            same = sha256(path) == download.sha256
            told = "as published" if same else "but another version or damaged: its hash differs"
            found = Found(download, f"{found.state}, {told}", same, same)
        yield found


def _folder(path: Path, download: Download) -> Found:
    if not path.is_dir():
        return Found(download, "missing", False, False)
    files = sum(not name.startswith(".") for _, _, names in os.walk(path) for name in names)
    if files < download.entries:
        return Found(download, f"{files:,} of {download.entries:,} files", False, files > 0)
    return Found(download, f"{files:,} files" if files else "empty", files > 0, files > 0)


def _file(path: Path, download: Download) -> Found:
    if not path.is_file():
        return Found(download, "missing", False, False)
    size = path.stat().st_size
    return Found(download, f"{size:,} bytes" if size else "empty", size > 0, size > 0)


def print_data(names: Sequence[str], root: Path) -> bool:
    """Print what benchmarks read and what of it is below `root`; of all benchmarks, a line each.

    Args:
        names: of benchmarks, or Python files with one each; none: all that ship with the package.
        root: folder of all benchmarks.

    Returns:
        Whether all that is needed is there and is what was published.
    """
    benchmarks = [find_benchmark(name)(root) for name in names or benchmark_names()]
    console = Console()
    if not names:
        return _print_all(benchmarks, root, console)
    # each is printed, whatever the others lack
    whole = [_print_one(benchmark, console) for benchmark in benchmarks]
    return all(whole)


def _print_all(benchmarks: Sequence[Benchmark], root: Path, console: Console) -> bool:
    table = Table("benchmark", "there", "missing", title=f"below {escape(str(root))}", title_justify="left")
    whole = True
    for benchmark in benchmarks:
        needed = [found for found in look(benchmark) if not found.download.optional]
        lacking = [f"{found.download.path} ({found.state})" for found in needed if not found.is_whole]
        there = f"{len(needed) - len(lacking)} of {len(needed)}" if needed else "nothing needed"
        more = [f"and {len(lacking) - _LISTED} more"] if len(lacking) > _LISTED else []
        table.add_row(benchmark.name, there, escape("\n".join(lacking[:_LISTED] + more)))
        whole &= not lacking
    console.print(table)
    console.print("`cobra eval data NAME` says where a benchmark's files come from, and reads them.")
    return whole


def _print_one(benchmark: Benchmark, console: Console) -> bool:
    """Its files and where they come from; where all are there, whether its questions and pictures are."""
    with Progress(console=console, transient=True) as progress:
        found = list(look(benchmark, lambda path: _sha256(path, progress)))
    table = Table("file", "expected", "there", title=escape(f"{benchmark.name}, below {benchmark.root}"))
    for each in found:
        cells = (each.download.path, _expected(each.download), f"{each.mark} {each.state}")
        table.add_row(*map(escape, cells))
    console.print(table if found else escape(f"{benchmark.name} needs no files."))
    for each in found:
        # outside the table, which would break what people copy
        origin = "; ".join(filter(None, (each.download.url, each.download.note)))
        console.print(f"{each.download.path}: {origin}", soft_wrap=True, markup=False, highlight=False)
    if not all(each.is_usable or each.download.optional for each in found):
        return False
    return _print_questions(benchmark, console)


def _expected(download: Download) -> str:
    what = "pictures" if download.path.endswith("/") else "questions"
    lines = [f"{download.entries:,} {what}"] if download.entries else []
    return "\n".join([*lines, *(["optional"] if download.optional else [])])


def _print_questions(benchmark: Benchmark, console: Console) -> bool:
    try:
        with console.status(f"reading the questions of {escape(benchmark.name)}"):
            questions = list(benchmark.questions())
    except (OSError, ValueError) as error:
        console.print(escape(f"✗ {error}"))
        return False
    missing = missing_pictures(questions)
    console.print(f"{len(questions):,} questions, {len(missing):,} of their pictures missing")
    for path in missing[:_NAMED]:
        console.print(f"✗ {path}", soft_wrap=True, markup=False, highlight=False)
    return not missing


def _sha256(path: Path, progress: Progress) -> str:
    with progress.open(path, "rb", description=f"hash of {escape(path.name)}") as file:
        return stream_hash(file)
