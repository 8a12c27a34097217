"""Names on the command line: each a system of configs/, or a language model alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from cobra.bench.systems.configs import read_systems

Tree = dict[str, Any]
_LANGUAGE_MODELS = Path(__file__).with_name("language_models.yaml")


@dataclass(frozen=True)
class Subject:
    """A model to measure.

    Attributes:
        name: as it was asked for.
        lm: class_path tree of its language model.
        vlm: class_path tree of the whole; None where it is a language model alone.
    """

    name: str
    lm: Tree
    vlm: Tree | None = None


def read_subjects(names: Sequence[str], configs: Path) -> list[Subject]:
    """The models of these names: those of language_models.yaml first, then `cobra models`' names of configs.

    Raises:
        ValueError: naming what there is, where a name is unknown.
    """
    alone = yaml.safe_load(_LANGUAGE_MODELS.read_text(encoding="utf-8"))
    systems = read_systems(configs) if set(names) - set(alone) else {}
    subjects = []
    for name in names:
        if name in alone:
            subjects.append(Subject(name, alone[name]))
        elif name in systems:
            subjects.append(Subject(name, systems[name]["init_args"]["lm"], systems[name]))
        else:
            raise ValueError(f"no model is called {name!r}: name one of {', '.join([*systems, *alone])}")
    return subjects
