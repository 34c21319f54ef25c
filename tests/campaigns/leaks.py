"""Search bytes for planted values, in the seven forms in which a value leaks.

`exact`; `casefolded`; `digits` (whatever stands between them); `split` (one word alone, or all with anything but letters
and digits between them); `base64` (three alignments, two alphabets); `url` (percent-encoded in part, wholly or twice);
`hash` (MD5, SHA-1 or SHA-256 without a key, as bytes or as hex).

Many thousand values are sought at once: the first eight bytes of each form are looked up at every position of the data,
and what is found there is compared whole. Data comes in portions of any size; what lies across two of them is found.
A date without a time has too few digits to be told from any other number: it is sought in its other forms only.
"""

import base64
import hashlib
import json
import re
import string
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from urllib.parse import unquote_to_bytes

import numpy as np

ENCODINGS = ("exact", "casefolded", "digits", "split", "base64", "url", "hash")
MIN_DIGITS = 14
MIN_BYTES = 8
OVERLAP = 8192
PORTION = 1 << 20
MOST_HITS = 1000
_HASHES = (partial(hashlib.md5, usedforsecurity=False), partial(hashlib.sha1, usedforsecurity=False), hashlib.sha256)
_MULTIPLIER, _BITS = np.uint64(0x9E3779B97F4A7C15), 24
_WORDS = re.compile(r"[0-9A-Za-z]+")
_LOWER = bytes(range(256)).lower()
_NOT_DIGITS = bytes(set(range(256)) - set(string.digits.encode()))
_NOT_ALNUM = bytes(set(range(256)) - set((string.digits + string.ascii_letters).encode()))
VIEWS: tuple[Callable[[bytes], bytes], ...] = (
    lambda data: data,
    lambda data: data.translate(_LOWER),
    lambda data: data.translate(None, _NOT_DIGITS),
    lambda data: data.translate(_LOWER, _NOT_ALNUM),
    lambda data: unquote_to_bytes(unquote_to_bytes(data.replace(b"+", b" "))).translate(_LOWER),
)
"""What the data is turned into before it is looked through."""
RAW, FOLDED, DIGITS, ALNUM, UNQUOTED = range(5)
Form = tuple[int, int, bytes]
"""A view, the number of an encoding, and the bytes that must not be there."""


@dataclass(frozen=True, slots=True)
class Canary:
    """A value that must not come out. `core` is the part of it that nothing else has: at least eight ASCII bytes."""

    path: str
    value: str
    core: str

    def forms(self) -> Iterator[Form]:
        """Every form it is sought in."""
        core = self.core
        yield RAW, 0, core.encode()
        yield FOLDED, 1, core.lower().encode()
        digits = "".join(c for c in core if c.isdigit())
        if len(digits) >= MIN_DIGITS:
            yield DIGITS, 2, digits.encode()
        words = _WORDS.findall(core)
        joined = "".join(words).lower()
        if not joined.isdigit() or len(joined) >= MIN_DIGITS:
            yield ALNUM, 3, joined.encode()
        yield from ((FOLDED, 3, w.lower().encode()) for w in words if len(w) >= MIN_BYTES and w.isalpha())
        yield from ((RAW, 4, form) for form in _base64(core.encode()))
        yield UNQUOTED, 5, core.lower().encode()
        for text in {self.value, core}:
            digests = [make(text.encode()).digest() for make in _HASHES]
            yield from ((RAW, 6, digest) for digest in digests)
            yield from ((FOLDED, 6, digest.hex().encode()) for digest in digests)


@dataclass(frozen=True, slots=True)
class Hit:
    """A planted value, found."""

    place: str
    encoding: str
    path: str


def _base64(core: bytes) -> set[bytes]:
    """The characters that depend on nothing but `core`, wherever it begins."""
    found = set()
    for before in range(3):
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            text = encode(b"\0" * before + core)
            found.add(text[-(-8 * before // 6) : 8 * (before + len(core)) // 6])
    return found


class Searcher:
    """Knows the forms of many canaries."""

    def __init__(self, canaries: Sequence[Canary]) -> None:
        self._canaries = canaries
        self.read_bytes = 0
        gathered = [_Forms() for _ in VIEWS]
        for number, canary in enumerate(canaries):
            for view, encoding, form in canary.forms():
                gathered[view].add(number, encoding, form)
        self._indexes = [_Index(forms) for forms in gathered]

    def search(self, place: str, data: bytes | Iterable[bytes]) -> set[Hit]:
        """What of the canaries is in `data`, at most `MOST_HITS`."""
        hits: set[Hit] = set()
        before = b""
        for portion in _portions(data):
            self.read_bytes += len(portion)
            window = before + portion
            for index, view in zip(self._indexes, VIEWS, strict=True):
                for number, encoding in index.found(view(window), self._whole):
                    hits.add(Hit(place, ENCODINGS[encoding], self._canaries[number].path))
            before = window[-OVERLAP:]
            if len(hits) >= MOST_HITS:
                break
        return hits

    def _whole(self, number: int, encoding: int, view: bytes, at: int) -> bool:
        """Whether a form that begins as the data does at `at` is there to its end."""
        forms = (form for _, kind, form in self._canaries[number].forms() if kind == encoding)
        return any(view.startswith(form, at) for form in forms)


class _Forms:
    """The beginnings of the forms of one view, as they are gathered."""

    def __init__(self) -> None:
        self.begins, self.numbers, self.encodings = bytearray(), array("I"), array("B")

    def add(self, number: int, encoding: int, form: bytes) -> None:
        """One more."""
        if len(form) < MIN_BYTES:
            raise ValueError("a form is too short to be told from noise")
        self.begins += form[:MIN_BYTES]
        self.numbers.append(number)
        self.encodings.append(encoding)


class _Index:
    """The first eight bytes of every form of one view."""

    def __init__(self, forms: _Forms) -> None:
        keys = np.frombuffer(bytes(forms.begins), "<u8")
        order = np.argsort(keys, kind="stable")
        self._keys = keys[order]
        self._numbers = np.array(forms.numbers, np.uint32)[order]
        self._encodings = np.array(forms.encodings, np.uint8)[order]
        self._maybe = np.zeros(1 << _BITS, np.bool_)
        self._maybe[self._slot(keys)] = True

    @staticmethod
    def _slot(keys: np.ndarray) -> np.ndarray:
        return (keys * _MULTIPLIER) >> np.uint64(64 - _BITS)

    def found(self, view: bytes, whole: Callable[[int, int, bytes, int], bool]) -> Iterator[tuple[int, int]]:
        """Number and encoding of every form in `view`."""
        for offset in range(min(MIN_BYTES, max(len(view) - MIN_BYTES + 1, 0))):
            words = np.frombuffer(view, "<u8", (len(view) - offset) // MIN_BYTES, offset)
            likely = np.flatnonzero(self._maybe[self._slot(words)])
            first = np.searchsorted(self._keys, words[likely])
            past = np.searchsorted(self._keys, words[likely], side="right")
            for at in np.flatnonzero(past > first):
                position = offset + MIN_BYTES * int(likely[at])
                for each in range(first[at], past[at]):
                    number, encoding = int(self._numbers[each]), int(self._encodings[each])
                    if whole(number, encoding, view, position):
                        yield number, encoding


def _portions(data: bytes | Iterable[bytes]) -> Iterator[bytes]:
    """`data` in portions that are neither tiny nor huge."""
    gathered = bytearray()
    for piece in (data,) if isinstance(data, bytes) else data:
        for at in range(0, len(piece), PORTION):
            gathered += piece[at : at + PORTION]
            if len(gathered) >= PORTION:
                yield bytes(gathered)
                gathered.clear()
    if gathered:
        yield bytes(gathered)


def lines_of(rows: Iterable[Sequence[object]]) -> Iterator[bytes]:
    """Rows of a table as bytes to be searched, each value as it is."""
    for row in rows:
        yield b"\n".join(v if isinstance(v, bytes) else str(v).encode() for v in row if v is not None) + b"\n"


def as_json(value: object) -> bytes:
    """A value as JSON, to be searched."""
    return json.dumps(value, ensure_ascii=False, default=str).encode()
