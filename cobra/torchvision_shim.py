"""Keeps `import torchvision` alive beside a torch that its binary was not built for.

torchvision's Python files register fake kernels for operators that its compiled library defines. When that
library cannot load (a CUDA wheel beside a CPU torch, or any other mismatched pair), the import dies with
"operator torchvision::nms does not exist", and timm, lightning and transformers die with it although none of
them needs the operator here. Declaring the schemas first is enough: this project never calls one of them.

torchao, which transformers imports where it is installed, warns at every start that its libraries are for
another torch, and torch of what torchao calls: four lines above each answer, which are kept back here, too.

Import this module before timm, lightning or transformers.
"""

import importlib.util
import logging

import torch

_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)


def declare_missing_operators() -> torch.library.Library | None:
    """A library holding the missing schemas, or None where torchvision is absent or whole.

    The result must stay alive: its schemas vanish with it.
    """
    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None:
        return None
    if _binary_loads(spec.origin):
        return None
    # a part: another package may have declared some of them, and of whole libraries there can be one
    library = torch.library.Library("torchvision", "FRAGMENT")
    for schema in _SCHEMAS:
        if not hasattr(torch.ops.torchvision, schema.partition("(")[0]):
            library.define(schema)
    return library


def _binary_loads(origin: str) -> bool:
    """Whether torchvision's own operators can be registered (loading them is what torchvision does first)."""
    from pathlib import Path

    for library in sorted(Path(origin).parent.glob("_C.*")):
        try:
            torch.ops.load_library(str(library))
        except OSError:
            return False
    return hasattr(torch.ops.torchvision, "nms")


_library = declare_missing_operators()
for _name in ("torchao", "torch.utils._pytree"):
    logging.getLogger(_name).setLevel(logging.ERROR)
