"""A picture's program run by ggml: pixels go in, image tokens come out, without PyTorch."""

import ctypes
from pathlib import Path

import numpy as np

from cobra.export.engine import Floats
from cobra.export.gguf.native_library import library

# metadata of a file of weights that holds the program as JSON
PROGRAM = "cobra.program"


class PictureProgram:
    """A program and its weights, read from a GGUF file by the native library (native/pictures.h).

    Args:
        path: of the file.
        threads: of a product.

    Raises:
        OSError: where it holds no program, or one that cannot be run.
    """

    def __init__(self, path: Path, threads: int = 1) -> None:
        self._library = library()
        self._opened = self._library.cobra_pictures_open(str(path).encode(), threads)
        if not self._opened:
            raise OSError(self._error())
        self._shapes = []
        for plane in range(self._library.cobra_pictures_planes(self._opened)):
            shape = (ctypes.c_int64 * 4)()
            self._library.cobra_pictures_pixel_shape(self._opened, plane, shape)
            self._shapes.append(list(shape))
        tokens = (ctypes.c_int64 * 2)()
        self._library.cobra_pictures_token_shape(self._opened, tokens)
        self._tokens = tuple(tokens)

    def __call__(self, *planes: Floats) -> Floats:
        """Pixels (1, 3, H, W), as many as the program has, to image tokens (M, D).

        Raises:
            ValueError: where pixels do not fit, or ggml makes no numbers of them.
        """
        if (found := [list(plane.shape) for plane in planes]) != self._shapes:
            raise ValueError(f"pixels are of {found}, the program takes {self._shapes}")
        values = [np.ascontiguousarray(plane, np.float32) for plane in planes]
        addresses = (ctypes.c_void_p * len(values))(*(value.ctypes.data for value in values))
        tokens = np.empty(self._tokens, np.float32)
        if self._library.cobra_pictures_run(self._opened, addresses, tokens.ctypes.data):
            raise ValueError(self._error())
        return tokens

    def close(self) -> None:
        """Let go of the weights."""
        self._library.cobra_pictures_close(self._opened)
        self._opened = None

    def _error(self) -> str:
        return self._library.cobra_pictures_error().decode(errors="replace")
