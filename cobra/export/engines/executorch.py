"""An export for ExecuTorch as an engine."""

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cobra.data.plain_chat import PlainChat
from cobra.export.engine import Engine, Floats, Ids
from cobra.export.executorch.runner import Runner, Settings
from cobra.export.executorch.write import PROGRAMS
from cobra.export.manifest import check_at_start
from cobra.export.oracle import ORACLE, Oracle
from cobra.export.pixels import planes_in, read_pixels

_TARGET = "executorch-cpu"
# by the weights of the language model: beside 4-bit ones activations are rounded to 8 bits, a token at a time
_ROUNDING = {"fp32": 1e-5, "8da4w": 1e-2}
_LACKS = {
    **dict.fromkeys(("batch", "mask", "packed"), "its programs read one sequence, without padding"),
    "dequantised": "its weights are packed for one backend",
}


class ExecuTorchEngine(Engine):
    """The programs of an export folder, on the CPU.

    Args:
        folder: what `cobra export --target executorch-cpu` wrote.

    Raises:
        OSError: where one of its files is missing.
        ValueError: where one is damaged, the export is for another runtime, or ExecuTorch is missing.
    """

    def __init__(self, folder: Path) -> None:
        manifest = check_at_start(folder)
        if manifest.target != _TARGET:
            raise ValueError(f"{folder} is an export for {manifest.target}, and this engine runs {_TARGET}")
        if manifest.quant not in _ROUNDING:
            raise ValueError(f"{folder} is in quant {manifest.quant!r}, not one of {', '.join(_ROUNDING)}")
        self._planes, settings = planes_in(manifest), Settings.said_by(manifest)
        self._oracle = folder / ORACLE
        self.runner = Runner(folder / PROGRAMS, settings)
        self.lacks = _LACKS
        self.rounding = _ROUNDING[manifest.quant]
        self.version = f"executorch {version('executorch')}"
        self.vocab_size, self.eos_id = settings.vocab_size, PlainChat.read(folder).eos_id

    def reset(self) -> None:
        """See `Engine.reset`."""
        self.runner.reset()

    def prefill(self, tokens: Ids | Floats) -> Floats:
        """See `Engine.prefill`."""
        given = torch.from_numpy(np.ascontiguousarray(tokens))
        return self.runner.prefill(self.runner.embed(given) if given.dim() == 1 else given).numpy()

    def step(self, token: int) -> Floats:
        """See `Engine.step`."""
        return self.runner.step(token).numpy()

    def snapshot(self) -> tuple[list[Tensor], int]:
        """See `Engine.snapshot`."""
        return [buffer.clone() for buffer in self.runner.memory], self.runner.read

    def restore(self, snapshot: tuple[list[Tensor], int]) -> None:
        """See `Engine.restore`."""
        memory, self.runner.read = snapshot
        self.runner.memory = [buffer.clone() for buffer in memory]

    def read_pictures(self, paths: Sequence[Path]) -> list[Floats]:
        """See `Engine.read_pictures`."""
        pixels = [[torch.from_numpy(plane) for plane in read_pixels(self._planes, path)] for path in paths]
        return [self.runner.encode_image(planes).numpy() for planes in pixels]

    def oracle(self) -> Oracle | None:
        """See `Engine.oracle`; of weights that were not quantised."""
        return Oracle.read(self._oracle) if self._oracle.is_file() else None

    def embed(self, ids: Ids) -> Floats:
        """See `Engine.embed`."""
        return self.runner.embed(torch.from_numpy(np.asarray(ids))).numpy()
