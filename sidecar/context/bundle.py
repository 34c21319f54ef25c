"""A patient's context from a Bundle in a file: the same snapshot, without an EHR."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from sidecar.context.reader import current_encounter
from sidecar.context.statements import MEDICINES, NEVER_WAS, OPEN, present_stay, start_of, with_concept
from sidecar.errors import Rejected
from sidecar.fhir import references
from sidecar.manifest import SOURCE_TYPES
from sidecar.records import PatientSnapshot, Reference, is_fhir_id

Resource = Mapping[str, Any]
_APART = frozenset({"Observation", "Condition", "Encounter"})


def from_bundle(
    bundle: object, codes: frozenset[str], at: datetime | None, tz: Any, classes: frozenset[str] = frozenset()
) -> PatientSnapshot:
    """The snapshot of the one Patient in `bundle`, seen from `at`.

    Without `at` the moment is the latest reading with one of `codes` that is not in the future, so a Bundle from the
    past is judged at its own time; of a model that reads none it is the end of the newest stay of `classes`; else it is
    now. With `classes` the present stay is the newest of those. `urn:uuid` references resolve by fullUrl.

    Raises:
        Rejected: not a Bundle, no or several Patients, an id outside FHIR's grammar, another patient's resource, a
            medicine that is not in the Bundle.
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
    others = _others(found)
    _check((*clinical, *stays, *others), who)
    if at is not None:
        clinical = _as_of(clinical, at)
    readings = [r for r in clinical if not codes.isdisjoint(references.codes(r))]
    moment = (at or _latest(readings, stays, classes)).astimezone(tz)
    linked = current_encounter((r for r in readings if not _begins_after(r, moment)), None, moment)
    encounter = present_stay(stays, classes, moment) if classes else _stay(stays, linked)
    there = [r for r in clinical if not _begins_after(r, moment)]
    return PatientSnapshot(patients[0], encounter, (*there, *others, *stays), moment)


def _stay(stays: list[Resource], linked: Reference | None) -> Resource | None:
    """The stay that a reading names, or the only one; an open one in the place of one that never was."""
    been = [s for s in stays if s.get("status") not in NEVER_WAS]
    if linked is None:
        return been[0] if len(been) == 1 else None
    named = next((s for s in stays if s.get("id") == linked.id), None)
    if named is None or named.get("status") not in NEVER_WAS:
        return named
    return max((s for s in been if s.get("status") in OPEN), key=lambda s: start_of(s) or 0.0, default=named)


def _others(found: Mapping[str, list[Resource]]) -> list[Resource]:
    """Statements of the other types, each medicine with what it is."""
    medicines = {m.get("id"): m for m in found["Medication"]}
    listed = [r for kind in SOURCE_TYPES if kind not in _APART | MEDICINES for r in found[kind]]
    return listed + [with_concept(r, lambda m: medicines.get(m.id), None) for k in sorted(MEDICINES) for r in found[k]]


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
    found: dict[str, list[Resource]] = {kind: [] for kind in ("Patient", "Medication", *SOURCE_TYPES)}
    for entry in entries:
        resource = entry.get("resource")
        if isinstance(resource, dict) and (kind := str(resource.get("resourceType"))) in found:
            found[kind].append(_localised(resource, named))
    return found


def _localised(resource: Resource, named: Mapping[str, object]) -> Resource:
    """The resource with `Type/id` in place of a fullUrl of the Bundle, so that urn: references are found."""
    for element in ("subject", "patient", "encounter", "medicationReference"):
        target = resource.get(element)
        written = target.get("reference") if isinstance(target, dict) else None
        named_by = named.get(written) if isinstance(written, str) else None
        own = references.identity(named_by) if isinstance(named_by, dict) else None
        if own is not None:
            resource = {**resource, element: {"reference": own.relative}}
    if resource.get("resourceType") == "Appointment" and isinstance(taking_part := resource.get("participant"), list):
        each = [p if not isinstance(p, dict) else {**p, "actor": _actor(p.get("actor"), named)} for p in taking_part]
        return {**resource, "participant": each}
    return resource


def _actor(actor: object, named: Mapping[str, object]) -> object:
    written = actor.get("reference") if isinstance(actor, dict) else None
    target = named.get(written) if isinstance(written, str) else None
    own = references.identity(target) if isinstance(target, dict) else None
    return actor if own is None else {"reference": own.relative}


def _check(resources: Iterable[Resource], who: Reference) -> None:
    """Everything in the Bundle that counts is this patient's, and can be pointed to."""
    known = {who.relative}
    for resource in resources:
        if not is_fhir_id(resource.get("id")):
            raise Rejected(f"grammar:{resource.get('resourceType')}.id")
        if not any(_names(subject, who, known) for subject in references.subjects(resource)):
            raise Rejected("another_patient")


def _names(subject: object, who: Reference, known: set[str]) -> bool:
    """Whether an element refers to `who`; `known` are the ways it was written so far."""
    written = subject.get("reference") if isinstance(subject, dict) else None
    if not isinstance(written, str):
        return False
    if written not in known:
        named = references.parse(written)
        if named is None or named.relative != who.relative:
            return False
        known.add(written)
    return True


def _latest(readings: Iterable[Resource], stays: Iterable[Resource], classes: frozenset[str]) -> datetime:
    """The time of the newest reading, or the end of the newest stay; never later than now."""
    now = datetime.now(UTC)
    newest = max((m for r in readings if (m := _moment(r)) is not None and m <= now), default=None)
    if newest is not None:
        return newest
    stay = present_stay(stays, classes, now) if classes else None
    period = stay.get("period") if stay is not None else None
    ended = _instant(period.get("end")) if isinstance(period, dict) else None
    return now if ended is None or ended > now else ended


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
