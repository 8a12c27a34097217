"""Train a config and its blind twin, evaluate both, and write one folder with everything."""

import json
import os
import platform
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import torch
import yaml
from rich.console import Console
from rich.markdown import Markdown

from cobra.eval.learning_curve import draw_learning_curve, read_metrics, write_metrics
from cobra.eval.predictions import accuracy, read_predictions

SPLITS = ("test", "composition")
_QUESTIONS = ("what digit is written?", "how many red objects are there?", "describe the image.")


@dataclass
class Run:
    """One training run and where it writes.

    Attributes:
        configs: yaml files, later ones override earlier ones.
        folder: everything is written there.
        seed: of weights and data order.
        blind: whether it sees zeros instead of pictures.
    """

    configs: list[Path]
    folder: Path
    seed: int
    blind: bool = False

    def train(self) -> None:
        """Train, or go on where an earlier launch was stopped; nothing to do when it had finished."""
        self._claim()
        if (self.folder / "model" / "config.json").is_file():
            return
        resumed = (self.folder / "checkpoints" / "last.ckpt").is_file()
        self._launch("fit", *(["--ckpt_path", "last"] if resumed else []))

    def test(self) -> None:
        """Answer the test questions with the trained weights."""
        self._launch("test", "--ckpt_path", str(self.folder / "checkpoints" / "last.ckpt"))

    def seconds(self, verb: str) -> float:
        """Wall seconds of a verb, over all launches."""
        return self._times().get(verb, 0.0)

    def _claim(self) -> None:
        """Refuse a folder that holds another recipe's run: its weights would pass for this one's."""
        recipe = [f"seed {self.seed}", *(path.read_text(encoding="utf-8") for path in self.configs)]
        path = self.folder / "recipe.json"
        if path.is_file() and json.loads(path.read_text(encoding="utf-8")) != recipe:
            raise ValueError(
                f"{self.folder} holds a run of another seed or recipe: name another --out or remove it"
            )
        self.folder.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(recipe), encoding="utf-8")

    def _launch(self, verb: str, *options: str) -> None:
        configs = [word for config in self.configs for word in ("-c", str(config))]
        common = ["--trainer.default_root_dir", str(self.folder), "--seed_everything", str(self.seed)]
        common += ["--data.seed", str(self.seed), "--data.blind", str(self.blind).lower()]
        start = time.monotonic()
        try:
            subprocess.run([sys.executable, "-m", "cobra", verb, *configs, *common, *options], check=True)
        finally:
            times = self._times()
            times[verb] = times.get(verb, 0.0) + time.monotonic() - start
            (self.folder / "seconds.json").write_text(json.dumps(times))

    def _times(self) -> dict[str, float]:
        path = self.folder / "seconds.json"
        return json.loads(path.read_text()) if path.is_file() else {}


def reproduce(configs: list[Path], out: Path, seed: int) -> None:
    """Write checkpoints, metrics.csv, plots, predictions, summary.json and summary.md under `out`.

    Launched again after an interruption it goes on where it stopped.
    """
    console = Console()
    load_before = os.getloadavg()[0]
    seeing = Run(configs, out, seed)
    blind = Run(configs, out / "blind", seed, blind=True)
    for run, name in ((seeing, "the model"), (blind, "its blind twin, which never sees a picture")):
        console.rule(f"training {name}")
        run.train()
        run.test()
    rows = read_metrics(out / "logs")
    write_metrics(rows, out / "metrics.csv")
    summary = _summary(seeing, blind, load_before)
    (out / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
    table = _table(summary)
    (out / "summary.md").write_text(table)
    draw_learning_curve(rows, out / "learning_curve.png", _stages(out, rows), summary["chance"])
    console.rule("results")
    console.print(Markdown(table))
    _ask(out, console)
    console.print(f"pictures: {out / 'learning_curve.png'}, {out / 'contact_sheet-test.png'}")


def _ask(out: Path, console: Console) -> None:
    """Put three questions to the trained model, through the command that a user would type."""
    picture = out / "picture-test.png"
    for question in _QUESTIONS:
        console.print(f"[bold]{question}[/bold] ", end="")
        command = ["generate", "--ckpt", str(out / "model"), "--image", str(picture), "--prompt", question]
        subprocess.run([sys.executable, "-m", "cobra", *command], check=True)


def _summary(seeing: Run, blind: Run, load_before: float) -> dict:
    scores = {
        name: {
            split: accuracy(read_predictions(run.folder / f"predictions-{split}.jsonl")) for split in SPLITS
        }
        for name, run in (("model", seeing), ("blind", blind))
    }
    model, twin = scores["model"], scores["blind"]
    return {
        "seconds": round(seeing.seconds("fit"), 1),
        "seconds_blind": round(blind.seconds("fit"), 1),
        "steps": _steps(seeing.folder / "checkpoints" / "last.ckpt"),
        "load": {"before": load_before, "after": os.getloadavg()[0]},
        "machine": {"threads": torch.get_num_threads(), "processor": _processor()},
        "seed": seeing.seed,
        "chance": _chance(seeing.folder / "predictions-test.jsonl"),
        "macro": model["test"]["macro"],
        "macro_blind": twin["test"]["macro"],
        "macro_composition": model["composition"]["macro"],
        "model": model,
        "blind": twin,
    }


def _steps(checkpoint: Path) -> int:
    """Optimizer steps that a checkpoint has behind it."""
    return torch.load(checkpoint, weights_only=True, mmap=True, map_location="cpu")["global_step"]


def _chance(predictions: Path) -> float:
    """Macro accuracy of guessing among the answers that each type of question has."""
    answers: dict[str, set[str]] = {}
    for prediction in read_predictions(predictions):
        answers.setdefault(prediction.kind, set()).update(prediction.answers)
    return sum(1 / len(known) for known in answers.values()) / len(answers)


def _table(summary: dict) -> str:
    """The summary as Markdown."""
    model, blind = summary["model"], summary["blind"]
    kinds = [*[kind for kind in model["test"] if kind != "macro"], "macro"]
    lines = [
        "| question | model | blind twin | model, new colour-shape pairs |",
        "|---|---:|---:|---:|",
        *[
            f"| {kind} | {_percent(model['test'][kind])} | {_percent(blind['test'].get(kind))} "
            f"| {_percent(model['composition'].get(kind))} |"
            for kind in kinds
        ],
    ]
    machine, load = summary["machine"], summary["load"]
    notes = (
        f"Exact-match accuracy on held-out scenes, seed {summary['seed']}; guessing gives "
        f"{_percent(summary['chance'])}. {summary['steps']} steps in {summary['seconds']:.0f} s (blind twin: "
        f"{summary['seconds_blind']:.0f} s) on {machine['threads']} threads ({machine['processor']}), load "
        f"{load['before']:.1f} before and {load['after']:.1f} after. The vision tower was trained on cell "
        f"labels in a first stage and then frozen: the miniature of a pretrained tower."
    )
    return "\n".join([*lines, "", notes, ""])


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.1f} %"


def _stages(out: Path, rows: list[dict[str, float]]) -> list[tuple[str, int]]:
    """Name and last step of each stage, as the run logged them."""
    config = yaml.safe_load(
        sorted((out / "logs").glob("version_*/config.yaml"))[-1].read_text(encoding="utf-8")
    )
    names = [stage["name"] for stage in config["stages"]]
    return [
        (name, int(max(row["step"] for row in rows if row.get("stage") == number)))
        for number, name in enumerate(names)
        if any(row.get("stage") == number for row in rows)
    ]


def _processor() -> str:
    """The processor's name, where the system tells it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
