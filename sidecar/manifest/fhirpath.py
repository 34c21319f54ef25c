"""A small, closed part of FHIRPath, parsed: what a source may say where codes and values are not enough. Pure.

Paths over elements, `[n]`, `where(…)`, `exists()`, `exists(…)`, `empty()`, `not()`, `count()`, `first()`, `last()`,
`ofType(Type)`, `=`, `!=`, `<`, `<=`, `>`, `>=`, `and`, `or`, parentheses, and literals (a string without escapes, a
number, true, false). All else is refused. What an expression means, and whether de-identification lets it be read, is
decided in `sidecar.deid.paths`, which knows the types.
https://hl7.org/fhirpath/N1/
"""

import re
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple, TypeAlias

SUPPORTED: Final = (
    "supported are element names, [n], where(), exists(), empty(), not(), count(), first(), last(), ofType(), "
    "= != < <= > >=, and, or, parentheses, and the literals 'text', 1.5, true, false"
)
LONGEST, DEEPEST = 500, 30
_TOKEN = re.compile(
    r"\s*(?:(?P<text>'[^'\\]*')|(?P<number>\d+(?:\.\d+)?)|(?P<name>[A-Za-z_][A-Za-z0-9_]*)"
    r"|(?P<sign><=|>=|!=|[=<>().\[\]]))"
)
_COMPARED = frozenset({"=", "!=", "<", "<=", ">", ">="})
_PLAIN = frozenset({"exists", "empty", "not", "count", "first", "last"})
_WITH_CRITERIA = frozenset({"where", "exists"})
# Words of FHIRPath that are no names of elements, or that would mean something else than they seem to.
_RESERVED = frozenset({"and", "or", "xor", "implies", "div", "mod", "in", "contains", "is", "as", "true", "false"})


class Literal(NamedTuple):
    """A constant."""

    value: str | float | bool


class Step(NamedTuple):
    """An element of what is before it; without anything before it, of what is looked at."""

    of: "Node | None"
    name: str


class Call(NamedTuple):
    """A function on what is before it. `criteria` are looked at for each item; `argument` is a type or an index."""

    of: "Node | None"
    name: str
    criteria: "Node | None" = None
    argument: str = ""


class Binary(NamedTuple):
    """Two sides and what is between them."""

    sign: str
    left: "Node"
    right: "Node"


Node: TypeAlias = Literal | Step | Call | Binary
Inner: TypeAlias = Callable[[], Node]


def parse(text: str) -> Node:
    """The expression as a tree.

    Raises:
        ValueError: it is no FHIRPath, or is not of the part that is supported.
    """
    if len(text) > LONGEST:
        raise ValueError(f"longer than {LONGEST} characters; {SUPPORTED}")
    parser = _Parser(list(_tokens(text)))
    node = parser.either()
    if parser.peek() is not None:
        raise ValueError(f'"{parser.peek()}" is not expected there; {SUPPORTED}')
    return node


def _tokens(text: str) -> Iterator[tuple[str, str]]:
    at = 0
    text = text.rstrip()
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise ValueError(f'"{text[at : at + 12].strip()}" is not understood; {SUPPORTED}')
        kind = match.lastgroup or ""
        yield kind, match[kind]
        at = match.end()


class _Parser:
    """One operator a method, the weakest first."""

    def __init__(self, tokens: list[tuple[str, str]]) -> None:
        self._tokens, self._at, self._depth = tokens, 0, 0

    def peek(self) -> str | None:
        return self._tokens[self._at][1] if self._at < len(self._tokens) else None

    def either(self) -> Node:
        node = self._both()
        while self._take("or"):
            node = Binary("or", node, self._both())
        return node

    def _both(self) -> Node:
        node = self._equal()
        while self._take("and"):
            node = Binary("and", node, self._equal())
        return node

    def _equal(self) -> Node:
        return self._compared({"=", "!="}, self._unequal)

    def _unequal(self) -> Node:
        return self._compared(_COMPARED - {"=", "!="}, self._path)

    def _compared(self, signs: frozenset[str] | set[str], inner: "Inner") -> Node:
        node = inner()
        while self._kind() == "sign" and (sign := self.peek()) in signs:
            self._at += 1
            node = Binary(str(sign), node, inner())
        return node

    def _path(self) -> Node:
        node = self._start()
        while True:
            if self._take("."):
                node = self._named(node)
            elif self._take("["):
                kind, index = self._next()
                if kind != "number" or "." in index:
                    raise ValueError(f'"[{index}" is not understood; {SUPPORTED}')
                node = Call(node, "index", argument=index)
                self._must("]")
            else:
                return node

    def _start(self) -> Node:
        kind, word = self._tokens[self._at] if self._at < len(self._tokens) else ("", "")
        if kind == "text":
            self._at += 1
            return Literal(word[1:-1])
        if kind == "number":
            self._at += 1
            return Literal(float(word) if "." in word else int(word))
        if word in {"true", "false"}:
            self._at += 1
            return Literal(word == "true")
        if self._take("("):
            node = self._inside()
            self._must(")")
            return node
        return self._named(None)

    def _inside(self) -> Node:
        self._depth += 1
        if self._depth > DEEPEST:
            raise ValueError(f"nested deeper than {DEEPEST}; {SUPPORTED}")
        node = self.either()
        self._depth -= 1
        return node

    def _named(self, of: Node | None) -> Node:
        kind, word = self._next()
        if kind != "name" or word in _RESERVED:
            raise ValueError(f'"{word}" is not understood there; {SUPPORTED}')
        if not self._take("("):
            return Step(of, word)
        if word == "ofType" and of is not None:
            kind, type_name = self._next()
            if kind != "name":
                raise ValueError(f'"{type_name}" is no type; {SUPPORTED}')
            node = Call(of, word, argument=type_name)
        elif self.peek() == ")" and word in _PLAIN:
            node = Call(of, word)
        elif word in _WITH_CRITERIA and self.peek() != ")":
            node = Call(of, word, self._inside())
        else:
            raise ValueError(f"{word}() is not supported so; {SUPPORTED}")
        self._must(")")
        return node

    def _kind(self) -> str:
        return self._tokens[self._at][0] if self._at < len(self._tokens) else ""

    def _next(self) -> tuple[str, str]:
        if self._at >= len(self._tokens):
            raise ValueError(f"it ends too early; {SUPPORTED}")
        self._at += 1
        return self._tokens[self._at - 1]

    def _take(self, word: str) -> bool:
        if self.peek() != word or self._kind() not in {"sign", "name"}:
            return False
        self._at += 1
        return True

    def _must(self, word: str) -> None:
        if not self._take(word):
            raise ValueError(f'"{word}" is expected; {SUPPORTED}')
