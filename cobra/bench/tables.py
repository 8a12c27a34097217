"""The tables of a report, as Markdown."""

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from cobra.bench.rates import (
    Entry,
    Spread,
    basis_of,
    bound,
    first_token,
    labels,
    lengths,
    measured,
    operators,
    rate,
    seconds,
    share,
    spread,
)
from cobra.bench.runtimes import GGUF

Report = Mapping[str, Any]

# of an entry and the basis of its report
_E2E: dict[str, Callable[[Entry, str], str]] = {
    "model": lambda e, basis: e["label"] + _clock(e, basis),
    "image tokens": lambda e, basis: str(e["image_tokens"]),
    "image s": lambda e, basis: _seconds(seconds(e, basis, "image")),
    "vision s": lambda e, basis: _seconds(seconds(e, basis, "vision")),
    "prefill s": lambda e, basis: _seconds(seconds(e, basis, "prefill")),
    "decode s": lambda e, basis: _seconds(seconds(e, basis, "decode")),
    "total s": lambda e, basis: _seconds(seconds(e, basis)),
    "tok/s": lambda e, basis: _rate(rate(e, basis)),
    "prefill tok/s": lambda e, basis: _rate(rate(e, basis, "prefill")),
    "decode tok/s": lambda e, basis: _rate(rate(e, basis, "decode")),
    "of bound": lambda e, basis: _percent(rate(e, basis, "decode").median / bound(e, basis)),
    "first token s": lambda e, basis: _seconds(first_token(e, basis)),
    "second question s": lambda e, basis: _seconds(seconds(e, basis, "second")),
    "peak GB": lambda e, basis: f"{e['peak_bytes'] / 1e9:.2f}",
    "engine GB": lambda e, basis: _told(e, _engine),
    "model GB": lambda e, basis: f"{e['model_bytes'] / 1e9:.2f}",
    "bytes a weight": lambda e, basis: _told(e, _bytes_a_weight),
    "step GB": lambda e, basis: f"{e['step_bytes'] / 1e9:.3f}" if "step_bytes" in e else "–",
}
_E2E_SUMMARY = ("model", "total s", "tok/s", "decode tok/s", "of bound", "first token s")
_E2E_LEGEND = """\
*image*: JPEG to pixels; *vision*: encoder and projector; *prefill*: picture and 21 tokens of text, to the
first new token; *tok/s*: new tokens over the total, as the papers count; *of bound*: decode tok/s times the
bytes of a step (weights and state) over the read bandwidth measured in between; *second question*: to its
first token, picture and first answer already read; *peak*: of the whole process; *engine*: of that, what it
takes more than before it opened a mobile build; *model*: on disk, where it is one; *bytes a weight*: of its
language model. *vision s*, *prefill tok/s*, *decode tok/s* and *total s* are called T_VE, S_prompt, S_gen and
T_total elsewhere; a gguf build's *vision* holds *image*."""
_PREFILL_LEGEND = "Columns: tokens of the prompt."
_TRAIN_LEGEND = """\
Columns: tokens of text a picture; those of the picture count, too. %: operations of the model (those that are
repeated for checkpointing do not count) as a share of the rate of a matrix product measured in between."""
_DECODE_LEGEND = """\
Columns: tokens of context, {context}; %: share of the bound, which is the read bandwidth measured in between
over the bytes of a step (weights, and the state at that context)."""
_LEGENDS = {"prefill": _PREFILL_LEGEND, "train": _TRAIN_LEGEND}

_OPERATOR_LEGEND = """\
Columns: who runs it, our kernels at the machine's best level first. Cells: a call, in ms or µs; `linear_…` go
through more weights than a cache holds. %: share of the bound, which is what the operator's FLOPs take at the
rate of a product (on a CPU in fp32, on a GPU in the row's dtype), or the bytes of the weights at the read
bandwidth. ×: times as long as ours."""

_MEMORY = "## Memory\n\nMB that a call with gradients takes: how far the process grew."


def e2e_table(report: Report) -> str:
    """A row for each engine, and what the columns mean."""
    return f"{_e2e_columns(report, list(_E2E))}\n\n{_E2E_LEGEND}"


def summary(report: Report) -> str:
    """What fits into a terminal."""
    if report["kind"] == "kernels":
        return _operator_summary(report)
    return _e2e_columns(report, _E2E_SUMMARY) if report["kind"] == "e2e" else length_table(report)


def _e2e_columns(report: Report, heads: Sequence[str]) -> str:
    rows = [[_E2E[head](entry, report["basis"]) for head in heads] for entry in measured(report)]
    return table(heads, rows)


def length_table(report: Report) -> str:
    """A row for each engine, a column for each length."""
    basis = report["basis"]
    found = {(entry["label"], entry["length"]): entry for entry in measured(report)}
    heads = ["tok/s", *(f"{length:,}" for length in lengths(report)), "last over first", "model GB"]
    told = any("lm_bytes" in entry for entry in found.values())
    heads += ["bytes a weight"] if told else []
    rows = []
    for label in labels(report):
        entries = [found.get((label, length)) for length in lengths(report)]
        present = [entry for entry in entries if entry]
        rates = [rate(entry, basis).median for entry in present]
        rows.append([
            label + _clock(present[0], basis),
            *(_cell(entry, basis) for entry in entries),
            f"{rates[-1] / rates[0]:.2f}",
            f"{present[0]['model_bytes'] / 1e9:.2f}",
            *([_told(present[0], _bytes_a_weight)] if told else []),
        ])  # fmt: skip
    return f"{table(heads, rows)}\n\n{_length_legend(report)}"


def _length_legend(report: Report) -> str:
    if report["kind"] in _LEGENDS:
        return _LEGENDS[report["kind"]]
    real = report["settings"]["real_prefill"]
    context = "read for real" if real else "random keys, values and states in its place"
    if not real and any(entry["runtime"] == GGUF for entry in measured(report)):
        context += (
            " (gguf: keys and values of 256 tokens, repeated, or the state after these, of the one size)"
        )
    return _DECODE_LEGEND.format(context=context)


def _told(entry: Entry, number: Callable[[Entry], float]) -> str:
    """A number with three digits, where the entry tells what it is made of."""
    try:
        return f"{number(entry):.3f}"
    except KeyError:
        return "–"


def _engine(entry: Entry) -> float:
    return (entry["peak_bytes"] - entry["before_bytes"]) / 1e9


def _bytes_a_weight(entry: Entry) -> float:
    return entry["lm_bytes"] / entry["lm_weights"]


def _cell(entry: Entry | None, basis: str) -> str:
    if entry is None:
        return "–"
    of_bound = share(entry, basis)
    return _rate(rate(entry, basis)) + (f", {_percent(of_bound)}" if of_bound == of_bound else "")


def operator_table(report: Report) -> str:
    """A row for each operator at each length, a column for each that runs it, and what the cells mean."""
    basis = report["basis"]
    cells = _operator_columns(report, lambda entry, ours: _operator_cell(entry, ours, basis, whole=True))
    return f"{cells}\n\n{_OPERATOR_LEGEND}"


def memory_table(report: Report) -> str:
    """A section on how far memory grows in calls with gradients; empty where none was measured."""
    if not any(entry["backward"] for entry in measured(report)):
        return ""
    cells = _operator_columns(
        report, lambda entry, ours: f"{entry['extra_bytes'] / 1e6:.1f}" if entry["backward"] else ""
    )
    return f"{_MEMORY}\n\n{cells}"


def _operator_summary(report: Report) -> str:
    """Our kernels beside the fastest of the others."""
    basis = report["basis"]
    rows = []
    for (op, length), entries in operators(report).items():
        ours = entries.get(ours_of(report))
        peers = [entry for entry in entries.values() if entry["peer"]]
        best = min(peers, key=lambda entry: statistics.median(seconds(entry, basis)), default=None)
        cells = [_operator_cell(entry, ours, basis) if entry else "" for entry in (ours, best)]
        rows.append([op, f"{length:,}", *cells, best["runner"] if best else ""])
    head = operator_head(report, ours_of(report))
    return table(["operator", "tokens", head, "fastest other", ""], rows)


def _operator_columns(report: Report, cell: Callable[[Entry, Entry | None], str]) -> str:
    """What `cell` says of an entry beside ours in its row; rows and columns of nothing are left out."""
    us = ours_of(report)
    found = {
        row: {name: text for name, entry in entries.items() if (text := cell(entry, entries.get(us)))}
        for row, entries in operators(report).items()
    }
    names = list(dict.fromkeys(name for cells in found.values() for name in cells))
    rows = [
        [op, f"{length:,}", *(cells.get(name, "") for name in names)]
        for (op, length), cells in found.items()
        if cells
    ]
    return table(["operator", "tokens", *(operator_head(report, name) for name in names)], rows)


def ours_of(report: Report) -> str:
    """The runner of our kernels on the report's device."""
    return report["settings"].get("ours", "cpu")


def operator_head(report: Report, name: str) -> str:
    """What a runner of operators is called in tables and plots."""
    return f"cpu {report['machine']['isa']}" if name == "cpu" else name


def _operator_cell(entry: Entry, ours: Entry | None, basis: str, whole: bool = False) -> str:
    value = spread(seconds(entry, basis))
    scale, unit = (1e3, "ms") if value.median >= 1e-3 else (1e6, "µs")
    around = f" ({short(value.least * scale)} – {short(value.most * scale)})" if whole else ""
    note = ""
    if entry is not ours and ours is not None:
        note = f", {value.median / statistics.median(seconds(ours, basis)):.3g}×"
    elif not math.isnan(share(entry, basis)):
        note = f", {_percent(share(entry, basis))}"
    return f"{short(value.median * scale)}{around} {unit}{note}"


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Markdown, the first column to the left, the others to the right."""
    lines = [f"| {' | '.join(heads)} |", "|---|" + "---:|" * (len(heads) - 1)]
    return "\n".join(lines + [f"| {' | '.join(row)} |" for row in rows])


def _clock(entry: Entry, basis: str) -> str:
    return "" if basis_of(entry, basis) == basis else " (by the clock)"


def _rate(value: Spread) -> str:
    return f"{short(value.median)} ({short(value.least)} – {short(value.most)})"


def _seconds(values: Sequence[float]) -> str:
    if not values:
        return "–"
    value = spread(values)
    return f"{value.median:.3g} ({value.least:.3g} – {value.most:.3g})"


def short(value: float) -> str:
    """Three digits, or all before the point."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _percent(share: float) -> str:
    return f"{share * 100:.0f} %" if share == share else "–"
