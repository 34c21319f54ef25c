"""The unit of a patient's open stay, for canaries that go by unit. It is compared and never stored."""

from collections.abc import Iterable, Mapping
from typing import Any

from sidecar.context.statements import OPEN
from sidecar.fhir import references
from sidecar.fhir.client import EhrClient
from sidecar.records import PatientId

WARD = "wa"
"""https://terminology.hl7.org/CodeSystem-location-physical-type.html"""


async def unit_of(client: EhrClient, patient: PatientId) -> str | None:
    """Where the patient is now: the ward of the open stay, else its location, else who provides it; None if unsaid.

    Raises:
        Unavailable, Retryable, Rejected: the EHR did not answer, or not usably.
    """
    query = {"patient": patient.value, "status": ",".join(OPEN)}
    stays = [
        stay
        async for stay in client.search("Encounter", query)
        if (whose := references.of(stay.get("subject"), client.base_url)) is not None and whose.id == patient.value
    ]
    newest = max(stays, key=_began, default=None)
    return None if newest is None else _unit(newest, client.base_url)


def _began(stay: Mapping[str, Any]) -> str:
    period = stay.get("period")
    return str(period.get("start", "")) if isinstance(period, Mapping) else ""


def _unit(stay: Mapping[str, Any], base_url: str) -> str | None:
    listed = stay.get("location")
    there = [place for place in listed if isinstance(place, Mapping)] if isinstance(listed, list) else []
    now = [p for p in there if p.get("status") in {None, "active"} and not _has_ended(p.get("period"))]
    wards = [p for p in now if WARD in _codes(p.get("physicalType"))]
    places = [p.get("location") for p in wards or now] + [stay.get("serviceProvider")]
    named = (references.of(place, base_url) for place in places)
    return next((reference.relative for reference in named if reference is not None), None)


def _has_ended(period: object) -> bool:
    return isinstance(period, Mapping) and bool(period.get("end"))


def _codes(concept: object) -> Iterable[object]:
    codings = concept.get("coding") if isinstance(concept, Mapping) else None
    return [c.get("code") for c in codings if isinstance(c, Mapping)] if isinstance(codings, list) else []
