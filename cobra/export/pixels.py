"""Pixels of a picture's file, as an export's manifest says how they are made."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from reprlib import repr as shortened
from typing import Any

from cobra.data.image import load_rgb
from cobra.export.engine import Floats
from cobra.export.manifest import Manifest
from cobra.models.vision.square import Plane, pixels_of

# among a manifest's settings
PIXELS = "pixels"


def pixel_settings(planes: Iterable[Plane]) -> list[dict[str, Any]]:
    """What a manifest says of them: an entry an encoder, in the order in which a program takes pixels."""
    return [plane.as_json() for plane in planes]


def planes_in(manifest: Manifest) -> list[Plane]:
    """How pixels are made.

    Raises:
        ValueError: where the manifest does not say.
    """
    said = manifest.setting(PIXELS, list)
    if not said or not all(isinstance(plane, Mapping) for plane in said):
        raise ValueError(
            f"the manifest has {PIXELS} {shortened(said)}, which do not say how they are made: export the "
            "model again"
        )
    return [Plane.from_json(plane) for plane in said]


def read_pixels(planes: Sequence[Plane], path: Path) -> list[Floats]:
    """Pixels (1, 3, side, side) of a picture's file for each encoder; errors as of `load_rgb`."""
    return [pixels[None] for pixels in pixels_of(load_rgb(path), planes)]
