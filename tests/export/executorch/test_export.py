"""The targets for ExecuTorch, by its own compiler and runtime."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from cobra.data.record import Record, user
from cobra.data.shapes.tokenizer import TOKENIZER
from cobra.export.engines.executorch import ExecuTorchEngine
from cobra.export.manifest import read_manifest
from cobra.export.write import export_model
from cobra.models.vlm import IMAGE_ID
from cobra.pretrained import from_pretrained

pytestmark = [pytest.mark.export, pytest.mark.filterwarnings("ignore")]
pytest.importorskip("executorch", reason="ExecuTorch is missing: pip install 'cobra-vlm[export]'")
