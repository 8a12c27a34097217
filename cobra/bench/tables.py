"""The tables of a speed report, as Markdown."""

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
    rate,
    seconds,
    spread,
)

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
    "model GB": lambda e, basis: f"{e['model_bytes'] / 1e9:.2f}",
    "step GB": lambda e, basis: f"{e['step_bytes'] / 1e9:.3f}" if "step_bytes" in e else "–",
}
_E2E_SUMMARY = ("model", "total s", "tok/s", "decode tok/s", "of bound", "first token s")
_E2E_LEGEND = """\
*image*: JPEG to pixels; *vision*: encoder and projector; *prefill*: picture and 21 tokens of text, to the
first new token; *tok/s*: new tokens over the total, as the papers count; *of bound*: decode tok/s times the
bytes of a step (weights and state) over the read bandwidth measured in between; *second question*: to its
first token, picture and first answer already read; *peak*: of the whole process."""
_PREFILL_LEGEND = "Columns: tokens of the prompt."
_DECODE_LEGEND = """\
Columns: tokens of context, {context}; %: share of the bound, which is the read bandwidth measured in between
over the bytes of a step (weights, and the state at that context)."""


def e2e_table(report: Report) -> str:
    """A row for each engine, and what the columns mean."""
    return f"{_e2e_columns(report, list(_E2E))}\n\n{_E2E_LEGEND}"


def summary(report: Report) -> str:
    """What fits into a terminal."""
    return _e2e_columns(report, _E2E_SUMMARY) if report["kind"] == "e2e" else length_table(report)


def _e2e_columns(report: Report, heads: Sequence[str]) -> str:
    rows = [[_E2E[head](entry, report["basis"]) for head in heads] for entry in measured(report)]
    return _table(heads, rows)


def length_table(report: Report) -> str:
    """A row for each engine, a column for each length."""
    basis = report["basis"]
    found = {(entry["label"], entry["length"]): entry for entry in measured(report)}
    heads = ["tok/s", *(f"{length:,}" for length in lengths(report)), "last over first", "model GB"]
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
        ])  # fmt: skip
    return f"{_table(heads, rows)}\n\n{_length_legend(report)}"


def _length_legend(report: Report) -> str:
    if report["kind"] == "prefill":
        return _PREFILL_LEGEND
    real = report["settings"]["real_prefill"]
    context = "read for real" if real else "random keys, values and states in its place"
    return _DECODE_LEGEND.format(context=context)


def _cell(entry: Entry | None, basis: str) -> str:
    if entry is None:
        return "–"
    share = rate(entry, basis).median / bound(entry, basis)
    return _rate(rate(entry, basis)) + (f", {_percent(share)}" if share == share else "")


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(heads)} |", "|---|" + "---:|" * (len(heads) - 1)]
    return "\n".join(lines + [f"| {' | '.join(row)} |" for row in rows])


def _clock(entry: Entry, basis: str) -> str:
    return "" if basis_of(entry, basis) == basis else " (by the clock)"


def _rate(value: Spread) -> str:
    return f"{_short(value.median)} ({_short(value.least)} – {_short(value.most)})"


def _seconds(values: Sequence[float]) -> str:
    if not values:
        return "–"
    value = spread(values)
    return f"{value.median:.3g} ({value.least:.3g} – {value.most:.3g})"


def _short(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _percent(share: float) -> str:
    return f"{share * 100:.0f} %" if share == share else "–"
