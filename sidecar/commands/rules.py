"""`sidecar deid rules`: the de-identification policy as a table that an officer can read and sign for."""

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any

import orjson
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from sidecar.deid import Keep, Mode, Policy, Rules, load_policy, load_rules
from sidecar.deid.definitions import nearest
from sidecar.errors import Misconfigured

Row = dict[str, Any]

# What becomes of an element that is kept, by its data type; of any other the table of that type says it.
_KEPT = {
    "Age": "by the table of Quantity; 90 years and more by the mode",
    "BackboneElement": "by its own table",
    "CodeableConcept": "codes of known systems",
    "Coding": "code of a known system",
    "Reference": "token",
    "Range": "by the table of Range; ages of 90 and more by the mode",
    "Resource": "by the table of its type",
    "boolean": "as it is",
    "date": "by the mode",
    "dateTime": "by the mode",
    "decimal": "as it is",
    "id": "token",
    "instant": "by the mode",
    "integer": "as it is",
    "positiveInt": "as it is",
    "unsignedInt": "as it is",
}
_DONE = {
    "refuse": "refuses the whole resource",
    "birth": "birth date, by the mode",
    "death": "time of death, by the mode",
    "place": "state, country and part of the ZIP, by the mode",
    "relink": "urn:uuid of the token",
    "deleted": "that it deletes and what, as a token",
    "labels": "security labels of the list",
}
# Elements of data types whose meaning is not in their own type.
_AT = {
    "Coding.code": "beside a known system, if it is one of its codes or has their form",
    "Coding.system": "if it is known",
    "Quantity.system": "UCUM only",
    "Reference.reference": "token",
    "Reference.type": "name of a resource type",
}
_EXTENSION = {"omb": "codes of OMB categories", "code": "M, F or UNK"}


def rules(names: Sequence[str], *, as_json: bool) -> None:
    """Print the policy, or what it says of the resource and data types `names`.

    Raises:
        Misconfigured: the policy is not sound, or has no such type.
    """
    policy, read = load_policy(), load_rules()
    tables = {**policy.types, **policy.datatypes}
    wanted = list(dict.fromkeys(names)) or list(tables)
    if unknown := [name for name in wanted if name not in tables]:
        raise Misconfigured([f"the policy has no type {name}{nearest(name, tables)}" for name in unknown])
    rows = [row for name in wanted for row in _rows(policy, read, name, tables[name])]
    if as_json:
        said = {"digest": policy.digest, "assessments": _digests(), "systems": sorted(policy.systems)}
        said |= {"own_codes": sorted(policy.own_codes), "units": sorted(policy.units)}
        zip3 = {"restricted": sorted(policy.restricted_zip3), "populated": sorted(policy.populated_zip3)}
        everything = {**said, "zip3": zip3, "sensitive": _sensitive(read), "elements": rows}
        sys.stdout.write(orjson.dumps(everything).decode() + "\n")
        return
    console = Console()
    _print(console, policy, rows)
    if not names:
        console.print("No rationale names what has one of these security labels or codes, or a code that begins so:\n")
        for what, listed in _sensitive(read).items():
            console.print(f"{what}: {', '.join(listed)}\n", soft_wrap=True)


def _rows(policy: Policy, read: Rules, path: str, table: Mapping[str, Keep]) -> Iterator[Row]:
    """A row for each element that R4 has there, kept ones first; then those of its elements' own tables."""
    type_name, _, inside = path.partition(".")
    reads = read.of_component if inside == "component" else {} if inside else read.types.get(type_name, {})

    def row(name: str, does: str, why: str | None = None) -> Row:
        action = reads[name].do if name in reads else None
        return {"of": path, "element": name, "does": does, "read": action, "why": why}

    for name, keep in table.items():
        must = keep.modifier and keep.do != "refuse"
        does = _AT.get(f"{path}.{name}") or _does(keep)
        yield row(name, f"{does}; else the resource is refused" if must else does)
    if path in policy.types and "modifierExtension" in table and "extension" not in policy.omitted[path]:
        said = [f"{url.rpartition('/')[2]}: {_EXTENSION[how]}" for url, how in policy.extensions.items()]
        yield row("extension", "; ".join(said) or "dropped")
    for name in sorted(policy.omitted.get(path, ())):
        yield row(name, "dropped", policy.why[f"{path}.{name}"])
    for name, keep in table.items():
        # A table that is like another, or like the one around it, is written once.
        if keep.table is not None and f"{path}.{name}" in policy.omitted:
            yield from _rows(policy, read, f"{path}.{name}", keep.table)


def _sensitive(read: Rules) -> dict[str, list[str]]:
    """What is withheld from rationales: labels, codes, and how codes begin, each as "system|code"."""
    found = read.sensitive
    return {
        "labels": sorted(found.labels),
        "codes": [f"{system}|{code}" for system, codes in found.codes.items() for code in sorted(codes)],
        "beginnings": [f"{system}|{code}" for system, codes in found.beginnings.items() for code in codes],
    }


def _digests() -> dict[str, str]:
    """What names policy and mode on an assessment, by mode."""
    return {mode.value: load_rules(mode=mode).digest for mode in Mode}


def _does(keep: Keep) -> str:
    if keep.do != "keep":
        return _DONE[keep.do]
    if keep.kind == "code":
        return f"if it is one of {len(keep.codes)} codes"
    return _KEPT.get(keep.kind, f"by the table of {keep.kind}")


def _print(console: Console, policy: Policy, rows: Iterable[Row]) -> None:
    console.print(
        f"De-identification policy {policy.digest}. Whatever is not listed is dropped: unknown elements, other "
        f"extensions, `_field` siblings. {len(policy.systems)} code systems and {len(policy.units)} units may cross; "
        "--json lists them.\n"
    )
    for mode, digest in _digests().items():
        console.print(f"On assessments under {mode}: {digest}")
    console.print()
    for path, listed in groupby(rows, key=itemgetter("of")):
        table = Table(title=path, title_justify="left", box=SIMPLE_HEAD)
        table.add_column("element", no_wrap=True)
        table.add_column("a model reads", no_wrap=True)
        table.add_column("what happens")
        for row in listed:
            why = f": {row['why']}" if row["why"] else ""
            table.add_row(row["element"], row["read"] or "", row["does"] + why)
        console.print(table)
