"""What a token costs, by how many came before it."""

import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median

import torch
from matplotlib.figure import Figure
from torch import Tensor

from cobra.models.vlm import CobraVLM

POSITIONS = (100, 1000, 2500, 5000, 10_000, 20_000)
# tokens read at once on the way to a position
_PROMPT = 500
# the positions take turns: what else the machine does then slows them all alike
_ROUNDS = 10


def decode_cost(model: CobraVLM, positions: Sequence[int] = POSITIONS, tokens: int = 10) -> dict[int, float]:
    """Processor seconds a token of the model's `stream` takes at each position, on one thread.

    Args:
        model: in evaluation mode; it is asked about text alone.
        positions: tokens that came before. A transformer's cache is as long as this asks for, not as the
            longest.
        tokens: at each position in each round; the median counts.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        streams = {position: _stream_at(model, position, _ROUNDS * tokens) for position in positions}
        seconds: dict[int, list[float]] = {position: [] for position in positions}
        for _ in range(_ROUNDS):
            for position, stream in streams.items():
                seconds[position] += [_timed(stream) for _ in range(tokens)]
    finally:
        torch.set_num_threads(threads)
    return {position: median(each) for position, each in seconds.items()}


def _stream_at(model: CobraVLM, position: int, tokens: int) -> Iterator[Tensor]:
    """New tokens after `position` others."""
    prompt = torch.arange(position)[None] % model.lm.vocab_size
    state = model.lm.allocate_state(1, position + tokens + 1)
    *first, last = prompt.split(_PROMPT, dim=1)
    for part in first:
        next(model.stream(part, state=state, max_new_tokens=1))
    stream = model.stream(last, state=state, max_new_tokens=tokens + 1)
    next(stream)  # reads the last part
    return stream


def _timed(stream: Iterator[Tensor]) -> float:
    start = time.process_time()
    next(stream)
    return time.process_time() - start


def draw_decode_cost(costs: Mapping[str, Mapping[int, float]], path: Path) -> None:
    """Write a PNG: milliseconds a token against its position, one line a model."""
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    for name, cost in costs.items():
        (line,) = axes.plot(list(cost), [1000 * s for s in cost.values()], marker="o", markersize=4)
        last, first = max(cost), min(cost)
        axes.annotate(
            f"{name}\n× {cost[last] / cost[first]:.2f}",
            (last, 1000 * cost[last]),
            (8, 0),
            textcoords="offset points",
            va="center",
            color=line.get_color(),
        )
    axes.set(xlabel="tokens before", ylabel="ms of one processor a token", ylim=(0, None))
    axes.set_xticks(POSITIONS[2:])
    axes.margins(x=0.02)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#d0d7de", linewidth=0.6)
    axes.set_title(
        "Cost of a token, batch 1 (× growth from the first point to the last)", fontsize=10, loc="left"
    )
    figure.savefig(path, dpi=110)
