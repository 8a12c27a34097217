"""A picture of how many tokens records have."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

_BINS = 60


def plot_lengths(tokens: Mapping[str, np.ndarray], max_length: int, path: Path) -> None:
    """Write a histogram of the tokens of each source's records as PNG, with the length that cuts some."""
    from matplotlib.figure import Figure

    # the few that are much longer count as of the last bin
    most = min(2 * max_length, max(int(counts.max(initial=1)) for counts in tokens.values()) + 1)
    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.subplots()
    for name, counts in tokens.items():
        # of one that cannot be encoded there are none
        axes.hist(
            counts[counts > 0],
            np.linspace(0, most, _BINS).tolist(),
            histtype="step",
            linewidth=1.5,
            label=name,
        )
    if max_length <= most:
        axes.axvline(max_length, color="black", linestyle="--", linewidth=1, label=f"max_length {max_length}")
    axes.set(
        xlabel="tokens of a record, image tokens included", ylabel="records", yscale="log", xlim=(0, most)
    )
    # beside, where it covers no line
    figure.legend(loc="outside right upper")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
