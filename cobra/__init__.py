"""Vision-language models on state-space backbones, from training to the phone."""

__version__ = "0.1.0"
