import codecs
import json
from pathlib import Path

import pytest

from cobra.eval.benchmarks.find import benchmark_names, find_benchmark
from cobra.eval.benchmarks.ocrbench import OcrBench
from cobra.eval.benchmarks.published import published_rows
from cobra.eval.benchmarks.screenqa import ScreenQa
from tests.eval.benchmarks.small_files import allow_any_size, write_small

FILE = "ocrbench/OCRBench.json"
ROWS = [{"id": i, "question": f"What is {i}, señor?"} for i in range(1000)]


def rows(root: Path) -> list[dict[str, object]]:
    return published_rows(OcrBench(root), FILE, {"question": str}, id_column="id")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_rows_are_read_with_a_byte_order_mark_and_either_line_end(
    tmp_path: Path, encoding: str, line_end: str
) -> None:
    file = write_small(tmp_path, FILE, [])
    text = json.dumps(ROWS, indent=1, ensure_ascii=False)
    file.write_bytes(text.replace("\n", line_end).encode(encoding))
    assert rows(tmp_path) == ROWS


def test_what_is_wrong_with_a_file_is_said_with_its_source(tmp_path: Path) -> None:
    source = "github.com/Yuliang-Liu/MultimodalOCR"
    with pytest.raises(
        FileNotFoundError, match=f"there is no .*OCRBench.json: fetch it from https://{source}"
    ):
        rows(tmp_path)
    write_small(tmp_path, FILE, ROWS[:-1])
    with pytest.raises(
        ValueError, match=f"has 999 entries, not 1,000: .*fetch it again from https://{source}"
    ):
        rows(tmp_path)
    write_small(tmp_path, FILE, {"data": ROWS})
    with pytest.raises(ValueError, match="row 1: no 'question' of type str"):
        rows(tmp_path)
    write_small(tmp_path, FILE, 3)
    with pytest.raises(ValueError, match="has no rows: it is another file"):
        rows(tmp_path)
    write_small(tmp_path, FILE, [*ROWS[:-1], {"id": 999}])
    with pytest.raises(ValueError, match="row 1000: no 'question' of type str"):
        rows(tmp_path)
    write_small(tmp_path, FILE, [*ROWS[:-1], ROWS[7]])
    with pytest.raises(ValueError, match="has the id 7 twice: fetch it again"):
        rows(tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        json.dumps(ROWS).encode()[:5000],
        json.dumps(ROWS, ensure_ascii=False).encode("latin-1"),
        codecs.BOM_UTF16_LE + json.dumps(ROWS).encode("utf-16-le"),
        b"",
    ],
)
def test_a_damaged_file_is_to_be_fetched_again(tmp_path: Path, content: bytes) -> None:
    write_small(tmp_path, FILE, []).write_bytes(content)
    with pytest.raises(ValueError, match=r"OCRBench.json is no JSON .*fetch it again"):
        rows(tmp_path)


def test_rows_of_an_object_have_its_names_as_their_ids(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    allow_any_size(monkeypatch, OcrBench)
    write_small(tmp_path, FILE, {"a": {"question": "?"}, "b": {"question": "!"}})
    assert [row["id"] for row in rows(tmp_path)] == ["a", "b"]


@pytest.mark.parametrize("name", [name for name in benchmark_names() if find_benchmark(name).downloads])
def test_every_benchmark_says_what_is_missing(name: str, tmp_path: Path) -> None:
    benchmark = find_benchmark(name)
    assert benchmark.name == name
    assert len({download.path for download in benchmark.downloads}) == len(benchmark.downloads)
    with pytest.raises(OSError, match=r"no |No "):
        list(benchmark(tmp_path).questions())


def test_a_row_of_another_type_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    allow_any_size(monkeypatch, ScreenQa)
    write_small(
        tmp_path, "screenqa/short_answers/test.json", [{"image_id": 1, "question": "?", "ground_truth": "x"}]
    )
    with pytest.raises(ValueError, match="row 1: no 'ground_truth' of type list"):
        list(ScreenQa(tmp_path).questions())
