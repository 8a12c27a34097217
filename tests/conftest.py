"""Shared set-up: few threads, and no network."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")

from cobra.waiting import wait_briefly

# both before torch; the programs that tests start inherit them
wait_briefly()
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import cobra.torchvision_shim  # noqa: E402, F401  (before timm, lightning and transformers)

import torch  # noqa: E402  # isort: skip

# where there is no GPU, Triton's kernels run in its interpreter; set before they are defined
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")

torch.set_num_threads(min(2, torch.get_num_threads()))
