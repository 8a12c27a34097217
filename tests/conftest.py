"""Shared set-up: few threads, and no network."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import cobra.torchvision_shim  # noqa: F401  (before timm, lightning and transformers)

import torch  # isort: skip

torch.set_num_threads(min(2, torch.get_num_threads()))
