"""How pixels are made, as plain data."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils._pytree import tree_leaves

from cobra.models.vision.fused import FusedTransform, planes_of
from cobra.models.vision.square import Crop, Letterbox, Plane, Squash, pixels_of
from cobra.models.vision.transform import CropTransform, LetterboxTransform, SquashTransform
from tests.models.tiled import TileTransform

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


def test_what_was_written_as_json_makes_the_pixels_of_the_transform_bit_for_bit() -> None:
    transforms = [
        SquashTransform(32, MEAN, STD),
        CropTransform(33, MEAN, STD, 0.9, floors=True),
        LetterboxTransform(32, MEAN, STD, equal_bars=True),
    ]
    # nested, as a fused encoder of fused encoders
    fused = FusedTransform([transforms[0], FusedTransform(transforms[1:])])
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 71, 3), np.uint8))
    (tile,) = fused(image).tiles
    said = json.loads(json.dumps([plane.as_json() for plane in planes_of(fused)]))
    found = pixels_of(image, [Plane.from_json(plane) for plane in said])
    for ours, expected in zip(found, tree_leaves(tile), strict=True):
        assert torch.equal(torch.from_numpy(ours), expected)


def test_the_words_are_those_that_programs_in_other_languages_read() -> None:
    letterbox = Letterbox(224, 248, colour=(122, 116, 104), equal_bars=True)
    assert Plane(letterbox, MEAN, STD).as_json() == {
        "way": "letterbox", "side": 224, "shorter": 248, "floors": False, "colour": (122, 116, 104),
        "equal_bars": True, "mean": [*MEAN], "std": [*STD],
    }  # fmt: skip
    assert Plane(Crop(224, 256, True), MEAN, STD).as_json().keys() == {
        "way", "side", "shorter", "floors", "mean", "std"
    }  # fmt: skip
    assert Plane(Squash(224), MEAN, STD).as_json()["way"] == "squash"


@pytest.mark.parametrize("said", [{}, {"way": "tiles", "mean": [0.5] * 3, "std": [0.5] * 3}, {"way": "crop"}])
def test_what_describes_no_pixels_is_refused(said: dict) -> None:
    with pytest.raises(ValueError, match="describes no pixels"):
        Plane.from_json(said)


def test_a_transform_that_cuts_pictures_has_no_planes() -> None:
    with pytest.raises(ValueError, match="a TileTransform does more than to make a square"):
        planes_of(FusedTransform([TileTransform(SquashTransform(8, MEAN, STD))]))
