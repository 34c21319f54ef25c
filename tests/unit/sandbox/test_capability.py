"""The CapabilityStatement tells the truth: what it claims works, what it denies does not."""

from dataclasses import fields, replace

import pytest
from fhir.resources.R4B import get_fhir_model_class

from sidecar.sandbox.ehr import Capabilities

OFF = {
    field.name: None if field.name == "backport" else False for field in fields(Capabilities) if field.name != "types"
}
VARIANTS = [Capabilities(), *(replace(Capabilities(), **{name: off}) for name, off in OFF.items())]


@pytest.fixture(params=VARIANTS, ids=["all", *(f"no-{name}" for name in OFF)])
async def client(request, connect):
    return await connect(capabilities=request.param)


async def _rest(client):
    statement = (await client("GET", "metadata")).body
    get_fhir_model_class("CapabilityStatement").model_validate(statement)
    (rest,) = statement["rest"]
    return rest, {resource["type"]: resource for resource in rest["resource"]}


async def test_types_are_exactly_the_ones_served(client):
    _, resources = await _rest(client)
    for type_name in Capabilities().types:
        status = (await client("GET", type_name)).status
        assert (type_name, status) == (type_name, 200 if type_name in resources else 404)


async def test_interactions_are_exactly_the_ones_that_work(client, make):
    _, resources = await _rest(client)
    await client.ehr.write(make.patient())
    tries = {
        "read": ("GET", "Patient/p1", None),
        "vread": ("GET", "Patient/p1/_history/1", None),
        "history-instance": ("GET", "Patient/p1/_history", None),
        "history-type": ("GET", "Patient/_history", None),
        "search-type": ("GET", "Patient", None),
        "create": ("POST", "Patient", make.patient()),
        "update": ("PUT", "Patient/p1", make.patient()),
        "patch": ("PATCH", "Patient/p1", make.patient()),
        "delete": ("DELETE", "Patient/p1", None),
    }
    claimed = {each["code"] for each in resources["Patient"]["interaction"]}
    works = {code for code, (method, path, body) in tries.items() if (await client(method, path, body)).status < 300}
    assert works == claimed
    assert resources["Patient"]["readHistory"] == ("vread" in claimed)


async def test_conditional_create_and_update_create_are_as_stated(client, make):
    _, resources = await _rest(client)
    stated = resources["Patient"]
    known = make.patient(identifier=[{"system": "urn:mrn", "value": "7"}])
    await client.ehr.write(known)
    created = await client("POST", "Patient", known, If_None_Exist="identifier=urn:mrn|7")
    assert (created.status == 200) == stated["conditionalCreate"]
    assert ((await client("PUT", "Patient/new", make.patient("new"))).status == 201) == stated["updateCreate"]
    assert stated["conditionalUpdate"] is False
    assert (await client("PUT", "Patient?identifier=7", known)).status == 405
    assert stated["conditionalDelete"] == "not-supported"
    assert (await client("DELETE", "Patient?identifier=7")).status == 405


async def test_system_interactions_are_exactly_the_ones_that_work(client):
    rest, _ = await _rest(client)
    claimed = {each["code"] for each in rest.get("interaction", [])}
    for kind in ("transaction", "batch"):
        reply = await client("POST", "", {"resourceType": "Bundle", "type": kind})
        assert (kind, reply.status) == (kind, 200 if kind in claimed else 405)


async def test_every_search_parameter_stated_is_understood_and_no_other(client):
    _, resources = await _rest(client)
    values = {"date": "2026", "reference": "x", "token": "x", "uri": "x", "string": "x"}
    candidates = {p["name"]: p["type"] for resource in resources.values() for p in resource["searchParam"]}
    for type_name, resource in resources.items():
        stated = {parameter["name"] for parameter in resource["searchParam"]}
        assert {"_id", "_lastUpdated"} <= stated
        for name, kind in candidates.items():
            reply = await client("GET", f"{type_name}?{name}={values[kind]}", Prefer="handling=strict")
            assert (type_name, name, reply.status) == (type_name, name, 200 if name in stated else 400)


async def test_every_include_stated_is_understood_and_denied_ones_are_not(client):
    _, resources = await _rest(client)
    for type_name, path in {"Encounter": "Encounter:patient", "Observation": "Observation:encounter"}.items():
        reply = await client("GET", f"{type_name}?_include={path}", Prefer="handling=strict")
        assert (reply.status == 200) == (path in resources[type_name].get("searchInclude", []))
    for type_name, resource in resources.items():
        for path in resource.get("searchInclude", []):
            assert (await client("GET", f"{type_name}?_include={path}", Prefer="handling=strict")).status == 200
