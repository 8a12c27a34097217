"""The laws: our models keep them, and an engine that breaks one is caught by it."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from cobra.data.chat import Chat
from cobra.data.processor import Processor
from cobra.export.engine import ABILITIES, Floats
from cobra.export.engines.exact import dequantised
from cobra.export.engines.ours import OwnEngine
from cobra.export.laws import LAWS
from cobra.export.laws.check import check_laws, drawn_pictures
from cobra.export.laws.law import GREEN, NONE, RED
from cobra.models.lm.base import LanguageModel
from cobra.models.quantize import quantize_
from cobra.models.vlm import CobraVLM
from tests.export import broken
from tests.models.builders import LMS, PROJECTORS, small_vit

# one length is enough where nothing is to be found
SHORT = [law if law.name == "long" else replace(law, lengths=(5,)) for law in LAWS.values()]


def noisy(lm: LanguageModel) -> LanguageModel:
    generator = torch.Generator().manual_seed(3)
    for parameter in lm.parameters():  # none hides behind a one or a zero
        parameter.data += 0.05 * torch.randn(parameter.shape, generator=generator)
    return lm.eval()


def tiny(name: str) -> LanguageModel:
    torch.manual_seed(0)
    return noisy(LMS[name]())


@pytest.fixture(scope="module")
def pictures() -> Iterator[list[Path]]:
    with drawn_pictures() as paths:
        yield paths


@pytest.mark.parametrize("name", ["hybrid", "llama", "mamba", "mamba2"])
def test_our_language_models_keep_the_laws(name: str) -> None:
    found = check_laws(OwnEngine(tiny(name)), SHORT, [])
    assert [f for f in found if f.status == RED] == []
    assert {f.law for f in found if f.status == NONE} == {"dequantised", "pictures", "pictures-oracle"}


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(LMS))
def test_our_language_models_keep_the_laws_at_every_length(name: str) -> None:
    for quantization in ("none", "int8", "int4", "bf16"):
        lm = tiny(name)
        quantize_(lm, quantization)
        assert [f for f in check_laws(OwnEngine(lm), LAWS.values(), []) if f.status == RED] == []


@pytest.fixture(scope="module")
def vlm() -> tuple[CobraVLM, Processor]:
    torch.manual_seed(0)
    model = CobraVLM(small_vit, PROJECTORS["mlp"], LMS["mamba2"]).eval()
    noisy(model.lm)
    return model, Processor.of(model, Chat("cobra:data/shapes/tokenizer"))


def test_a_model_that_sees_keeps_the_laws_in_4_bits_too(
    vlm: tuple[CobraVLM, Processor], pictures: list[Path]
) -> None:
    assert {f.status for f in check_laws(OwnEngine(vlm[0].lm, *vlm), SHORT, pictures)} == {GREEN, NONE}
    lm = tiny("mamba2")
    quantize_(lm, "int4")
    found = {f.law: f for f in check_laws(OwnEngine(lm), SHORT, pictures)}
    assert found["dequantised"].status == GREEN
    # what is computed in fewer bits is not bit for bit the same
    assert found["dequantised"].error


def test_a_picture_of_one_token_is_not_cut(vlm: tuple[CobraVLM, Processor], pictures: list[Path]) -> None:
    class OneToken(OwnEngine):
        def read_pictures(self, paths: Sequence[Path]) -> list[Floats]:
            return [tokens[:1] for tokens in super().read_pictures(paths)]

    (found,) = check_laws(OneToken(vlm[0].lm, *vlm), [LAWS["pictures"]], pictures)
    assert (found.status, found.reason) == (GREEN, "")


@pytest.mark.parametrize(
    ("law", "engine"),
    [
        ("cut", broken.ForgetsBetweenPieces),
        ("steps", broken.StepsWithoutTheConvolution),
        ("steps", broken.GivesNoNumber),
        ("embeddings", broken.ScalesEmbeddings),
        ("long", broken.ForgetsAfter256),
        ("end-of-text", broken.ResetsAtTheEnd),
        ("restore", broken.KeepsNoCopy),
        ("restore", broken.RestoresAPart),
        ("restore", broken.Raises),
        ("reset", broken.ResetsAPart),
        ("batch", broken.MixesRows),
        ("ended-row", broken.DropsEndedRows),
        ("padding-left", broken.IgnoresTheMask),
        ("padding-middle", broken.IgnoresTheMask),
        ("padding-right", broken.PadsTheConvolution),
        ("packed", broken.PacksAsOne),
        ("oracle", broken.RoundsWeights),
        ("pictures", broken.SeesNothing),
        ("pictures", broken.SeesTheFirst),
        ("pictures", broken.ForgetsWhileItSees),
        ("pictures", broken.ForgetsWhenItTurns),
        ("pictures-oracle", broken.SeesOtherColours),
    ],
)
def test_an_engine_that_breaks_a_law_is_red_with_the_shortest_text(
    law: str, engine: type[OwnEngine], vlm: tuple[CobraVLM, Processor], pictures: list[Path]
) -> None:
    (found,) = check_laws(engine(vlm[0].lm, *vlm), [LAWS[law]], pictures)
    assert found.status == RED
    assert len(found.reproduction["ids"]) == LAWS[law].lengths[0]
    assert 0 <= found.reproduction["position"] <= len(found.reproduction["ids"]) + 40
    assert found.error is not None
    assert found.error >= found.reproduction["error"] > (found.tolerance or 0)
    if engine is broken.Raises:
        assert found.reason == "RuntimeError: not implemented for this runtime"


@pytest.mark.parametrize("engine", [broken.ForgetsAfter256, broken.ReadsTheLastTokenAlone])
def test_a_beginning_that_is_forgotten_is_red_where_much_is_rounded(
    engine: type[OwnEngine], vlm: tuple[CobraVLM, Processor]
) -> None:
    forgetful = engine(vlm[0].lm, *vlm)
    forgetful.rounding = 1.0
    (found,) = check_laws(forgetful, [LAWS["long"]], [])
    assert found.status == RED
    assert found.reproduction["what"] == "the last 8 tokens alone make the logits"


def test_weights_that_do_not_compute_as_they_are_unpacked_are_red() -> None:
    lm = tiny("mamba2")
    quantize_(lm, "int4")
    engine = OwnEngine(lm)
    other = tiny("mamba2")
    engine.dequantised = lambda: OwnEngine(other)  # type: ignore[method-assign]
    (found,) = check_laws(engine, [LAWS["dequantised"]], [])
    assert found.status == RED


def test_weights_are_unpacked_once_and_a_full_disk_breaks_no_law() -> None:
    lm, made = tiny("mamba2"), list[OwnEngine]()
    quantize_(lm, "int4")
    engine = OwnEngine(lm)

    def unpacked() -> OwnEngine:
        if made:
            raise OSError("no space is left: make room")
        made.append(OwnEngine(dequantised(lm)))
        return made[0]

    engine.dequantised = unpacked  # type: ignore[method-assign]
    (found,) = check_laws(engine, [LAWS["dequantised"]], [])
    assert found.status == GREEN
    with pytest.raises(OSError, match="no space is left: make room"):
        check_laws(engine, [LAWS["dequantised"]], [])


@pytest.mark.parametrize("ability", ABILITIES)
def test_what_an_engine_lacks_is_never_green(ability: str) -> None:
    engine = OwnEngine(tiny("mamba2"))
    engine.lacks = {ability: "this runtime cannot"}
    asking = [law for law in SHORT if ability in law.needs]
    assert asking
    for found in check_laws(engine, asking, []):
        assert (found.status, found.reason, found.error) == (NONE, "this runtime cannot", None)


def test_one_row_is_padded_where_an_engine_takes_no_more() -> None:
    class OneRow(broken.IgnoresTheMask):
        def prefill_rows(self, ids, mask=None):  # type: ignore[no-untyped-def]
            assert len(ids) == 1
            return super().prefill_rows(ids, mask)

    engine = OneRow(tiny("mamba2"))
    engine.lacks = {"batch": "one sequence"}
    (found,) = check_laws(engine, [LAWS["padding-left"]], [])
    assert (found.status, found.reason) == (RED, "")
