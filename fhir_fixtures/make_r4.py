"""Make `sidecar/deid/r4.json`: the elements of FHIR R4 that the de-identification policy has to account for.

Promise: from the official definitions of 4.0.1 (HL7, CC0; here as HAPI packs them for its validator, in the artefact
`ca.uhn.hapi.fhir:hapi-fhir-validation-resources-r4`) this script always writes the same bytes.

    python fhir_fixtures/make_r4.py hapi-fhir-validation-resources-r4-8.8.0.jar

What is written of an element: its data types (`types`), whether it is a list (`many`), whether it may turn a statement
into its opposite (`modifier`), the value set that a code must be of (`codes`), its own elements (`elements`) or whose
elements it has (`same`). What a type has from another is written there (`of`). https://hl7.org/fhir/R4/elementdefinition.html
"""

import argparse
import json
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, fromstring

Json = dict[str, Any]

TARGET = Path(__file__).resolve().parent.parent / "sidecar" / "deid" / "r4.json"
VERSION = "4.0.1"
# What a model may read, and what may stand around it.
RESOURCES = (
    "AllergyIntolerance", "Appointment", "Bundle", "CarePlan", "Condition", "Coverage", "Device", "DiagnosticReport",
    "DocumentReference", "Encounter", "FamilyMemberHistory", "Goal", "ImagingStudy", "Immunization", "Media",
    "Medication", "MedicationAdministration", "MedicationRequest", "MedicationStatement", "Observation", "Parameters",
    "Patient", "Procedure", "QuestionnaireResponse", "ServiceRequest", "Specimen",
)  # fmt: skip
# The data types that can be taken apart. All others (names, addresses, attachments, narratives, ...) are dropped or
# cross by a rule of their own, never by their elements.
DATATYPES = (
    "Age", "CodeableConcept", "Coding", "Count", "Distance", "Dosage", "Duration", "Money", "Period", "Quantity",
    "Range", "Ratio", "Reference", "SampledData", "Timing",
)  # fmt: skip
ABSTRACT = ("BackboneElement", "DomainResource", "Element", "Resource")
_PLACE = "org/hl7/fhir/r4/model/"
_NS = {"f": "http://hl7.org/fhir"}
_SYSTEM_STRING = "http://hl7.org/fhirpath/System.String"


class Definitions:
    """The structure definitions, value sets and code systems in a jar, by name or URL."""

    def __init__(self, jar: Path) -> None:
        self.structures: dict[str, Element] = {}
        self.value_sets: dict[str, Element] = {}
        self.code_systems: dict[str, Element] = {}
        with zipfile.ZipFile(jar) as packed:
            for name in ("profile/profiles-types.xml", "profile/profiles-resources.xml"):
                for found in _resources(packed, name, "StructureDefinition"):
                    self.structures[_value(found, "id")] = found
            for name in ("valueset/valuesets.xml", "valueset/v3-codesystems.xml", "valueset/v2-tables.xml"):
                self.value_sets |= {_value(each, "url"): each for each in _resources(packed, name, "ValueSet")}
                self.code_systems |= {_value(each, "url"): each for each in _resources(packed, name, "CodeSystem")}

    def codes(self, value_set: str) -> list[str] | None:
        """All codes of a value set, or None where they are not listed: media types, languages, currencies."""
        found = self.value_sets.get(value_set.partition("|")[0])
        compose = None if found is None else found.find("f:compose", _NS)
        if compose is None:
            return None
        codes: set[str] = set()
        for include in compose.iterfind("f:include", _NS):
            part = self._included(include)
            if part is None:
                return None
            codes |= part
        for exclude in compose.iterfind("f:exclude", _NS):
            codes -= self._included(exclude) or set()
        return sorted(codes)

    def _included(self, include: Element) -> set[str] | None:
        if include.find("f:filter", _NS) is not None or include.find("f:valueSet", _NS) is not None:
            return None
        named = {_value(concept, "code") for concept in include.iterfind("f:concept", _NS)}
        if named:
            return named
        system = self.code_systems.get(_value(include, "system"))
        if system is None or _value(system, "content") != "complete":
            return None
        return {_value(concept, "code") for concept in system.iter(f"{{{_NS['f']}}}concept")}


def _resources(packed: zipfile.ZipFile, name: str, kind: str) -> Iterator[Element]:
    root = fromstring(packed.read(_PLACE + name))  # noqa: S314 -- HL7's own definitions, pinned by the artefact's version
    yield from root.iterfind(f"f:entry/f:resource/f:{kind}", _NS)


def _value(element: Element, name: str) -> str:
    found = element.find(f"f:{name}", _NS)
    return "" if found is None else found.get("value", "")


def build(definitions: Definitions) -> Json:
    """What `r4.json` holds."""
    value_sets: dict[str, list[str]] = {}

    def of_all(names: tuple[str, ...]) -> Json:
        return {name: _type(definitions, name, value_sets) for name in sorted(names)}

    found = {"abstract": of_all(ABSTRACT), "datatypes": of_all(DATATYPES), "resources": of_all(RESOURCES)}
    return {"version": VERSION, **found, "codes": dict(sorted(value_sets.items()))}


def _type(definitions: Definitions, name: str, value_sets: dict[str, list[str]]) -> Json:
    structure = definitions.structures[name]
    if _value(structure, "fhirVersion") != VERSION:
        raise SystemExit(f"{name}: not defined by {VERSION}")
    parent = _value(structure, "baseDefinition").rpartition("/")[2]
    table: Json = {"elements": {}}
    if parent:
        table["of"] = parent
    inside: dict[str, Json] = {name: table["elements"]}
    for element in structure.iterfind("f:snapshot/f:element", _NS):
        path = _value(element, "path")
        above, _, own = path.rpartition(".")
        base = element.find("f:base", _NS)
        # What stands in another type is inherited from there. Quantity's kin have all of theirs from Quantity.
        if not above or base is None or _value(base, "path") != path:
            continue
        found = _element(element, path, definitions, value_sets)
        inside[above][own] = found
        if found.get("types") in (["BackboneElement"], ["Element"]):
            inside[path] = found["elements"] = {}
    return table


def _element(element: Element, path: str, definitions: Definitions, value_sets: dict[str, list[str]]) -> Json:
    found: Json = {}
    same = _value(element, "contentReference")
    if same:
        found["same"] = same.removeprefix("#")
    else:
        found["types"] = [_data_type(_value(each, "code"), path) for each in element.iterfind("f:type", _NS)]
    if _value(element, "max") != "1":
        found["many"] = True
    if _value(element, "isModifier") == "true":
        found["modifier"] = True
    binding = element.find("f:binding", _NS)
    coded = found.get("types") in (["code"], ["CodeableConcept"])
    if coded and binding is not None and _value(binding, "strength") == "required":
        codes = definitions.codes(_value(binding, "valueSet"))
        if codes:
            name = _value(binding, "valueSet").partition("|")[0].rpartition("/")[2]
            value_sets[name] = codes
            found["codes"] = name
    return found


def _data_type(code: str, path: str) -> str:
    """R4's name of a data type. Ids are written as strings of FHIRPath; a resource's is an `id`, by its page."""
    if code != _SYSTEM_STRING:
        return code
    return "id" if path == "Resource.id" else "string"


def render(content: Json) -> str:
    """JSON with a type or value set a line, so that a change can be read."""
    lines = [f'{{\n"version":{json.dumps(content["version"])}']
    for part in ("abstract", "datatypes", "resources", "codes"):
        rows = [f"{json.dumps(name)}:{_compact(value)}" for name, value in content[part].items()]
        lines.append(f"{json.dumps(part)}:{{\n" + ",\n".join(rows) + "}")
    return ",\n".join(lines) + "}\n"


def _compact(value: object) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=True)


def main() -> None:
    """Write the file, or another with `--to`."""
    parser = argparse.ArgumentParser(description="Write what FHIR R4 has, for the de-identification policy.")
    parser.add_argument("jar", type=Path, help="the artefact with the definitions")
    parser.add_argument("--to", type=Path, default=TARGET, help="the file to write")
    arguments = parser.parse_args()
    text = render(build(Definitions(arguments.jar)))
    arguments.to.write_text(text, encoding="ascii")
    sys.stdout.write(f"{arguments.to}: {len(text)} bytes\n")


if __name__ == "__main__":
    main()
