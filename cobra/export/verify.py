"""`cobra export verify`: an export's files and laws."""

from pathlib import Path

from cobra.export.conform import column_of
from cobra.export.conformance_page import printed
from cobra.export.laws import LAWS
from cobra.export.manifest import check_files
from cobra.export.targets import DEVICES, TARGETS, engine_of


def verify(folder: Path, device: str = DEVICES[0]) -> bool:
    """Whether the engine of an export, where there is one, keeps the laws; prints what they find.

    Args:
        folder: of the export.
        device: one of `cobra.export.targets.DEVICES`.

    Raises:
        ValueError: where a file was changed, the manifest is of another version, or nothing runs it there.
        OSError: where a file is missing, or there is no room for unpacked weights.
    """
    manifest = check_files(folder)
    if manifest.target not in TARGETS:
        raise ValueError(f"{folder} is of target {manifest.target!r}, which this version of cobra has not")
    print(f"{folder}: {len(manifest.files)} files are as they were written")
    if not TARGETS[manifest.target].engines:
        print(f"no laws: {'; '.join(manifest.contents.missing)}")
        return True
    column = column_of(engine_of(manifest.target, device), folder, list(LAWS.values()))
    print(printed([column], list(LAWS.values())))
    return column.is_conforming
