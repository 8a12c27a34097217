"""Benchmarks by name: ours, or a file of one's own."""

import importlib
import importlib.util
from pathlib import Path

from cobra.eval.benchmarks.base import Benchmark
from cobra.eval.protocols.protocol import FILE_NAME, Ask

# Module and class, below this package.
_OURS = {
    "pope": "pope.Pope",
    "shapes": "shapes.Shapes",
    "shapes_pope": "shapes.ShapesPope",
    "shapes_vqa": "shapes.ShapesVqa",
    "shapes_refcoco": "shapes.ShapesRefcoco",
    "vsr": "vsr.Vsr",
    "vsr_random": "vsr.VsrRandom",
    "mme": "mme.Mme",
    "mmbench": "mmbench.MMBench",
    "mmbench_samples": "mmbench.MMBenchSamples",
    "mmbench_cn": "mmbench.MMBenchCN",
    "ccbench": "mmbench.CCBench",
    "scienceqa": "scienceqa.ScienceQA",
    "refcoco": "refcoco.RefCOCO",
    "refcoco+": "refcoco.RefCOCOPlus",
    "refcocog": "refcoco.RefCOCOg",
    "chair": "chair.Chair",
    "amber": "amber.Amber",
    "photos_vqa": "photos.PhotosVqa",
    "photos_pope": "photos.PhotosPope",
    "vqav2": "vqav2.VqaV2",
    "vqav2_test": "vqav2.VqaV2Test",
    "gqa": "gqa.Gqa",
    "vizwiz": "vizwiz.VizWiz",
    "vizwiz_test": "vizwiz.VizWizTest",
    "textvqa": "textvqa.TextVqa",
    "ocrbench": "ocrbench.OcrBench",
    "screenqa": "screenqa.ScreenQa",
    "screenqa_complex": "screenqa.ScreenQaComplex",
    "screenqa_full": "screenqa.ScreenQaFull",
    "mmvet": "mmvet.MmVet",
}


def benchmark_names() -> list[str]:
    """The benchmarks that ship with the package."""
    return list(_OURS)


def find_benchmark(name: str) -> type[Benchmark]:
    """The class of a benchmark.

    Args:
        name: one of `benchmark_names`, or the path of a Python file that defines one Benchmark, which is run.

    Raises:
        ValueError: where there is none.
    """
    if name.endswith(".py"):
        return _in_file(Path(name))
    if name not in _OURS:
        raise ValueError(
            f"there is no benchmark {name!r}: take one of {', '.join(_OURS)}, or a Python file with one"
        )
    module, _, made = _OURS[name].rpartition(".")
    found: type[Benchmark] = getattr(importlib.import_module(f"cobra.eval.benchmarks.{module}"), made)
    return found


def _in_file(path: Path) -> type[Benchmark]:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None or not path.is_file():
        raise ValueError(f"{path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found = [
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, Benchmark) and value.__module__ == module.__name__
    ]
    if len(found) != 1:
        raise ValueError(f"{path} defines {len(found)} classes of Benchmark: let it define one")
    name = getattr(found[0], "name", None)
    # files of predictions are named after it
    if not isinstance(name, str) or not FILE_NAME.fullmatch(name) or name in _OURS:
        raise ValueError(
            f"{path}: the name of its benchmark is {name!r}: let it be letters, digits and _ . + -, and not "
            "that of a benchmark that ships with the package"
        )
    _refuse_wrong_asks(path, found[0])
    return found[0]


def _refuse_wrong_asks(path: Path, benchmark: type[Benchmark]) -> None:
    """Raise a ValueError where `asks` is no list of Asks, or the headline is of none of them."""
    asks, headline = benchmark.asks, benchmark.headline
    if not isinstance(asks, list | tuple) or not all(isinstance(ask, Ask) for ask in asks):
        raise ValueError(f"{path}: `asks` is {asks!r}: let it be a tuple of Asks, `(Ask(...),)` if of one")
    # a protocol may ask it instead, and have its own headline
    if headline is not None and asks and headline.ask not in {ask.name for ask in asks}:
        raise ValueError(f"{path}: its headline is of the ask {headline.ask!r}, which `asks` has not")
