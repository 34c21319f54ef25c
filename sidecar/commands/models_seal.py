"""`sidecar models seal`: write the SHA-256 of a folder's files into its manifest. The text stays the author's own."""

import hashlib
import re
import sys
import tempfile
import tomllib
from pathlib import Path

from sidecar.errors import Misconfigured
from sidecar.manifest import files_in, read_file
from sidecar.manifest.folder import MANIFEST
from sidecar.scoring import version_folder

_TABLE = re.compile(r"(?m)^\[files\][^\n]*\n(?:(?!\s*\[)[^\n]*\n)*")
_HEADER = re.compile(r"(?m)^\s*\[")


def seal(folder: Path) -> int:
    """Pin every file of `folder` by its present bytes. Whoever runs it says: these are the files that I have looked at.

    Raises:
        Misconfigured: something must not be in the folder, or the manifest is no TOML with a `[graph]` table.
    """
    folder = version_folder(folder)
    found = {name: hashlib.sha256(read_file(folder, name)).hexdigest() for name in files_in(folder)}
    path = folder / MANIFEST
    before = _text(read_file(folder, MANIFEST), path)
    text = _sealed(before, found, path)
    if text != before:
        _replace(path, text)
    sys.stdout.write(f"{path}: {len(found)} files pinned{'' if text != before else '; nothing had changed'}\n")
    return 0


def _text(raw: bytes, path: Path) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise Misconfigured([f"{path}: is not text in UTF-8"]) from None


def _sealed(text: str, found: dict[str, str], path: Path) -> str:
    """`text` with each digest that it gives of a file, and `[files]` for all others."""
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise Misconfigured([f"{path}: not valid TOML: {error}"]) from None
    graph = content.get("graph")
    if not isinstance(graph, dict) or "sha256" not in graph:
        raise Misconfigured([f'{path}: needs a [graph] table with sha256 = "" to be written into'])
    left = dict(found)
    text = _written(text, "graph", "sha256", left.pop(str(graph.get("file", "model.onnx")), None))
    if "reference" in content:
        text = _written(text, "", "reference_sha256", left.pop(str(content["reference"]), None))
    for name in content.get("valuesets", {}):
        text = _written(text, "valuesets", name, left.pop(f"valuesets/{name}.toml", None))
    body = _TABLE.sub("", f"{text}\n").rstrip("\n") + "\n"
    if not left:
        return body
    lines = "".join(f'"{name}" = "{sha256}"\n' for name, sha256 in sorted(left.items()))
    return f"{body}\n[files] # written by `sidecar models seal`\n{lines}"


def _written(text: str, table: str, key: str, sha256: str | None) -> str:
    """`text` with another value of `key` in `table` ("" is before the first one)."""
    if sha256 is None:
        return text
    header = re.search(rf"(?m)^\[{table}\]", text) if table else None
    start = header.end() if header else 0
    following = _HEADER.search(text, start)
    end = following.start() if following else len(text)
    part, count = re.subn(rf'(?m)^({key}\s*=\s*)"[^"\n]*"', rf'\g<1>"{sha256}"', text[start:end], count=1)
    if not count:  # a table's own key comes right after its header
        part = f'\n{key} = "{sha256}"{part}' if table else f'{part.rstrip()}\n{key} = "{sha256}"\n\n'
    return text[:start] + part + text[end:]


def _replace(path: Path, text: str) -> None:
    """Write `text` in the place of the file, whole or not at all; no other file appears in the folder meanwhile."""
    made: Path | None = None
    try:
        with tempfile.NamedTemporaryFile("w", dir=path.parents[2], encoding="utf-8", delete=False) as file:
            made = Path(file.name)
            file.write(text)
        made.chmod(0o644)
        made.replace(path)
    except OSError as error:
        if made is not None:
            made.unlink(missing_ok=True)
        raise Misconfigured([f"{path}: cannot be written ({type(error).__name__})"]) from None
