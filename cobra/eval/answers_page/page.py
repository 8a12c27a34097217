"""`cobra eval show`: one HTML file with pictures, questions, answers and what they earn."""

import base64
import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from cobra.eval.answers_page.pictures import Pictures
from cobra.eval.answers_page.rows import Judges, asks, pair, read_sides, row
from cobra.eval.predictions import Prediction

_HERE = Path(__file__).parent
# Splits or kinds of a benchmark that are told apart, and lines of the table in all.
_MAX_PARTS, _MAX_SUMS = 100, 1000
_Row = tuple[Prediction | None, ...]


def write_page(
    paths: Sequence[Path], root: Path, out: Path | None = None, limit: int = 10_000, own: Sequence[str] = ()
) -> Path:
    """Write the page and say where; it needs no network, and nothing in predictions can run in it.

    Args:
        paths: files of predictions, or folders with them; those of the same questions come side by side.
        root: folder of all benchmarks.
        out: the page; left out, `answers.html` beside the first predictions.
        limit: questions on the page, evenly spread over all; numbers at its top are those of all.
        own: Python files with benchmarks of one's own.

    Raises:
        OSError: where predictions are missing.
        ValueError: where a file holds none, or a folder is in the page's place.
    """
    sides, judges = read_sides(paths), Judges(own, root)
    rows = pair(sides)
    shown = _spread(rows, limit)
    out = out or (paths[0] if paths[0].is_dir() else paths[0].parent) / "answers.html"
    if out.is_dir():
        raise ValueError(f"--out {out} is a folder: name the page, {out / 'answers.html'}")
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = out.with_suffix(".tmp")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            head, foot = _template()
            file.write(head)
            pictures = Pictures(file, root, judges)
            places = pictures.write([next(p for p in answers if p is not None) for answers in shown])
            data = {
                "sides": [side.name for side in sides],
                "sums": _sums(rows, len(sides), judges),
                "notes": [*_cut_short(len(shown), len(rows)), *judges.notes, *pictures.notes],
                "sizes": pictures.sizes,
                "rows": [
                    {**row(answers, judges), "pictures": numbers}
                    for answers, numbers in zip(shown, places, strict=True)
                ],
            }
            file.write(f'<script type="application/json" id="data">{_embedded(data)}</script>\n{foot}')
        os.replace(temporary, out)
    finally:
        temporary.unlink(missing_ok=True)
    return out


def _cut_short(shown: int, count: int) -> list[str]:
    if shown == count:
        return []
    return [
        f"{shown:,} of {count:,} questions are shown, evenly spread (--limit); the numbers are those of all"
    ]


def _spread(rows: Sequence[_Row], limit: int) -> list[_Row]:
    """At most `limit` of them, evenly spread."""
    count = min(limit, len(rows))
    return [rows[number * len(rows) // count] for number in range(count)]


def _sums(rows: Sequence[_Row], sides: int, judges: Judges) -> list[dict[str, Any]]:
    """Questions and mean credit of each side: of a benchmark, and of each of its splits and kinds."""
    credits: dict[tuple[str, str, str, str], list[list[float | None]]] = {}
    for answers in rows:
        first = next(p for p in answers if p is not None)
        earned = [None if p is None else judges.credit(p) for p in answers]
        for part in (("", ""), ("split", first.split), ("kind", first.kind)):
            credits.setdefault((first.benchmark, asks(answers), *part), []).append(earned)
    # in order, each benchmark before its parts; one part is no part
    parts = Counter(key[:3] for key in credits)
    order = list(dict.fromkeys(key[:2] for key in credits))
    kept = [key for key in credits if not key[2] or 1 < parts[key[:3]] <= _MAX_PARTS]
    return [
        {
            **dict(zip(("benchmark", "ask", "part", "name"), key, strict=True)),
            "count": len(credits[key]),
            "credit": [_mean(row[side] for row in credits[key]) for side in range(sides)],
        }
        for key in sorted(kept, key=lambda key: (order.index(key[:2]), ("", "split", "kind").index(key[2])))
    ][:_MAX_SUMS]


def _mean(credits: Iterable[float | None]) -> float | None:
    known = [credit for credit in credits if credit is not None]
    return 100 * sum(known) / len(known) if known else None


def _template() -> tuple[str, str]:
    """The page before and behind its pictures and data."""
    html, style, script = (
        (_HERE / name).read_text(encoding="utf-8") for name in ("page.html", "page.css", "page.js")
    )
    # the browser takes these two and no others, whatever else may stand in the page
    html = html.replace("{{ style hash }}", _hash(style)).replace("{{ script hash }}", _hash(script))
    html = html.replace("{{ style }}", style).replace("{{ script }}", script)
    head, _, foot = html.partition("{{ data }}\n")
    return head, foot


def _hash(text: str) -> str:
    # a line break stands between a tag and its text
    digest = hashlib.sha256(f"\n{text}".encode()).digest()
    return f"sha256-{base64.b64encode(digest).decode()}"


def _embedded(data: Mapping[str, Any]) -> str:
    """JSON that no text in it can end: it holds no `<`, and is ASCII whatever the texts are."""
    return json.dumps(data, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
