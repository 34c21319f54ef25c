"""`sidecar models list`, `show` and `schema`: what models there are, and what their manifests say."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson

from sidecar.app import shipped
from sidecar.errors import Misconfigured
from sidecar.manifest import Card, Manifest, ModelFolder, missing_mandatory, read_folder
from sidecar.manifest.telling import told
from sidecar.scoring import card_of, named_folder, versions


def list_models(root: Path | None, *, as_json: bool) -> int:
    """Print every model of a folder. One that cannot be read is listed with the reason, and the command ends with 1."""
    rows = list(_rows(root or shipped("models")))
    if as_json:
        sys.stdout.write(orjson.dumps(rows).decode() + "\n")
    else:
        _table(rows)
    return 1 if any(row["problems"] for row in rows) else 0


def _rows(root: Path) -> Iterator[dict[str, Any]]:
    for folder in sorted(p for p in root.iterdir() if p.is_dir()):
        known = versions(folder)
        if not known:
            continue
        row: dict[str, Any] = {"model": folder.name, "versions": [p.name for p in known], "problems": []}
        try:
            found = read_folder(known[-1])
            row |= {"digest": found.digest, "kind": found.manifest.kind, "title": found.manifest.title}
            row["missing_in_card"] = list(missing_mandatory(card_of(found)))
        except Misconfigured as error:
            row["problems"] = error.problems
        yield row


def _table(rows: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("model", "versions", "digest", "kind", "title", "card")
    for row in rows:
        if row["problems"]:
            table.add_row(row["model"], ", ".join(row["versions"]), "", "", "cannot be used: see below", "")
            continue
        lacking = len(row["missing_in_card"])
        card = "complete" if not lacking else f"{lacking} missing"
        table.add_row(row["model"], ", ".join(row["versions"]), row["digest"][:12], row["kind"], row["title"], card)
    Console().print(table)
    for problem in (problem for row in rows for problem in row["problems"]):
        sys.stderr.write(f"{problem}\n")


def read_named(name: str, root: Path | None) -> ModelFolder:
    """The folder of `NAME` (its newest version) or `NAME/VERSION`, verified.

    Raises:
        Misconfigured: there is none, or something is wrong with it.
    """
    model, _, version = name.partition("/")
    return read_folder(named_folder(root or shipped("models"), model, version or None))


def show(name: str, root: Path | None) -> int:
    """Print what a manifest says, in words."""
    found = read_named(name, root)
    sys.stdout.write("".join(f"{line}\n" for line in told(found.manifest)))
    sys.stdout.write(f"\nDigest {found.digest}\n")
    return 0


def schema(*, card: bool) -> int:
    """Print the JSON Schema of a manifest, or of a card."""
    sys.stdout.write(schema_text(Card if card else Manifest))
    return 0


def schema_text(model: type[Manifest | Card]) -> str:
    """The JSON Schema of `model`, the same text every time."""
    said = {"$schema": "https://json-schema.org/draft/2020-12/schema", **model.model_json_schema(by_alias=True)}
    return orjson.dumps(said, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS).decode() + "\n"
