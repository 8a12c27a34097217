"""What docs/data.md shows is what the yaml of a run takes."""

import importlib
import re
from copy import deepcopy
from pathlib import Path

import pytest
import yaml
from jsonargparse import ArgumentParser

from cobra.config.class_paths import check_class_paths
from cobra.data.source import Source
from cobra.train.data import SourceFactory

TEXT = (Path(__file__).parents[2] / "docs/data.md").read_text()
STANZAS = re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)


@pytest.mark.parametrize("stanza", STANZAS, ids=lambda text: text.partition(":")[0])
def test_stanzas_name_a_source_and_its_arguments(stanza: str) -> None:
    tree = yaml.safe_load(stanza)
    check_class_paths(tree)
    parser = ArgumentParser()
    parser.add_argument("--train", type=dict[str, SourceFactory])
    found = parser.parse_object({"train": deepcopy(tree)})
    understood = yaml.safe_load(parser.dump(found))["train"]
    for name, source in tree.items():
        assert understood[name]["class_path"] == source["class_path"]
        assert understood[name]["init_args"].keys() >= source["init_args"].keys()
    # the check can fail
    source["init_args"]["jsno"] = "a"
    with pytest.raises(SystemExit):
        parser.parse_object({"train": tree})


def test_every_class_of_the_table_is_a_source() -> None:
    paths = set(re.findall(r"`(cobra\.data\.\w+\.\w+)`", TEXT))
    assert len(paths) == 8
    for path in paths:
        module, _, name = path.rpartition(".")
        assert issubclass(getattr(importlib.import_module(module), name), Source)
    assert paths >= set(re.findall(r"class_path: (\S+)", TEXT))
