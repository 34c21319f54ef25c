"""Make the committed practice ward: eleven synthetic inpatient stays as FHIR R4 Bundles.

Promise: run under the pinned generator (``clinosim==0.6.5``) this script always writes the same bytes to
``fhir_fixtures/ward/stay-NN.json``. It runs the recorded command, picks the stays by the rule in
``choose``, cuts each to its first 48 hours and keeps only what the NEWS2 path reads. The people are
invented; nothing about them may be used to train a model or to quote an accuracy.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

Json = dict[str, Any]

GENERATOR = "clinosim"
GENERATOR_VERSION = "0.6.5"
ARGUMENTS = (
    "simulate",
    *("--population", "8000"),
    *("--seed", "20250101"),
    *("--country", "US"),
    *("--start", "2025-01-01"),
    *("--end", "2025-03-31"),
    *("--format", "fhir-r4"),
)
WARD = Path(__file__).resolve().parent / "ward"

CUT = timedelta(hours=48)
ADULT_YEARS = 18
MAX_BYTES_PER_FILE = 1_500_000
MAX_STAYS_PER_REASON = 3
FHIR_ID = re.compile(r"[A-Za-z0-9\-.]{1,64}")

RESPIRATORY_RATE = "9279-1"
PULSE = "8867-4"
TEMPERATURE = "8310-5"
SATURATION = ("2708-6", "59408-5")
PRESSURE = "85354-9"
AVPU = "80288-4"
COMA_SCALE = "9269-2"
OXYGEN = ("3151-8", "3150-6")
NEWS2_TOTAL = "NEWS2"
ALERT = "248234008"
FULL_SET = frozenset({RESPIRATORY_RATE, PULSE, TEMPERATURE, "2708-6", PRESSURE, AVPU})
KEPT_CODES = frozenset(
    {RESPIRATORY_RATE, PULSE, TEMPERATURE, *SATURATION, PRESSURE, AVPU, COMA_SCALE, *OXYGEN, NEWS2_TOTAL}
)
OBSERVATION_KEYS = (
    *("resourceType", "id", "status", "category", "code", "subject", "encounter", "effectiveDateTime"),
    *("issued", "valueQuantity", "valueCodeableConcept", "valueInteger", "component"),
)
COMPONENT_KEYS = ("code", "valueQuantity", "valueString")
PATIENT_KEYS = ("resourceType", "id", "name", "gender", "birthDate")
ENCOUNTER_KEYS = (
    *("resourceType", "id", "status", "class", "type", "priority", "serviceType", "subject", "period"),
    "reasonCode",
)
CONDITION_KEYS = ("resourceType", "id", "verificationStatus", "category", "code", "subject", "encounter")
# Diagnosis roles known at the bedside: admission diagnosis, comorbidity. A discharge diagnosis is hindsight.
KNOWN_ROLES = frozenset({"AD", "CM"})


@dataclass(frozen=True)
class Stay:
    """One inpatient stay, already cut and trimmed, with the few facts the selection rule looks at."""

    patient: Json
    encounter: Json
    conditions: list[Json]
    observations: list[Json]
    full_sets: int
    rise: int
    on_oxygen: bool
    not_alert: bool
    died: bool

    @property
    def reason(self) -> str:
        """Answer the coded reason for the stay, so that no diagnosis takes the whole ward."""
        return str(self.encounter["reasonCode"][0]["coding"][0]["code"])


def instant(text: str) -> datetime:
    """Read a FHIR instant; every one the generator writes is in UTC (``Z``)."""
    return datetime.fromisoformat(text)


def code_of(resource: Json) -> str:
    """Answer the first code of a resource: clinosim writes exactly one."""
    return str(resource["code"]["coding"][0]["code"])


def only(resource: Json, keys: Iterable[str]) -> Json:
    """Keep the named elements that are there, in the named order."""
    return {key: resource[key] for key in keys if key in resource}


def ndjson(folder: Path, kind: str, wanted: Callable[[str], bool] = bool) -> Iterator[Json]:
    """Yield the resources of one type whose raw line is wanted."""
    with (folder / f"{kind}.ndjson").open(encoding="utf-8") as lines:
        for line in lines:
            if wanted(line):
                yield json.loads(line)


def target(reference: Json) -> str:
    """Answer the id a relative reference points to."""
    return str(reference["reference"]).partition("/")[2]


def bare_codes(concept: Json) -> Json:
    """Drop the words of a category: its system and code say all of it."""
    return {"coding": [only(coding, ("system", "code")) for coding in concept["coding"]]}


def trim_component(component: Json) -> Json:
    """Keep the code and value of a component; drop its ranges and flags."""
    return {**only(component, COMPONENT_KEYS), "code": only(component["code"], ("coding",))}


def trim_observation(observation: Json) -> Json:
    """Keep what a NEWS2 reader needs; drop ranges, flags, identifiers, performers and meta."""
    trimmed = only(observation, OBSERVATION_KEYS)
    trimmed["category"] = [bare_codes(concept) for concept in observation["category"]]
    trimmed["code"] = only(observation["code"], ("coding",))
    if "component" in trimmed:
        trimmed["component"] = [trim_component(part) for part in observation["component"]]
    return trimmed


def trim_patient(patient: Json, *, died: bool) -> Json:
    """Keep the name, sex and birth date; say dead only of a death inside the replayed hours.

    The generator knows only the day of a death (it writes 23:59:59), so only the day is kept.
    """
    trimmed = only(patient, PATIENT_KEYS)
    if died:
        trimmed["deceasedDateTime"] = patient["deceasedDateTime"][:10]
    else:
        trimmed["deceasedBoolean"] = False
    return trimmed


def trim_encounter(encounter: Json, conditions: Sequence[Json]) -> Json:
    """Cut the Encounter honestly: one that goes on after the cut is in progress and has no end."""
    trimmed = only(encounter, ENCOUNTER_KEYS)
    disposition = encounter.get("hospitalization", {}).get("dischargeDisposition")
    if goes_on(encounter):
        trimmed["status"] = "in-progress"
        trimmed["period"] = {"start": encounter["period"]["start"]}
    elif disposition:
        trimmed["hospitalization"] = {"dischargeDisposition": disposition}
    roles = {target(row["condition"]): row["use"] for row in encounter.get("diagnosis", [])}
    trimmed["diagnosis"] = [
        {"condition": {"reference": f"Condition/{row['id']}"}, "use": roles[row["id"]]} for row in conditions
    ]
    if not conditions:
        del trimmed["diagnosis"]
    return trimmed


def trim_condition(condition: Json) -> Json:
    """Show the Condition as it stood during the stay: active, without the later abatement."""
    trimmed = only(condition, CONDITION_KEYS)
    coding = {"system": "http://terminology.hl7.org/CodeSystem/condition-clinical", "code": "active"}
    return {**trimmed, "clinicalStatus": {"coding": [coding]}}


def goes_on(encounter: Json) -> bool:
    """Tell whether the stay is still open at the cut (or never ends in the data)."""
    period = encounter["period"]
    return "end" not in period or instant(period["end"]) > instant(period["start"]) + CUT


def died_in_view(encounter: Json) -> bool:
    """Tell whether the stay ends in death before the cut."""
    disposition = encounter.get("hospitalization", {}).get("dischargeDisposition", {})
    codes = {coding["code"] for coding in disposition.get("coding", [])}
    return "exp" in codes and not goes_on(encounter)


def is_adult(encounter: Json, patient: Json) -> bool:
    """Tell whether the patient was eighteen at admission: NEWS2 is not for children."""
    born = date.fromisoformat(patient["birthDate"])
    admitted = instant(encounter["period"]["start"]).date()
    years = admitted.year - born.year - ((admitted.month, admitted.day) < (born.month, born.day))
    return years >= ADULT_YEARS


def record_key(observation: Json) -> int:
    """Answer which charting record an Observation came from, by the generator's own record number.

    The key reads ``ENC-POP-<person>-<stay>-<record>[-<field>]``.
    """
    return int(observation["identifier"][0]["value"].split("-")[4])


def records_in_view(encounter: Json, observations: Iterable[Json]) -> list[list[Json]]:
    """Group Observations by charting record and keep the records that lie wholly inside the view.

    A record reaches over 60 seconds (the generator charts SpO2 5, temperature 30 and respirations 60
    seconds after the rest), so a record that straddles admission, the cut or the end goes as a whole.
    """
    start = instant(encounter["period"]["start"])
    stop = start + CUT if goes_on(encounter) else instant(encounter["period"]["end"])
    records: dict[int, list[Json]] = defaultdict(list)
    for observation in observations:
        records[record_key(observation)].append(observation)
    return [
        record
        for record in records.values()
        if all(start <= instant(row["effectiveDateTime"]) <= stop for row in record)
    ]


def is_full(record: Iterable[Json]) -> bool:
    """Tell whether a charting record holds a full set of vitals, as NEWS2 needs it (oxygen aside)."""
    return {code_of(row) for row in record} >= FULL_SET


def without_partial_total(record: list[Json]) -> list[Json]:
    """Drop the generator's NEWS2 total from a record that is not full.

    The generator scores each missing input as 0 there, so that total is not a NEWS2 of anything.
    """
    return record if is_full(record) else [row for row in record if code_of(row) != NEWS2_TOTAL]


def totals_in_time_order(rows: Iterable[Json]) -> list[int]:
    """List the NEWS2 totals of Observations that are already in order of time."""
    return [int(row["valueInteger"]) for row in rows if code_of(row) == NEWS2_TOTAL]


def largest_rise(totals: Sequence[int]) -> int:
    """Answer the largest climb from any total to a later one."""
    rise, lowest = 0, sys.maxsize
    for total in totals:
        lowest = min(lowest, total)
        rise = max(rise, total - lowest)
    return rise


def in_time_order(observations: Iterable[Json]) -> list[Json]:
    """Sort by effective time, ties by id."""
    return sorted(observations, key=lambda row: (instant(row["effectiveDateTime"]), row["id"]))


def is_not_alert(observation: Json) -> bool:
    """Tell whether an Observation charts a level of consciousness other than Alert."""
    return code_of(observation) == AVPU and observation["valueCodeableConcept"]["coding"][0]["code"] != ALERT


def make_stay(encounter: Json, patient: Json, conditions: Sequence[Json], observed: Iterable[Json]) -> Stay:
    """Cut and trim one stay and take the facts the selection rule needs."""
    records = records_in_view(encounter, observed)
    rows = in_time_order(row for record in records for row in without_partial_total(record))
    totals = totals_in_time_order(rows)
    died = died_in_view(encounter)
    return Stay(
        patient=trim_patient(patient, died=died),
        encounter=trim_encounter(encounter, conditions),
        conditions=[trim_condition(condition) for condition in conditions],
        observations=[trim_observation(row) for row in rows],
        full_sets=len(totals),
        rise=largest_rise(totals),
        on_oxygen=any(code_of(row) in OXYGEN for row in rows),
        not_alert=any(is_not_alert(row) for row in rows),
        died=died,
    )


def observations_by_stay(folder: Path, stays: set[str]) -> dict[str, list[Json]]:
    """Read the Observations of the types in use that belong to the given Encounters."""
    found: dict[str, list[Json]] = defaultdict(list)
    for row in ndjson(folder, "Observation", lambda line: any(f'"{code}"' in line for code in KEPT_CODES)):
        owner = target(row.get("encounter", {"reference": ""}))
        if owner in stays and code_of(row) in KEPT_CODES:
            found[owner].append(row)
    return found


def known_conditions(encounter: Json, conditions: dict[str, Json]) -> list[Json]:
    """List the Conditions of the stay that were known on admission, in the Encounter's own order."""
    return [
        conditions[target(row["condition"])]
        for row in encounter.get("diagnosis", [])
        if row["use"]["coding"][0]["code"] in KNOWN_ROLES and target(row["condition"]) in conditions
    ]


def read_stays(folder: Path) -> list[Stay]:
    """Read every adult inpatient stay the generator wrote, cut and trimmed, in order of Encounter id."""
    patients = {row["id"]: row for row in ndjson(folder, "Patient")}
    conditions = {row["id"]: row for row in ndjson(folder, "Condition")}
    encounters = [row for row in ndjson(folder, "Encounter") if row["class"]["code"] == "IMP"]
    encounters = [row for row in encounters if is_adult(row, patients[target(row["subject"])])]
    observed = observations_by_stay(folder, {row["id"] for row in encounters})
    return [
        make_stay(row, patients[target(row["subject"])], known_conditions(row, conditions), observed[row["id"]])
        for row in sorted(encounters, key=lambda row: str(row["id"]))
    ]


def choose(stays: Sequence[Stay]) -> list[Stay]:
    """Pick eleven stays of eleven people, at most three with the same coded reason.

    In turn: two that end in death before the cut, two with a level of consciousness other than Alert, three
    with the largest rise between full NEWS2 totals, two never on oxygen, two on oxygen. Within each group
    the most full sets of vitals come first (for the rise: the largest rise first), then the Encounter id.
    """
    groups: list[tuple[int, Callable[[Stay], bool], Callable[[Stay], int]]] = [
        (2, lambda stay: stay.died, lambda stay: stay.full_sets),
        (2, lambda stay: stay.not_alert, lambda stay: stay.full_sets),
        (3, lambda stay: stay.rise > 0, lambda stay: stay.rise),
        (2, lambda stay: not stay.on_oxygen, lambda stay: stay.full_sets),
        (2, lambda stay: stay.on_oxygen, lambda stay: stay.full_sets),
    ]
    chosen: list[Stay] = []
    for count, belongs, rank in groups:
        ranked = sorted(stays, key=lambda stay: (-rank(stay), -stay.full_sets, stay.encounter["id"]))
        quota = len(chosen) + count
        for stay in ranked:
            if len(chosen) < quota and belongs(stay) and may_join(stay, chosen):
                chosen.append(stay)
    return chosen


def may_join(stay: Stay, chosen: Sequence[Stay]) -> bool:
    """Tell whether a stay brings a new patient with a full set and a reason not yet seen three times."""
    reasons = Counter(other.reason for other in chosen)
    people = {other.patient["id"] for other in chosen}
    return stay.full_sets > 0 and stay.patient["id"] not in people and reasons[stay.reason] < MAX_STAYS_PER_REASON


def bundle_text(stay: Stay) -> str:
    """Write the stay as a collection Bundle, one compact entry on each line."""
    resources = [stay.patient, stay.encounter, *stay.conditions, *stay.observations]
    for resource in resources:
        if not FHIR_ID.fullmatch(resource["id"]):
            message = f"{resource['resourceType']} has an id that FHIR does not allow: {resource['id']}"
            raise ValueError(message)
    entries = ",\n".join(
        json.dumps({"resource": resource}, ensure_ascii=False, separators=(",", ":")) for resource in resources
    )
    return f'{{"resourceType":"Bundle","type":"collection","entry":[\n{entries}\n]}}\n'


def write_ward(stays: Sequence[Stay], ward: Path) -> None:
    """Write one file for each stay and take away files of an earlier ward."""
    ward.mkdir(parents=True, exist_ok=True)
    for old in ward.glob("stay-*.json"):
        old.unlink()
    for number, stay in enumerate(stays, start=1):
        content = bundle_text(stay).encode()
        if len(content) > MAX_BYTES_PER_FILE:
            message = f"stay {number} has {len(content)} bytes, more than {MAX_BYTES_PER_FILE}"
            raise ValueError(message)
        (ward / f"stay-{number:02d}.json").write_bytes(content)


def generate(output: Path) -> Path:
    """Run the recorded command with the pinned generator; answer the folder of its FHIR files."""
    found = version(GENERATOR)
    if found != GENERATOR_VERSION:
        message = f"this ward needs {GENERATOR}=={GENERATOR_VERSION}, found {found}"
        raise RuntimeError(message)
    program = "from clinosim.simulator.cli import main; raise SystemExit(main())"
    command = [sys.executable, "-c", program, *ARGUMENTS, "--output", str(output)]
    environment = {**os.environ, "PYTHONHASHSEED": "0", "TZ": "UTC"}
    subprocess.run(command, check=True, env=environment)  # noqa: S603  the command is the constant above
    return output / "fhir_r4"


def main() -> None:
    """Make the ward, from a fresh run of the generator or from the folder of an earlier run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--generated", type=Path, help="FHIR folder of an earlier run of the same command")
    parser.add_argument("--ward", type=Path, default=WARD, help="where to write the stays")
    options = parser.parse_args()
    if options.generated:
        write_ward(choose(read_stays(options.generated)), options.ward)
        return
    with tempfile.TemporaryDirectory() as scratch:
        write_ward(choose(read_stays(generate(Path(scratch)))), options.ward)


if __name__ == "__main__":
    main()
