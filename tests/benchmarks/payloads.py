"""Charts and notifications of synthetic people, of the size that EHRs send. Pure: every time is relative to `now`.

Patients are `p0`, `p1`, …; reading `k` of a patient, counted from the newest, is `o-{patient}-{k}`. An id says all
about its resource, so the EHR of a benchmark keeps no charts.
"""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

LOINC = "http://loinc.org"
TOPIC = "http://example.org/topic/observation-change"
# code: name, UCUM unit, a usual value, and how far a reading may be from it
USED = {
    "8867-4": ("Heart rate", "/min", 78.0, 30.0),
    "9279-1": ("Respiratory rate", "/min", 16.0, 8.0),
    "8310-5": ("Body temperature", "Cel", 37.0, 2.0),
    "59408-5": ("Oxygen saturation", "%", 95.0, 5.0),
    "8480-6": ("Systolic blood pressure", "mm[Hg]", 124.0, 40.0),
    "8462-4": ("Diastolic blood pressure", "mm[Hg]", 76.0, 20.0),
    "2160-0": ("Creatinine", "mg/dL", 1.1, 0.6),
}
"""What the benchmark's model reads."""
OTHERS = {
    "2951-2": ("Sodium", "mmol/L", 139.0, 6.0),
    "2823-3": ("Potassium", "mmol/L", 4.1, 0.8),
    "6690-2": ("Leukocytes", "10*3/uL", 7.5, 4.0),
    "718-7": ("Hemoglobin", "g/dL", 13.2, 3.0),
    "777-3": ("Platelets", "10*3/uL", 240.0, 90.0),
    "1975-2": ("Bilirubin", "mg/dL", 0.7, 0.4),
    "2524-7": ("Lactate", "mmol/L", 1.2, 0.9),
    "2345-7": ("Glucose", "mg/dL", 104.0, 40.0),
}
EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
"""A moment for charts that nobody reads."""
REACH = timedelta(hours=20)
"""The oldest reading of a chart is this old, and the newest a minute."""


@dataclass(frozen=True, slots=True)
class Chart:
    """A patient's readings in the EHR at `base`, newest first, as of `now`: `size` of them, over `codes` in turn."""

    now: datetime
    base: str
    size: int = 50
    codes: tuple[str, ...] = (*USED, *OTHERS)

    def at(self, k: int) -> datetime:
        """When reading `k` was taken."""
        return self.now - timedelta(minutes=1) - k * (REACH - timedelta(minutes=1)) / max(1, self.size - 1)

    def code(self, k: int) -> str:
        """What reading `k` is of."""
        return self.codes[k % len(self.codes)]

    def telling(self, event: int) -> int:
        """The reading that a patient's `event`-th notification is about; always one that the model reads."""
        used = [k for k in range(self.size) if self.code(k) in USED]
        return used[event % len(used)]

    def reading(self, patient: str, k: int, version: int = 1) -> dict[str, Any]:
        """Reading `k` of `patient`; another version has another value."""
        code = self.code(k)
        name, unit, usual, spread = (USED | OTHERS)[code]
        value = round(usual + spread * ((k * 7 + version * 3) % 19 - 9) / 18, 1)
        taken = _instant(self.at(k))
        return {
            "resourceType": "Observation",
            "id": f"o-{patient}-{k}",
            "meta": {
                "versionId": str(version),
                "lastUpdated": _instant(self.now),
                "profile": ["http://hl7.org/fhir/StructureDefinition/vitalsigns"],
            },
            "identifier": [{"system": "urn:ehr:obs", "value": f"O-{patient}-{k}"}],
            "status": "final",
            "category": [_coded("http://terminology.hl7.org/CodeSystem/observation-category", "vital-signs")],
            "code": {"coding": [{"system": LOINC, "code": code, "display": name}], "text": name},
            "subject": {"reference": f"Patient/{patient}"},
            "encounter": {"reference": f"Encounter/e-{patient}"},
            "effectiveDateTime": taken,
            "issued": taken,
            "performer": [{"reference": f"{self.base}/Practitioner/pr1"}],
            "valueQuantity": {"value": value, "unit": unit, "system": "http://unitsofmeasure.org", "code": unit},
            "interpretation": [_coded("http://terminology.hl7.org/CodeSystem/v3-ObservationInterpretation", "N")],
            "referenceRange": [
                {"low": {"value": usual - spread, "unit": unit}, "high": {"value": usual, "unit": unit}}
            ],
        }


def patient(logical_id: str) -> dict[str, Any]:
    """An adult with what a Patient usually carries, most of which nobody may need."""
    return {
        "resourceType": "Patient",
        "id": logical_id,
        "meta": {"versionId": "3", "lastUpdated": "2026-02-01T10:00:00Z"},
        "identifier": [
            {
                "use": "usual",
                "type": _coded("http://terminology.hl7.org/CodeSystem/v2-0203", "MR"),
                "system": "urn:mrn",
                "value": f"M-{logical_id}",
            }
        ],
        "active": True,
        "name": [{"use": "official", "family": "Doe", "given": ["Jane", "Q"]}],
        "telecom": [
            {"system": "phone", "value": "555-0100", "use": "home"},
            {"system": "email", "value": "j@example.org"},
        ],
        "gender": "female",
        "birthDate": "1956-05-04",
        "address": [
            {
                "use": "home",
                "line": ["1 Main St"],
                "city": "Springfield",
                "state": "MA",
                "postalCode": "01101",
                "country": "US",
            }
        ],
        "maritalStatus": _coded("http://terminology.hl7.org/CodeSystem/v3-MaritalStatus", "M"),
        "communication": [{"language": _coded("urn:ietf:bcp:47", "en-US")}],
        "generalPractitioner": [{"reference": "Practitioner/pr1"}],
        "managingOrganization": {"reference": "Organization/o1"},
    }


def notification(chart: Chart, who: str, event: int, number: int, subscription: str) -> dict[str, Any]:
    """An R4 Backport event-notification with full resources, about 5.3 kB, telling of one reading of `who`.

    `event` counts the notifications of this patient from 0, `number` those of the Subscription from 1. The reading
    comes with two others and the Patient, as servers that include them send it.
    https://hl7.org/fhir/uv/subscriptions-backport/STU1.1/notifications.html
    """
    base, focus = chart.base, chart.telling(event)
    along = [focus, (focus + 1) % chart.size, (focus + 2) % chart.size]
    readings = [chart.reading(who, k) for k in along]
    status = {
        "resourceType": "Parameters",
        "id": "st",
        "parameter": [
            {"name": "subscription", "valueReference": {"reference": f"Subscription/{subscription}"}},
            {"name": "topic", "valueCanonical": TOPIC},
            {"name": "status", "valueCode": "active"},
            {"name": "type", "valueCode": "event-notification"},
            {"name": "events-since-subscription-start", "valueString": str(number)},
            {
                "name": "notification-event",
                "part": [
                    {"name": "event-number", "valueString": str(number)},
                    {"name": "timestamp", "valueInstant": _instant(chart.now)},
                    {"name": "focus", "valueReference": {"reference": f"Observation/{readings[0]['id']}"}},
                ],
            },
        ],
    }
    own = str(uuid.uuid5(uuid.NAMESPACE_URL, f"{base}/{who}/{event}/{number}"))
    entries: list[Mapping[str, Any]] = [
        _entry(f"urn:uuid:{own}", status, "GET", f"Subscription/{subscription}/$status", "200"),
        *(_entry(f"{base}/Observation/{r['id']}", r, "POST", "Observation", "201") for r in readings),
        _entry(f"{base}/Patient/{who}", patient(who), "PUT", f"Patient/{who}", "200"),
    ]
    return {"resourceType": "Bundle", "id": own, "type": "history", "timestamp": _instant(chart.now), "entry": entries}


def searchset(base: str, type_name: str, found: Sequence[Mapping[str, Any]], more: str | None) -> dict[str, Any]:
    """What a search finds; `more` is the rest's address."""
    links = [{"relation": "self", "url": f"{base}/{type_name}"}]
    links += [{"relation": "next", "url": more}] if more else []
    matches = [{"fullUrl": f"{base}/{type_name}/{r['id']}", "resource": r, "search": {"mode": "match"}} for r in found]
    return {"resourceType": "Bundle", "id": "b1", "type": "searchset", "link": links, "entry": matches}


def _entry(url: str, resource: Mapping[str, Any], method: str, path: str, status: str) -> dict[str, Any]:
    request = {"method": method, "url": path}
    return {"fullUrl": url, "resource": resource, "request": request, "response": {"status": status}}


def _coded(system: str, code: str) -> dict[str, Any]:
    return {"coding": [{"system": system, "code": code}]}


def _instant(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds")
