"""A ward with every kind of row, as long and as awkward as charts are."""

from sidecar.sandbox.ward_page import Unscored
from tests.ward import NOON, Ward, ago, observation

LONG = "Acute exacerbation of chronic obstructive pulmonary disease with Pseudomonas aeruginosa bronchopneumonia"
POINTS = {"1104301000000104": 3, "1104311000000102": 2, "1104341000000101": 1, "1104361000000100": 3}


async def staff(ward: Ward) -> None:
    """Fill the ward: all bands, an urgent incomplete, no score for each reason, a discharged and a dead patient."""
    names = {"high": "Wolfeschlegelsteinhausenbergerdorff", "low": "Li", "medium": "O'Neill-Featherstonehaugh"}
    for key in ("low", "high", "medium", "lowmed", "urgent", "expired", "unscored", "new", "left"):
        await ward.admit(key, name=names.get(key, key.title()), gender="female", birthDate="1950-03-02")
    await ward.stay("high", "in-progress", {"start": ago(24)}, reason=LONG)
    basis = await _vitals(ward, "high")
    components = [
        {"code": {"coding": [{"system": "http://snomed.info/sct", "code": code}]}, "valueInteger": points}
        for code, points in POINTS.items()
    ]
    await ward.total("high", 7, "high", hours=3)
    await ward.total("high", 9, "high", basis=[{"reference": each} for each in basis], components=components)
    for key, points, band in (("medium", 5, "medium"), ("lowmed", 3, "low-medium"), ("low", 1, "low")):
        await _vitals(ward, key)
        await ward.total(key, points + 1, band, hours=4)
        await ward.total(key, points, band)
    await ward.total("urgent", 6, "medium", hours=5)
    await ward.incomplete("urgent", 8, "high", urgent=True)
    await ward.total("expired", 9, "high", hours=7)
    await ward.total("unscored", 7, "high", hours=2)
    ward.unscored["unscored"] = Unscored(("pulse not charted", "oxygen therapy too old for this observation set"), NOON)
    await ward.total("left", 9, "high")
    await ward.stay("left", "finished", {"start": ago(24), "end": ago(0.5)})


async def _vitals(ward: Ward, key: str) -> list[str]:
    given = [
        ("9279-1", 26, "/min"),
        ("2708-6", 92.9, "%"),
        ("3151-8", 4.7, "L/min"),
        ("8867-4", 119, "/min"),
        ("8310-5", 38.4, "Cel"),
    ]
    basis = [await ward.reading(key, code, value, unit, hours=1.6) for code, value, unit in given]
    pressure = observation(key, "85354-9", 1.6) | {
        "component": [
            {"code": {"coding": [{"code": code}]}, "valueQuantity": {"value": value, "unit": "mmHg"}}
            for code, value in (("8480-6", 137), ("8462-4", 107))
        ]
    }
    awake = observation(key, "80288-4", 1.6) | {"valueCodeableConcept": {"text": "Responds to voice"}}
    for resource in (pressure, awake):
        stored = await ward.ehr.write(resource)
        basis.append(f"Observation/{stored['id']}/_history/1")
    return basis
