"""Codes as a manifest writes them, and the sets of them that live in files.

A code is `system|code`. Where a system spells its hierarchy (ICD, ATC), `system|I50*` stands for every code that begins
so; in any other system a beginning means nothing and is refused. `*|*` is whatever is charted. A value set is a TOML
file beside the manifest, `valuesets/NAME.toml`, or one that ships with the sidecar; the manifest pins it by SHA-256.
"""

import hashlib
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, FiniteFloat, model_validator

from sidecar import toml
from sidecar.errors import Misconfigured
from sidecar.toml import Name

HIERARCHIES = (
    "http://hl7.org/fhir/sid/icd-10-cm",
    "http://hl7.org/fhir/sid/icd-10",
    "http://fhir.de/CodeSystem/bfarm/icd-10-gm",
    "http://hl7.org/fhir/sid/icd-9-cm",
    "http://hl7.org/fhir/sid/icd-10-pcs",
    "http://www.cms.gov/Medicare/Coding/ICD10",
    "http://id.who.int/icd/release/11/mms",
    "http://www.whocc.no/atc",
    "http://fhir.de/CodeSystem/bfarm/atc",
    "http://fhir.de/CodeSystem/bfarm/ops",
)
"""The systems in which a longer code is a kind of what the shorter one says."""
MAX_SET_BYTES = 4 * 1024 * 1024


def _pattern(value: str) -> str:
    system, _, code = value.rpartition("|")
    if "*" in code and value != "*|*" and not (code.endswith("*") and code.count("*") == 1 and len(code) > 1):
        raise ValueError('a beginning is a code with one "*" at its end, such as "http://hl7.org/fhir/sid/icd-10|I50*"')
    if code.endswith("*") and value != "*|*" and system not in HIERARCHIES:
        raise ValueError(f"only these systems spell their hierarchy: {', '.join(HIERARCHIES)}")
    return value


Code = Annotated[str, Field(pattern=r"^[^|\s]+\|[^|\s]+$")]
CodePattern = Annotated[Code, AfterValidator(_pattern)]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Closed(BaseModel):
    """Unknown keys are errors; values do not change after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Group(Closed):
    """One category of a weighted sum: it counts once, however often it is charted, and not beside what replaces it.

    `replaces` are the milder categories that count for nothing where this one is there.
    """

    label: str
    weight: FiniteFloat
    replaces: tuple[Name, ...] = ()
    codes: tuple[CodePattern, ...] = Field(min_length=1)


class ValueSet(Closed):
    """A file of codes: one list, or groups with a weight each. `source` cites where they come from."""

    schema_version: Literal[1] = Field(alias="schema")
    title: str
    source: str
    codes: tuple[CodePattern, ...] = ()
    groups: dict[Name, Group] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _one_form(self) -> Self:
        if bool(self.codes) == bool(self.groups):
            raise ValueError("a value set has either codes or groups")
        groups_fit(self.groups)
        return self

    @property
    def all(self) -> tuple[str, ...]:
        """Every code, whatever group it is in."""
        return (*self.codes, *(code for group in self.groups.values() for code in group.codes))


def groups_fit(groups: Mapping[str, Group]) -> None:
    """Groups name each other, and no code is in two of them.

    Raises:
        ValueError: they do not.
    """
    if lost := sorted({n for group in groups.values() for n in group.replaces} - set(groups)):
        raise ValueError(f"replaces names no group: {', '.join(lost)}")
    of = {code: name for name, group in groups.items() for code in group.codes}
    for name, group in groups.items():
        for code in group.codes:
            plain = code.removesuffix("*")
            shorter = (of.get(f"{plain[:length]}*", name) for length in range(plain.index("|") + 2, len(plain) + 1))
            if other := next((o for o in (of[code], *shorter) if o != name), None):
                raise ValueError(f"{code} is in two groups: {name} and {other}")


def set_file(name: str) -> str:
    """The name in a model's folder of the file that holds the value set `name`."""
    return f"valuesets/{name}.toml"


def read_set(name: str, sha256: str, folder: Path, read: bytes | None = None) -> ValueSet:
    """The value set `name`: of the model's folder (`read` are the bytes, if there), or else one that ships.

    Raises:
        Misconfigured: there is none, it is not the one with that digest, or it does not parse.
    """
    own = folder / set_file(name)
    shipped = files("sidecar.manifest").joinpath("valuesets", f"{name}.toml")
    try:
        raw = shipped.read_bytes() if read is None else read
        text = raw.decode()
    except (OSError, UnicodeDecodeError) as error:
        raise Misconfigured([f"{own}: cannot be read ({type(error).__name__}), and none of that name ships"]) from None
    if len(raw) > MAX_SET_BYTES:
        raise Misconfigured([f"{own}: larger than {MAX_SET_BYTES} bytes"])
    actual = hashlib.sha256(raw).hexdigest()
    if actual != sha256:
        raise Misconfigured([f"{own}: SHA-256 is {actual}, its manifest says {sha256}: not the reviewed file"])
    return toml.parse(text, str(own), ValueSet)
