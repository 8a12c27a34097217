"""Language models beside each other: held-out loss by tokens and by processor time."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from matplotlib.figure import Figure

from cobra.config.text_file import read_text
from cobra.eval.training_curve import Trained
from cobra.pretrained import from_pretrained

_PREFIX, _BITS = "held_out/", "_bits_per_byte"
_COLORS = ("#0969da", "#cf222e", "#1a7f37", "#bf8700", "#8250df")

# what is known of each run, by its name; runs of one name differ in their seeds
Results = Mapping[str, Sequence[Mapping[str, Any]]]


def compare_losses(runs: Sequence[Trained], out: Path) -> None:
    """Write held_out.png, held_out.json and held_out.md under `out`, and print the last.

    Args:
        runs: those of one name are drawn alike.
        out: a folder.
    """
    results: dict[str, list[dict[str, Any]]] = {}
    for run in runs:
        results.setdefault(run.name, []).append(_result(run))
    draw_losses(results, out / "held_out.png")
    (out / "held_out.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    (out / "held_out.md").write_text(table(results), encoding="utf-8")
    print(table(results))


def _result(run: Trained) -> dict[str, Any]:
    columns = sorted({name for row in run.rows for name in row if name.startswith(_PREFIX)})
    curves = {name.removeprefix(_PREFIX): run.curve(name) for name in columns}
    steps, seconds, _ = next(iter(curves.values()))
    # a run that is not over has a checkpoint
    made = run.folder / "model"
    model, _ = from_pretrained(made if made.is_dir() else run.folder / "checkpoints/last.ckpt")
    return {
        "parameters": sum(parameter.numel() for parameter in model.lm.parameters()),
        "tokens": [round((step + 1) * _tokens(run)) for step in steps],
        "cpu_seconds": [round(second, 1) for second in seconds],
        "held_out": {name: [round(loss, 4) for loss in losses] for name, (_, _, losses) in curves.items()},
    }


def _tokens(run: Trained) -> float:
    """Tokens with a label an optimizer step, of all batches in it."""
    path = run.folder / "logs/version_0/config.yaml"
    trainer = yaml.safe_load(read_text(path))["trainer"]
    if not str(trainer["devices"]).isdecimal():
        raise ValueError(f"{path} has trainer.devices {trainer['devices']}: write the number that there were")
    batches = trainer["accumulate_grad_batches"] * int(trainer["devices"]) * trainer["num_nodes"]
    counts = [row["answer_tokens"] for row in run.rows if "answer_tokens" in row]
    return batches * sum(counts) / len(counts)


def draw_losses(results: Results, path: Path) -> None:
    """Write a PNG: the loss of each source, a row each, against tokens on the left and time on the right."""
    runs = [run for each in results.values() for run in each]
    sources = [name for name in runs[0]["held_out"] if not name.endswith(_BITS)]
    figure = Figure(figsize=(11, 3.6 * len(sources)), layout="constrained")
    every = figure.subplots(len(sources), 2, sharey="row", squeeze=False)
    for source, (by_tokens, by_time) in zip(sources, every, strict=True):
        for color, (name, seeds) in zip(_COLORS, results.items(), strict=False):
            for number, run in enumerate(seeds):
                style = {"color": color, "marker": "o", "markersize": 3, "label": None if number else name}
                losses = run["held_out"][source]
                by_tokens.plot([tokens / 1e6 for tokens in run["tokens"]], losses, **style)
                by_time.plot([seconds / 60 for seconds in run["cpu_seconds"]], losses, **style)
        by_tokens.set(ylabel=f"held-out loss on {source}, nats a token", xlabel="million tokens seen")
        by_time.set(xlabel="minutes of processor time")
        by_tokens.legend(fontsize=9)
        for axes in (by_tokens, by_time):
            axes.set_xlim(0, None)
            axes.grid(color="#d0d7de", linewidth=0.6)
            axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110)


def table(results: Results) -> str:
    """What each run came to by as many tokens as the shortest has seen, as Markdown."""
    first = next(iter(results.values()))[0]
    common = min(run["tokens"][-1] for seeds in results.values() for run in seeds)
    sources = [name for name in first["held_out"] if not name.endswith(_BITS)]
    heads = [f"{source}: nats a token | bits a byte" for source in sources]
    lines = [
        f"| run | parameters | tokens | CPU s | {' | '.join(heads)} |",
        "|---|---:|---:|---:|" + "---:|" * 2 * len(sources),
    ]
    for name, seeds in results.items():
        for run in seeds:
            at = max(number for number, tokens in enumerate(run["tokens"]) if tokens <= common)
            held_out = {source: losses[at] for source, losses in run["held_out"].items()}
            bits = [held_out.get(f"{source}{_BITS}") for source in sources]
            losses = [
                f"{held_out[source]:.3f} | {'–' if bit is None else f'{bit:.3f}'}"
                for source, bit in zip(sources, bits, strict=True)
            ]
            lines.append(
                f"| {name} | {run['parameters']:,} | {run['tokens'][at]:,} "
                f"| {run['cpu_seconds'][at]:.0f} | {' | '.join(losses)} |"
            )
    return "\n".join([*lines, ""])
