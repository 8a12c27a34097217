from pathlib import Path

import pytest

from cobra.eval.benchmarks.mmvet import MmVet
from tests.eval.benchmarks.predictions import answered
from tests.eval.benchmarks.small_files import allow_any_size, write_small


def test_it_is_asked_and_left_to_its_judge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    allow_any_size(monkeypatch, MmVet)
    row = {
        "imagename": "v1_0.png",
        "question": "What is x?",
        "answer": "-1<AND>-5",
        "capability": ["ocr", "math"],
        "imagesource": "",
    }
    write_small(tmp_path, "mmvet/mm-vet.json", {"v1_0": row})
    benchmark = MmVet(tmp_path)
    (question,) = benchmark.questions()
    assert (question.id, question.kind, question.answers) == ("v1_0", "ocr+math", ["-1<AND>-5"])
    given = answered(benchmark, ["-1 and -5"])
    assert benchmark.score(given) == {}
    with pytest.raises(ValueError, match="cobra eval submit mmvet FILE --out FILE"):
        benchmark.credit(given[0])
