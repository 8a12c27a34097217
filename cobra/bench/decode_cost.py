"""The cost of a token, by how many came before it."""

import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import quantiles

import torch
from matplotlib.figure import Figure
from torch import Tensor

from cobra.models.vlm import CobraVLM

POSITIONS = (100, 1000, 2500, 5000, 10_000, 20_000)
# tokens read at once on the way to a position
_PROMPT = 500
# tokens at one position before the next one's turn: all but the first find the cache warm, as in an answer
_TURN = 10


def decode_cost(model: CobraVLM, positions: Sequence[int] = POSITIONS, turns: int = 10) -> dict[int, float]:
    """Processor seconds a token of the model's `stream` takes at each position, on one thread.

    Args:
        model: in evaluation mode; it is asked about text alone.
        positions: tokens that came before. A transformer's cache is as long as this asks for, not as the
            longest.
        turns: of ten tokens at each position; the lower quartile of all counts, since other work only ever
            makes one slower.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        streams = {position: _stream_at(model, position, turns * _TURN) for position in positions}
        seconds: dict[int, list[float]] = {position: [] for position in positions}
        # in turns: what else the machine does then slows all positions alike
        for _ in range(turns):
            for position, stream in streams.items():
                seconds[position] += [_timed(stream) for _ in range(_TURN)]
    finally:
        torch.set_num_threads(threads)
    return {position: quantiles(each, n=4)[0] for position, each in seconds.items()}


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
        growth = cost[max(cost)] / cost[min(cost)]
        milliseconds = [1000 * seconds for seconds in cost.values()]
        axes.plot(list(cost), milliseconds, marker="o", markersize=4, label=f"{name}, × {growth:.2f}")
    axes.legend(title="growth, first point to last", fontsize=9, title_fontsize=9)
    axes.set(xlabel="tokens before", ylabel="ms a token, batch 1, one thread", ylim=(0, None))
    axes.set_xticks(POSITIONS[2:])
    axes.margins(x=0.02)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#d0d7de", linewidth=0.6)
    figure.savefig(path, dpi=110)
