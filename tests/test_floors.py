"""Rooms of the package: imports run from one floor down to those below it, and never in a circle."""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
# from the top down, as in CONTRIBUTING.md
FLOORS = [
    "__main__",
    "cli",
    "verbs",
    "train",
    "serve",
    "eval",
    "bench",
    "export",
    "inference",
    "hf",
    "convert",
    "pretrained",
    "adapter_folder",
    "data",
    "config",
    "models",
    "kernels",
    "weights",
    "torchvision_shim",
    "waiting",
]


def modules() -> dict[str, Path]:
    """Every module of the package by its dotted name."""
    files = (path for path in (ROOT / "cobra").rglob("*.py"))
    return {".".join(file.relative_to(ROOT).with_suffix("").parts): file for file in files}


def imports(module: str, file: Path, known: dict[str, Path]) -> Iterator[str]:
    """Modules of this package that one imports, wherever in it."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "cobra":
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                yield whole if whole in known or f"{whole}.__init__" in known else node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("cobra."))


def test_imports_run_down_the_floors() -> None:
    known = modules()
    upwards = []
    for module, file in known.items():
        room = module.split(".")[1]
        if room == "__init__":
            continue
        for imported in imports(module, file, known):
            other = imported.split(".")[1]
            if other != room and FLOORS.index(other) < FLOORS.index(room):
                upwards.append(f"{module} imports {imported}")
    assert not upwards


def test_no_modules_import_each_other_in_a_circle() -> None:
    known = modules()
    name = {module.removesuffix(".__init__"): module for module in known}
    reach = {module: {name[i] for i in imports(module, file, known)} for module, file in known.items()}
    done: set[str] = set()

    def visit(module: str, path: list[str]) -> None:
        assert module not in path, f"{' -> '.join([*path, module])} is a circle"
        if module not in done:
            for other in sorted(reach[module]):
                visit(other, [*path, module])
            done.add(module)

    for module in sorted(reach):
        visit(module, [])
