"""MM-Vet: questions that take several abilities, graded by GPT-4 (Yu et al. 2023, arXiv 2308.02490)."""

from collections.abc import Iterator

from cobra.eval.benchmarks.base import Download, Question
from cobra.eval.benchmarks.published import published_rows
from cobra.eval.benchmarks.secret import SecretBenchmark

_URL = "https://github.com/yuweihao/MM-Vet"


class MmVet(SecretBenchmark):
    """Its score is a judge's: n/a here. `cobra eval submit mmvet` writes what the judge reads."""

    name = "mmvet"
    submission = "mmvet"
    downloads = (
        Download("mmvet/mm-vet.json", _URL, 218),
        Download("mmvet/images/", _URL, 200),
    )

    def questions(self) -> Iterator[Question]:
        """218 questions, whose kind are the abilities that they take; see the base class."""
        columns = {"imagename": str, "question": str, "answer": str, "capability": list}
        for row in published_rows(self, "mmvet/mm-vet.json", columns):
            yield Question(
                id=row["id"],
                fields={"question": row["question"]},
                images=[self.root / "mmvet/images" / row["imagename"]],
                answers=[row["answer"]],
                kind="+".join(map(str, row["capability"])),
            )
