"""A patient's context from a Bundle in a file: the same snapshot, without an EHR."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from sidecar.context.reader import current_encounter
from sidecar.errors import Rejected
from sidecar.fhir import references
from sidecar.records import PatientSnapshot, Reference, is_fhir_id

Resource = Mapping[str, Any]


def from_bundle(bundle: object, codes: frozenset[str], at: datetime | None, tz: Any) -> PatientSnapshot:
    """The snapshot of the one Patient in `bundle`, seen from `at`.

    Without `at` the moment is the latest reading with one of `codes` that is not in the future, so a Bundle from the
    past is judged at its own time; with no reading at all it is now. `urn:uuid` references resolve by fullUrl.

    Raises:
        Rejected: not a Bundle, no or several Patients, an id outside FHIR's grammar, another patient's resource.
    """
    if not isinstance(bundle, Mapping) or bundle.get("resourceType") != "Bundle":
        raise Rejected("shape:Bundle")
    found = _by_type(bundle)
    patients, stays = found["Patient"], found["Encounter"]
    if len(patients) != 1:
        raise Rejected("no_patient:Bundle" if not patients else "several_patients:Bundle")
    who = references.identity(patients[0])
    if who is None:
        raise Rejected("grammar:Patient.id")
    clinical = [*found["Observation"], *found["Condition"]]
    _check((*clinical, *stays), who)
    if at is not None:
        clinical = _as_of(clinical, at)
    readings = [r for r in clinical if not codes.isdisjoint(references.codes(r))]
    moment = (at or _latest(readings)).astimezone(tz)
    linked = current_encounter((r for r in readings if not _begins_after(r, moment)), None, moment)
    encounter = next((s for s in stays if linked is not None and s.get("id") == linked.id), None)
    if encounter is None and linked is None and len(stays) == 1:
        encounter = stays[0]
    return PatientSnapshot(patients[0], encounter, tuple(r for r in clinical if not _begins_after(r, moment)), moment)


def _as_of(resources: list[Resource], at: datetime) -> list[Resource]:
    """What was known at `at`. A code that has nothing but later readings keeps them, to be named as such."""
    later = [(m := _moment(r)) is not None and m > at for r in resources]
    known = {c for r, is_later in zip(resources, later, strict=True) if not is_later for c in references.codes(r)}
    return [
        r for r, is_later in zip(resources, later, strict=True) if not is_later or known.isdisjoint(references.codes(r))
    ]


def _begins_after(resource: Resource, moment: datetime) -> bool:
    """Whether a Condition was not there at `moment`: it began later, or on a later day, or else was recorded then."""
    if resource.get("resourceType") != "Condition":
        return False
    period = resource.get("onsetPeriod")
    start = period.get("start") if isinstance(period, dict) else None
    written = resource.get("onsetDateTime") or start or resource.get("recordedDate")
    exact = _instant(written)
    if exact is not None:
        return exact > moment
    # A partial date is after a day when it is after the same part of it.
    return isinstance(written, str) and "T" not in written and written > moment.date().isoformat()[: len(written)]


def _by_type(bundle: Resource) -> dict[str, list[Resource]]:
    """The resources of the types that a snapshot is made of, each with its references inside the Bundle resolved."""
    listed = bundle.get("entry")
    entries = [e for e in listed if isinstance(e, dict)] if isinstance(listed, list) else []
    named = {url: e.get("resource") for e in entries if isinstance(url := e.get("fullUrl"), str)}
    found: dict[str, list[Resource]] = {"Patient": [], "Encounter": [], "Observation": [], "Condition": []}
    for entry in entries:
        resource = entry.get("resource")
        if isinstance(resource, dict) and (kind := str(resource.get("resourceType"))) in found:
            found[kind].append(_localised(resource, named))
    return found


def _localised(resource: Resource, named: Mapping[str, object]) -> Resource:
    """The resource with `Type/id` in place of a fullUrl of the Bundle, so that urn: references are found."""
    for element in ("subject", "encounter"):
        target = resource.get(element)
        written = target.get("reference") if isinstance(target, dict) else None
        named_by = named.get(written) if isinstance(written, str) else None
        own = references.identity(named_by) if isinstance(named_by, dict) else None
        if own is not None:
            resource = {**resource, element: {"reference": own.relative}}
    return resource


def _check(resources: Iterable[Resource], who: Reference) -> None:
    """Everything in the Bundle that counts is this patient's, and can be pointed to."""
    known = {who.relative}
    for resource in resources:
        if not is_fhir_id(resource.get("id")):
            raise Rejected(f"grammar:{resource.get('resourceType')}.id")
        subject = resource.get("subject")
        written = subject.get("reference") if isinstance(subject, dict) else None
        if isinstance(written, str) and written not in known:
            named = references.parse(written)
            written = None if named is None or named.relative != who.relative else written
        if not isinstance(written, str):
            raise Rejected("another_patient")
        known.add(written)


def _latest(readings: Iterable[Resource]) -> datetime:
    """The time of the newest reading, never later than now."""
    now = datetime.now(UTC)
    return max((m for r in readings if (m := _moment(r)) is not None and m <= now), default=now)


def _moment(resource: Resource) -> datetime | None:
    """When a reading was taken, as `sidecar.deid` reads it; None without a time of day, or before there were EHRs."""
    moment = _instant(resource.get("effectiveDateTime")) or _instant(resource.get("effectiveInstant"))
    period = resource.get("effectivePeriod")
    if moment is None and isinstance(period, dict):
        moment = _instant(period.get("end")) or _instant(period.get("start"))
    return moment


def _instant(written: object) -> datetime | None:
    try:
        moment = datetime.fromisoformat(written) if isinstance(written, str) else None
    except ValueError:
        return None
    return moment if moment is not None and moment.tzinfo is not None and moment.year >= 1900 else None
