"""The eight data sets of MobileLLM's tasks in small, laid out as `hf download --local-dir` leaves them."""

import json
from pathlib import Path
from typing import Any

_ARC = {
    "question": "Which of these is wet?",
    "choices": {"label": ["A", "B"], "text": ["sand", "rain"]},
    "answerKey": "B",
}
# of each repository its configuration and a row, with the columns that lm-evaluation-harness's tasks read
ROWS: dict[str, dict[str, dict[str, Any]]] = {
    "aps/super_glue": {"boolq": {"passage": "Rain is water.", "question": "is rain wet", "label": 1}},
    "baber/piqa": {"default": {"goal": "Dry a cup", "sol1": "use a towel", "sol2": "use rain", "label": 0}},
    "lighteval/siqa": {
        "default": {
            "context": "Ann fell.",
            "question": "How does she feel?",
            "answerA": "sore",
            "answerB": "tall",
            "answerC": "wet",
            "label": "1",
        }
    },
    "Rowan/hellaswag": {
        "default": {
            "activity_label": "Cooking",
            "ctx_a": "A man boils water.",
            "ctx_b": "he",
            "endings": ["adds salt.", "flies.", "is a cup.", "sings rice."],
            "label": "0",
        }
    },
    "allenai/winogrande": {
        "winogrande_xl": {
            "sentence": "The cup fell off the shelf because the _ was wet.",
            "option1": "cup",
            "option2": "shelf",
            "answer": "2",
        }
    },
    "allenai/ai2_arc": {"ARC-Easy": _ARC, "ARC-Challenge": _ARC},
    "allenai/openbookqa": {
        "main": {
            "question_stem": "Rain is",
            "choices": {"label": ["A", "B", "C", "D"], "text": ["wet", "dry", "red", "loud"]},
            "answerKey": "A",
        }
    },
}


def write_commonsense(root: Path, copies: int = 3) -> None:
    """A folder for each repository; every split has the same rows."""
    for name, configs in ROWS.items():
        folder = root / name
        described = []
        for config, row in configs.items():
            (folder / config).mkdir(parents=True)
            lines = "".join(json.dumps(row) + "\n" for _ in range(copies))
            for split in ("train", "validation", "test"):
                (folder / config / f"{split}.jsonl").write_text(lines, encoding="utf-8")
            files = [{"split": s, "path": f"{config}/{s}.jsonl"} for s in ("train", "validation", "test")]
            described.append({"config_name": config, "data_files": files})
        (folder / "README.md").write_text(f"---\nconfigs: {json.dumps(described)}\n---\n", encoding="utf-8")
