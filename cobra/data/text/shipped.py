"""`cobra data text`: text that everyone has, of Python's standard library and of Debian's documentation."""

import json
import sysconfig
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

from rich.console import Console
from rich.progress import track

from cobra.data.text.documents import read_document

# folders of the standard library that are tests, or not of it
_TESTS = {"test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__"}
_DEBIAN = Path("/usr/share")
_PATTERNS = ["common-licenses/*", "man/man[578]/*"] + [
    f"doc/**/{name}{packed}"
    for name in ("README*", "NEWS*", "FAQ*", "*.txt", "*.md", "*.rst")
    for packed in ("", ".gz")
]
# longer documents are lists of changes or generated
_LONGEST = 200_000


def write_shipped_text(out: Path) -> None:
    """Write python.jsonl and debian.jsonl, a document a line, and manifest.json, which tells what is in them.

    `python` are the sources, with docstrings, of the standard library of the running interpreter, less tests.
    `debian` are manual pages (sections 5, 7 and 8, as troff), readmes and news of the packages that are
    installed, and licences. Left out are copies, empty ones, what is no UTF-8 and what is longer than 200,000
    characters.
    """
    out.mkdir(parents=True, exist_ok=True)
    library = Path(sysconfig.get_path("stdlib"))
    sources = [p for p in library.rglob("*.py") if not _TESTS & set(p.relative_to(library).parts)]
    debian = {path.resolve() for pattern in _PATTERNS for path in _DEBIAN.glob(pattern) if path.is_file()}
    manifest = {}
    for name, root, files in (("python", library, sources), ("debian", _DEBIAN, list(debian))):
        if files:
            manifest[name] = _write(out / f"{name}.jsonl", root, sorted(files))
    (out / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
    for name, told in manifest.items():
        print(f"{out / name}.jsonl: {told['documents']:,} documents, {told['bytes']:,} bytes")


def _write(file: Path, root: Path, paths: list[Path]) -> dict[str, int | str]:
    documents = size = 0
    digest = sha256()
    with file.open("w", encoding="utf-8") as lines:
        for path, text in _texts(paths, file.name):
            documents, size = documents + 1, size + len(text.encode())
            digest.update(text.encode())
            name = path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)
            lines.write(json.dumps({"name": name, "text": text}, ensure_ascii=False) + "\n")
    return {"documents": documents, "bytes": size, "sha256": digest.hexdigest()}


def _texts(paths: list[Path], title: str) -> Iterator[tuple[Path, str]]:
    seen = set()
    for path in track(paths, f"Writing {title}", console=Console(stderr=True)):
        try:
            text = read_document(path)
        except (ValueError, OSError):
            continue
        digest = sha256(text.encode()).digest()
        if text.strip() and len(text) <= _LONGEST and digest not in seen:
            seen.add(digest)
            yield path, text
