"""Which codes a model wants of a resource type, where a plain set of them does not say it all. Pure."""

from collections.abc import Iterator
from typing import NamedTuple, Self

ANY = "*|*"
"""Every statement of a type, whatever its codes."""


class PathRead(NamedTuple):
    """A value that FHIRPath finds: the code that stands for it, the statements it is of, and the expression."""

    key: str
    of: frozenset[str]
    expression: str


class Wanted(frozenset[str]):
    """The codes of a type as the manifest writes them, with what is particular to some.

    `lengths` are how long those are that end in "*", without it; `history` are those that count also when they are
    over; `paths` are values found by FHIRPath.
    """

    lengths: tuple[int, ...]
    history: frozenset[str]
    paths: tuple[PathRead, ...]

    @classmethod
    def of(cls, codes: frozenset[str], history: frozenset[str] = frozenset(), paths: tuple[PathRead, ...] = ()) -> Self:
        """What is wanted of a type."""
        made = cls(codes)
        made.lengths = tuple(sorted({len(code) - 1 for code in codes if code.endswith("*") and code != ANY}))
        made.history, made.paths = history, paths
        return made

    def declared(self, code: str) -> Iterator[str]:
        """The codes of the manifest that a charted `system|code` is one of."""
        if code in self:
            yield code
        for length in self.lengths:
            if len(code) >= length and (beginning := f"{code[:length]}*") in self:
                yield beginning


def wanted(codes: frozenset[str], history: frozenset[str], paths: tuple[PathRead, ...]) -> frozenset[str]:
    """A plain set where that is enough: with it the path is fastest."""
    plain = not history and not paths and not any(code.endswith("*") for code in codes)
    return codes if plain else Wanted.of(codes, history, paths)
