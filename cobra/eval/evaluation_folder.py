"""Folder of an evaluation: what was run, and that nothing is mixed in it."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from cobra.config.package_versions import package_versions
from cobra.config.text_file import read_text
from cobra.eval.benchmarks.base import Benchmark
from cobra.eval.protocols.protocol import Ask
from cobra.weights.file_hash import file_hash

RUN = "run.json"
_PACKAGES = ("torch", "transformers", "tokenizers", "numpy", "pillow")


def record_run(
    out: Path,
    model: str,
    fingerprint: str,
    how: Mapping[str, Any],
    asked: Sequence[tuple[Benchmark, Sequence[Ask]]],
    **more: Any,
) -> None:
    """Write run.json, after what an earlier run of the same model wrote there.

    Args:
        out: the folder.
        model: as the user named it.
        fingerprint: of it.
        how: it computes.
        asked: benchmarks and the ways in which they are asked.
        more: what else is to be known of the run; it changes no answer.

    Raises:
        ValueError: where the folder holds a run of another model, of other words of an ask, or of files that
            have changed since.
    """
    path = out / RUN
    before = read_run(out)
    if before.get("fingerprint", fingerprint) != fingerprint:
        raise ValueError(
            f"{out} holds a run of another checkpoint, dtype or quantization ({before.get('model')}, "
            f"fingerprint {before['fingerprint']}, this one's is {fingerprint}): name another --out"
        )
    # words that were found wrong before there was an answer may change
    answered = {name: ask for name, ask in before.get("asks", {}).items() if any(out.glob(f"{name}.jsonl*"))}
    asks = {f"{benchmark.name}-{ask.name}": asdict(ask) for benchmark, asks in asked for ask in asks}
    hashes = {name: said for benchmark, _ in asked for name, said in _hashes(benchmark).items()}
    said = {
        "model": model,
        "fingerprint": fingerprint,
        **how,
        **more,
        "versions": package_versions(_PACKAGES),
        "threads": torch.get_num_threads(),
        "asks": _joined(answered, json.loads(json.dumps(asks)), out, "the words of"),
        "data": _joined(before.get("data", {}), hashes, out, "the file"),
    }
    temporary = path.with_suffix(".tmp")
    text = json.dumps(said, indent=2, ensure_ascii=False, default=str)
    temporary.write_text(text + "\n", encoding="utf-8")
    os.replace(temporary, path)


def read_run(path: Path) -> dict[str, Any]:
    """What run.json says in the folder of an evaluation, or beside a file in one; nothing where it is not."""
    run = (path if path.is_dir() else path.parent) / RUN
    said: dict[str, Any] = read_written(run) if run.is_file() else {}
    return said


def read_written(path: Path) -> Any:
    """The value of a JSON file that a run wrote beside its answers.

    Raises:
        ValueError: where it is damaged, as by a machine that lost its power.
    """
    try:
        return json.loads(read_text(path))
    except ValueError as error:
        raise ValueError(
            f"{path} is damaged ({error}): remove it and run the same command again; answers are kept"
        ) from error


def named(path: Path) -> str:
    """A folder of an evaluation, or a file in one, and behind it what was evaluated if that was an export."""
    said = read_run(path)
    return f"{path} ({said['target']} {said['quant']})" if "target" in said else str(path)


def _joined(before: Mapping[str, Any], now: Mapping[str, Any], out: Path, what: str) -> dict[str, Any]:
    changed = [name for name, value in now.items() if before.get(name, value) != value]
    if changed:
        raise ValueError(
            f"{what} {', '.join(changed)} changed since the answers in {out} were given: name another --out"
        )
    return {**before, **now}


def _hashes(benchmark: Benchmark) -> dict[str, str]:
    """Of its files that are there; pictures are too many."""
    files = [each.path for each in benchmark.downloads if not each.path.endswith("/")]
    return {name: file_hash(benchmark.root / name) for name in files if (benchmark.root / name).is_file()}
