"""`cobra conform`: engines against the laws of state."""

import json
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from math import isfinite
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from cobra.export.conformance_page import Column, page, printed
from cobra.export.laws import LAWS
from cobra.export.laws.check import check_laws, drawn_pictures
from cobra.export.laws.law import Law
from cobra.export.targets import ENGINES, open_engine


def conform(said: Sequence[str], names: Sequence[str], markdown: Path | None, report: Path | None) -> bool:
    """Whether our engines keep the laws; prints the matrix.

    Args:
        said: NAME=FOLDER of each engine; a yaml of a language model stands for random weights of it.
        names: of the laws; all, if there are none.
        markdown: page to write.
        report: JSON file to write.

    Raises:
        ValueError: where there is no such engine or law.
        OSError: where a folder or one of its files is missing, or a page or report cannot be written there.
    """
    if unknown := [name for name in names if name not in LAWS]:
        raise ValueError(f"no law is called {', '.join(unknown)}: there are {', '.join(LAWS)}")
    laws = [LAWS[name] for name in names] if names else list(LAWS.values())
    engines = [_parted(text) for text in said]
    for path in filter(None, (markdown, report)):
        _check_writable(path)
    columns = [column_of(name, folder, laws) for name, folder in engines]
    print(printed(columns, laws))
    if markdown is not None:
        command = ["cobra", "conform", "--engine", *said, *(["--law", *names] if names else [])]
        text = page(columns, laws, shlex.join([*command, "--markdown", str(markdown)]))
        markdown.write_text(text, encoding="utf-8")
    if report is not None:
        text = json.dumps([_plain(asdict(column)) for column in columns], indent=2, allow_nan=False)
        report.write_text(text + "\n", encoding="utf-8")
    return all(column.is_conforming for column in columns)


def column_of(name: str, folder: Path, laws: Sequence[Law]) -> Column:
    """What the laws find in one engine."""
    print(f"{name} {folder} ...", file=sys.stderr, flush=True)
    with _as_model(folder) as model, drawn_pictures() as pictures:
        engine = open_engine(name, model)
        try:
            findings = check_laws(engine, laws, pictures)
        finally:
            engine.close()
    folder = folder.absolute()
    # a run calls all of its models that
    called = folder.parent.name if folder.name == "model" else folder.stem
    return Column(name, called, engine.version, engine.rounding, findings)


def _parted(text: str) -> tuple[str, Path]:
    name, found, folder = text.partition("=")
    if not (found and folder) or name not in ENGINES:
        raise ValueError(f"--engine {text}: say NAME=FOLDER, with a NAME out of {', '.join(ENGINES)}")
    if not Path(folder).expanduser().exists():
        raise FileNotFoundError(f"--engine {text}: {folder} is missing")
    return name, Path(folder).expanduser()


def _check_writable(path: Path) -> None:
    """Refuse, with an OSError, a file that could not be written once the laws have run."""
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{path} cannot be written: make the folder {path.parent} first")
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder: name a file")


@contextmanager
def _as_model(folder: Path) -> Iterator[Path]:
    """A folder, or one with the random weights of a yaml for as long as the block lasts."""
    if folder.suffix not in (".yaml", ".yml"):
        yield folder
        return
    from cobra.export.random_lm import write_random_lm

    with TemporaryDirectory() as temporary:
        write_random_lm(folder, Path(temporary))
        yield Path(temporary)


def _plain(value: Any) -> Any:
    """The same for JSON, which has no infinity."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not isfinite(value) else value
