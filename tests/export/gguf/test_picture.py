"""Programs of pictures in the native library: what fits runs, and whatever does not is refused."""

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from cobra.export.gguf.file import Weight, write_gguf
from cobra.export.gguf.picture import PROGRAM, PictureProgram
from cobra.weights.tensors import in_memory
from tests.export.gguf.exported import NO_LLAMA

pytestmark = [pytest.mark.export, pytest.mark.skipif(bool(NO_LLAMA), reason=NO_LLAMA)]


def operation(kind: str, name: str, inputs: list[str], shape: list[int], **settings: Any) -> dict[str, Any]:
    return {"kind": kind, "name": name, "inputs": inputs, "shape": shape, "settings": settings}


MAP = [1, 5, 2, 3]
# an operation of every kind but pointwise ones, on maps of 3 channels and 4 x 6 pixels
OPERATIONS = [
    operation("conv", "c", ["p", "kernel", "five"], MAP, stride=[2, 2], padding=[1, 1], depthwise=False),
    operation("conv", "d", ["c", "each", "five"], MAP, stride=[1, 1], padding=[1, 1], depthwise=True),
    operation("group_norm", "g", ["d", "five", "five"], MAP, groups=1, eps=1e-5),
    operation("reshape", "r", ["g"], [1, 5, 6]),
    operation("permute", "t", ["r"], [1, 6, 5], sizes=[1, 1, 5, 6], order=[0, 1, 3, 2]),
    operation("linear", "l", ["t", "matrix", "four"], [1, 6, 4]),
    operation("layer_norm", "n", ["l", "four", "four"], [1, 6, 4], eps=1e-5),
    operation("reshape", "q", ["n"], [1, 1, 6, 4]),
    operation("attention", "a", ["q", "q", "q"], [1, 1, 6, 4], scale=0.5),
    operation("add", "s", ["a", "four"], [1, 1, 6, 4], sizes=[[1, 1, 6, 4], [1, 1, 1, 4]]),
    operation("slice", "f", ["s"], [1, 1, 2, 4], axis=2, start=1, length=2),
    operation("concat", "k", ["f", "s"], [1, 1, 8, 4], axis=2),
    operation("gelu", "u", ["k"], [1, 8, 4]),
    operation("flip", "b", ["u"], [1, 8, 4], axis=1),
    operation("ssm_conv", "v", ["b", "taps"], [1, 8, 4]),
    operation("rms_norm", "m", ["v"], [1, 8, 2, 2], eps=1e-5),
    operation("slice", "i", ["v"], [1, 8, 2], axis=2, start=1, length=2),
    operation("neg", "h", ["two"], [2]),
    operation("ssm_scan", "x", ["m", "i", "h", "m", "m"], [1, 8, 2, 2]),
    operation("exp", "e", ["x"], [8, 4]),
]  # fmt: skip
SHAPES = {
    "kernel": [5, 3, 3, 3], "each": [5, 1, 3, 3], "five": [5], "four": [4], "matrix": [4, 5], "taps": [4, 3],
    "two": [2],
}  # fmt: skip


def weights() -> dict[str, Tensor]:
    torch.manual_seed(0)
    return {name: torch.randn(shape) for name, shape in SHAPES.items()}


def program(path: Path, operations: list[dict], stored: dict[str, Tensor], shapes: Any = SHAPES) -> Path:
    places = {name: [name, shape] for name, shape in shapes.items()}
    said = {"pixels": {"p": [1, 3, 4, 6]}, "operations": operations, "weights": places}
    tensors = {name: Weight(found) for name, found in in_memory(stored).items()}
    write_gguf(path, {"general.architecture": "cobra-pictures", PROGRAM: json.dumps(said)}, tensors)
    return path


def run(path: Path) -> np.ndarray:
    opened = PictureProgram(path)
    try:
        return opened(np.linspace(-1, 1, 72, dtype=np.float32).reshape(1, 3, 4, 6))
    finally:
        opened.close()


def test_rows_of_a_matrix_may_be_padded(tmp_path: Path) -> None:
    plain = weights()
    # with what would be seen if it met anything but zeros
    padded = {**plain, "matrix": torch.nn.functional.pad(plain["matrix"], (0, 27), value=1e9)}
    expected = run(program(tmp_path / "plain.gguf", OPERATIONS, plain))
    assert expected.std() > 0.01
    np.testing.assert_allclose(run(program(tmp_path / "p.gguf", OPERATIONS, padded)), expected, rtol=1e-4)


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every list or dict in a value with each of its keys."""
    for key, inner in list(value.items() if isinstance(value, dict) else enumerate(value)):
        yield value, key
        if isinstance(inner, dict | list):
            yield from places(inner)


def test_whatever_a_file_says_the_process_lives(tmp_path: Path) -> None:
    draw = random.Random(0)
    # names of what is there, numbers that are near or far, and what is of another type
    odd = [
        *"pcdgrtlnqasfkubvmihxe",
        *SHAPES,
        "no",
        0,
        1,
        2,
        3,
        4,
        5,
        6,
        7,
        24,
        -1,
        2**31,
        2**62,
        1.5,
        1e300,
        True,
        None,
        [],
        {},
        [1],
    ]
    refused = 0
    for _ in range(400):
        operations, shapes = json.loads(json.dumps([OPERATIONS, SHAPES]))
        for _ in range(draw.randint(1, 3)):
            value, key = draw.choice([*places(operations), *places(shapes)])
            value[key] = draw.choice(odd)
        try:
            run(program(tmp_path / "p.gguf", operations, weights(), shapes))
        except OSError:
            refused += 1
    assert 300 < refused < 400


@pytest.mark.parametrize(
    ("name", "change", "reason"),
    [
        ("n", {"settings": {"eps": -1}}, "its eps is negative"),
        ("n", {"settings": {"eps": 1e300}}, "its eps is negative or not finite"),
        ("g", {"settings": {"eps": -1, "groups": 1}}, "its eps is negative"),
        ("m", {"settings": {"eps": -1e-9}}, "its eps is negative"),
        ("b", {"settings": {"axis": 2}}, "axis that is not the first"),
        ("v", {"inputs": ["b", "kernel"]}, "not of a sequence"),
        ("v", {"inputs": ["wide", "taps"]}, "not of a sequence"),
        ("v", {"inputs": ["half", "taps"]}, "filters do not fit"),
        ("x", {"inputs": ["m", "i", "h", "m", "i"]}, "B and C do not fit"),
        ("x", {"inputs": ["m", "i", "h", "wide", "wide"]}, "do not share its heads"),
        ("x", {"inputs": ["m", "i", "taps", "m", "m"]}, "not of the shape that it takes"),
    ],
)
def test_what_ggml_would_end_the_process_at_is_refused(
    name: str, change: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    early = next(place for place, said in enumerate(OPERATIONS) if said["name"] == "v")
    sideways = [
        operation("slice", "half", ["b"], [1, 8, 2], axis=2, start=0, length=2),
        operation("reshape", "wide", ["b"], [1, 8, 4, 1]),
    ]
    operations = [
        {**said, **change} if said["name"] == name else said
        for said in (*OPERATIONS[:early], *sideways, *OPERATIONS[early:])
    ]
    with pytest.raises(OSError, match=reason):
        run(program(tmp_path / "p.gguf", operations, weights()))


def test_a_file_that_is_cut_short_or_no_program_is_refused(tmp_path: Path) -> None:
    whole = program(tmp_path / "p.gguf", OPERATIONS, weights()).read_bytes()
    for size, reason in (
        (len(whole) - 300, "it is cut short"),
        (90, "it is no GGUF file"),
        (0, "no GGUF file"),
    ):
        (tmp_path / "cut.gguf").write_bytes(whole[:size])
        with pytest.raises(OSError, match=reason):
            PictureProgram(tmp_path / "cut.gguf")
    write_gguf(tmp_path / "other.gguf", {"general.architecture": "llama", PROGRAM: 3}, {})
    with pytest.raises(OSError, match="holds no picture's program"):
        PictureProgram(tmp_path / "other.gguf")
