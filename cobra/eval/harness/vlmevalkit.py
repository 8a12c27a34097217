"""Models for VLMEvalKit, in a program of a user's own: it looks for no models of other packages.

    import sys
    from cobra.eval.harness.vlmevalkit import register

    register("cobra", "MODEL", max_new_tokens=64)
    sys.argv = ["run.py", "--model", "cobra", "--data", "MMBench_DEV_EN", "--judge", "exact_matching"]

    from vlmeval.run import load_env, main  # of ms-vlmeval; of a clone of VLMEvalKit: from run import ...

    load_env()
    main()

VLMEvalKit is no dependency, not even an optional one: it and lmms-eval ask for different versions of
antlr4-python3-runtime. Its import switches off the verification of TLS certificates for the whole process
(`ssl._create_default_https_context`), and so does that of this file: run it in a process and an environment
of its own, never in one that trains or serves.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import cobra.torchvision_shim  # noqa: F401  (before vlmeval, which imports torchvision)

from vlmeval.config import supported_VLM  # isort: skip
from vlmeval.vlm.base import BaseModel

from cobra.data.record import Message, Part, Record
from cobra.eval.harness.generation import Generation
from cobra.eval.harness.harness_model import HarnessModel


class Cobra(BaseModel):
    """Asked with pictures and text in any order, a question at a time.

    Args:
        pretrained: model folder, a run's checkpoints/last.ckpt, or a published checkpoint.
        max_new_tokens: longest answer.
        options: of `HarnessModel`: device, dtype, quant, max_length.
    """

    INTERLEAVE = True
    allowed_types: Sequence[str] = ("text", "image")

    def __init__(self, pretrained: str, max_new_tokens: int = 512, **options: Any) -> None:
        super().__init__()
        self.how = Generation(max_new_tokens)
        self.ours = HarnessModel(pretrained, **options)

    def generate_inner(self, message: Sequence[dict[str, Any]], dataset: str | None = None) -> str:
        """The answer to one question; each part of it has a type and a value, a text or a picture's file."""
        parts: list[Part] = [
            {"type": "image"} if part["type"] == "image" else {"type": "text", "text": part["value"]}
            for part in message
        ]
        images = [part["value"] for part in message if part["type"] == "image"]
        record = Record(dataset or "question", [Message("user", parts)], images)
        return self.ours.answers([record], self.how)[0]


def register(name: str, pretrained: str, **options: Any) -> None:
    """Give VLMEvalKit a model by a name for its `--model`; options as for `Cobra`."""
    supported_VLM[name] = partial(Cobra, pretrained, **options)
