"""One training run in processes of its own, launched as a user would, and resumed where it was stopped."""

import json
import shlex
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path


@dataclass
class Run:
    """One training run and where it writes.

    Attributes:
        configs: yaml files, later ones override earlier ones.
        folder: everything is written there.
        seed: of weights and data order.
        blind: whether it sees zeros instead of pictures.
        precision: Lightning's name of it; None is what the configs say.
    """

    configs: list[Path]
    folder: Path
    seed: int
    blind: bool = False
    precision: str | None = None

    @property
    def checkpoint(self) -> Path:
        """The newest."""
        return self.folder / "checkpoints" / "last.ckpt"

    def train(self, until: int | None = None) -> None:
        """Train, or go on where an earlier launch was stopped; nothing to do when it had finished.

        Args:
            until: stop behind this step; left out, train to the end.

        Raises:
            SystemExit: where training fails or is terminated, with its exit status.
            ValueError: where it ends without a model.
        """
        self._claim()
        if (self.folder / "model" / "config.json").is_file():
            return
        options = ["--ckpt_path", "last"] if self.checkpoint.is_file() else []
        options += [] if until is None else ["--trainer.max_steps", str(until)]
        self._launch("fit", *options)
        if until is None and not (self.folder / "model" / "config.json").is_file():
            raise ValueError(f"training ended before {self.folder / 'model'} was written: launch it again")

    def test(self, weights: Path | None = None) -> None:
        """Answer the test questions with the trained weights, or those of a model folder."""
        self._launch("test", "--ckpt_path", str(weights or self.checkpoint))

    def seconds(self, verb: str) -> float:
        """Wall seconds of a verb, over all launches."""
        return self._times().get(verb, 0.0)

    def _claim(self) -> None:
        """Refuse a folder that holds another recipe's run: its weights would pass for this one's."""
        recipe = {
            "seed": self.seed,
            "precision": self.precision,
            "configs": [path.read_text(encoding="utf-8") for path in self.configs],
        }
        path = self.folder / "recipe.json"
        if path.is_file() and json.loads(path.read_text(encoding="utf-8")) != recipe:
            raise ValueError(
                f"{self.folder} holds a run of another seed, precision or recipe: name another --out or "
                f"remove it"
            )
        self.folder.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(recipe), encoding="utf-8")

    def _launch(self, verb: str, *options: str) -> None:
        configs = [word for config in self.configs for word in ("-c", str(config))]
        common = ["--trainer.default_root_dir", str(self.folder), "--seed_everything", str(self.seed)]
        common += ["--data.seed", str(self.seed), "--data.blind", str(self.blind).lower()]
        common += ["--trainer.precision", self.precision] if self.precision else []
        start = time.monotonic()
        try:
            run_cobra(verb, *configs, *common, *options)
        finally:
            times = self._times()
            times[verb] = times.get(verb, 0.0) + time.monotonic() - start
            (self.folder / "seconds.json").write_text(json.dumps(times))

    @staticmethod
    def precision_of(folder: Path) -> str | None:
        """The precision with which a run was begun; None where none was, or as its configs say."""
        path = folder / "recipe.json"
        recipe = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        # another version's file, which holds a list, is refused when the run claims the folder
        return recipe.get("precision") if isinstance(recipe, dict) else None

    def _times(self) -> dict[str, float]:
        path = self.folder / "seconds.json"
        return json.loads(path.read_text()) if path.is_file() else {}


def run_cobra(*words: str) -> None:
    """Run a command as a user would type it, and show it; where it fails, exit with its status."""
    print(f"$ cobra {shlex.join(words)}", flush=True)
    if status := _run([sys.executable, "-m", "cobra", *words]):
        print(f"cobra {words[0]} ended with exit status {status}", file=sys.stderr)
        sys.exit(status)


def _run(command: list[str]) -> int:
    """The exit status of a command, as a shell has it; SIGTERM meanwhile is handed on to it."""
    process = subprocess.Popen(command)
    before = signal.signal(signal.SIGTERM, lambda *_: process.terminate())
    try:
        status = process.wait()
    except BaseException:
        process.terminate()
        process.wait()
        raise
    finally:
        signal.signal(signal.SIGTERM, before)
    return status if status >= 0 else 128 - status
