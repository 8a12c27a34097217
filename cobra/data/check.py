"""`cobra data check`: what of a file of chats a run could not use, found before it."""

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from cobra.config.shown_text import harmless
from cobra.data.bad_sample import BadSample
from cobra.data.llava import LlavaJson
from cobra.data.picture_checks import PictureChecks


def print_check(files: list[Path], image_root: Path) -> None:
    """Print each bad record of LLaVA-style files with its id, and how many there are.

    Raises:
        ValueError: where there is one.
    """
    records = bad = 0
    for file in files:
        data = LlavaJson(file, image_root)
        found = 0
        for sample in bad_samples(data):
            print(harmless(str(sample), sys.stdout))
            found += 1
        size = len(data) + data.bad
        print(f"{file}: {size} records, {found} of them bad{_counted(data.mended)}")
        records, bad = records + size, bad + found
    if bad:
        raise ValueError(
            f"{bad} of {records} records cannot be used: fetch or mend them, or a run skips them"
        )


def bad_samples(data: LlavaJson) -> Iterator[BadSample]:
    """Records that are no chat, then those with a picture that cannot be read; decodes every picture once."""
    yield from data.bad_records()
    reasons = PictureChecks.of(data, data.source).reasons
    yield from (BadSample(data.source, *reasons[index]) for index in sorted(reasons))


def _counted(mended: Mapping[str, int]) -> str:
    return "".join(f"; {count} mended: {what}" for what, count in mended.items())
