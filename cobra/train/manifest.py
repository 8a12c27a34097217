"""Lightning callback: what a run was made of, in one file beside its results."""

import json
import os
import platform
import subprocess
import sys
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import cobra.torchvision_shim  # noqa: F401  (before lightning)

import torch  # isort: skip
from lightning.pytorch import Callback, LightningModule, Trainer

from cobra.config.package_versions import package_versions

_PACKAGES = ("torch", "lightning", "transformers", "timm", "peft", "datasets", "numpy", "pillow")


class Manifest(Callback):
    """Write `manifest.json`: versions, sources, data, seeds and devices, and of every launch how it ended.

    It is written when training starts, and again at its end; a launch that was killed has no end. Nothing of
    the environment is in it but what a launch names, and of the command line no value that looks like a key.

    Args:
        path: the file; a run that is resumed adds a launch to it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.held: dict[str, Any] = {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say what this launch begins with."""
        before = _read(self.path)["launches"] if trainer.ckpt_path is not None else []
        launch = {
            "started": _now(),
            "command": _command(sys.argv),
            "from": None if trainer.ckpt_path is None else str(trainer.ckpt_path),
            "from_step": trainer.global_step,
            "config": _config(trainer),
            "devices": _devices(trainer),
            "versions": package_versions(_PACKAGES),
            "source": _source(Path(__file__).parents[2]),
        }
        plan = pl_module.plan
        self.held = {
            "stages": [{"name": s.name, "steps": n} for s, n in zip(plan.stages, plan.steps, strict=True)],
            "seed": int(os.environ.get("PL_GLOBAL_SEED", -1)),
            "data": trainer.datamodule.identity(),
            "weights": pl_module.weights or pl_module.origin,
            "launches": [*before, launch],
        }
        self._write(trainer)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say that it is finished, or was stopped, and what was measured last."""
        done = trainer.global_step >= pl_module.plan.total
        self._end(trainer, "finished" if done else "stopped")

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Say what ended it."""
        terminated = type(exception).__name__ == "SIGTERMException"
        reason = "" if terminated else f": {' '.join(str(exception).split())[:500]}"
        self._end(trainer, ("terminated" if terminated else "failed") + reason)

    def _end(self, trainer: Trainer, how: str) -> None:
        if not self.held:
            return
        metrics = {name: _number(value) for name, value in sorted(trainer.callback_metrics.items())}
        end = {"ended": _now(), "how": how, "step": trainer.global_step, "metrics": metrics}
        self.held["launches"][-1].update(end)
        self._write(trainer)

    def _write(self, trainer: Trainer) -> None:
        if not trainer.is_global_zero:
            return
        temporary = self.path.with_name(f".{self.path.name}")
        try:
            temporary.write_text(json.dumps(self.held, indent=1) + "\n", encoding="utf-8")
            os.replace(temporary, self.path)
        # the error that ends the run says more
        except OSError:
            temporary.unlink(missing_ok=True)


def _read(path: Path) -> dict[str, Any]:
    """An earlier launch's file; one that is damaged counts as none."""
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
        return held if isinstance(held.get("launches"), list) else {"launches": []}
    except (OSError, ValueError, AttributeError):
        return {"launches": []}


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def _number(value: Any) -> float | None:
    number = float(value)
    # JSON has no other numbers
    return number if abs(number) < float("inf") else None


def _command(words: list[str]) -> list[str]:
    """The words as they were typed, the program without its folder, and no value of what looks like a key."""
    shown, secret = [Path(words[0]).name], False
    for word in words[1:]:
        name, is_joined, _ = word.partition("=")
        is_key = word.startswith("-") and any(
            w in name.lower() for w in ("token", "key", "secret", "password")
        )
        # a tokenizer is none
        is_key = is_key and "tokenizer" not in name.lower()
        shown.append("***" if secret else f"{name}=***" if is_key and is_joined else word)
        secret = is_key and not is_joined and not secret
    return shown


def _config(trainer: Trainer) -> str | None:
    """The resolved configuration, which Lightning writes beside the first logger's files."""
    folder = trainer.log_dir
    if folder is None:
        return None
    path, root = Path(folder) / "config.yaml", Path(trainer.default_root_dir)
    return str(path.relative_to(root)) if path.is_relative_to(root) else str(path)


def _devices(trainer: Trainer) -> dict[str, Any]:
    device = trainer.strategy.root_device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    return {
        "count": trainer.world_size,
        "kind": device.type,
        "name": name,
        "strategy": type(trainer.strategy).__name__,
        "precision": str(trainer.precision),
    }


def _source(root: Path) -> dict[str, Any] | None:
    """The commit that this code is of, and whether it was changed since; None where it is no checkout."""
    if not (root / ".git").exists():
        return None

    def git(*words: str) -> str:
        command = ["git", "-C", str(root), *words]
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
        return done.stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=no")
        return {"commit": git("rev-parse", "HEAD"), "changed": bool(changed)}
    except (OSError, subprocess.SubprocessError):
        return None
