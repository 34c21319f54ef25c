"""Is this JSON a resource this server can store? fhir.resources R4B, and what it does not check.

fhir.resources 8.3.0 accepts any code in a required binding, `null`, empty objects, and numbers in quotes; a
real EHR does not. R4B equals R4 for the types served here. https://hl7.org/fhir/R4/validation.html
"""

from collections.abc import Callable, Iterator
from typing import Any

import orjson
from pydantic import BaseModel, ValidationError

from sidecar.sandbox.outcome import Issue, Refusal, Resource, refuse
from sidecar.sandbox.parameters import found

MAX_DEPTH = 64

_OBSERVATION_STATUS = "registered preliminary final amended corrected cancelled entered-in-error unknown"
_EVENT_STATUS = "preparation in-progress not-done on-hold stopped completed entered-in-error unknown"
_PRIORITY = "routine urgent asap stat"
_COMPARATOR = "< <= >= >"

REQUIRED_CODES: dict[str, dict[str, str]] = {
    "Patient": {"gender": "male female other unknown"},
    "Encounter": {
        "status": "planned arrived triaged in-progress onleave finished cancelled entered-in-error unknown",
    },
    "Observation": {
        "status": _OBSERVATION_STATUS,
        "valueQuantity.comparator": _COMPARATOR,
        "component.valueQuantity.comparator": _COMPARATOR,
    },
    "Condition": {
        "clinicalStatus.coding.code": "active recurrence relapse inactive remission resolved",
        "verificationStatus.coding.code": "unconfirmed provisional differential confirmed refuted entered-in-error",
    },
    "Procedure": {"status": _EVENT_STATUS},
    "MedicationRequest": {
        "status": "active on-hold cancelled completed entered-in-error stopped draft unknown",
        "intent": "proposal plan order original-order reflex-order filler-order instance-order option",
        "priority": _PRIORITY,
    },
    "MedicationStatement": {
        "status": "active completed entered-in-error intended stopped on-hold unknown not-taken",
    },
    "MedicationAdministration": {
        "status": "in-progress not-done on-hold completed entered-in-error stopped unknown",
    },
    "DiagnosticReport": {
        "status": "registered partial preliminary final amended corrected appended cancelled entered-in-error unknown",
    },
    "Immunization": {"status": "completed entered-in-error not-done"},
    "Appointment": {
        "status": "proposed pending booked arrived fulfilled cancelled noshow entered-in-error checked-in waitlist",
    },
    "RiskAssessment": {"status": _OBSERVATION_STATUS},
    "Device": {"status": "active inactive entered-in-error unknown"},
    "Subscription": {
        "status": "requested active error off",
        "channel.type": "rest-hook websocket email sms message",
    },
    "Flag": {"status": "active inactive entered-in-error"},
    "Communication": {"status": _EVENT_STATUS, "priority": _PRIORITY},
    "Task": {
        "status": "draft requested received accepted rejected ready cancelled in-progress on-hold failed "
        "completed entered-in-error",
        "intent": "unknown proposal plan order original-order reflex-order filler-order instance-order option",
        "priority": _PRIORITY,
    },
    "DocumentReference": {
        "status": "current superseded entered-in-error",
        "docStatus": "preliminary final amended entered-in-error",
    },
}
"""Required bindings of R4 by element path: the codes, separated by spaces."""

REQUIRED_ELEMENTS: dict[str, frozenset[str]] = {
    "Basic": frozenset({"code"}),
    "Encounter": frozenset({"status", "class"}),
    "Observation": frozenset({"status", "code"}),
    "Condition": frozenset({"subject"}),
    "Procedure": frozenset({"status", "subject"}),
    "MedicationRequest": frozenset({"status", "intent", "subject"}),
    "MedicationStatement": frozenset({"status", "subject"}),
    "MedicationAdministration": frozenset({"status", "subject"}),
    "DiagnosticReport": frozenset({"status", "code"}),
    "AllergyIntolerance": frozenset({"patient"}),
    "Immunization": frozenset({"status", "vaccineCode", "patient"}),
    "Appointment": frozenset({"status", "participant"}),
    "RiskAssessment": frozenset({"status", "subject"}),
    "Subscription": frozenset({"status", "reason", "criteria", "channel"}),
    "Flag": frozenset({"status", "code", "subject"}),
    "Communication": frozenset({"status"}),
    "Task": frozenset({"status", "intent"}),
    "DocumentReference": frozenset({"status", "content"}),
}
"""The elements R4 requires (1..1 or 1..*), which a subset keeps."""


class Validator:
    """Checks resources before they are stored."""

    def __init__(self) -> None:
        """Load the models: a quarter of a second, paid by whoever builds a sandbox and by nobody else."""
        from fhir.resources.R4B import get_fhir_model_class  # noqa: PLC0415 - slow import, see above

        self._model_of: Callable[[str], type[BaseModel]] = get_fhir_model_class

    def check(self, resource: Resource) -> None:
        """Return if `resource` is valid R4 of a type this server knows.

        Raises:
            Refusal: 400, not the shape of that type; 422, a code or an invariant is wrong.
        """
        type_name = resource["resourceType"]
        issues = list(_emptiness(resource, type_name))
        try:
            self._model_of(type_name).model_validate(resource)
        except ValidationError as error:
            issues += [_shape_issue(type_name, dict(each)) for each in error.errors(include_url=False)]
        if issues:
            raise Refusal(400, issues)
        issues = [*_codes(resource), *_invariants(resource)]
        if issues:
            raise Refusal(422, issues)


def parse_object(body: bytes) -> Resource:
    """Parse a JSON object that is not nested absurdly deep.

    Raises:
        Refusal: 400, it is not.
    """
    try:
        parsed = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise refuse(400, "structure", f"the body is not JSON: {error}") from error
    if not isinstance(parsed, dict):
        raise refuse(400, "structure", "the body is not a JSON object")
    # Counting brackets first spares almost every resource the walk.
    if body.count(b"{") + body.count(b"[") > MAX_DEPTH and _deeper_than(parsed, MAX_DEPTH):
        raise refuse(400, "structure", f"the body is nested deeper than {MAX_DEPTH} levels")
    return parsed


def _deeper_than(node: Any, levels: int) -> bool:
    if not isinstance(node, (dict, list)):
        return False
    below = node.values() if isinstance(node, dict) else node
    return levels == 0 or any(_deeper_than(value, levels - 1) for value in below)


def _shape_issue(type_name: str, error: dict[str, Any]) -> Issue:
    kind = str(error["type"])
    code = "required" if "missing" in kind else "structure" if kind == "extra_forbidden" else "value"
    steps = [f"[{step}]" if isinstance(step, int) else f".{step.removesuffix('_fhir')}" for step in error["loc"]]
    place = type_name + "".join(steps)
    said = str(error["msg"]).removeprefix("Value error, ")
    return Issue(code, f"{place}: {said}", place)


def _emptiness(node: Any, place: str) -> Iterator[Issue]:
    """Yield what R4 JSON forbids everywhere: null, empty objects and arrays, numbers in quotes."""
    if isinstance(node, (dict, list)) and not node:
        yield Issue("structure", f"{place}: is empty; leave it out", place)
    if isinstance(node, dict):
        for name, value in node.items():
            below = f"{place}.{name}"
            if value is None:
                yield Issue("structure", f"{below}: is null; leave it out", below)
            elif isinstance(value, str) and _is_number(node, name):
                yield Issue("value", f"{below}: must be a JSON number", below)
            else:
                yield from _emptiness(value, below)
    elif isinstance(node, list):
        for position, value in enumerate(node):
            yield from _emptiness(value, f"{place}[{position}]")


def _is_number(node: Resource, name: str) -> bool:
    return name.endswith("Decimal") or (name == "value" and not node.keys().isdisjoint({"unit", "code", "comparator"}))


def _codes(resource: Resource) -> Iterator[Issue]:
    type_name = resource["resourceType"]
    for path, codes in REQUIRED_CODES.get(type_name, {}).items():
        for code in found(resource, tuple(path.split("."))):
            if code not in codes.split():
                place = f"{type_name}.{path}"
                yield Issue("code-invalid", f"{place}: {code!r} is not one of {codes}", place)


def _invariants(resource: Resource) -> Iterator[Issue]:
    if resource["resourceType"] != "RiskAssessment":
        return
    for position, prediction in enumerate(resource.get("prediction", [])):
        place = f"RiskAssessment.prediction[{position}]"
        if prediction.get("probabilityDecimal", 0) > 100:
            yield Issue("invariant", f"ras-2: {place}.probabilityDecimal must be at most 100", place)
        bounds = prediction.get("probabilityRange", {})
        for bound in (bounds.get("low"), bounds.get("high")):
            if bound and not _is_percentage(bound):
                yield Issue("invariant", f"ras-1: {place}.probabilityRange must be UCUM % up to 100", place)


def _is_percentage(quantity: Resource) -> bool:
    is_percent = (quantity.get("system"), quantity.get("code")) == ("http://unitsofmeasure.org", "%")
    return is_percent and float(quantity.get("value", 0)) <= 100
