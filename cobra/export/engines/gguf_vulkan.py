"""Engine: llama.cpp on GGUF files, every layer of the language model on a GPU by Vulkan."""

from collections.abc import Mapping
from pathlib import Path

from cobra.export.engine import Engine, Ids
from cobra.export.engines.apart import EngineApart
from cobra.export.engines.gguf import GGUFEngine, oracle_in
from cobra.export.gguf.device import open_vulkan
from cobra.export.gguf.llama import can_load
from cobra.export.oracle import Oracle


def open_gguf_vulkan(folder: Path) -> "GGUFEngine | GGUFVulkanApart":
    """The engine on the first GPU; in a process of its own where this one runs llama.cpp's other build.

    Raises:
        LackingError: where llama.cpp was not built for Vulkan, there is no GPU, or it has no scan of such a
            model; an OSError of the same words in the other process.
    """
    return in_this_process(folder) if can_load("vulkan") else GGUFVulkanApart(folder)


def in_this_process(folder: Path) -> GGUFEngine:
    """The engine."""
    return GGUFEngine(folder, device=open_vulkan())


def dequantised(folder: Path) -> Engine:
    """The engine on unpacked weights."""
    packed = in_this_process(folder)
    made = packed.dequantised()
    packed.close()
    return made


class GGUFVulkanApart(EngineApart):
    """The engine in a process of its own.

    Args:
        folder: what `cobra export --target gguf` wrote.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        super().__init__(f"{__name__}:{in_this_process.__name__}", folder)

    def placement(self, ids: Ids) -> Mapping[str, Mapping[str, int]]:
        """Passed on."""
        return self._ask("placement", ids)

    def oracle(self) -> Oracle | None:
        """Read here."""
        return oracle_in(self._folder)

    def dequantised(self) -> Engine:
        """In a third process."""
        return EngineApart(f"{__name__}:{dequantised.__name__}", self._folder)
