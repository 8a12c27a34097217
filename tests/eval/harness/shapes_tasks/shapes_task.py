"""What the tasks of lmms-eval beside it do with a row."""

from typing import Any


def pictures(doc: dict[str, Any]) -> list[Any]:
    return [doc["image"].convert("RGB")]


def score(doc: dict[str, Any], results: list[str]) -> dict[str, float]:
    return {"exact": float(results[0] == doc["answer"])}


def yes_or_no(docs: Any) -> Any:
    return docs.filter(lambda doc: doc["answer"] in ("yes", "no"))


def place(doc: dict[str, Any]) -> int:
    return ["yes", "no"].index(doc["answer"])
