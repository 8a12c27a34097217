"""torchvision's operators, declared where its binary does not load and nobody else did."""

import subprocess
import sys

import pytest

from cobra import torchvision_shim

NMS = "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"


@pytest.mark.skipif(torchvision_shim._library is None, reason="torchvision's own operators are there")
@pytest.mark.parametrize(("kind", "others"), [("DEF", (NMS,)), ("FRAGMENT", (NMS, f"q{NMS}"))])
def test_what_another_package_declared_first_is_left_as_it_is(kind: str, others: tuple[str, ...]) -> None:
    code = (
        f"import torch; theirs = torch.library.Library('torchvision', '{kind}')\n"
        f"for schema in {others}: theirs.define(schema)\n"
        "import cobra.torchvision_shim\n"
        "print(torch.ops.torchvision.nms, torch.ops.torchvision.qnms)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "torchvision.nms torchvision.qnms" in done.stdout, done.stderr


def test_torchao_warns_of_nothing_above_an_answer() -> None:
    code = (
        "import cobra.torchvision_shim, logging\n"
        "for name in ('torchao', 'torch.utils._pytree'): logging.getLogger(name).warning('too old')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == ""
