"""docs/evaluation.md: commands that parse, and every benchmark with its files."""

import re
import shlex
from pathlib import Path

import pytest

from cobra.cli import _parser
from cobra.eval.benchmarks.find import benchmark_names, find_benchmark
from cobra.verbs import said_in_full

PAGE = (Path(__file__).parents[1] / "docs/evaluation.md").read_text(encoding="utf-8")
COMMANDS = [
    line
    for block in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)
    for line in block.splitlines()
    if line.startswith("cobra ")
]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_parses(command: str) -> None:
    _, *words = shlex.split(command, comments=True)
    _parser().parse_args(said_in_full(words))


@pytest.mark.parametrize("name", benchmark_names())
def test_a_benchmark_has_its_line_and_its_files_in_the_tree(name: str) -> None:
    assert re.search(rf"^\|[^|]*`{re.escape(name)}`[^|]*\|", PAGE, re.MULTILINE)
    tree = re.search(r"```\ndata/\n(.*?)```", PAGE, re.DOTALL)
    assert tree
    folders = dict(re.findall(r"^  (\S+)/ +(.*(?:\n {10,}.*)*)", tree[1], re.MULTILINE))
    for download in find_benchmark(name).downloads:
        folder, _, path = download.path.partition("/")
        # fourteen folders of one kind, of which one is named
        if folder != "mme" and not download.optional:
            assert path in re.split(r"[,:\s]+", folders[folder]), download.path
