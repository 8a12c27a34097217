"""Subjects of an evaluation, models and exports: told apart by a fingerprint, opened, asked questions."""

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from cobra.data.chat import Chat
from cobra.eval.answerer import Answerer, Answering
from cobra.eval.engine_answerer import EngineAnswerer
from cobra.eval.opening import Settings, fingerprint, model_path, open_model
from cobra.export.manifest import MANIFEST, check_files
from cobra.export.oracle import ORACLE
from cobra.export.targets import engine_of, open_engine

# who answers in so many tokens at most
Answerers = Callable[[int], Answering]


class Evaluated(ABC):
    """A model, or an export of one.

    Attributes:
        said: how it computes, for run.json.
        fingerprint: a hash of all that its answers depend on.
        batch_size: questions at a time, unless a user says another.
    """

    said: Mapping[str, Any]
    fingerprint: str
    batch_size: int

    @abstractmethod
    def open(self, device: str) -> AbstractContextManager[Answerers]:
        """What answers questions, by the longest answer in tokens, as long as a block lasts."""


class EvaluatedModel(Evaluated):
    """A model in PyTorch.

    Args:
        path: of `model_path`.
        settings: how it computes.
    """

    batch_size = 32

    def __init__(self, path: Path, settings: Settings) -> None:
        self._path, self._settings = path, settings
        self.said = asdict(settings)
        self.fingerprint = fingerprint(path, settings)

    @contextmanager
    def open(self, device: str) -> Iterator[Answerers]:
        """See `Evaluated.open`."""
        model, processor = open_model(self._path, self._settings, device)
        yield lambda max_new_tokens: Answerer(model, processor, max_new_tokens)


class EvaluatedExport(Evaluated):
    """An export in its own runtime, which is asked one question at a time.

    Args:
        folder: what `cobra export` wrote.
        device: one of `cobra.export.targets.DEVICES`.

    Raises:
        OSError: where a file of it is missing.
        ValueError: where one was changed, or nothing here runs the export there.
    """

    batch_size = 1

    def __init__(self, folder: Path, device: str) -> None:
        manifest = check_files(folder)
        manifest.check_tokenizer()
        self._folder, self._engine = folder, engine_of(manifest.target, device)
        answering = {name: file for name, file in manifest.files.items() if name != ORACLE}
        self.said = {
            "target": manifest.target,
            "quant": manifest.quant,
            "bytes": sum(file["bytes"] for file in answering.values()),
            "parity": manifest.contents.parity,
            "made_by": manifest.contents.versions,
        }
        hashes = {name: file["sha256"] for name, file in answering.items()}
        said = json.dumps([self._engine, manifest.quant, hashes, manifest.contents.settings])
        self.fingerprint = hashlib.sha256(said.encode()).hexdigest()[:16]

    @contextmanager
    def open(self, device: str) -> Iterator[Answerers]:
        """See `Evaluated.open`."""
        chat = Chat(str(self._folder))
        with closing(open_engine(self._engine, self._folder)) as engine:
            yield lambda max_new_tokens: EngineAnswerer(engine, chat, max_new_tokens)


def evaluated(name: str, settings: Settings, device: str = "cpu", batch_size: int | None = None) -> Evaluated:
    """The model, or the export, of that name.

    Args:
        name: export folder, or what `model_path` takes.
        settings: how a model computes; an export is what it is.
        device: that it is to run on.
        batch_size: questions at a time, where the user says so.

    Raises:
        OSError: where it is missing.
        ValueError: where it is damaged, or an option is not for exports.
    """
    folder = Path(name).expanduser()
    if not is_export(name):
        return EvaluatedModel(model_path(name), settings)
    given: dict[str, tuple[Any, Any]] = {
        f"--{field.name.replace('_', '-')}": (getattr(settings, field.name), field.default)
        for field in fields(settings)
    }
    given["--batch-size"] = (batch_size or 1, 1)
    for option, (value, usual) in given.items():
        if value != usual:
            raise ValueError(
                f"{option} {value}: {folder} is an export, which answers as it was written, one question "
                "at a time: leave the option out"
            )
    return EvaluatedExport(folder, device)


def is_export(name: str) -> bool:
    """Whether `cobra export` wrote what is called that."""
    return (Path(name).expanduser() / MANIFEST).is_file()
