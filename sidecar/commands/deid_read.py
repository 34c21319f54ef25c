"""What files hold, document by document, each with its place. Places are numbers: a file's name may be a person's."""

import contextlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import orjson

from sidecar.errors import Misconfigured

MAX_DOCUMENT = 256 * 1024 * 1024
"""Bytes of one JSON document or line: it is parsed as a whole. NDJSON files may be of any size."""
LINES, DOCUMENTS = (".ndjson", ".jsonl"), (".json",)
TWICE = "a key is there twice, and which of its values counts nobody can say"
DEEP = "nested too deeply"
_ESCAPED = re.compile(rb"\\.")


def files_in(paths: tuple[str, ...]) -> Iterator[Path | None]:
    """The files to read, in order; None is standard input.

    Raises:
        Misconfigured: one is not there, or a folder holds nothing to read.
    """
    problems = []
    for path in paths:
        if path == "-":
            yield None
        elif Path(path).is_dir():
            found = sorted(f for f in Path(path).rglob("*") if f.suffix.lower() in LINES + DOCUMENTS and f.is_file())
            if not found:
                problems.append(f"{path}: no {', '.join(LINES + DOCUMENTS)} in it")
            yield from found
        elif Path(path).is_file():
            yield Path(path)
        else:
            problems.append(f"{path}: no such file or folder")
    if problems:
        raise Misconfigured(problems)


def documents(file: Path | None, name: str) -> Iterator[tuple[str, Any]]:
    """What a file holds, each with its place in the file `name`.

    A text in place of a document says why it is not read. A key that is there twice is a reason: JSON does not say
    which of its values counts, and what reads the file next may take the other one.
    """
    try:
        with file.open("rb") if file is not None else contextlib.nullcontext(sys.stdin.buffer) as opened:
            yield from _parsed(opened, name)
    except OSError as error:
        yield name, f"cannot be read ({error.strerror})"


def _parsed(opened: BinaryIO, name: str) -> Iterator[tuple[str, Any]]:
    """A first line that is a document makes it NDJSON, which is read line by line; else it is one document."""
    first = opened.readline(MAX_DOCUMENT + 1)
    found = document(first)
    if isinstance(found, str) and first.lstrip()[:1] in {b"{", b"["} and found not in (TWICE, DEEP):
        raw = first + opened.read(MAX_DOCUMENT + 1 - len(first))
        whole, lines = document(raw), raw.splitlines()
        if not isinstance(whole, str) or not any(isinstance(document(line), dict) for line in lines):
            yield name, whole
        else:  # a bad first line must not keep the others out
            yield from ((f"{name}, line {n}", document(line)) for n, line in enumerate(lines, start=1) if line.strip())
        return
    number = 1
    while first:
        if first.strip():
            yield f"{name}, line {number}", found
        first, number = opened.readline(MAX_DOCUMENT + 1), number + 1
        found = document(first)


def document(raw: bytes) -> Any:
    """The JSON of `raw`, or a text that says why it is not read."""
    if len(raw) > MAX_DOCUMENT:
        return f"larger than {MAX_DOCUMENT} bytes; split it, or give NDJSON"
    try:
        found = orjson.loads(raw)
    except orjson.JSONDecodeError:
        return "not valid JSON"
    try:
        written = orjson.dumps(found)
    except orjson.JSONEncodeError:
        return DEEP
    # What is written as we would write it has lost nothing; of anything else the keys are counted.
    return found if raw.rstrip() == written or _keys(raw) == _keys(written) else TWICE


def _keys(raw: bytes) -> int:
    """How many keys valid JSON has: its colons outside of strings. What is parsed has one of each."""
    if b"\\" in raw:
        raw = _ESCAPED.sub(b"", raw)
    return b"".join(raw.split(b'"')[::2]).count(b":")
