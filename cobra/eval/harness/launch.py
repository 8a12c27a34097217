"""`cobra eval lmms` and `cobra eval lm`: the harnesses' own commands, with a model of this project."""

import argparse
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import cobra.torchvision_shim  # noqa: F401  (before lmms_eval, which imports torchvision)

from cobra.eval.harness.harness_model import device_of  # isort: skip

# of a task that is here for lm-evaluation-harness to find
_TASKS = Path(__file__).with_name("lm_eval_tasks")


def run_lmms_eval(model: str, options: Sequence[str]) -> None:
    """Run lmms-eval; `options` are those of its command.

    Raises:
        ValueError: where it is not installed.
    """
    _require("lmms_eval", "lmms")
    from lmms_eval.__main__ import cli_evaluate

    sys.argv = ["lmms-eval", *_with_model(model, options)]
    cli_evaluate()


def run_lm_eval(model: str, options: Sequence[str]) -> None:
    """Run lm-evaluation-harness; `options` are those of its command `lm-eval run`.

    Raises:
        ValueError: where it is not installed.
    """
    _require("lm_eval", "lm-eval")
    # it has no entry points: whoever imports this registers the model
    import cobra.eval.harness.lm_eval  # noqa: F401

    from lm_eval.__main__ import cli_evaluate  # isort: skip

    # the last of two is taken: a folder of the user's own comes behind ours
    sys.argv = ["lm-eval", "run", "--include_path", str(_TASKS), *_with_model(model, options)]
    cli_evaluate()


def _with_model(model: str, options: Sequence[str]) -> list[str]:
    """The options with the model among its arguments."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--model_args", "-a", default="")
    given, others = parser.parse_known_args(options)
    arguments = ",".join(filter(None, (f"pretrained={model}", given.model_args)))
    # lm-evaluation-harness would name a GPU that need not be there
    return ["--model", "cobra", "--model_args", arguments, "--device", device_of(None), *others]


def _require(module: str, extra: str) -> None:
    if find_spec(module) is None:
        raise ValueError(
            f"{module} is not installed: pip install 'cobra-vlm[{extra}]', best in an environment of its own"
        )
