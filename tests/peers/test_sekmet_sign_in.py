"""SMART Backend Services against a token endpoint that we did not write, with its scopes enforced.

One server for the module; every test is a client of its own there, with patients of its own.
"""

import contextlib
import os
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from sidecar.app import Sidecar
from sidecar.errors import Unavailable
from sidecar.fhir.auth import credentials
from sidecar.fhir.signing_keys import new_signing_keys, rotate_signing_keys
from sidecar.settings import load
from sidecar.store import Statement
from sidecar.writeback.render import SCORE_SYSTEM
from tests.harness import encounter, free_port, now, observation_set, patient, until, write_site
from tests.peers import sekmet
from tests.peers.conftest import REQUIRED
from tests.peers.peer import PeerError

pytestmark = pytest.mark.timeout(600)

ASKED = (
    "system/Condition.rs system/Device.crus system/Encounter.rs system/Observation.crus system/Patient.rs "
    "system/RiskAssessment.crus system/Subscription.crus"
)
WRITER = {"client_id": "another-system", "client_secret": "another-secret", "scopes": "system/*.cruds"}
CLIENTS = {"ES384": ASKED, "RS384": ASKED, "by-url": ASKED, "narrow": ASKED.replace("system/Device.crus ", "")}
PATIENCE_S = 60.0
QUEUED = Statement("queued", "SELECT failures FROM delivery WHERE state = 'queued' ORDER BY failures DESC")


@dataclass(frozen=True)
class Server:
    """The running server; each client's keys are in a folder of its name, `port` is where "by-url" publishes its own."""

    base_url: str
    folder: Path
    port: int

    @property
    def token_url(self) -> str:
        return self.base_url.removesuffix("/fhir") + "/auth/token"

    def keys(self, client: str) -> Path:
        return self.folder / client / "smart-keys.json"


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[Server]:
    folder, port = tmp_path_factory.mktemp("sekmet"), free_port()
    clients: list[dict[str, Any]] = [WRITER]
    for name, scopes in CLIENTS.items():
        (folder / name).mkdir()
        keys = new_signing_keys(folder / name / "smart-keys.json", "RS384" if name == "RS384" else "ES384")
        where = (
            {"jwks_url": f"http://127.0.0.1:{port}/.well-known/jwks.json"}
            if name == "by-url"
            else {"jwks": keys.public()}
        )
        clients.append({"client_id": name, "scopes": scopes, **where})
    try:
        running = sekmet.start(free_port(), folder / "sekmet.log", clients)
    except PeerError:
        if os.environ.get(REQUIRED) == "1":
            raise
        pytest.skip("sekmet-fhir cannot be installed or started on this machine")
    with running:
        yield Server(running.base_url, folder, port)


@contextlib.asynccontextmanager
async def hospital(server: Server) -> AsyncIterator[httpx.AsyncClient]:
    """Another system of the hospital, with a token of its own."""
    async with httpx.AsyncClient(
        timeout=60, trust_env=False, headers={"Content-Type": "application/fhir+json"}
    ) as client:
        form = {"grant_type": "client_credentials", "scope": WRITER["scopes"]}
        answer = await client.post(
            server.token_url, data=form, auth=(WRITER["client_id"], WRITER["client_secret"]),
            headers={"Content-Type": "application/x-www-form-urlencoded"},
        )  # fmt: skip
        client.headers["Authorization"] = f"Bearer {answer.json()['access_token']}"
        yield client


@contextlib.asynccontextmanager
async def running(server: Server, client_id: str, /, **sections: str) -> AsyncIterator[Sidecar]:
    ehr = f'auth = "private_key_jwt"\nclient_id = "{client_id}"\ncredential_file = "smart-keys.json"'
    sidecar = Sidecar(load(write_site(server.folder / client_id, server.base_url, ehr=ehr, **sections)))
    try:
        await sidecar.start()
        yield sidecar
    finally:
        await sidecar.close()


async def admitted(server: Server, hospital: httpx.AsyncClient, patient_id: str) -> None:
    """A patient with an urgent set of readings."""
    for resource in (patient(patient_id), encounter(patient_id), *observation_set(patient_id, now(5), c9279_1=26)):
        url = f"{server.base_url}/{resource['resourceType']}/{resource['id']}"
        answer = await hospital.put(url, json=resource)
        assert answer.status_code in {200, 201}, answer.text


async def charted(server: Server, hospital: httpx.AsyncClient, patient_id: str) -> list[dict[str, Any]]:
    """Our totals: the server does not declare RiskAssessment, so the Observation alone is written."""
    answer = await hospital.get(f"{server.base_url}/Observation?patient={patient_id}&_count=200")
    found = [entry["resource"] for entry in answer.json().get("entry", [])]
    return [r for r in found if any(i["system"] == SCORE_SYSTEM for i in r.get("identifier", []))]


async def completed(server: Server, client_id: str, sidecar: Sidecar) -> None:
    """One assessment of one patient, from admission to the chart."""
    async with hospital(server) as others:
        await admitted(server, others, f"p-{client_id.lower()}")

        async def written() -> bool:
            # What is incomplete has no value yet.
            return ["valueQuantity" in r for r in await charted(server, others, f"p-{client_id.lower()}")] == [True]

        await until(written, PATIENCE_S)
        (total,) = await charted(server, others, f"p-{client_id.lower()}")
        assert total["valueQuantity"]["value"] == 3
    assert sidecar.signer.report() == {"problem": None, "missing_scopes": []}


@pytest.mark.parametrize("algorithm", ["ES384", "RS384"])
async def test_either_algorithm_completes_an_assessment_with_no_more_scopes_than_we_ask_for(server, algorithm):
    async with running(server, algorithm) as sidecar:
        await completed(server, algorithm, sidecar)


async def test_it_fetches_our_keys_from_where_we_publish_them(server):
    public = f'port = {server.port}\npublic_url = "http://127.0.0.1:{server.port}"'
    async with running(server, "by-url", server=public) as sidecar:
        await completed(server, "by-url", sidecar)


async def test_a_scope_that_it_does_not_grant_is_reported_and_nothing_is_written(server):
    async with running(server, "narrow") as sidecar, hospital(server) as others:
        await admitted(server, others, "p-narrow")
        await until(lambda: sidecar.signer.report()["missing_scopes"], PATIENCE_S)
        found = {m["scope"]: m["means"] for m in sidecar.signer.report()["missing_scopes"]}
        assert set(found) == {f"system/Device.{letter}" for letter in "crus"}
        assert found["system/Device.c"] == "results are not written"

        async def tried() -> bool:
            rows = await sidecar.rooms.store.read(QUEUED)
            return bool(rows) and rows[0]["failures"] > 0

        await until(tried, PATIENCE_S)
        assert await charted(server, others, "p-narrow") == []


async def test_a_key_that_it_does_not_know_yet_is_passed_over_for_the_one_before(server):
    rotate_signing_keys(server.keys("ES384"), "ES384")
    settings = load(server.folder / "ES384" / "sidecar.toml")
    signs = credentials(settings.ehr, dict)
    header = await signs.header()
    assert header is not None
    async with httpx.AsyncClient(trust_env=False, headers={"Authorization": header}) as client:
        assert (await client.get(f"{server.base_url}/Patient")).status_code == 200
        assert (await client.get(f"{server.base_url}/Group")).status_code == 403


async def test_a_client_that_it_does_not_know_is_told_so_in_words(server):
    settings = load(server.folder / "ES384" / "sidecar.toml")
    signs = credentials(settings.ehr.model_copy(update={"client_id": "nobody"}), dict)
    with pytest.raises(Unavailable, match="ehr_token:invalid_client"):
        await signs.header()
    assert "does not know this client" in signs.report()["problem"]
