"""Pictures of the page: found by their questions, made small, each written once."""

import base64
import hashlib
import io
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import TextIO

from PIL import Image
from rich.console import Console
from rich.progress import track

from cobra.data.image import load_rgb
from cobra.data.record import ImageSource
from cobra.eval.answers_page.rows import Judges
from cobra.eval.predictions import Prediction

# Longest side on the page.
_SIDE = 384
# Up to this, edges matter more than bytes: it is written without loss.
_TINY = 128
# Of all pictures, in characters of base64; browsers still open such a page at once.
BUDGET = 100_000_000

# A question: benchmark and id.
_Asked = tuple[str, str]


class Pictures:
    """Pictures that are written into a page.

    Args:
        file: of the page.
        root: folder of all benchmarks.
        judges: benchmarks, which know the pictures that are no files.
        budget: characters that all pictures may take.
    """

    def __init__(self, file: TextIO, root: Path, judges: Judges, budget: int = BUDGET) -> None:
        self.file, self.root, self.judges, self.left = file, root, judges, budget
        self.sizes: list[tuple[int, int]] = []
        self.notes: list[str] = []
        self._numbers: dict[str, int | None] = {}
        self._faults: Counter[str] = Counter()

    def write(self, predictions: Sequence[Prediction]) -> list[list[int | None]]:
        """Write their pictures, and say which are whose.

        Returns:
            Of each prediction its pictures' places among all, None for one that is not in the page.
        """
        found: dict[_Asked, list[int | None]] = {}
        hidden = not sys.stderr.isatty()
        for prediction in track(predictions, "pictures", console=Console(stderr=True), disable=hidden):
            files = [self._file(name) for name in prediction.images]
            if files and all(files):
                found[_asked(prediction)] = [self._number(str(file), file) for file in files if file]
        # pictures in tables, and made ones, have no names
        others = {_asked(p) for p in predictions if (p.images or p.benchmark) and _asked(p) not in found}
        for benchmark in sorted({name for name, _ in others}):
            found |= self._of_benchmark(benchmark, {asked for asked in others if asked[0] == benchmark})
        self.notes += [f"{count:,} {fault}" for fault, count in self._faults.items()]
        return [found.get(_asked(p), [None] * len(p.images)) for p in predictions]

    def _file(self, name: str) -> Path | None:
        """The picture of that name below the root, which no name leads out of."""
        parts = PurePosixPath(name).parts
        if not parts or name.startswith("/") or ".." in parts or "\0" in name:
            return None
        file = self.root / name
        return file if file.is_file() else None

    def _of_benchmark(self, name: str, wanted: set[_Asked]) -> dict[_Asked, list[int | None]]:
        """Pictures that lie in tables or are made: the benchmark itself has them."""
        found: dict[_Asked, list[int | None]] = {}
        try:
            for asked, images in self._asked_by(name):
                if asked in wanted:
                    found[asked] = [self._number(_identity(image), image) for image in images]
                    if len(found) == len(wanted):
                        break
        except (OSError, ValueError) as error:
            self.notes.append(f"pictures of {name or 'files without a benchmark'}: {error}")
        return found

    def _asked_by(self, name: str) -> Iterator[tuple[_Asked, list[ImageSource]]]:
        benchmark = self.judges.benchmark(name)
        if benchmark is None:
            raise ValueError(f"not below {self.root}, and there is no such benchmark to ask for them")
        for question in benchmark.questions():
            yield (name, question.id), question.images

    def _number(self, identity: str, image: ImageSource) -> int | None:
        if identity not in self._numbers:
            self._numbers[identity] = self._written(image)
        return self._numbers[identity]

    def _written(self, image: ImageSource) -> int | None:
        """Its place among all; None where it is missing, broken or one too many."""
        if self.left <= 0:
            self._faults["pictures left out: the page is full; show fewer questions with --limit"] += 1
            return None
        try:
            size, address = _small(load_rgb(image))
        except FileNotFoundError:
            self._faults["pictures are missing"] += 1
            return None
        except ValueError:
            self._faults["pictures cannot be read"] += 1
            return None
        self.left -= len(address)
        number = len(self.sizes)
        self.sizes.append(size)
        self.file.write(f'<script type="text/plain" id="picture-{number}">{address}</script>\n')
        return number


def _asked(prediction: Prediction) -> _Asked:
    return prediction.benchmark, prediction.question_id


def _identity(image: ImageSource) -> str:
    """The same for the same picture: its path, or a hash of its bytes."""
    if isinstance(image, (str, Path)):
        return str(image)
    return hashlib.sha256(image if isinstance(image, bytes) else image.tobytes()).hexdigest()


def _small(picture: Image.Image) -> tuple[tuple[int, int], str]:
    """Its size before, and a data address of it at most `_SIDE` wide and high."""
    size = picture.size
    picture.thumbnail((_SIDE, _SIDE))
    form = "PNG" if max(size) <= _TINY else "JPEG"
    buffer = io.BytesIO()
    picture.save(buffer, form, quality=80)
    return size, f"data:image/{form.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"
