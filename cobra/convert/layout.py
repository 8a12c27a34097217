"""The contract of a layout: how one project's checkpoints are recognised, renamed and described."""

import importlib
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from cobra.convert import layouts
from cobra.convert.source import Source
from cobra.weights.tensors import Stored

# A class_path tree: plain data, as in a yaml.
Tree = dict[str, Any]


class Layout(ABC):
    """One way in which weights are published; adding one is one file in `cobra/convert/layouts`.

    Names of this project start with the part: `vision.`, `projector.` or `lm.`.
    """

    title: str

    @abstractmethod
    def recognises(self, source: Source) -> bool:
        """Whether its names, or its configuration, are this layout's."""

    @abstractmethod
    def parts(self, source: Source) -> dict[str, Tree]:
        """The class_path tree of every part of the model: of all three, or of `lm` alone.

        Raises:
            ValueError: where the configuration describes what this project does not build.
        """

    @abstractmethod
    def key_map(self, source: Source) -> dict[str, str]:
        """Published prefix to this project's prefix; the longest that fits a name renames it."""

    def tensors(self, source: Source) -> Mapping[str, Stored]:
        """What the file holds, joined and split as this project has it, for `key_map` to rename."""
        return source.tensors

    def copies(self, source: Source) -> dict[str, str]:
        """Published names that may repeat another's tensor: tied head to embedding."""
        return {}

    def chat(self, source: Source) -> tuple[str | None, str | None] | None:
        """The tokenizer (folder or hub name) and chat template that the model was trained with, if known."""
        return None


def find_layout(source: Source) -> Layout:
    """The layout that recognises a checkpoint.

    Raises:
        ValueError: where none does, naming what the checkpoint holds and which layouts there are.
    """
    known = all_layouts()
    for layout in known:
        if layout.recognises(source):
            return layout
    names = sorted(source.tensors)
    raise ValueError(
        f"{source.path} has no layout that is known ({', '.join(layout.title for layout in known)}): it "
        f"holds {len(names)} tensors, e.g. {names[:3]}, and its config.json has model_type "
        f"{source.config.get('model_type')!r}"
    )


def all_layouts() -> list[Layout]:
    """One instance of every layout in the folder."""
    for module in pkgutil.iter_modules(layouts.__path__, f"{layouts.__name__}."):
        importlib.import_module(module.name)
    return [layout() for layout in Layout.__subclasses__()]
