"""Files and pictures that benchmarks need and that are not there."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from cobra.eval.benchmarks.base import Benchmark, Question

# of those that are missing so many are named
_NAMED = 10


def missing_files(benchmark: Benchmark) -> list[Path]:
    """The files, but for folders of pictures, that it cannot do without and that are not there."""
    needed = (each.path for each in benchmark.downloads if not each.optional and not each.path.endswith("/"))
    return [path for path in (benchmark.root / name for name in needed) if not path.is_file()]


def missing_pictures(questions: Iterable[Question]) -> list[Path]:
    """The files of pictures that are asked about and are not there, each once."""
    files = (Path(i) for q in questions for i in q.images if isinstance(i, (str, Path)))
    return [path for path in dict.fromkeys(files) if not path.is_file()]


def told(benchmark: str, what: str, paths: Sequence[Path]) -> str:
    """A paragraph on what a benchmark lacks, with the remedy."""
    named = "\n".join(f"  {path}" for path in paths[:_NAMED])
    more = f"\n  and {len(paths) - _NAMED} more" if len(paths) > _NAMED else ""
    return (
        f"{benchmark}: {len(paths)} {what} missing; `cobra eval data {benchmark}` says where to get them\n"
        f"{named}{more}"
    )
