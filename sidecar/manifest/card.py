"""A model's card (`card.toml`): what a risk officer must know before the model may write into a chart.

Closed, as the manifest is. It holds the 31 source attributes of HTI-1, the objective that can be measured, who answers,
and the hazards. `sidecar models card` renders it; a promotion asks `missing_mandatory`.
"""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator

from sidecar import toml
from sidecar.manifest.attributes import ATTRIBUTES
from sidecar.manifest.codes import Closed
from sidecar.toml import Name

FILE = "card.toml"
UNFILLED = "FILL IN"
"""Stands in a scaffold where the author has to write; what still holds it is not given."""
Status = Literal["provided", "not_available", "not_applicable"]
Text = Annotated[str, Field(max_length=20_000)]


class Attribute(Closed):
    """The answer to one source attribute; of what is not provided, `text` says why."""

    status: Status
    text: Text


class Hazard(Closed):
    """What may go wrong, whom it harms and how, and what is done about it."""

    hazard: Text
    harm: Text
    control: Text


class Section(Closed):
    """Anything else that a reader should know."""

    title: Text
    text: Text


class Card(Closed):
    """The card of one version of a model.

    `responder` is the role that answers for what the model says at any hour. `sources` are citations.
    """

    schema_version: Literal[1] = Field(alias="schema")
    model: Name
    version: str = Field(pattern=r"^\d+\.\d+\.\d+$")
    measurable_objective: Text = ""
    responder: Text = ""
    sources: tuple[Text, ...] = ()
    hazards: tuple[Hazard, ...] = ()
    attributes: dict[str, Attribute] = Field(default_factory=dict)
    sections: tuple[Section, ...] = ()

    @field_validator("attributes")
    @classmethod
    def _are_of_the_rule(cls, given: dict[str, Attribute]) -> dict[str, Attribute]:
        if stray := sorted(set(given) - set(ATTRIBUTES)):
            raise ValueError(f"no source attribute is called {', '.join(stray)}; there are: {', '.join(ATTRIBUTES)}")
        return given


def load_card(path: Path) -> Card:
    """Read one card.

    Raises:
        Misconfigured: naming file, line and what was probably meant.
    """
    return toml.load(path, Card)


def parse_card(text: str, source: str) -> Card:
    """A card from its text; `source` names it in problems.

    Raises:
        Misconfigured: see `load_card`.
    """
    return toml.parse(text, source, Card)


def missing_mandatory(card: Card | None) -> tuple[str, ...]:
    """The names of what a promotion needs and the card does not give, in the card's order; none when it is complete.

    Mandatory are the measurable objective, the responder, one hazard at least, and each source attribute but those of
    validation elsewhere, at the site and of outcomes, of which "not available" is an answer, though not to be silent.
    """
    if card is None:
        return ("measurable_objective", "responder", "hazards", *ATTRIBUTES)
    missing = [name for name in ("measurable_objective", "responder") if not _said(getattr(card, name))]
    hazards = [h for h in card.hazards if _said(h.hazard) and _said(h.harm) and _said(h.control)]
    if not hazards or len(hazards) < len(card.hazards):
        missing.append("hazards")
    return (*missing, *(name for name in ATTRIBUTES if not _answered(card, name)))


def _answered(card: Card, name: str) -> bool:
    given, must = card.attributes.get(name), ATTRIBUTES[name].must
    if given is None or not _said(given.text):
        return False
    refused = {"provided": {"not_available", "not_applicable"}, "answered": {"not_available"}, "open": set()}[must]
    return given.status not in refused


def _said(text: str) -> bool:
    return bool(text.strip()) and UNFILLED not in text
