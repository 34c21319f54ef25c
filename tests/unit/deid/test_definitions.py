"""What the policy is held against is R4 as HL7 defines it, no more and no less."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from sidecar.deid.definitions import r4

REPO = Path(__file__).resolve().parents[3]
SHIPPED = REPO / "sidecar" / "deid" / "r4.json"
EXAMPLES = REPO.parent / "shared" / "fhir" / "r4-examples"
NAME = "hapi-fhir-validation-resources-r4"
JAR = Path.home() / ".m2/repository/ca/uhn/hapi/fhir" / NAME / "8.8.0" / f"{NAME}-8.8.0.jar"
CONTENT = json.loads(SHIPPED.read_text())
WITHOUT_A_TABLE = {
    "Address", "Annotation", "Attachment", "ContactDetail", "ContactPoint", "Contributor", "DataRequirement", "Expression",
    "Extension", "HumanName", "Identifier", "Meta", "Narrative", "ParameterDefinition", "RelatedArtifact", "Resource",
    "Signature", "TriggerDefinition", "UsageContext", "base64Binary", "boolean", "canonical", "code", "date", "dateTime",
    "decimal", "id", "instant", "integer", "markdown", "oid", "positiveInt", "string", "time", "unsignedInt", "uri", "url",
    "uuid",
}  # fmt: skip


def tables():
    """Every table of the file, by path."""
    for part in ("abstract", "datatypes", "resources"):
        for name, table in CONTENT[part].items():
            yield from inside(name, table["elements"])


def inside(path, elements):
    yield path, elements
    for name, spec in elements.items():
        if "elements" in spec:
            yield from inside(f"{path}.{name}", spec["elements"])


@pytest.mark.skipif(not JAR.is_file(), reason=f"{JAR.name} is not on this machine, so the file cannot be built again")
def test_building_the_file_again_from_the_official_definitions_gives_the_same_bytes(tmp_path):
    script = REPO / "fhir_fixtures" / "make_r4.py"
    subprocess.run([sys.executable, script, JAR, "--to", tmp_path / "r4.json"], check=True, capture_output=True)
    assert (tmp_path / "r4.json").read_bytes() == SHIPPED.read_bytes()


def test_every_data_type_value_set_and_likeness_that_the_file_names_is_one_it_explains():
    paths = {path for path, _ in tables()}
    for path, elements in tables():
        for name, spec in elements.items():
            where = f"{path}.{name}"
            assert ("same" in spec) != ("types" in spec), where
            assert spec.get("same", path) in paths, where
            assert {*spec.get("types", [])} <= {
                *WITHOUT_A_TABLE,
                *CONTENT["datatypes"],
                "BackboneElement",
                "Element",
            }, where
            assert spec.get("codes") in {None, *CONTENT["codes"]}, where
            assert name.endswith("[x]") == (len(spec.get("types", [])) > 1), where
    assert all(codes == sorted(set(codes)) != [] for codes in CONTENT["codes"].values())


def test_every_value_set_in_the_file_belongs_to_an_element():
    used = {spec["codes"] for _, elements in tables() for spec in elements.values() if "codes" in spec}
    assert used == set(CONTENT["codes"])


def test_a_type_has_what_it_inherits_in_the_order_of_inheritance():
    assert r4().line("Observation") == ["Resource", "DomainResource", "Observation"]
    assert r4().line("Age") == ["Element", "Quantity", "Age"]
    assert r4().line("Timing") == ["Element", "BackboneElement", "Timing"]
    assert list(r4().elements("Bundle"))[:4] == ["id", "meta", "implicitRules", "language"]
    assert "text" not in r4().elements("Bundle")


def test_each_choice_is_an_element_by_its_name_in_json():
    elements = r4().elements("Observation")
    assert (elements["valueQuantity"].kind, elements["valueQuantity"].choice) == ("Quantity", "value[x]")
    assert "value[x]" not in elements
    assert "effectiveInstant" in elements


@pytest.mark.parametrize(
    "path",
    [
        "Observation.status", "Observation.focus", "Observation.dataAbsentReason", "Patient.active", "Patient.link",
        "Patient.deceasedDateTime", "MedicationRequest.doNotPerform", "Condition.verificationStatus", "Quantity.comparator",
        "Immunization.isSubpotent", "Resource.implicitRules", "Goal.lifecycleStatus", "FamilyMemberHistory.dataAbsentReason",
    ],
)  # fmt: skip
def test_what_may_turn_a_statement_into_its_opposite_is_known_as_such(path):
    type_name, name = path.split(".")
    assert r4().elements(type_name)[name].modifier


@pytest.mark.skipif(not EXAMPLES.is_dir(), reason="../shared/fhir/r4-examples is not here")
def test_every_element_of_the_official_examples_is_known():
    """The examples were made by other hands than the definitions' packaging: what either lacks shows."""
    known = {
        path: elements for name in CONTENT["resources"] for path, elements in all_tables(name, r4().elements(name))
    }
    seen = set()
    for file in sorted(EXAMPLES.glob("*.json")):
        for resource in resources(json.loads(file.read_text())):
            if resource["resourceType"] in r4().resources:
                strays = [*unknown(resource["resourceType"], resource, known)]
                assert strays == [], file.name
                seen.add(resource["resourceType"])
    assert len(seen) >= 20, sorted(seen)


def all_tables(path, elements):
    yield path, elements
    for name, element in elements.items():
        if element.parts:
            yield from all_tables(f"{path}.{name}", element.parts)


def resources(node):
    """A resource and all in it."""
    if isinstance(node, dict):
        if "resourceType" in node:
            yield node
        for child in node.values():
            yield from resources(child)
    elif isinstance(node, list):
        for child in node:
            yield from resources(child)


def unknown(path, node, known):
    for name, value in node.items():
        bare = name.removeprefix("_")
        if bare in {"resourceType", "id", "extension", "modifierExtension", "fhir_comments"}:
            continue
        element = known[path].get(bare)
        if element is None:
            yield f"{path}.{name}"
        elif element.parts or element.same:
            for each in value if isinstance(value, list) else [value]:
                yield from unknown(element.same or f"{path}.{name}", each, known)
