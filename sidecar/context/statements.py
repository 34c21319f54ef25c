"""What a context reads besides plain readings: stays, diagnoses, orders, procedures, and readings of a whole window.

Nothing is cut in silence: a count, a sum or a list of diagnoses of which a part is missing would be a wrong number, so
a patient of whom there is more than the bound is not scored, for that reason.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sidecar.errors import Rejected
from sidecar.fhir import references
from sidecar.fhir.capability import Capability
from sidecar.fhir.client import EhrClient, Query
from sidecar.manifest import OVER_WINDOW, FeatureSpec, Manifest
from sidecar.records import PatientId, Reference, later

MAX_STATEMENTS = 2000
MAX_CODES = 60
"""More codes than these are not put into a query: all statements of the type are read instead."""
PAGE = 200
LONGEST_STAY = timedelta(days=366)
"""How long ago a stay may have begun that is still the present one."""
EVER = timedelta(days=20 * 365)
_BATCH = 50
OPEN = ("arrived", "triaged", "in-progress", "onleave")
NEVER_WAS = ("planned", "cancelled", "entered-in-error")
"""What a stay is that the patient has not been in."""
# By which search parameter a type is placed in time. What holds until it is over is read from the beginning.
_DATES: Mapping[str, str] = {
    "Encounter": "date",
    "Procedure": "date",
    "MedicationAdministration": "effective-time",
    "DiagnosticReport": "date",
    "Immunization": "date",
    "Appointment": "date",
}
_IN_ERROR = "entered-in-error"
MEDICINES = frozenset({"MedicationRequest", "MedicationStatement", "MedicationAdministration"})
Resource = Mapping[str, Any]
Found = list[Resource]


@dataclass(frozen=True, slots=True)
class Whole:
    """A search for everything: a type, its codes (none is all), and how far back (None is ever).

    With `of_stay` it is as far back from the beginning of the present stay.
    """

    type: str
    codes: tuple[str, ...] = ()
    reach: timedelta | None = None
    of_stay: bool = False


def wholes(manifest: Manifest, max_age: Mapping[str, timedelta]) -> tuple[Whole, ...]:
    """What must be read as a whole for a manifest's features, with the maximum ages that a site chose."""
    found: dict[str, list[FeatureSpec]] = {}
    for name, spec in manifest.features.items():
        feature = spec.model_copy(update={"max_age": max_age[name]}) if name in max_age else spec
        for kind in {s.type for s in feature.sources}:
            found.setdefault(kind, []).append(feature)
    if manifest.of_present_stay:
        found.setdefault("Encounter", [])
    observations = [f for f in found.pop("Observation", []) if read_whole(f)]
    listed = manifest.codes_of("Condition")
    if "Condition" in found and not (len(listed) > MAX_CODES or any("*" in code for code in listed)):
        del found["Condition"]  # these few are asked for by their codes
    others = [Whole(kind, (), _reach(kind, features)) for kind, features in sorted(found.items())]
    return (*others, *_readings(observations))


def read_whole(feature: FeatureSpec) -> bool:
    """Whether all readings of its window are needed, and lie further back than what is read at once."""
    over = feature.select in OVER_WINDOW and feature.reach > timedelta(days=2)
    return feature.apart is None and (feature.anchor == "encounter" or over)


def _readings(features: Iterable[FeatureSpec]) -> Iterable[Whole]:
    for of_stay in (False, True):
        group = [f for f in features if (f.anchor == "encounter") is of_stay]
        codes = sorted({code for f in group for code in f.codes("Observation")})
        if codes:
            reach = max(f.window or timedelta(0) if of_stay else f.reach for f in group)
            yield Whole("Observation", tuple(codes), reach, of_stay)


def _reach(kind: str, features: Iterable[FeatureSpec]) -> timedelta | None:
    if kind not in _DATES:
        return None
    reaches = [f.reach + (LONGEST_STAY if f.anchor == "encounter" else timedelta(0)) for f in features]
    longest = max(reaches, default=LONGEST_STAY)
    return None if longest >= EVER else max(longest, LONGEST_STAY if kind == "Encounter" else longest)


def present_stay(stays: Iterable[Resource], classes: frozenset[str], at: datetime) -> Resource | None:
    """The newest stay of one of `classes` that had begun at `at`; an open one before those that have ended."""
    counted = [
        s
        for s in stays
        if s.get("status") not in NEVER_WAS and (_of(s, classes)) and (start_of(s) or 0.0) <= at.timestamp()
    ]
    return max(counted, key=lambda s: (s.get("status") in OPEN, start_of(s) or 0.0, str(s.get("id"))), default=None)


def _of(stay: Resource, classes: frozenset[str]) -> bool:
    return not classes or references.named(stay, classes)


def start_of(stay: Resource) -> float | None:
    """When a stay began; of a date without a time of day, the beginning of that day in UTC."""
    period = stay.get("period")
    written = period.get("start") if isinstance(period, Mapping) else None
    try:
        moment = datetime.fromisoformat(written) if isinstance(written, str) else None
    except ValueError:
        return None
    return None if moment is None else (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


class StatementReader:
    """Reads everything of a type about a patient, as far back as it matters, with medicines looked up."""

    def __init__(
        self, client: EhrClient, patient: PatientId, at: datetime, until: datetime | None, capability: Capability
    ) -> None:
        self._client, self._patient, self._at, self._until = client, patient, at, until
        self._capability = capability

    async def read_each(self, wholes: Iterable[Whole], since: datetime | None = None) -> Found:
        """All that `wholes` name.

        Raises:
            Rejected: see `read`.
        """
        each = await asyncio.gather(*(self.read(whole, since) for whole in wholes))
        return [resource for found in each for resource in found]

    async def read(self, whole: Whole, since: datetime | None = None) -> Found:
        """All that `whole` names, from `since` where it is of the stay.

        Raises:
            Rejected: there is more than can be read, or a medicine that an order names is not there.
        """
        found: Found = []
        brought: Found = []
        include = f"{whole.type}:medication"
        brings = whole.type in MEDICINES and include in self._capability.of(whole.type).include
        async for resource in self._client.search(whole.type, self._query(whole, since, include if brings else "")):
            (found if resource.get("resourceType") == whole.type else brought).append(resource)
            if len(found) > MAX_STATEMENTS:
                raise Rejected(f"too_many:{whole.type.lower()}")
        return await self._with_medicines(found, brought) if whole.type in MEDICINES else found

    def _query(self, whole: Whole, since: datetime | None, include: str) -> Query:
        query: dict[str, Any] = {"patient": self._patient.value}
        if whole.codes:
            query["code"] = ",".join(whole.codes)
        start = later(since or self._at, -whole.reach) if whole.reach is not None else None
        parameter = _DATES.get(whole.type, "date")
        dates = [f"ge{_text(start)}"] if start is not None else []
        if self._until is not None and whole.type == "Observation":
            dates.append(f"le{_text(self._until)}")
        if dates:
            query[parameter] = tuple(dates)
        if include:
            query["_include"] = include
        return {**query, "_count": str(PAGE)}

    async def _with_medicines(self, found: Found, brought: Found) -> Found:
        """The orders, each with the concept of the Medication that it refers to in its place."""
        base_url = self._client.base_url
        known = {m.get("id"): m for m in brought if m.get("resourceType") == "Medication"}
        wanted = {r.id for order in found if (r := medicine_of(order, base_url)) is not None} - set(known)
        ids = sorted(wanted)
        for first in range(0, len(ids), _BATCH):
            query = {"_id": ",".join(ids[first : first + _BATCH]), "_count": str(_BATCH)}
            async for resource in self._client.search("Medication", query):
                known[resource.get("id")] = resource
        for logical_id in sorted(wanted - set(known)):
            single = await self._client.read(Reference("Medication", logical_id))
            if single is not None:
                known[logical_id] = single
        return [with_concept(order, lambda r: known.get(r.id), base_url) for order in found]


def medicine_of(order: Resource, base_url: str | None) -> Reference | None:
    """The Medication, outside of itself, that an order refers to in place of saying what it is."""
    if order.get("medicationCodeableConcept") is not None:
        return None
    named = references.of(order.get("medicationReference"), base_url)
    return named if named is not None and named.type == "Medication" else None


def with_concept(order: Resource, find: Callable[[Reference], Resource | None], base_url: str | None) -> Resource:
    """`order` with what it orders in it, and with the labels and modifiers of the Medication that says so.

    Raises:
        Rejected: it refers to a Medication that is not there, was entered in error or does not say what it is: what is
            not known cannot be counted as not taken. An order that is itself in error orders nothing.
    """
    target = order.get("medicationReference")
    if target is None or order.get("medicationCodeableConcept") is not None or order.get("status") == _IN_ERROR:
        return order
    written = target.get("reference") if isinstance(target, Mapping) else None
    medicine: Resource | None = None
    if isinstance(written, str) and written.startswith("#"):
        contained = order.get("contained")
        listed = contained if isinstance(contained, list) else []
        medicine = next((c for c in listed if isinstance(c, dict) and c.get("id") == written[1:]), None)
    elif (named := medicine_of(order, base_url)) is not None:
        medicine = find(named)
    if medicine is None or medicine.get("status") == _IN_ERROR or not isinstance(medicine.get("code"), dict):
        raise Rejected("gone:medication")
    return _labelled({**order, "medicationCodeableConcept": medicine["code"]}, medicine)


def _labelled(order: dict[str, Any], medicine: Resource) -> Resource:
    """`order` with whatever of its Medication says how it must be treated or that it means something else."""
    own, theirs = (meta if isinstance(meta := each.get("meta"), Mapping) else {} for each in (order, medicine))
    if isinstance(labels := theirs.get("security"), list) and labels:
        before = own.get("security")
        order["meta"] = {**own, "security": [*(before if isinstance(before, list) else []), *labels]}
    if _is_modified(medicine):
        order["modifierExtension"] = order.get("modifierExtension") or []
    for name in ("implicitRules", "_implicitRules"):
        if medicine.get(name) is not None:
            order[name] = medicine[name]
    return order


def _is_modified(resource: Resource) -> bool:
    """Whether anything in a resource has a modifier."""
    # A stack and no recursion: how deep it is nested is not ours to say.
    stack: list[Any] = [resource]
    while stack:
        each = stack.pop()
        if isinstance(each, Mapping):
            if each.get("modifierExtension") is not None:
                return True
            stack.extend(each.values())
        elif isinstance(each, list):
            stack.extend(each)
    return False


def _text(moment: datetime) -> str:
    return moment.isoformat(timespec="seconds")
