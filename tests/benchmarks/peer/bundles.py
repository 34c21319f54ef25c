"""Seeded patients: one Bundle each, of a Patient, a stay, 42 readings, 10 diagnoses and 10 orders, about 36 kB of JSON.

Every newest reading is plausible, so that both sides have the whole job to do for every patient.
"""

from __future__ import annotations

import json
import random
from datetime import UTC, date, datetime, timedelta
from typing import Any

AT = datetime(2026, 1, 10, 8, tzinfo=UTC)
EACH = 6
READINGS = {
    "8867-4": ("Heart rate", "/min", 40, 150),
    "8480-6": ("Systolic blood pressure", "mm[Hg]", 80, 190),
    "9279-1": ("Respiratory rate", "/min", 8, 36),
    "8310-5": ("Body temperature", "Cel", 35.0, 40.5),
    "59408-5": ("Oxygen saturation", "%", 84, 100),
    "6690-2": ("Leukocytes", "10*3/uL", 2, 25),
    "2524-7": ("Lactate", "mmol/L", 0.4, 9.0),
}
"""Name, UCUM unit, and from where to where the values lie, by LOINC code."""


def bundles(patients: int, seed: int) -> list[bytes]:
    """The same bytes for the same seed."""
    return [json.dumps(bundle(number, random.Random(f"{seed}/{number}"))).encode() for number in range(patients)]


def bundle(number: int, chance: random.Random) -> dict[str, Any]:
    who = f"p{number}"
    resources = [
        _patient(who, number, chance),
        _stay(who),
        *(_reading(who, code, n, chance) for code in READINGS for n in range(EACH)),
        *(made(who, n) for n in range(10) for made in (_diagnosis, _order)),
    ]
    entries = [{"fullUrl": f"urn:uuid:{each['id']}", "resource": each} for each in resources]
    return {"resourceType": "Bundle", "type": "collection", "entry": entries}


def _patient(who: str, number: int, chance: random.Random) -> dict[str, Any]:
    born = date(1935, 1, 1) + timedelta(days=chance.randrange(65 * 365))
    return {
        "resourceType": "Patient",
        "id": who,
        "gender": chance.choice(["male", "female"]),
        "birthDate": born.isoformat(),
        "name": [{"family": f"Family{number}", "given": ["Given", "Middle"]}],
        "identifier": [{"system": "http://hospital.example/mrn", "value": f"{number:09d}"}],
        "address": [{"line": ["1 High Street"], "city": "Springfield", "postalCode": "00000"}],
        "telecom": [{"system": "phone", "value": "555-0100", "use": "home"}],
    }


def _stay(who: str) -> dict[str, Any]:
    kind = {"system": "http://terminology.hl7.org/CodeSystem/v3-ActCode", "code": "EMER"}
    return {
        "resourceType": "Encounter",
        "id": f"e-{who}",
        "status": "in-progress",
        "class": kind,
        "subject": {"reference": f"Patient/{who}"},
        "period": {"start": AT.isoformat()},
    }


def _reading(who: str, code: str, number: int, chance: random.Random) -> dict[str, Any]:
    name, unit, low, high = READINGS[code]
    when = (AT + timedelta(minutes=30 * number)).isoformat()
    category = {
        "system": "http://terminology.hl7.org/CodeSystem/observation-category",
        "code": "vital-signs",
        "display": "Vital signs",
    }
    return {
        "resourceType": "Observation",
        "id": f"o-{who}-{code}-{number}",
        "status": "final",
        "category": [{"coding": [category]}],
        "code": {"coding": [{"system": "http://loinc.org", "code": code, "display": name}], "text": name},
        "subject": {"reference": f"Patient/{who}"},
        "encounter": {"reference": f"Encounter/e-{who}"},
        "effectiveDateTime": when,
        "issued": when,
        "valueQuantity": {
            "value": round(chance.uniform(low, high), 2),
            "unit": unit,
            "system": "http://unitsofmeasure.org",
            "code": unit,
        },
    }


def _diagnosis(who: str, number: int) -> dict[str, Any]:
    active = {"system": "http://terminology.hl7.org/CodeSystem/condition-clinical", "code": "active"}
    return {
        "resourceType": "Condition",
        "id": f"c-{who}-{number}",
        "clinicalStatus": {"coding": [active]},
        "code": {
            "coding": [{"system": "http://snomed.info/sct", "code": f"{44054006 + number}", "display": "Diagnosis"}]
        },
        "subject": {"reference": f"Patient/{who}"},
        "onsetDateTime": "2020-05-01T00:00:00Z",
    }


def _order(who: str, number: int) -> dict[str, Any]:
    drug = {"system": "http://www.nlm.nih.gov/research/umls/rxnorm", "code": f"{860975 + number}"}
    return {
        "resourceType": "MedicationRequest",
        "id": f"m-{who}-{number}",
        "status": "active",
        "intent": "order",
        "medicationCodeableConcept": {"coding": [drug]},
        "subject": {"reference": f"Patient/{who}"},
        "authoredOn": "2025-11-01T00:00:00Z",
    }
