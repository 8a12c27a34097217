"""Engine: the language model of a folder in transformers' own classes and code, in a process of its own."""

import io
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from tempfile import TemporaryDirectory

from cobra.convert.run import convert
from cobra.export.engines.apart import EngineApart
from cobra.export.engines.ours import open_own
from cobra.export.oracle import Oracle


class TransformersApart(EngineApart):
    """The same weights, written as transformers' into a folder that lasts as long as this.

    Args:
        folder: of a model of ours.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._written = folder, TemporaryDirectory()
        theirs = Path(self._written.name) / "hf"
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            convert(str(folder), theirs, to="hf")
        super().__init__("cobra.export.engines.transformers_model:TransformersEngine", theirs)

    def oracle(self) -> Oracle | None:
        """Of our model, whose text alone it reads."""
        return open_own(self._folder).oracle()

    def close(self) -> None:
        """End the process and remove the folder."""
        super().close()
        self._written.cleanup()
