"""SMART Backend Services end to end: what is asked for is enough, and each part of it is needed."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
from click.testing import CliRunner

from sidecar.app import Sidecar
from sidecar.cli import main
from sidecar.fhir import scopes
from sidecar.fhir.signing_keys import new_signing_keys, rotate_signing_keys
from sidecar.sandbox.ehr import Capabilities, Credentials, PracticeEhr
from sidecar.settings import admin_socket, load
from tests.harness import House, encounter, free_port, house, now, observation_set, until, write_site

ASKED = {
    "Condition": "rs", "Device": "crus", "Encounter": "rs", "Observation": "crus", "Patient": "rs", "RiskAssessment": "crus",
    "Subscription": "crus",
}  # fmt: skip
SMART = 'auth = "private_key_jwt"\nclient_id = "sidecar"\ncredential_file = "smart-keys.json"'
KEYS = "smart-keys.json"
TERMINOLOGY = "http://terminology.hl7.org/CodeSystem"
LETTERS = {(name, letter) for name, letters in ASKED.items() for letter in letters}
RUNGS = {
    "put": Capabilities(),
    "conditional": Capabilities(update_create=False),
    "search": Capabilities(update_create=False, conditional_create=False),
}


def text(scopes: dict[str, str]) -> str:
    return " ".join(f"system/{name}.{letters}" for name, letters in sorted(scopes.items()) if letters)


def secured(
    folder: Path, algorithm: str = "ES384", rung: str = "put", **fields: Any
) -> tuple[PracticeEhr, Credentials]:
    """A practice EHR where the key just made in `folder` is registered; `fields` are of its credentials."""
    jwks = new_signing_keys(folder / KEYS, algorithm).public()
    access = Credentials(client_id="sidecar", **{"jwks": jwks, **fields})
    return PracticeEhr(capabilities=RUNGS[rung], credentials=access), access


@contextlib.asynccontextmanager
async def alone(folder: Path, ehr: PracticeEhr, **sections: str) -> AsyncIterator[House]:
    """A house that does not wait for its Subscriptions."""
    await ehr.start()
    settings = load(write_site(folder, ehr.base_url, ehr=SMART, **sections))
    sidecar = Sidecar(settings)
    try:
        await sidecar.start()
        yield House(ehr, sidecar, settings)
    finally:
        await sidecar.close()
        await ehr.stop()


def sign_in(site: House) -> dict[str, Any]:
    """What `sidecar status` says of signing in."""
    transport = httpx.HTTPTransport(uds=str(admin_socket(site.settings)))
    with httpx.Client(transport=transport, base_url="http://sidecar", timeout=30) as client:
        return client.get("/status").json()["sign_in"]


def metrics(site: House) -> str:
    return httpx.get(f"http://{site.sidecar.addresses[1]}/metrics", timeout=30).text


async def assessed(site, patient_id: str = "p1", **changes: float | None) -> None:
    """An urgent set of readings is charted, and everything that follows from it is over."""
    await site.admit(patient_id)
    await site.chart(observation_set(patient_id, now(5), c9279_1=26, **changes))
    await site.settled(40)


async def lived(site) -> None:
    """What a result goes through: written, withdrawn, restored, completed, ended by another event."""
    await assessed(site)
    total = next(o for o in site.ehr.all("Observation") if o["code"]["coding"][0]["code"] == "8310-5")
    await site.ehr.write({**total, "status": "entered-in-error"})
    await site.settled(40)
    await site.ehr.write({**total, "status": "final"})
    await site.settled(40)
    await assessed(site, "p2", c8310_5=None)
    await site.ehr.write(encounter("p2", status="finished"))
    await site.ehr.write(condition("p1"))
    await site.settled(40)


def condition(patient_id: str) -> dict:
    """Pregnancy, which the model's cohort asks for."""
    return {
        "resourceType": "Condition",
        "id": f"c-{patient_id}",
        "clinicalStatus": {"coding": [{"system": f"{TERMINOLOGY}/condition-clinical", "code": "active"}]},
        "code": {"coding": [{"system": "http://snomed.info/sct", "code": "77386006"}]},
        "subject": {"reference": f"Patient/{patient_id}"},
    }


@pytest.mark.parametrize("algorithm", ["ES384", "RS384"])
async def test_either_algorithm_gets_a_token_and_completes_an_assessment_with_scopes_enforced(tmp_path, algorithm):
    ehr, access = secured(tmp_path, algorithm, algorithms=(algorithm,))
    async with house(tmp_path, ehr, ehr=SMART) as site:
        await assessed(site)
        (risk,) = site.risk_assessments()
        assert risk["status"] == "final"
        assert ehr.requests["POST", "token"] == 1
        assert access.used <= LETTERS


async def test_what_is_asked_for_is_what_the_life_of_results_uses_on_one_server_or_another(tmp_path):
    used = set()
    for rung in RUNGS:
        folder = tmp_path / rung
        folder.mkdir()
        ehr, access = secured(folder, rung=rung)
        ehr.faults.refuse_activation_next()
        async with house(folder, ehr, ehr=SMART) as site:
            await lived(site)
            assert {r["status"] for r in site.risk_assessments()} == {"amended", "preliminary"}
            assert access.forbidden == set()
            used |= access.used
    assert used == LETTERS
    models = [m.loaded.manifest for m in site.sidecar.models.values()]
    assert scopes.text(scopes.needed(models, writes=True)) == text(ASKED)


@pytest.mark.parametrize("lost", [name for name in ASKED if name != "Subscription"])
async def test_without_any_one_scope_no_assessment_is_completed_and_status_says_which_is_missing(
    tmp_path, monkeypatch, lost
):
    monkeypatch.setattr("sidecar.fhir.tokens.REPLACED_S", 0.0)
    ehr, access = secured(tmp_path)
    async with house(tmp_path, ehr, ehr=SMART) as site:
        access.scope = text({**ASKED, lost: ""})
        access.expire_all()
        await site.admit("p1")
        await site.chart(observation_set("p1", now(5), c9279_1=26))
        await until(lambda: any(name == lost for name, _ in access.forbidden), 40)

        assert site.risk_assessments() == []
        said = await asyncio.to_thread(sign_in, site)
        assert {m["scope"] for m in said["missing_scopes"]} == {f"system/{lost}.{x}" for x in ASKED[lost]}
        assert all(m["means"] for m in said["missing_scopes"])
        assert said["problem"] is None
        exposed = await asyncio.to_thread(metrics, site)
        assert exposed.count('sidecar_ehr_scope_missing{interaction="') >= len(ASKED[lost])
        assert f'sidecar_ehr_scope_missing{{interaction="read",type="{lost}"}} 1.0' in exposed

        access.scope = text(ASKED)
        access.expire_all()
        await site.settled(60)
        assert len(site.risk_assessments()) == 1
        assert (await asyncio.to_thread(sign_in, site))["missing_scopes"] == []


async def test_without_the_scope_for_subscriptions_the_catch_up_search_finds_the_events(tmp_path):
    ehr, access = secured(tmp_path, scope=text({**ASKED, "Subscription": ""}))
    async with alone(tmp_path, ehr) as site:
        await until(lambda: ("Subscription", "s") in access.forbidden, 40)
        await site.admit("p1")
        await site.chart(observation_set("p1", now(5), c9279_1=26))
        await until(lambda: len(site.risk_assessments()) == 1, 60)
        assert ehr.all("Subscription") == []
        rows = (await site.status())["subscriptions"]
        assert {(row["status"], row["reason"]) for row in rows} == {("refused", "ehr_denied:403")}
        means = "no notifications: events are found by the catch-up search only"
        said = await asyncio.to_thread(sign_in, site)
        assert {m["means"] for m in said["missing_scopes"]} == {means}
        shown = await asyncio.to_thread(
            CliRunner().invoke, main, ["status", "--config", str(tmp_path / "sidecar.toml")]
        )
        assert "system/Subscription.c" in shown.stdout
        assert "no notifications" in shown.stdout


async def test_a_site_in_shadow_asks_for_no_write_but_its_subscriptions(tmp_path):
    ehr, access = secured(tmp_path)
    async with house(tmp_path, ehr, ehr=SMART, promoted=False) as site:
        await site.admit("p1")
        await site.chart(observation_set("p1", now(5), c9279_1=26))
        await site.settled(40)
        assert [row["outcome"] for row in (await site.status())["assessments"]] == ["scored"]
        async with httpx.AsyncClient(base_url=ehr.base_url, trust_env=False) as client:
            header = {"Authorization": str(await site.sidecar.signer.header())}
            assert (await client.put("/Device/d1", json={}, headers=header)).status_code == 403
        assert access.forbidden == {("Device", "u")}


async def test_a_server_that_knows_version_1_only_is_asked_in_its_words(tmp_path):
    ehr, _ = secured(tmp_path, v1=True, scope="system/*.read system/*.write")
    async with house(tmp_path, ehr, ehr=SMART) as site:
        await assessed(site)
        assert len(site.risk_assessments()) == 1
        assert (await asyncio.to_thread(sign_in, site))["missing_scopes"] == []


async def test_a_scope_that_is_set_is_asked_for_and_what_it_lacks_is_said(tmp_path):
    ehr, access = secured(tmp_path)
    scope = text({**ASKED, "Condition": "r"})
    async with house(tmp_path, ehr, ehr=f'{SMART}\nscope = "{scope}"') as site:
        await site.admit("p1")
        await site.chart(observation_set("p1", now(5)))
        await until(lambda: access.forbidden == {("Condition", "s")}, 40)
        said = await asyncio.to_thread(sign_in, site)
        assert [m["scope"] for m in said["missing_scopes"]] == ["system/Condition.s"]


# --- tokens and keys while it runs -----------------------------------------------------------------------------------


async def test_tokens_that_expire_early_and_an_endpoint_that_is_down_for_a_while_lose_and_double_nothing(tmp_path):
    ehr, access = secured(tmp_path)
    async with house(tmp_path, ehr, ehr=SMART) as site:
        for number in range(6):
            await site.admit(f"p{number}")
            await site.chart(observation_set(f"p{number}", now(5), c9279_1=26))
            access.expire_all()
            ehr.faults.token_down = number == 3
        await until(lambda: ehr.requests["POST", "token"] >= 2, 40)
        ehr.faults.token_down = False
        await site.settled(60)
        assert sorted(r["subject"]["reference"] for r in site.risk_assessments()) == [f"Patient/p{n}" for n in range(6)]


async def test_a_key_rotated_here_before_the_ehr_knows_it_changes_nothing(tmp_path):
    ehr, access = secured(tmp_path)
    async with house(tmp_path, ehr, ehr=SMART) as site:
        await assessed(site)
        rotate_signing_keys(tmp_path / KEYS, "RS384")
        access.expire_all()
        await assessed(site, "p2")
        assert len(site.risk_assessments()) == 2
        assert access.refusals == ["kid is not registered"]


async def test_a_key_that_the_ehr_drops_is_replaced_by_rotating_without_a_restart(tmp_path):
    ehr, access = secured(tmp_path)
    async with house(tmp_path, ehr, ehr=SMART) as site:
        await assessed(site)
        access.rotate({"keys": []})
        access.expire_all()
        await site.admit("p2")
        await site.chart(observation_set("p2", now(5), c9279_1=26))
        await until(lambda: len(access.refusals) > 0, 40)
        await until(lambda: not site.sidecar.rooms.gate.is_open, 40)
        said = await asyncio.to_thread(sign_in, site)
        assert "does not know this client" in said["problem"]

        access.rotate(rotate_signing_keys(tmp_path / KEYS, "RS384").public())
        await site.settled(60)
        assert len(site.risk_assessments()) == 2
        assert (await asyncio.to_thread(sign_in, site))["problem"] is None


# --- our public keys -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", ["ES384", "RS384"])
async def test_our_keys_are_published_without_any_private_member_and_follow_a_rotation(tmp_path, algorithm):
    ehr, _ = secured(tmp_path, algorithm)
    async with house(tmp_path, ehr, ehr=SMART) as site:
        url = f"http://{site.sidecar.addresses[0]}/.well-known/jwks.json"
        async with httpx.AsyncClient(trust_env=False) as client:
            before = await client.get(url)
            rotated = rotate_signing_keys(tmp_path / KEYS, algorithm)
            after = await client.get(url)
            refused = await client.post(url)
        assert before.headers["Cache-Control"] == "public, max-age=300"
        assert before.headers["Content-Type"].startswith("application/json")
        assert [k["kid"] for k in after.json()["keys"]] == [k.kid for k in rotated.keys]
        assert after.json()["keys"][1:] == before.json()["keys"]
        assert refused.status_code == 401
        private = {"d", "p", "q", "dp", "dq", "qi", "k", "oth"}
        held = orjson.loads((tmp_path / KEYS).read_bytes())["keys"]
        for key, whole in zip(after.json()["keys"], held, strict=True):
            assert not private & set(key)
            assert {key["use"], key["alg"]} == {"sig", algorithm}
            assert not any(str(whole[m]) in after.text for m in private & set(whole))


async def test_with_another_sign_in_there_are_no_keys_to_publish(tmp_path):
    async with house(tmp_path) as site:
        url = f"http://{site.sidecar.addresses[0]}/.well-known/jwks.json"
        assert (await asyncio.to_thread(httpx.get, url)).status_code == 401


async def test_the_ehr_fetches_our_keys_from_where_we_publish_them(tmp_path):
    port = free_port()
    public = f"http://127.0.0.1:{port}"
    ehr, _ = secured(tmp_path, jwks=None, jwks_url=f"{public}/.well-known/jwks.json")
    async with house(tmp_path, ehr, ehr=SMART, server=f'port = {port}\npublic_url = "{public}"') as site:
        await assessed(site)
        assert len(site.risk_assessments()) == 1
