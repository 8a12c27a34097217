"""The `cobra` and `lightning` commands. Nothing heavy is imported before a verb is known."""

import argparse
import os
import sys
from subprocess import CalledProcessError
from typing import Any, NoReturn

import cobra
from cobra.config.one_line import in_one_line
from cobra.verbs import VERBS, said_in_full
from cobra.waiting import wait_briefly

_TRAINER = {
    "fit": "train a model",
    "validate": "answer the validation questions",
    "test": "answer the test questions, write and score the answers",
    "predict": "answer the test questions and write the answers",
}


def main() -> None:
    """The `cobra` command."""
    wait_briefly()
    if sys.argv[1:2] and sys.argv[1] in _TRAINER:
        _run_trainer("cobra")
        return
    options = _parser().parse_args(said_in_full(sys.argv[1:]))
    # a command that a verb runs has said what is wrong
    with in_one_line(f"cobra {options.verb}", CalledProcessError):
        options.run(options)


def lightning() -> None:
    """The `lightning` command: training verbs are ours, all others Lightning Fabric's."""
    wait_briefly()
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


class _Words(argparse._SubParsersAction):
    """Words whose own help begins with the line that the list of all has, unless it says more."""

    def add_parser(self, name: str, **settings: Any) -> argparse.ArgumentParser:
        """A parser of a word, with `help` as its description."""
        text = settings["help"]
        return super().add_parser(name, **{"description": f"{text[0].upper()}{text[1:]}.", **settings})


class _Parser(argparse.ArgumentParser):
    """Tells what is wrong with a command line in one line, which usage would push off the screen."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.register("action", "parsers", _Words)

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}: see --help\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="cobra",
        description="Vision-language models on state-space backbones, from training to the phone.",
    )
    parser.add_argument("--version", action="version", version=f"cobra {cobra.__version__}")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    for name, text in _TRAINER.items():
        verbs.add_parser(name, help=f"{text} (options: cobra {name} --help)", add_help=False)
    for name, text, arguments, run in VERBS:
        verb = verbs.add_parser(name, help=text)
        arguments(verb)
        verb.set_defaults(run=run)
    return parser
