"""Programs in ExecuTorch's runtime, and the memory that goes through them."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from reprlib import repr as shortened
from typing import Any

import torch
from torch import Tensor

from cobra.export.executorch.quiet import quiet
from cobra.export.executorch.stack import Stack
from cobra.export.manifest import Manifest


@dataclass(frozen=True)
class Settings:
    """What programs have to be called with.

    Attributes:
        vocab_size: logits.
        d_model: width of embeddings.
        tokens: of a piece.
        room: tokens that growing buffers have room for.
        positions: whether prefill and step are told how many tokens were read before.
        memory: shape of each buffer that goes through them, and whether it grows.
    """

    vocab_size: int
    d_model: int
    tokens: int
    room: int
    positions: bool
    memory: Sequence[dict[str, Any]]

    @classmethod
    def of(cls, stack: Stack, vocab_size: int, d_model: int) -> "Settings":
        """Those of the programs of a stack of pieces."""
        buffers = [buffer for layout in stack.layouts for buffer in layout.values()]
        memory = [
            {"shape": list(shape), "grows": buffer.grows}
            for shape, buffer in zip(stack.shapes(), buffers, strict=True)
        ]
        return cls(vocab_size, d_model, stack.tokens, stack.room, stack.positions, memory)

    @classmethod
    def said_by(cls, manifest: Manifest) -> "Settings":
        """What an export's manifest says.

        Raises:
            ValueError: where it does not.
        """
        kinds: dict[str, type] = dict.fromkeys(("vocab_size", "d_model", "tokens", "room"), int)
        kinds |= {"positions": bool, "memory": list}
        found = cls(**{name: manifest.setting(name, kind) for name, kind in kinds.items()})
        if not all(map(_is_buffer, found.memory)):
            raise ValueError(
                f"the manifest of {manifest.model} has memory {shortened(found.memory)}, no list of shapes: "
                "export the model again"
            )
        return found

    def as_json(self) -> dict[str, Any]:
        """As a manifest has them."""
        return asdict(self)


def _is_buffer(said: Any) -> bool:
    return (
        isinstance(said, dict)
        and isinstance(said.get("grows"), bool)
        and isinstance(said.get("shape"), list)
        and all(type(size) is int and size >= 0 for size in said["shape"])
    )


class Runner:
    """A sequence that programs read; torch's tensors, since the runtime takes no others.

    Args:
        path: of the programs.
        settings: of them.

    Raises:
        ValueError: where ExecuTorch is missing, or cannot load them.

    Attributes:
        memory: its buffers.
        read: tokens.
    """

    def __init__(self, path: Path, settings: Settings) -> None:
        self.settings, self._path, load = settings, path, runtime()._load_for_executorch
        try:
            self._module = load(str(path))
        except RuntimeError as error:
            raise ValueError(f"ExecuTorch cannot load {path} ({error}): export the model again") from error
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        self.memory, self.read = [torch.zeros(buffer["shape"]) for buffer in self.settings.memory], 0

    def encode_image(self, pixels: Sequence[Tensor]) -> Tensor:
        """Pixels of a picture, (1, 3, side, side) for each encoder, to image tokens (M, D)."""
        return self._run("encode_image", list(pixels))[0]

    def embed(self, ids: Tensor) -> Tensor:
        """Token ids (T,) to embeddings (T, D)."""
        found = []
        for piece in ids.int().split(self.settings.tokens):
            padded = torch.zeros(self.settings.tokens, dtype=torch.int32)
            padded[: len(piece)] = piece
            found.append(self._run("embed", [padded])[0][: len(piece)])
        return torch.cat(found)

    def prefill(self, embeds: Tensor) -> Tensor:
        """Embeddings (T, D) to the logits (V,) behind the last.

        Raises:
            ValueError: where there is no room for them.
        """
        self._check_room(len(embeds))
        for piece in embeds.split(self.settings.tokens):
            padded = torch.zeros(self.settings.tokens, self.settings.d_model)
            padded[: len(piece)] = piece
            logits = self._call("prefill", len(piece), [padded, _int32(len(piece))])
        return logits

    def step(self, token: int) -> Tensor:
        """The logits (V,) behind one more token; errors as for `prefill`."""
        self._check_room(1)
        return self._call("step", 1, [_int32(token)])

    def _call(self, program: str, tokens: int, inputs: list[Tensor]) -> Tensor:
        position = [_int32(self.read)] if self.settings.positions else []
        logits, *new = self._run(program, [*inputs, *position, *self.memory])
        for index, (buffer, value) in enumerate(zip(self.settings.memory, new, strict=True)):
            if buffer["grows"]:
                self.memory[index][..., self.read : self.read + tokens, :] = value[..., :tokens, :]
            else:
                self.memory[index] = value
        self.read += tokens
        return logits[0]

    def _run(self, program: str, inputs: list[Tensor]) -> Any:
        """What a program returns; a ValueError where ExecuTorch cannot run it, e.g. of a damaged file."""
        try:
            return self._module.run_method(program, inputs)
        except RuntimeError as error:
            raise ValueError(
                f"ExecuTorch cannot run {program} of {self._path} ({error}): see `cobra export verify`, or "
                "export the model again"
            ) from error

    def _check_room(self, tokens: int) -> None:
        if self.settings.positions and self.read + tokens > self.settings.room:
            raise ValueError(
                f"{self.read + tokens} tokens exceed the {self.settings.room} that the programs have room "
                "for: start anew"
            )


def runtime() -> Any:
    """ExecuTorch's runtime for Python.

    Raises:
        ValueError: where it is missing.
    """
    try:
        with quiet():
            found = import_module("executorch.extension.pybindings.portable_lib")
            # registers operators on quantized values
            import_module("executorch.kernels.quantized")
    except ImportError as error:
        raise ValueError(f"ExecuTorch is missing ({error}): pip install 'cobra-vlm[export]'") from error
    return found


def _int32(value: int) -> Tensor:
    return torch.tensor([value], dtype=torch.int32)
