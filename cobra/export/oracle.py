"""What exact arithmetic makes of a model's weights: measured once, kept in a file, read without torch."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Exact = NDArray[np.floating]
# in an export's folder
ORACLE = "oracle.npz"


@dataclass(frozen=True)
class SeenPicture:
    """A picture, and what a model makes of it in fp64.

    Attributes:
        pixels: of the picture (height, width, 3), uint8.
        tokens: image tokens (M, D).
        ids: of the text behind it (T,).
        logits: behind both (V,).
    """

    pixels: NDArray[np.uint8]
    tokens: Exact
    ids: NDArray[np.int64]
    logits: Exact

    @contextmanager
    def file(self) -> Iterator[Path]:
        """The picture as a file, for as long as the block lasts."""
        with TemporaryDirectory() as folder:
            path = Path(folder) / "picture.png"
            Image.fromarray(self.pixels).save(path)
            yield path


@dataclass(frozen=True)
class Oracle:
    """Logits that were computed in fp64.

    Attributes:
        ids: of a text (T,).
        logits: behind each of its tokens (T, V).
        picture: one that was seen; None where the model sees none.
    """

    ids: NDArray[np.int64]
    logits: Exact
    picture: SeenPicture | None = None

    def write(self, path: Path) -> None:
        """Keep it in a file."""
        seen = (
            {f"picture_{name}": value for name, value in vars(self.picture).items()} if self.picture else {}
        )
        np.savez_compressed(path, ids=self.ids, logits=self.logits, **seen)

    @classmethod
    def read(cls, path: Path) -> "Oracle":
        """What `write` wrote."""
        with np.load(path, allow_pickle=False) as file:
            seen = {name.removeprefix("picture_"): file[name] for name in file if name.startswith("picture_")}
            return cls(file["ids"], file["logits"], SeenPicture(**seen) if seen else None)
