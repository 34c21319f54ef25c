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
    resources = [_localised(r, names) for names in [_names(bundle)] for r in _resources(bundle)]
    patients = [r for r in resources if r.get("resourceType") == "Patient"]
    if len(patients) != 1:
        raise Rejected("no_patient:Bundle" if not patients else "several_patients:Bundle")
    who = references.identity(patients[0])
    if who is None:
        raise Rejected("grammar:Patient.id")
    clinical = tuple(r for r in resources if r.get("resourceType") in {"Observation", "Condition"})
    stays = [r for r in resources if r.get("resourceType") == "Encounter"]
    for resource in (*clinical, *stays):
        _check(resource, who)
    moment = (at or _latest(clinical, codes)).astimezone(tz)
    linked = current_encounter(clinical, None, moment)
    encounter = next((s for s in stays if linked is not None and s.get("id") == linked.id), None)
    if encounter is None and linked is None and len(stays) == 1:
        encounter = stays[0]
    return PatientSnapshot(patients[0], encounter, clinical, moment)


def _resources(bundle: Mapping[str, Any]) -> Iterable[Mapping[str, Any]]:
    entries = bundle.get("entry")
    for entry in entries if isinstance(entries, list) else ():
        resource = entry.get("resource") if isinstance(entry, Mapping) else None
        if isinstance(resource, Mapping):
            yield resource


def _names(bundle: Mapping[str, Any]) -> dict[str, str]:
    """FullUrl -> Type/id for every entry, so that urn: and absolute references inside the Bundle are found."""
    names = {}
    for entry in bundle.get("entry") or ():
        resource = entry.get("resource") if isinstance(entry, Mapping) else None
        url = entry.get("fullUrl") if isinstance(entry, Mapping) else None
        if isinstance(resource, Mapping) and isinstance(url, str):
            own = references.identity(resource)
            if own is not None:
                names[url] = own.relative
    return names


def _localised(resource: Mapping[str, Any], names: Mapping[str, str]) -> Mapping[str, Any]:
    changed = dict(resource)
    for element in ("subject", "encounter"):
        target = changed.get(element)
        if isinstance(target, Mapping) and target.get("reference") in names:
            changed[element] = {"reference": names[target["reference"]]}
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
        when = resource.get("effectiveDateTime") or resource.get("effectiveInstant")
        if not isinstance(when, str) or not codes & set(_codes(resource)):
            continue
        try:
            moment = datetime.fromisoformat(when)
        except ValueError:
            continue
        if moment.tzinfo is not None and moment <= now and (found is None or moment > found):
            found = moment
    return found or now


def _codes(resource: Mapping[str, Any]) -> Iterable[str]:
    for holder in (resource, *(resource.get("component") or ())):
        code = holder.get("code") if isinstance(holder, Mapping) else None
        for coding in (code.get("coding") or ()) if isinstance(code, Mapping) else ():
            if isinstance(coding, Mapping):
                yield f"{coding.get('system')}|{coding.get('code')}"
