"""The summary of a trained model and its blind twin: numbers for programs, a table for people."""

import os
import platform
from pathlib import Path
from statistics import mean, stdev

import torch

from cobra.eval.predictions import accuracy, read_predictions
from cobra.eval.training_run import Run

SPLITS = ("test", "composition")


def summarise(seeing: Run, blind: Run, load_before: float) -> dict:
    """Accuracies of a run and its twin, and how long they took on what machine."""
    model, twin = _scores(seeing.folder), _scores(blind.folder)
    return {
        "seconds": round(seeing.seconds("fit"), 1),
        "seconds_blind": round(blind.seconds("fit"), 1),
        "steps": _steps(seeing.folder / "checkpoints" / "last.ckpt"),
        "load": {"before": load_before, "after": os.getloadavg()[0]},
        "machine": {"threads": torch.get_num_threads(), "processor": _processor()},
        "seed": seeing.seed,
        "precision": seeing.precision or "as configured",
        "chance": chances(seeing.folder / "predictions-test.jsonl")["macro"],
        "macro": model["test"]["macro"],
        "macro_blind": twin["test"]["macro"],
        "macro_composition": model["composition"]["macro"],
        "model": model,
        "blind": twin,
    }


def chances(predictions: Path) -> dict[str, float]:
    """Accuracy of guessing among the answers that each type of question has, and `macro`, their mean."""
    answers: dict[str, set[str]] = {}
    for prediction in read_predictions(predictions):
        answers.setdefault(prediction.kind, set()).update(prediction.answers)
    shares = {kind: 1 / len(known) for kind, known in answers.items()}
    return {**shares, "macro": mean(shares.values())}


def means(summaries: list[dict]) -> dict[str, float]:
    """Seconds and macro accuracies, as in each summary, over runs that differ in their seed."""
    keys = ("seconds", "seconds_blind", "macro", "macro_blind", "macro_composition")
    return {key: mean(summary[key] for summary in summaries) for key in keys}


def table(summaries: list[dict]) -> str:
    """Summaries of runs that differ in their seed, as Markdown; of several, mean ± standard deviation."""
    first = summaries[0]
    kinds = [*[kind for kind in first["model"]["test"] if kind != "macro"], "macro"]
    lines = [
        "| question | model | blind twin | model, new colour-shape pairs |",
        "|---|---:|---:|---:|",
        *[
            f"| {kind} | {_percent(summaries, 'model', 'test', kind)} "
            f"| {_percent(summaries, 'blind', 'test', kind)} "
            f"| {_percent(summaries, 'model', 'composition', kind)} |"
            for kind in kinds
        ],
    ]
    seeds = ", ".join(str(summary["seed"]) for summary in summaries)
    spread = f"mean ± standard deviation over seeds {seeds}" if len(summaries) > 1 else f"seed {seeds}"
    times, blind_times = (_list(summaries, key) for key in ("seconds", "seconds_blind"))
    loads = ", ".join(f"{s['load']['before']:.1f} to {s['load']['after']:.1f}" for s in summaries)
    machine = first["machine"]
    setting = f"{machine['threads']} threads ({machine['processor']}), precision {first['precision']}"
    notes = (
        f"Exact-match accuracy on held-out scenes, {spread}; guessing gives {100 * first['chance']:.1f} %. "
        f"{first['steps']} steps in {times} s (blind twin: {blind_times} s) on {setting}, load {loads}. The "
        f"vision tower was trained on cell labels in a first stage and then frozen: the miniature of a "
        f"pretrained tower."
    )
    return "\n".join([*lines, "", notes, ""])


def _scores(folder: Path) -> dict[str, dict[str, float]]:
    return {split: accuracy(read_predictions(folder / f"predictions-{split}.jsonl")) for split in SPLITS}


def _steps(checkpoint: Path) -> int:
    """Optimizer steps that a checkpoint has behind it."""
    return torch.load(checkpoint, weights_only=True, mmap=True, map_location="cpu")["global_step"]


def _percent(summaries: list[dict], who: str, split: str, kind: str) -> str:
    shares = [100 * s[who][split][kind] for s in summaries if kind in s[who][split]]
    if not shares:
        return "–"
    return f"{mean(shares):.1f} %" if len(shares) == 1 else f"{mean(shares):.1f} ± {stdev(shares):.1f} %"


def _list(summaries: list[dict], key: str) -> str:
    return ", ".join(f"{summary[key]:.0f}" for summary in summaries)


def _processor() -> str:
    """The processor's name, where the system tells it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
