"""Read a table of training data: delimited text, plain or gzipped, with a header. Only the wanted columns are kept.

What is wrong with a file is said in one sentence, with its line and column and never with a value: tables are patients.
"""

import csv
import difflib
import gzip
import zlib
from array import array
from collections.abc import Iterator, Sequence, Sized
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import numpy as np

from sidecar.monitoring.performance import Floats

_ABSENT = frozenset({"", "na", "nan", "null", "none", "?"})
_DELIMITERS = {",": "comma", "|": "vertical bar", ";": "semicolon", "\t": "tab"}


class BadData(ValueError):
    """The file is not the table that it should be; the message says how."""


@dataclass(frozen=True, slots=True)
class Table:
    """Columns by name: texts as written, numbers with NaN where nothing is. All have one length."""

    rows: int
    text: dict[str, list[str]]
    numbers: dict[str, Floats]


def read_table(path: Path, delimiter: str, *, text: Sequence[str], numbers: Sequence[str]) -> Table:
    """The columns `text` and `numbers` of the file at `path`.

    Raises:
        BadData: it cannot be read, is empty, is divided otherwise, lacks a column, or a number is none.
    """
    with open_text(path) as file:
        lines = csv.reader(file, delimiter=delimiter)
        header = [name.strip() for name in next(lines, [])]
        places = _places(path, header, delimiter, [*text, *numbers])
        words: dict[str, list[str]] = {name: [] for name in text}
        figures = {name: array("d") for name in numbers}
        kept: dict[str, str] = {}
        for number, line in enumerate(lines, 2):
            if not line:
                continue
            if len(line) != len(header):
                raise BadData(f"{path}: line {number} has {len(line)} fields, the header {len(header)}")
            for name, found in words.items():
                word = line[places[name]].strip()
                found.append(kept.setdefault(word, word))
            for name, column in figures.items():
                column.append(_number(line[places[name]], f"{path}: line {number}, column {name}"))
    columns: list[Sized] = [*words.values(), *figures.values()]
    rows = len(columns[0])
    if not rows:
        raise BadData(f"{path}: has a header and no rows")
    return Table(rows, words, {name: np.array(column) for name, column in figures.items()})


@contextmanager
def open_text(path: Path) -> Iterator[TextIO]:
    """The file at `path` as text, unzipped where it is called .gz.

    Raises:
        BadData: it cannot be read, also later on in the block.
    """
    zipped = path.suffix == ".gz"
    try:
        with gzip.open(path, "rt", newline="") if zipped else path.open(newline="") as file:
            yield file
    except UnicodeDecodeError:
        hint = "" if zipped else "; a gzipped file must be called .gz"
        raise BadData(f"{path}: is not text in UTF-8{hint}") from None
    except (gzip.BadGzipFile, zlib.error, EOFError):
        raise BadData(f"{path}: is called .gz and is no whole gzip file") from None
    except csv.Error as error:
        raise BadData(f"{path}: cannot be divided into fields ({error})") from None
    except OSError as error:
        raise BadData(f"{path}: cannot be read ({type(error).__name__})") from None


def _places(path: Path, header: list[str], delimiter: str, wanted: list[str]) -> dict[str, int]:
    if not any(header):
        raise BadData(f"{path}: is empty")
    found = {name: place for place, name in enumerate(header)}
    lost = [name for name in wanted if name not in found]
    if not lost:
        return found
    other = max(_DELIMITERS, key=header[0].count)
    if len(header) == 1 and other in header[0]:
        raise BadData(
            f"{path}: the fields are divided by a {_DELIMITERS[other]}, and must be by a {_DELIMITERS[delimiter]}"
        )
    near = difflib.get_close_matches(lost[0], header, n=1)
    hint = f'; is "{near[0]}" meant to be {lost[0]}?' if near else ""
    raise BadData(f"{path}: lacks the column{'s' if len(lost) > 1 else ''} {', '.join(lost)}{hint}")


def _number(field: str, place: str) -> float:
    try:
        return float(field)
    except ValueError:
        if field.strip().lower() in _ABSENT:
            return float("nan")
        raise BadData(f"{place}: is not a number") from None
