"""The `cobra` and `lightning` commands. Nothing heavy is imported before a verb is known."""

import argparse
import os
import sys

from cobra.verbs import VERBS

_TRAINER = {
    "fit": "train a model",
    "validate": "answer the validation questions",
    "test": "answer the test questions, write and score the answers",
    "predict": "answer the test questions and write the answers",
}


def main() -> None:
    """The `cobra` command."""
    if sys.argv[1:2] and sys.argv[1] in _TRAINER:
        _run_trainer("cobra")
        return
    parser = _parser()
    options = parser.parse_args()
    try:
        options.run(options)
    except (ValueError, OSError) as error:
        # what the user gave does not fit: the message says what and the remedy, a traceback would bury it
        parser.exit(1, f"cobra {options.verb}: {error}\n")


def lightning() -> None:
    """The `lightning` command: training verbs are ours, all others Lightning Fabric's."""
    args = sys.argv[1:]
    if args and args[0] in _TRAINER:
        _run_trainer("lightning")
        return
    if not args or args[0] in ("-h", "--help"):
        verbs = "\n".join(f"  {name:<10} {text}" for name, text in _TRAINER.items())
        print(
            f"usage: lightning VERB ...\n\n{verbs}\n"
            "  other words go to Lightning Fabric, e.g. `run`, `consolidate`"
        )
        return
    import cobra.torchvision_shim  # noqa: F401  (before lightning)

    from lightning.fabric.cli import _main  # isort: skip

    _main()


def _run_trainer(program: str) -> None:
    # torch then takes large tensors in pages of 2 MiB, which the system hands out sooner (Linux)
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    from cobra.train.cli import main as run

    run(program)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="cobra",
        description="Vision-language models on state-space backbones, from training to the phone.",
    )
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    for name, text in _TRAINER.items():
        verbs.add_parser(name, help=f"{text} (options: cobra {name} --help)", add_help=False)
    for name, text, arguments, run in VERBS:
        verb = verbs.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        arguments(verb)
        verb.set_defaults(run=run)
    return parser
