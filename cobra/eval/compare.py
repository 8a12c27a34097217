"""Several trained runs beside each other: accuracy by steps and by time, and what a token of each costs."""

import json
from pathlib import Path

from matplotlib.figure import Figure

from cobra.bench.decode_cost import decode_cost, draw_decode_cost
from cobra.eval.compare_losses import compare_losses
from cobra.eval.predictions import accuracy, read_predictions
from cobra.eval.training_curve import ACCURACY, Trained
from cobra.pretrained import from_pretrained


def compare(named: list[str], out: Path) -> None:
    """Write comparison.png, decode_cost.png, comparison.json and comparison.md under `out`.

    Of runs that answer no questions, their held-out losses instead: see `compare_losses`.

    Args:
        named: `[NAME=]FOLDER` of each run.
        out: made if missing.
    """
    runs = [Trained.read(each) for each in named]
    if not any(ACCURACY in row for run in runs for row in run.rows):
        out.mkdir(parents=True, exist_ok=True)
        compare_losses(runs, out)
        return
    names = [run.name for run in runs]
    if len(set(names)) < len(names):
        raise ValueError(f"two runs have one name in {names}: write NAME=FOLDER")
    out.mkdir(parents=True, exist_ok=True)
    draw_comparison(runs, out / "comparison.png")
    results: dict[str, dict] = {}
    costs = {}
    for run in runs:
        model, _ = from_pretrained(run.folder / "model")
        costs[run.name] = decode_cost(model)
        size = sum(parameter.numel() for parameter in model.parameters())
        results[run.name] = {"parameters": size, **_reached(run), "decode_seconds": costs[run.name]}
    draw_decode_cost(costs, out / "decode_cost.png")
    (out / "comparison.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    (out / "comparison.md").write_text(table(results), encoding="utf-8")
    print(table(results))


def draw_comparison(runs: list[Trained], path: Path) -> None:
    """Write a PNG: macro accuracy in validation against steps, and against the shortest run's seconds."""
    figure = Figure(figsize=(11, 4.5), layout="constrained")
    by_steps, by_time = figure.subplots(1, 2, sharey=True)
    curves = {run.name: run.curve() for run in runs}
    for name, (steps, seconds, macro) in curves.items():
        by_steps.plot(steps, macro, marker="o", markersize=3, label=name)
        by_time.plot(seconds, macro, marker="o", markersize=3, label=name)
    by_steps.set(ylim=(0, 1.02), xlabel="optimizer step", ylabel="macro accuracy in validation")
    # equal time: beyond the shortest run there is nothing to compare with
    end = min(seconds[-1] for _, seconds, _ in curves.values())
    by_time.set(xlim=(0, 1.03 * end), xlabel="processor seconds of training")
    for axes in (by_steps, by_time):
        axes.grid(axis="y", color="#d0d7de", linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
    by_steps.legend(loc="upper left", fontsize=9)
    figure.savefig(path, dpi=110)


def table(results: dict[str, dict]) -> str:
    """The results as Markdown, one row a run."""
    lines = [
        "| run | parameters | steps | CPU s | validation | test | ms a token: first | last |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for name, result in results.items():
        cost = result["decode_seconds"]
        test = "–" if result["test"] is None else f"{100 * result['test']:.1f} %"
        lines.append(
            f"| {name} | {result['parameters']:,} | {result['steps']} | {result['cpu_seconds']:.0f} "
            f"| {100 * result['validation']:.1f} % | {test} "
            f"| {1000 * cost[min(cost)]:.2f} | {1000 * cost[max(cost)]:.2f} |"
        )
    return "\n".join([*lines, ""])


def _reached(run: Trained) -> dict[str, float | None]:
    steps, seconds, macro = run.curve()
    answers = run.folder / "predictions-test.jsonl"
    test = accuracy(read_predictions(answers))["macro"] if answers.is_file() else None
    return {"steps": int(steps[-1]) + 1, "cpu_seconds": seconds[-1], "validation": macro[-1], "test": test}
