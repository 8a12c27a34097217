"""Tensors of a GGUF file: where each one lies in it."""

from dataclasses import dataclass
from pathlib import Path

from cobra.export.gguf.ggml import FileOptions, ggml


@dataclass(frozen=True)
class Place:
    """A tensor in a file.

    Attributes:
        kind: ggml's number of its type.
        start: its first byte.
        nbytes: its size.
        width: numbers in a row.
    """

    kind: int
    start: int
    nbytes: int
    width: int


def tensors_in(path: Path) -> dict[str, Place]:
    """The tensors by name; none is read.

    Raises:
        OSError: where the file is none.
    """
    lib = ggml()
    file = lib.gguf_init_from_file(str(path).encode(), FileOptions(True, None))
    if not file:
        raise OSError(f"{path} is no GGUF file: export the model again")
    try:
        data = lib.gguf_get_data_offset(file)
        return {
            lib.gguf_get_tensor_name(file, number).decode(): Place(
                lib.gguf_get_tensor_type(file, number),
                data + lib.gguf_get_tensor_offset(file, number),
                lib.gguf_get_tensor_size(file, number),
                lib.gguf_get_tensor_ne(file, number)[0],
            )
            for number in range(lib.gguf_get_n_tensors(file))
        }
    finally:
        lib.gguf_free(file)
