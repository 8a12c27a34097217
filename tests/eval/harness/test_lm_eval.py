"""The plug-in of lm-evaluation-harness without it: likelihoods and continuations of each text alone."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from cobra.convert.run import convert
from cobra.models.lm.base import LanguageModel
from cobra.pretrained import from_pretrained
from tests.eval.harness.models import write_model
from tests.eval.harness.stubs import plug_in

CONTEXTS = ["is it red?", "what digit is written, and where is it now?", "a"]
CONTINUATIONS = ["yes", "in the top left corner", "no digit"]


@pytest.fixture(scope="module", params=["mamba2", "llama"])
def folders(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A model, and of one its language model by itself."""
    root = tmp_path_factory.mktemp(request.param)
    whole = write_model(root / "whole", request.param)
    if request.param != "mamba2":
        return [whole]
    convert(str(whole), root / "hf", to="hf")
    convert(str(root / "hf"), root / "lm")
    return [whole, root / "lm"]


def lm_of(folders: list[Path]) -> LanguageModel:
    return from_pretrained(folders[0])[0].lm


def score(lm: LanguageModel, context: list[int], continuation: list[int]) -> tuple[float, bool]:
    with torch.inference_mode():
        logits = lm.head(lm.prefill(lm.embed(torch.tensor([context + continuation]))))[0].float()
    logits, targets = logits[len(context) - 1 : -1], torch.tensor(continuation)
    total = float(-torch.nn.functional.cross_entropy(logits, targets, reduction="sum"))
    return total, bool((logits.argmax(-1) == targets).all())


@pytest.mark.parametrize("batch_size", ["1", "3"])
def test_likelihoods_are_those_of_each_text_alone(
    batch_size: str, folders: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    plugged, lm = plug_in(monkeypatch, "lm_eval"), lm_of(folders)
    for folder in folders:
        model = plugged.CobraLM(str(folder), batch_size, "cpu")
        pairs = zip(CONTEXTS, CONTINUATIONS, strict=True)
        rows = [(pair, *map(model.tok_encode, pair)) for pair in pairs]
        # one that is what would be said
        with torch.inference_mode():
            likeliest = lm.head(lm.prefill(lm.embed(torch.tensor([rows[0][1]]))))[0, -1].argmax()
        rows.append((("", ""), rows[0][1], [int(likeliest)]))
        for (total, is_greedy), row in zip(model._loglikelihood_tokens(rows), rows, strict=True):
            expected = score(lm, *row[1:])
            assert total == pytest.approx(expected[0], abs=1e-4)
            assert is_greedy == expected[1]
        assert is_greedy


def test_a_text_that_is_too_long_loses_its_beginning(
    folders: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = plug_in(monkeypatch, "lm_eval").CobraLM(str(folders[-1]), 2, "cpu", max_length=4)
    lm, row = lm_of(folders), [5, 6, 7, 8, 9, 10]
    found = model._loglikelihood_tokens([(None, row[:4], row[4:]), (None, row[:1], row[1:])])
    assert found[0][0] == pytest.approx(score(lm, row[1:4], row[4:])[0], abs=1e-4)
    assert found[1][0] == pytest.approx(score(lm, row[1:2], row[2:])[0], abs=1e-4)


def test_continuations_are_those_of_each_text_alone(
    folders: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    plugged = plug_in(monkeypatch, "lm_eval")
    together, alone = (plugged.CobraLM(str(folders[0]), size, "cpu") for size in (3, 1))
    requests = [SimpleNamespace(args=(context, {"max_gen_toks": 8})) for context in CONTEXTS]
    said = alone.generate_until(requests)
    assert len(set(said)) == len(CONTEXTS)
    assert together.generate_until(requests) == said
    stop = said[1][len(said[1]) // 2 :]
    ended = [SimpleNamespace(args=(c, {"max_gen_toks": 8, "until": [stop]})) for c in CONTEXTS]
    assert together.generate_until(ended)[1] == said[1][: said[1].index(stop)]
    assert together.generate_until(requests[:1]) == said[:1]


def test_several_processes_are_refused(folders: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="several processes"):
        plug_in(monkeypatch, "lm_eval").CobraLM(str(folders[0]))
