"""The search parameters the practice EHR knows, as a table: what `search` evaluates and /metadata states.

Pure. https://hl7.org/fhir/R4/searchparameter-registry.html
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

from sidecar.sandbox.outcome import Resource

Kind: TypeAlias = Literal["token", "date", "reference", "string", "uri"]
Path: TypeAlias = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Parameter:
    """One search parameter: its type, the elements it looks at, the code system a bare `code` implies."""

    name: str
    kind: Kind
    paths: tuple[Path, ...]
    system: str | None = None
    targets: tuple[str, ...] = ()


ID = Parameter("_id", "token", (("id",),))
LAST_UPDATED = Parameter("_lastUpdated", "date", (("meta", "lastUpdated"),))


def _parameter(name: str, kind: Kind, *paths: str, system: str | None = None) -> Parameter:
    return Parameter(name, kind, tuple(tuple(path.split(".")) for path in paths or (name,)), system)


def _code(name: str, system: str, path: str | None = None) -> Parameter:
    return _parameter(name, "token", path or name, system=f"http://hl7.org/fhir/{system}")


def _reference(name: str, path: str, *targets: str) -> Parameter:
    return replace(_parameter(name, "reference", path), targets=targets)


def _table(*parameters: Parameter) -> dict[str, Parameter]:
    return {parameter.name: parameter for parameter in (ID, LAST_UPDATED, *parameters)}


_IDENTIFIER = _parameter("identifier", "token")
_PATIENT = _reference("patient", "subject", "Patient")
_SUBJECT = _reference("subject", "subject", "Patient", "Group")
_OBSERVED = _reference("subject", "subject", "Patient", "Group", "Device", "Location")
_ENCOUNTER = _reference("encounter", "encounter", "Encounter")
_CONTEXT = _reference("context", "context", "Encounter")
_OWNER = _reference("patient", "patient", "Patient")
_CODE = _parameter("code", "token")
_MEDICINE = _parameter("code", "token", "medicationCodeableConcept")
_MEDICATION = _reference("medication", "medicationReference", "Medication")

PARAMETERS: dict[str, dict[str, Parameter]] = {
    "Patient": _table(
        _IDENTIFIER,
        _parameter("birthdate", "date", "birthDate"),
        _parameter("active", "token"),
    ),
    "Encounter": _table(
        _IDENTIFIER,
        _PATIENT,
        _SUBJECT,
        _code("status", "encounter-status"),
        _parameter("class", "token"),
        _parameter("date", "date", "period"),
    ),
    "Observation": _table(
        _IDENTIFIER,
        _PATIENT,
        _OBSERVED,
        _ENCOUNTER,
        _parameter("code", "token"),
        _parameter("combo-code", "token", "code", "component.code"),
        _parameter("category", "token"),
        _code("status", "observation-status"),
        _parameter("date", "date", "effectiveDateTime", "effectivePeriod", "effectiveInstant"),
    ),
    "Condition": _table(
        _PATIENT,
        _SUBJECT,
        _ENCOUNTER,
        _parameter("code", "token"),
        _parameter("clinical-status", "token", "clinicalStatus"),
    ),
    "Procedure": _table(
        _PATIENT,
        _SUBJECT,
        _ENCOUNTER,
        _CODE,
        _code("status", "event-status"),
        _parameter("date", "date", "performedDateTime", "performedPeriod"),
    ),
    "Medication": _table(_IDENTIFIER, _CODE),
    "MedicationRequest": _table(
        _PATIENT,
        _SUBJECT,
        _ENCOUNTER,
        _MEDICINE,
        _MEDICATION,
        _code("status", "CodeSystem/medicationrequest-status"),
        _parameter("authoredon", "date", "authoredOn"),
    ),
    "MedicationStatement": _table(
        _PATIENT,
        _SUBJECT,
        _CONTEXT,
        _MEDICINE,
        _MEDICATION,
        _code("status", "CodeSystem/medication-statement-status"),
        _parameter("effective", "date", "effectiveDateTime", "effectivePeriod"),
    ),
    "MedicationAdministration": _table(
        _PATIENT,
        _SUBJECT,
        _CONTEXT,
        _MEDICINE,
        _MEDICATION,
        _code("status", "CodeSystem/medication-admin-status"),
        _parameter("effective-time", "date", "effectiveDateTime", "effectivePeriod"),
    ),
    "DiagnosticReport": _table(
        _PATIENT,
        _SUBJECT,
        _ENCOUNTER,
        _CODE,
        _code("status", "diagnostic-report-status"),
        _parameter("date", "date", "effectiveDateTime", "effectivePeriod"),
    ),
    "AllergyIntolerance": _table(_OWNER, _CODE, _parameter("clinical-status", "token", "clinicalStatus")),
    "Immunization": _table(
        _OWNER,
        _parameter("vaccine-code", "token", "vaccineCode"),
        _code("status", "event-status"),
        _parameter("date", "date", "occurrenceDateTime"),
    ),
    "Appointment": _table(
        _reference("patient", "participant.actor", "Patient"),
        _code("status", "appointmentstatus"),
        _parameter("date", "date", "start"),
    ),
    "RiskAssessment": _table(
        _IDENTIFIER,
        _PATIENT,
        _SUBJECT,
        _ENCOUNTER,
        _parameter("date", "date", "occurrenceDateTime"),
    ),
    "Basic": _table(_IDENTIFIER, _PATIENT, _reference("subject", "subject", "Patient"), _parameter("code", "token")),
    "Device": _table(_IDENTIFIER),
    "Subscription": _table(
        _parameter("url", "uri", "channel.endpoint"),
        _code("status", "subscription-status"),
        _parameter("criteria", "string"),
        _code("type", "subscription-channel-type", "channel.type"),
    ),
    "Flag": _table(_IDENTIFIER, _PATIENT, _SUBJECT, _ENCOUNTER, _parameter("date", "date", "period")),
    "Communication": _table(
        _IDENTIFIER,
        _PATIENT,
        _SUBJECT,
        _ENCOUNTER,
        _code("status", "event-status"),
        _parameter("sent", "date"),
    ),
    "Task": _table(
        _IDENTIFIER,
        _reference("patient", "for", "Patient"),
        _ENCOUNTER,
        _code("status", "task-status"),
        _parameter("code", "token"),
    ),
    "DocumentReference": _table(
        _IDENTIFIER,
        _PATIENT,
        _SUBJECT,
        _reference("encounter", "context.encounter", "Encounter"),
        _parameter("type", "token"),
        _code("status", "document-reference-status"),
        _parameter("date", "date"),
    ),
}

_IDENTIFIER_CAPABILITY = frozenset({"RiskAssessment", "Observation", "Device"})


def parameters_of(type_name: str, *, identifier_search: bool) -> dict[str, Parameter]:
    """Return the parameters a type can be searched by; result documents lose `identifier` when told so."""
    known = PARAMETERS[type_name]
    if identifier_search or type_name not in _IDENTIFIER_CAPABILITY:
        return known
    return {name: parameter for name, parameter in known.items() if name != "identifier"}


def found(node: Resource, path: Path) -> Iterator[Any]:
    """Yield every value at `path`, looking through lists."""
    value = node.get(path[0])
    for each in value if isinstance(value, list) else [value]:
        if each is None:
            continue
        if len(path) == 1:
            yield each
        elif isinstance(each, dict):
            yield from found(each, path[1:])


def values(parameter: Parameter, resource: Resource) -> Iterator[Any]:
    """Yield every value of `parameter` in `resource`."""
    for path in parameter.paths:
        yield from found(resource, path)


def tokens(value: Any, system: str | None) -> Iterator[tuple[str | None, str]]:
    """Yield (system, code) for each coding in a CodeableConcept, Coding, Identifier, code, id or boolean."""
    if isinstance(value, dict):
        for each in value.get("coding", [value]):
            code = each.get("code", each.get("value"))
            if code is not None:
                yield each.get("system"), code
    elif isinstance(value, bool):
        yield system, "true" if value else "false"
    else:
        yield system, value
