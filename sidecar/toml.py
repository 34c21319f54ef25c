"""Read TOML into closed pydantic models; report every problem at once, with its line and the nearest known name."""

import difflib
import re
import tomllib
from collections.abc import Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, Field, ValidationError, WithJsonSchema

from sidecar.errors import Misconfigured

_DURATION = re.compile(r"^(\d+(?:\.\d+)?)([smhd])$")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def duration(value: object) -> object:
    """`"4h"` as a timedelta; anything else goes on to pydantic and its error."""
    if isinstance(value, str) and (match := _DURATION.fullmatch(value)):
        return timedelta(seconds=float(match.group(1)) * _SECONDS[match.group(2)])
    if isinstance(value, timedelta):
        return value
    raise ValueError('a duration is a number with a unit: "90s", "30m", "4h", "7d"')


Duration = Annotated[
    timedelta,
    BeforeValidator(duration),
    WithJsonSchema({"type": "string", "pattern": _DURATION.pattern, "description": "Such as 90s, 30m, 4h, 7d."}),
]
Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,63}$")]
Model = TypeVar("Model", bound=BaseModel)

_HEADER = re.compile(r"^\s*\[{1,2}\s*([^\]]+?)\s*\]{1,2}")
_KEY = re.compile(r"""^\s*((?:"[^"]*"|'[^']*'|[\w\-.])+)\s*=""")


def load(path: Path, model: type[Model]) -> Model:
    """The file at `path` as a `model`.

    Raises:
        Misconfigured: unreadable, not TOML, or not of the model's form. Every problem names file and line.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise Misconfigured([f"{path}: cannot be read ({type(error).__name__})"]) from None
    return parse(text, str(path), model)


def parse(text: str, source: str, model: type[Model]) -> Model:
    """`text` as a `model`; `source` names it in problems.

    Raises:
        Misconfigured: see `load`.
    """
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise Misconfigured([f"{source}: not valid TOML: {error}"]) from None
    try:
        return model.model_validate(content)
    except ValidationError as error:
        raise Misconfigured(problems(error, text, source, model)) from None


def problems(error: ValidationError, text: str, source: str, model: type[BaseModel]) -> list[str]:
    """One sentence for each thing wrong: where, what, and what was probably meant. Values are not repeated."""
    known = sorted(set(_names(model.model_json_schema())))
    return [_sentence(e, text, source, known) for e in error.errors(include_url=False, include_input=False)]


def _sentence(problem: Mapping[str, Any], text: str, source: str, known: list[str]) -> str:
    location = [str(part) for part in problem["loc"]]
    dotted = ".".join(location) or "file"
    line = line_of(text, location)
    where = f"{source}:{line}" if line else source
    if problem["type"] == "extra_forbidden":
        # A key of another table may be spelt exactly so: that is no help here.
        near = difflib.get_close_matches(location[-1], [name for name in known if name != location[-1]], n=1)
        hint = f'; did you mean "{near[0]}"?' if near else ""
        return f"{where}: unknown key {dotted}{hint}"
    return f"{where}: {dotted}: {problem['msg']}"


def _names(schema: object) -> Iterator[str]:
    if isinstance(schema, dict):
        yield from schema.get("properties", {})
        for value in schema.values():
            yield from _names(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from _names(value)


def line_of(text: str, location: list[str]) -> int | None:
    """The 1-based line where the longest known prefix of `location` is written, or None.

    tomllib gives no positions, so section headers and keys are matched again, as text. Array indexes count
    the `[[headers]]` of that name seen so far.
    """
    best: tuple[int, int] | None = None
    for number, path in _positions(text):
        shared = 0
        for mine, theirs in zip(path, location, strict=False):
            if mine != theirs:
                break
            shared += 1
        if shared == len(path) and (best is None or shared > best[0]):
            best = (shared, number)
    return best[1] if best else None


def _positions(text: str) -> Iterator[tuple[int, list[str]]]:
    section: list[str] = []
    counts: dict[str, int] = {}
    for number, line in enumerate(text.splitlines(), 1):
        header = _HEADER.match(line)
        if header:
            section = _split(header.group(1))
            if line.lstrip().startswith("[["):
                name = ".".join(section)
                counts[name] = counts.get(name, -1) + 1
                section = [*section, str(counts[name])]
            yield number, section
            continue
        key = _KEY.match(line)
        if key:
            yield number, [*section, *_split(key.group(1))]


def _split(dotted: str) -> list[str]:
    return [part.strip("\"'") for part in re.findall(r'"[^"]*"|\'[^\']*\'|[^.\s]+', dotted)]
