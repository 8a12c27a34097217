"""`cobra export layers`: what is lost behind each layer, by the precision of weights."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cobra.export.engine import Floats, Ids
from cobra.export.manifest import Manifest, read_manifest

# tokens that are read, and the seed that draws them
_TOKENS, _SEED = 64, 0


def print_layer_losses(exact: Path, others: Sequence[Path], model: Path | None, threads: int = 1) -> None:
    """Print relative RMS of hidden states behind each layer, and of logits, as Markdown; of the last layer
    behind the last of 64 tokens alone, which are drawn by lot.

    Args:
        exact: export to GGUF that the others are compared with, f32 best.
        others: exports of the same model to GGUF.
        model: folder of it, to be quantised as 8da4w quantises it; None leaves that out.
        threads: of a product.

    Raises:
        OSError: where a folder is missing, or no export.
        ValueError: where one is for another runtime, or of another model, or torchao is missing.
    """
    if model is not None:
        from cobra.export.executorch.lower import torchao

        # before what takes minutes
        torchao()
    manifests = {folder: _gguf(folder) for folder in (exact, *others)}
    size = manifests[exact].setting("vocab_size", int)
    ids = np.random.default_rng(_SEED).integers(size, size=_TOKENS)
    expected = _outputs(exact, ids, threads)
    losses: dict[Path, list[float]] = {}
    for folder in others:
        found = _outputs(folder, ids, threads)
        if [layer.shape for layer in found] != [layer.shape for layer in expected]:
            raise ValueError(f"{folder} has not the layers of {exact}: compare exports of one model")
        losses[folder] = [_rms(*pair) for pair in zip(found, expected, strict=True)]
    titled = [
        (f"{folder.absolute().name} {manifests[folder].quant}", loss) for folder, loss in losses.items()
    ]
    if model is not None:
        titled.append((f"{model.absolute().name} 8da4w", _of_8da4w(model, ids)))
    print("\n".join(_table(titled)))


def _gguf(folder: Path) -> Manifest:
    manifest = read_manifest(folder)
    if manifest.target != "gguf":
        raise ValueError(
            f"{folder} is of target {manifest.target}, whose layers cannot be looked at: take gguf"
        )
    return manifest


def _outputs(folder: Path, ids: Ids, threads: int) -> list[Floats]:
    from cobra.export.engines.gguf import LANGUAGE_MODEL
    from cobra.export.gguf.layers import layer_outputs

    layers, logits = layer_outputs(folder / LANGUAGE_MODEL, ids, threads)
    return [*layers, logits]


def _of_8da4w(model: Path, ids: Ids) -> list[float]:
    import torch

    from cobra.export.executorch.layers import layer_losses
    from cobra.pretrained import from_pretrained

    return layer_losses(from_pretrained(model, dtype=torch.float32)[0].lm, torch.from_numpy(ids))


def _rms(found: Floats, expected: Floats) -> float:
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


def _table(columns: Sequence[tuple[str, Sequence[float]]]) -> list[str]:
    rows = [*zip(*(losses for _, losses in columns), strict=True)]
    names = [*(str(number + 1) for number in range(len(rows) - 1)), "logits"]
    head = [f"| layer | {' | '.join(title for title, _ in columns)} |", f"|---|{'---:|' * len(columns)}"]
    cells = [" | ".join(f"{loss:.1e}" for loss in row) for row in rows]
    return [*head, *(f"| {name} | {row} |" for name, row in zip(names, cells, strict=True))]
