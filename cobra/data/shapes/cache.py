"""Scenes that were drawn once, kept in files: pixels, which are mapped and not read, and the rest."""

import json
import logging
import os
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import BinaryIO

import numpy as np

from cobra.data.cache_folder import cache_folder
from cobra.data.shapes.build import Scenes, build_scenes
from cobra.data.shapes.questions import Question
from cobra.data.shapes.scene import VERSION, Split

logger = logging.getLogger(__name__)


@cache
def load_scenes(n: int, seed: int, split: Split) -> Scenes:
    """As `build_scenes`, from memory or the cache folder ($COBRA_CACHE or ~/.cache/cobra) if there."""
    path = cache_folder("shapes") / f"v{VERSION}-{split}-{n}-{seed}.npz"
    try:
        return _read(path, n)
    except FileNotFoundError:
        logger.info("drawing %d scenes of %s into %s", n, split, path)
    # whatever else is wrong with the files, drawing again mends it
    except (OSError, ValueError, KeyError, EOFError, TypeError, zipfile.BadZipFile) as error:
        logger.warning("cache file %s is broken (%s): drawing again", path, error)
    scenes = build_scenes(n, seed, split)
    try:
        _write(path, scenes)
    except OSError as error:
        logger.warning("cannot cache scenes in %s (%s): set COBRA_CACHE to a writable folder", path, error)
    return scenes


def _read(path: Path, n: int) -> Scenes:
    with np.load(path, allow_pickle=False) as file:
        labels, checksum = file["labels"], int(file["checksum"])
        texts = json.loads(file["questions"].tobytes())
    # mapped pages are shared by all workers and devices of a machine
    images = np.load(path.with_suffix(".npy"), mmap_mode="r", allow_pickle=False)
    if not len(images) == len(labels) == len(texts) == n or _checksum(images) != checksum:
        raise ValueError(f"it does not hold the {n} scenes that were written")
    return Scenes(images, labels, [[Question(*question) for question in scene] for scene in texts])


def _write(path: Path, scenes: Scenes) -> None:
    texts = np.frombuffer(json.dumps(scenes.questions).encode(), np.uint8)
    checksum = _checksum(scenes.images)
    _replace(path.with_suffix(".npy"), lambda stream: np.save(stream, scenes.images))
    _replace(path, lambda stream: np.savez(stream, labels=scenes.labels, questions=texts, checksum=checksum))


def _checksum(images: np.ndarray) -> int:
    return zlib.crc32(images.data)


def _replace(path: Path, write: Callable[[BinaryIO], None]) -> None:
    """Write a file whole or not at all, so that no other process reads half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
    try:
        with os.fdopen(descriptor, "wb") as stream:
            write(stream)
        os.replace(name, path)
    finally:
        Path(name).unlink(missing_ok=True)
