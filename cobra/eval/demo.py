"""Train a config and its blind twin, evaluate both, and write one folder with everything."""

import json
import os
import subprocess
import sys
from pathlib import Path

import yaml
from rich.console import Console
from rich.markdown import Markdown

from cobra.eval.answer_stream import draw_answer_stream, first_scene
from cobra.eval.confusion import draw_confusion
from cobra.eval.learning_curve import draw_learning_curve, read_metrics, write_metrics
from cobra.eval.precision import fastest_precision
from cobra.eval.predictions import read_predictions
from cobra.eval.summary import chances, means, summarise, table
from cobra.eval.training_run import Run
from cobra.pretrained import from_pretrained

_QUESTIONS = ("what digit is written?", "how many red objects are there?", "describe the image.")


def run_demo(configs: list[Path], out: Path, seeds: list[int], precision: str | None) -> None:
    """Write checkpoints, metrics.csv, plots, predictions, summary.json and summary.md under `out`.

    Of several seeds each has a folder `seed-<n>` in it, and `out` holds their means. Launched again after an
    interruption it goes on where it stopped.
    """
    console = Console()
    folders = [out] if len(seeds) == 1 else [out / f"seed-{seed}" for seed in seeds]
    if precision == "auto":
        # what was begun in one precision is not finished in another
        precision = Run.precision_of(folders[0]) or fastest_precision()
    summaries = [
        _train_and_evaluate(configs, folder, seed, precision, console)
        for folder, seed in zip(folders, seeds, strict=True)
    ]
    if len(seeds) > 1:
        _write_summary(out, {**means(summaries), "seeds": summaries}, table(summaries))
    console.rule("results")
    console.print(Markdown(table(summaries)))
    _ask(folders[0], console)
    pictures = ("learning_curve", "contact_sheet-test", "confusion-test", "answer_stream-test")
    console.print("pictures: " + ", ".join(str(folders[0] / f"{name}.png") for name in pictures))


def _train_and_evaluate(
    configs: list[Path], out: Path, seed: int, precision: str | None, console: Console
) -> dict:
    load_before = os.getloadavg()[0]
    seeing = Run(configs, out, seed, precision=precision)
    blind = Run(configs, out / "blind", seed, blind=True, precision=precision)
    for run, name in ((seeing, "the model"), (blind, "its blind twin, which never sees a picture")):
        console.rule(f"training {name}, seed {seed}")
        run.train()
        run.test()
    rows = read_metrics(out / "logs")
    write_metrics(rows, out / "metrics.csv")
    summary = summarise(seeing, blind, load_before)
    _write_summary(out, summary, table([summary]))
    guessing = chances(out / "predictions-test.jsonl")
    draw_learning_curve(rows, out / "learning_curve.png", _stages(out, rows), guessing)
    predictions = list(read_predictions(out / "predictions-test.jsonl"))
    draw_confusion(predictions, out / "confusion-test.png")
    picture, drawn = out / "picture-test.png", out / "answer_stream-test.png"
    draw_answer_stream(*from_pretrained(out / "model"), picture, first_scene(predictions), drawn)
    return summary


def _write_summary(out: Path, summary: dict, text: str) -> None:
    (out / "summary.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    (out / "summary.md").write_text(text, encoding="utf-8")


def _ask(out: Path, console: Console) -> None:
    """Put three questions to the trained model, through the command that a user would type."""
    picture = out / "picture-test.png"
    for question in _QUESTIONS:
        console.print(f"[bold]{question}[/bold] ", end="")
        command = ["generate", "--ckpt", str(out / "model"), "--image", str(picture), "--prompt", question]
        subprocess.run([sys.executable, "-m", "cobra", *command], check=True)


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
