"""One patient's chart with a value of its own at every place where identity may stand, and in between what models read.

What a model reads (codes, numbers of the day, the times of readings) is no canary: it is what may cross. Some patients
have what makes errors: broken references, foreign subjects, modifiers, statuses and units that are names.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from random import Random
from typing import Any

from tests.campaigns.leaks import Canary
from tests.campaigns.planted import Planter
from tests.harness import LOINC, NORMAL, UNITS

Resource = dict[str, Any]
UCUM = "http://unitsofmeasure.org"
ACT = "http://terminology.hl7.org/CodeSystem/v3-ActCode"
LABS = {"98979-8": (28, "mL/min/{1.73_m2}"), "9318-7": (50, "mg/g")}
ODD = ("foreign", "modifier", "status", "reference", "unit", "gone", "version")
"""What may be wrong with a patient's chart."""
EVERY_ODD = 3
"""One patient in so many has something wrong."""


@dataclass
class Chart:
    """What the EHR holds of one patient, what it sends, and what was planted."""

    who: str
    odd: str | None
    resources: dict[str, Resource] = field(default_factory=dict)
    canaries: list[Canary] = field(default_factory=list)

    def of(self, kind: str) -> list[Resource]:
        """The resources of a type."""
        return [r for r in self.resources.values() if r["resourceType"] == kind]


def chart(seed: int, number: int, at: datetime) -> Chart:
    """Patient `number`, whose readings are of the hour before `at`."""
    return _Planting(
        Random(f"{seed}/{number}"), ODD[number // EVERY_ODD % len(ODD)] if number % EVERY_ODD == 0 else None, at
    ).chart()


class _Planting:
    """Makes one chart."""

    def __init__(self, rng: Random, odd: str | None, at: datetime) -> None:
        self._p, self._odd, self._at = Planter(rng), odd, at
        self._codes: list[str] = []
        self._who, self._stay = self._p.id("Patient.id"), self._p.id("Encounter.id")

    def chart(self) -> Chart:
        made = [self._patient(), self._encounter(), *self._readings(), self._condition()]
        resources = {f"{r['resourceType']}/{r['id']}": r for r in made}
        return Chart(self._who, self._odd, resources, self._p.canaries)

    def _subject(self, kind: str) -> Resource:
        p = self._p
        reference = f"Patient/{self._who}"
        if kind == "Observation" and self._odd == "foreign":
            reference = f"Patient/{p.id('Observation.subject.reference (another patient)')}"
        if kind == "Observation" and self._odd == "reference":
            reference = f"{p.address('Observation.subject.reference (another server)')}/Patient/{self._who}"
        return {
            "reference": reference,
            "display": p.name(f"{kind}.subject.display"),
            "identifier": {
                "system": p.token(f"{kind}.subject.identifier.system"),
                "value": p.digits(f"{kind}.subject.identifier.value"),
            },
        }

    def _who_else(self, path: str, kind: str) -> Resource:
        """A reference to somebody or something that no model reads."""
        p = self._p
        return {"reference": f"{kind}/{p.id(f'{path}.reference')}", "display": p.name(f"{path}.display")}

    def _extensions(self, path: str) -> list[Resource]:
        p = self._p
        make: dict[str, Callable[[str], Any]] = {
            "valueString": p.words, "valueDateTime": p.instant, "valueDecimal": p.decimal, "valueCode": p.code,
            "valueBase64Binary": p.blob, "valueUri": p.address, "valueReference": partial(self._who_else, kind="Patient"),
            "valueIdentifier": lambda where: {"value": p.digits(f"{where}.value")},
            "valueHumanName": lambda where: {"text": p.name(f"{where}.text")},
            "valueAttachment": lambda where: {"data": p.blob(f"{where}.data"), "title": p.words(f"{where}.title")},
        }  # fmt: skip
        flat = [{"url": "urn:x:flat", name: value(f"{path}.extension.{name}")} for name, value in make.items()]
        nested = {
            "url": p.address(f"{path}.extension.url"),
            "extension": [{"url": "inner", "valueString": p.words(f"{path}.extension.extension.valueString")}],
        }
        return [*flat, nested]

    def _everywhere(self, kind: str) -> Resource:
        """What every resource may have."""
        p = self._p
        odd_name = p.code(f"{kind}.(name of an unknown element)")
        version = p.id(f"{kind}.meta.versionId") if self._odd == "version" else "1"
        return {
            "meta": {
                "versionId": version,
                "lastUpdated": p.instant(f"{kind}.meta.lastUpdated"),
                "source": p.address(f"{kind}.meta.source"),
                "tag": [{"system": p.token(f"{kind}.meta.tag.system"), "code": p.code(f"{kind}.meta.tag.code"), "display": p.words(f"{kind}.meta.tag.display")}],
                "security": [{"system": "urn:x:labels", "code": p.code(f"{kind}.meta.security.code")}],
                "extension": [{"url": "urn:x:m", "valueString": p.words(f"{kind}.meta.extension.valueString")}],
            },
            "language": p.code(f"{kind}.language"),
            "text": {"status": "generated", "div": f'<div xmlns="http://www.w3.org/1999/xhtml">{p.name(f"{kind}.text.div")}</div>'},
            "contained": [
                {"resourceType": "Patient", "id": p.id(f"{kind}.contained.id"), "name": [{"text": p.name(f"{kind}.contained.name.text")}], "birthDate": p.date(f"{kind}.contained.birthDate")},
                {"resourceType": "Bundle", "type": "collection", "entry": [{"fullUrl": p.token(f"{kind}.contained.entry.fullUrl"), "resource": {"resourceType": "Binary", "contentType": "text/plain", "data": p.blob(f"{kind}.contained.entry.resource.data")}}]},
            ],
            "extension": self._extensions(kind),
            "identifier": [{
                "system": p.token(f"{kind}.identifier.system"), "value": p.digits(f"{kind}.identifier.value"),
                "type": {"text": p.words(f"{kind}.identifier.type.text")}, "period": {"start": p.date(f"{kind}.identifier.period.start")},
                "assigner": {"display": p.words(f"{kind}.identifier.assigner.display")},
            }],
            "_id": {"id": p.id(f"{kind}._id.id"), "extension": [{"url": "urn:x:f", "valueString": p.words(f"{kind}._id.extension.valueString")}]},
            odd_name: p.words(f"{kind}.(unknown element)"),
            f"_{odd_name}": {"extension": [{"url": "urn:x:u", "valueString": p.words(f"{kind}.(unknown element's sibling)")}]},
        }  # fmt: skip

    def _address(self, path: str) -> Resource:
        p = self._p
        return {
            "text": p.words(f"{path}.text"), "line": [p.words(f"{path}.line"), p.words(f"{path}.line (2)")],
            "city": p.words(f"{path}.city"), "district": p.words(f"{path}.district"), "postalCode": p.digits(f"{path}.postalCode"),
            "period": {"start": p.date(f"{path}.period.start")},
        }  # fmt: skip

    def _patient(self) -> Resource:
        p = self._p
        made = {
            **self._everywhere("Patient"),
            "resourceType": "Patient", "id": self._who, "gender": "male", "birthDate": p.date("Patient.birthDate"),
            "_birthDate": {"extension": [{"url": "http://hl7.org/fhir/StructureDefinition/patient-birthTime", "valueDateTime": p.instant("Patient._birthDate.extension.valueDateTime")}]},
            "name": [{
                "text": p.name("Patient.name.text"), "family": p.words("Patient.name.family"), "given": [p.words("Patient.name.given")],
                "prefix": [p.words("Patient.name.prefix")], "period": {"start": p.instant("Patient.name.period.start")},
            }],
            "telecom": [{"system": "phone", "value": p.digits("Patient.telecom.value (phone)")}, {"system": "email", "value": p.mail("Patient.telecom.value (mail)")}],
            "address": [self._address("Patient.address")],
            "contact": [{"name": {"text": p.name("Patient.contact.name.text")}, "telecom": [{"value": p.digits("Patient.contact.telecom.value")}], "address": self._address("Patient.contact.address"), "organization": self._who_else("Patient.contact.organization", "Organization")}],
            "photo": [{"data": p.blob("Patient.photo.data"), "url": p.address("Patient.photo.url"), "title": p.words("Patient.photo.title")}],
            "generalPractitioner": [self._who_else("Patient.generalPractitioner", "Practitioner")],
            "managingOrganization": self._who_else("Patient.managingOrganization", "Organization"),
            "communication": [{"language": {"text": p.words("Patient.communication.language.text")}}],
            "maritalStatus": {"text": p.words("Patient.maritalStatus.text")},
            "link": [{"other": self._who_else("Patient.link.other", "RelatedPerson"), "type": "seealso"}],
        }  # fmt: skip
        if self._odd == "modifier":
            made["modifierExtension"] = [
                {
                    "url": p.address("Patient.modifierExtension.url"),
                    "valueString": p.words("Patient.modifierExtension.valueString"),
                }
            ]
        return made

    def _encounter(self) -> Resource:
        p = self._p
        return {
            **self._everywhere("Encounter"),
            "resourceType": "Encounter", "id": self._stay, "status": "in-progress", "class": {"system": ACT, "code": "IMP", "display": p.words("Encounter.class.display")},
            "subject": self._subject("Encounter"), "period": {"start": p.instant("Encounter.period.start")},
            "type": [{"text": p.words("Encounter.type.text")}], "reasonCode": [{"text": p.words("Encounter.reasonCode.text"), "coding": [{"system": p.token("Encounter.reasonCode.coding.system"), "code": p.code("Encounter.reasonCode.coding.code")}]}],
            "reasonReference": [self._who_else("Encounter.reasonReference", "Condition")],
            "participant": [{"individual": self._who_else("Encounter.participant.individual", "Practitioner"), "period": {"start": p.instant("Encounter.participant.period.start")}}],
            "location": [{"location": self._who_else("Encounter.location.location", "Location")}],
            "hospitalization": {"preAdmissionIdentifier": {"value": p.digits("Encounter.hospitalization.preAdmissionIdentifier.value")}, "origin": self._who_else("Encounter.hospitalization.origin", "Location")},
            "serviceProvider": self._who_else("Encounter.serviceProvider", "Organization"),
        }  # fmt: skip

    def _readings(self) -> list[Resource]:
        vitals = [self._reading(code, value, UNITS[code]) for code, value in NORMAL.items()]
        labs = [self._reading(code, value, unit) for code, (value, unit) in LABS.items()]
        vitals[0] = {**self._everywhere("Observation"), **vitals[0]}
        return [*vitals, *labs, self._unread()]

    def _reading(self, code: str, value: float, unit: str) -> Resource:
        p, path = self._p, "Observation"
        self._codes.append(code)
        coding = {
            "system": LOINC,
            "code": code,
            "display": p.words(f"{path}.code.coding.display"),
            "version": p.code(f"{path}.code.coding.version"),
        }
        made = {
            "resourceType": path, "id": p.id(f"{path}.id"), "status": "final", "meta": {"versionId": "1"},
            "code": {"text": p.words(f"{path}.code.text"), "coding": [{"system": p.token(f"{path}.code.coding.system"), "code": p.code(f"{path}.code.coding.code")}, coding]},
            "subject": self._subject(path), "encounter": {"reference": f"Encounter/{self._stay}", "display": p.words(f"{path}.encounter.display")},
            "effectiveDateTime": (self._at - timedelta(minutes=len(self._codes))).isoformat(),
            "_effectiveDateTime": {"extension": [{"url": "urn:x:e", "valueDateTime": p.instant(f"{path}._effectiveDateTime.extension.valueDateTime")}]},
            "issued": p.instant(f"{path}.issued"),
            "performer": [self._who_else(f"{path}.performer", "Practitioner")],
            "note": [{"text": p.name(f"{path}.note.text"), "authorString": p.name(f"{path}.note.authorString"), "time": p.instant(f"{path}.note.time")}],
            "device": {"display": p.words(f"{path}.device.display")},
            "basedOn": [self._who_else(f"{path}.basedOn", "ServiceRequest")],
            "valueQuantity": {"value": value, "unit": p.words(f"{path}.valueQuantity.unit"), "system": UCUM, "code": unit},
        }  # fmt: skip
        if self._odd == "status" and code == "9279-1":
            made["status"] = p.code(f"{path}.status")
        if self._odd == "unit" and code == "9279-1":
            made["valueQuantity"]["code"] = f"/min{{{p.code(f'{path}.valueQuantity.code')}}}"
        return made

    def _unread(self) -> Resource:
        """A reading that no model knows, in all the ways in which a value can be written."""
        p, path = self._p, "Observation (unread)"
        values = {
            "valueString": p.words(f"{path}.valueString"), "valueDateTime": p.instant(f"{path}.valueDateTime"),
            "valueQuantity": {"value": p.decimal(f"{path}.valueQuantity.value"), "unit": p.code(f"{path}.valueQuantity.unit")},
            "valueCodeableConcept": {"text": p.words(f"{path}.valueCodeableConcept.text")},
        }  # fmt: skip
        return {
            "resourceType": "Observation", "id": p.id(f"{path}.id"), "status": "final", "meta": {"versionId": "1"},
            "code": {"text": p.words(f"{path}.code.text"), "coding": [{"system": LOINC, "code": "11506-3"}]},
            "subject": {"reference": f"Patient/{self._who}"}, "dataAbsentReason": {"text": p.words(f"{path}.dataAbsentReason.text")},
            "component": [{"code": {"text": p.words(f"{path}.component.code.text")}, name: value} for name, value in values.items()],
            "valueAttachment": {"data": p.blob(f"{path}.valueAttachment.data")},
        }  # fmt: skip

    def _condition(self) -> Resource:
        p, path = self._p, "Condition"
        return {
            **self._everywhere(path),
            "resourceType": path, "id": p.id(f"{path}.id"), "subject": self._subject(path),
            "code": {"text": p.words(f"{path}.code.text"), "coding": [{"system": "http://snomed.info/sct", "code": "709044004", "display": p.words(f"{path}.code.coding.display")}]},
            "onsetDateTime": (self._at - timedelta(days=400)).date().isoformat(),
            "asserter": self._who_else(f"{path}.asserter", "Practitioner"), "recorder": self._who_else(f"{path}.recorder", "Practitioner"),
            "note": [{"text": p.name(f"{path}.note.text")}], "evidence": [{"detail": [self._who_else(f"{path}.evidence.detail", "DocumentReference")]}],
            "stage": [{"summary": {"text": p.words(f"{path}.stage.summary.text")}}],
        }  # fmt: skip
