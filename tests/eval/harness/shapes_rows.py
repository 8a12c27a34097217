"""Questions of ShapesVQA as a table of parquet, as tasks of community harnesses read it."""

import io
from pathlib import Path

from PIL import Image

from cobra.data.record import Record
from cobra.data.shapes.dataset import ShapesEval


def write_rows(path: Path, size: int, seed: int = 0) -> list[Record]:
    """The records whose pictures, questions and answers were written."""
    from datasets import Dataset
    from datasets import Image as Column

    source = ShapesEval(size=size, seed=seed)
    records = [source[number] for number in range(len(source))]
    rows = [
        {
            "image": {"bytes": _png(record), "path": None},
            "question": record.messages[0].text,
            "answer": record.messages[1].text,
        }
        for record in records
    ]
    Dataset.from_list(rows).cast_column("image", Column()).to_parquet(path)
    return records


def _png(record: Record) -> bytes:
    file = io.BytesIO()
    Image.fromarray(record.images[0]).save(file, "PNG")  # type: ignore[arg-type]
    return file.getvalue()
