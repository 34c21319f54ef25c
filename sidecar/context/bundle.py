"""A patient's context from a Bundle in a file: the same snapshot, without an EHR."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from sidecar.context.reader import current_encounter
from sidecar.errors import Rejected
from sidecar.fhir import references
from sidecar.records import PatientSnapshot, Reference


def from_bundle(bundle: object, codes: frozenset[str], at: datetime | None, tz: Any) -> PatientSnapshot:
    """The snapshot of the one Patient in `bundle`, seen from `at`.

    Without `at` the moment is the latest reading with one of `codes` that is not in the future, so a Bundle from the
    past is judged at its own time; with no reading at all it is now. `urn:uuid` references resolve by fullUrl.

    Raises:
        Rejected: not a Bundle, no or several Patients, an id outside FHIR's grammar, another patient's resource.
    """
    if not isinstance(bundle, Mapping) or bundle.get("resourceType") != "Bundle":
        raise Rejected("shape:Bundle")
    resources = [_localised(r, names) for names in [_names(bundle)] for _, r in _entries(bundle)]
    patients = [r for r in resources if r.get("resourceType") == "Patient"]
    if len(patients) != 1:
        raise Rejected("no_patient:Bundle" if not patients else "several_patients:Bundle")
    who = references.identity(patients[0])
    if who is None:
        raise Rejected("grammar:Patient.id")
    clinical = tuple(r for kind in ("Observation", "Condition") for r in resources if r.get("resourceType") == kind)
    stays = [r for r in resources if r.get("resourceType") == "Encounter"]
    for resource in (*clinical, *stays):
        _check(resource, who)
    if at is not None:
        clinical = _as_of(clinical, at)
    moment = (at or _latest(clinical, codes)).astimezone(tz)
    clinical = tuple(r for r in clinical if not _begins_after(r, moment))
    linked = current_encounter((r for r in clinical if codes & references.codes(r)), None, moment)
    encounter = next((s for s in stays if linked is not None and s.get("id") == linked.id), None)
    if encounter is None and linked is None and len(stays) == 1:
        encounter = stays[0]
    return PatientSnapshot(patients[0], encounter, clinical, moment)


def _as_of(resources: tuple[Mapping[str, Any], ...], at: datetime) -> tuple[Mapping[str, Any], ...]:
    """What was known at `at`. A code that has nothing but later readings keeps them, to be named as such."""
    later = {id(r) for r in resources if (m := _moment(r)) is not None and m > at}
    known = {c for r in resources if id(r) not in later for c in references.codes(r)}
    return tuple(r for r in resources if id(r) not in later or not references.codes(r) & known)


def _begins_after(resource: Mapping[str, Any], moment: datetime) -> bool:
    """Whether a Condition was not there at `moment`: it began later, or on a later day, or else was recorded then."""
    if resource.get("resourceType") != "Condition":
        return False
    period = resource.get("onsetPeriod")
    start = period.get("start") if isinstance(period, Mapping) else None
    written = resource.get("onsetDateTime") or start or resource.get("recordedDate")
    exact = _instant(written)
    if exact is not None:
        return exact > moment
    # A partial date is after a day when it is after the same part of it.
    return isinstance(written, str) and "T" not in written and written > moment.date().isoformat()[: len(written)]


def _entries(bundle: Mapping[str, Any]) -> Iterable[tuple[Mapping[str, Any], Mapping[str, Any]]]:
    entries = bundle.get("entry")
    for entry in entries if isinstance(entries, list) else ():
        resource = entry.get("resource") if isinstance(entry, Mapping) else None
        if isinstance(resource, Mapping):
            yield entry, resource


def _names(bundle: Mapping[str, Any]) -> dict[str, str]:
    """FullUrl -> Type/id for every entry, so that urn: and absolute references inside the Bundle are found."""
    names = {}
    for entry, resource in _entries(bundle):
        url, own = entry.get("fullUrl"), references.identity(resource)
        if isinstance(url, str) and own is not None:
            names[url] = own.relative
    return names


def _localised(resource: Mapping[str, Any], names: Mapping[str, str]) -> Mapping[str, Any]:
    changed = dict(resource)
    for element in ("subject", "encounter"):
        target = changed.get(element)
        written = target.get("reference") if isinstance(target, Mapping) else None
        if isinstance(written, str) and written in names:
            changed[element] = {"reference": names[written]}
    return changed


def _check(resource: Mapping[str, Any], who: Reference) -> None:
    kind = str(resource.get("resourceType"))
    if references.identity(resource) is None:
        raise Rejected(f"grammar:{kind}.id")
    subject = references.of(resource.get("subject"))
    if subject is None or (subject.type, subject.id) != (who.type, who.id):
        raise Rejected("another_patient")


def _latest(resources: Iterable[Mapping[str, Any]], codes: frozenset[str]) -> datetime:
    """The time of the newest reading with one of `codes`, never later than now."""
    now = datetime.now(UTC)
    found: datetime | None = None
    for resource in resources:
        moment = _moment(resource)
        if moment is None or moment > now or not codes & references.codes(resource):
            continue
        if found is None or moment > found:
            found = moment
    return found or now


def _moment(resource: Mapping[str, Any]) -> datetime | None:
    """When a reading was taken, as `sidecar.deid` reads it; None without a time of day, or before there were EHRs."""
    period = resource.get("effectivePeriod")
    ends = (period.get("end"), period.get("start")) if isinstance(period, Mapping) else ()
    found = map(_instant, (resource.get("effectiveDateTime"), resource.get("effectiveInstant"), *ends))
    return next((moment for moment in found if moment is not None), None)


def _instant(written: object) -> datetime | None:
    try:
        moment = datetime.fromisoformat(written) if isinstance(written, str) else None
    except ValueError:
        return None
    return moment if moment is not None and moment.tzinfo is not None and moment.year >= 1900 else None
