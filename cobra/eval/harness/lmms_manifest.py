"""Entry point of the group `lmms_eval.models`: says to lmms-eval where our models are, and imports none."""

from typing import Any


def manifest() -> Any:
    """lmms-eval's ModelManifest: `--model cobra`; with `--force_simple` the class that knows likelihoods."""
    from lmms_eval.models.registry_v2 import ModelManifest

    home = "cobra.eval.harness.lmms"
    return ModelManifest("cobra", simple_class_path=f"{home}.CobraByText", chat_class_path=f"{home}.Cobra")
