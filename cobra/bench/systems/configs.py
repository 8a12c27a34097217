"""The models that a folder of yamls describes."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ArgumentError, ArgumentParser, Namespace

from cobra.config.class_paths import check_class_paths, restrict_imports
from cobra.config.text_file import read_text
from cobra.models.vlm import CobraVLM


def read_systems(folder: Path) -> dict[str, dict[str, Any]]:
    """Class_path tree of each system, with every default.

    `name` is name.yaml; `name/variant` is variants/name/variant.yaml laid over it, as
    `cobra fit -c name.yaml -c variants/name/variant.yaml` does.

    Raises:
        FileNotFoundError: where there are no yamls.
        ValueError: where one does not describe a model, or names a foreign class.
    """
    paths = sorted(folder.glob("*.yaml"))
    if not paths:
        raise FileNotFoundError(
            f"{folder} has no yamls: run in the repository, or name their folder --configs"
        )
    restrict_imports()
    systems = {}
    for path in paths:
        base = _lay(path, None)
        if base is None:
            raise ValueError(f"{path} has no model.model: move what is no system into a folder of its own")
        systems[path.stem] = base.as_dict()["model"]
        for variant in sorted((folder / "variants" / path.stem).glob("*.yaml")):
            over = _lay(variant, base.clone())
            assert over is not None
            systems[f"{path.stem}/{variant.stem}"] = over.as_dict()["model"]
    return systems


def chosen(systems: Mapping[str, Any], names: Sequence[str]) -> Sequence[str]:
    """These names, which systems must have.

    Raises:
        ValueError: naming those that there are.
    """
    if unknown := [name for name in names if name not in systems]:
        raise ValueError(f"no yaml describes {', '.join(unknown)}: name some of {', '.join(systems)}")
    return names


def _lay(path: Path, base: Namespace | None) -> Namespace | None:
    """A yaml's model over another, or that other where the yaml says nothing of a model."""
    try:
        config = yaml.safe_load(read_text(path)) or {}
        tree = (config.get("model") or {}).get("model")
    except (yaml.YAMLError, AttributeError) as error:
        raise ValueError(f"{path} is no yaml of a run: {error}") from error
    if tree is None:
        return base
    check_class_paths(tree)
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--model", type=Callable[[], CobraVLM])
    try:
        return parser.parse_object({"model": tree}, base)
    except ArgumentError as error:
        raise ValueError(f"{path} does not describe a model: {error}") from error
