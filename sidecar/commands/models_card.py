"""`sidecar models card`: a model's card for people, as Markdown or as a page. Nothing in it is run or fetched."""

import sys
from pathlib import Path
from typing import Any

from sidecar.commands.models_list import read_named
from sidecar.commands.templating import filled
from sidecar.errors import Misconfigured
from sidecar.manifest import Card, Manifest, missing_mandatory
from sidecar.manifest.attributes import GROUPS
from sidecar.scoring import card_of

_STATUS = {"provided": "", "not_available": "Not available. ", "not_applicable": "Not applicable. "}


def card(name: str, root: Path | None, *, html: bool) -> int:
    """Print the card of a model; one that lacks something mandatory says so at its head.

    Raises:
        Misconfigured: the model cannot be read, or has no card.
    """
    found = read_named(name, root)
    given = card_of(found)
    if given is None:
        raise Misconfigured([f"{found.path}: there is no card.toml"])
    sys.stdout.write(rendered(given, found.manifest, html=html))
    return 0


def rendered(given: Card, manifest: Manifest, *, html: bool) -> str:
    """The card as a page, or as Markdown; what the author wrote is text in both, and never markup."""
    return filled("card.html.j2" if html else "card.md.j2", _content(given, manifest, html=html))


def _content(given: Card, manifest: Manifest, *, html: bool) -> dict[str, Any]:
    written = str.strip if html else _as_text
    lacking = missing_mandatory(given)
    notes = [f"Not complete: {', '.join(lacking)}. It may run in shadow and not be promoted."] if lacking else []
    notes += [" ".join(manifest.acknowledgement.split())] if manifest.acknowledgement else []
    groups = []
    for title, attributes in GROUPS:
        rows = []
        for one in attributes:
            answer = given.attributes.get(one.name)
            said = "Not given." if answer is None else _STATUS[answer.status] + written(answer.text)
            rows.append({"asks": one.asks, "place": one.place, "answer": said})
        groups.append({"title": title, "attributes": rows})
    return {
        "title": written(manifest.title),
        "model": given.model,
        "version": given.version,
        "notes": [written(note) for note in notes],
        "objective": written(given.measurable_objective) or "Not given.",
        "responder": written(given.responder) or "Not given.",
        "groups": groups,
        "hazards": [{k: written(v) for k, v in hazard.model_dump().items()} for hazard in given.hazards],
        "sections": [{k: written(v) for k, v in section.model_dump().items()} for section in given.sections],
        "sources": [written(source) for source in given.sources],
    }


def _as_text(text: str) -> str:
    """Text that Markdown does not take for HTML."""
    return text.strip().replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
