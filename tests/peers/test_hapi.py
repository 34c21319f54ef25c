"""HAPI FHIR JPA, an R4 server we did not write: what holds against our practice EHR holds against it too.

One server for the module; every test has patients, database and Subscriptions of its own.
"""

import asyncio
import contextlib
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from sidecar import operations
from sidecar.app import Sidecar, shipped, system_clock
from sidecar.errors import Retryable
from sidecar.fhir import capability
from sidecar.fhir.auth import NoCredentials
from sidecar.fhir.client import EhrClient
from sidecar.records import Reference
from sidecar.review import review
from sidecar.sandbox.ward import Ward, WardClock, load_ward
from sidecar.settings import Settings
from sidecar.store import Statement, Step, new_keys
from sidecar.writeback import LadderWriter
from sidecar.writeback.render import SCORE_SYSTEM
from tests.harness import SECRET, encounter, free_port, now, observation_set, patient, reading, until
from tests.peers import hapi
from tests.peers.conftest import skip_without_peer

skip_without_peer(hapi.why_missing())
pytestmark = pytest.mark.timeout(600)

Clock = Callable[[], datetime]
FHIR_JSON = {"Accept": "application/fhir+json", "Content-Type": "application/fhir+json"}
WARD_SPEED = 14400.0
STAYS = ("stay-01", "stay-02", "stay-05", "stay-06")
"""The shorter stays of the ward: some 570 resources. All eleven (2432) say the same in four times the time."""
FEW_BEHIND = 30
PATIENCE_S = 120.0
IN_FORCE = {"preliminary", "final", "amended", "corrected"}
"""Statuses a clinician may act on."""


class Chart:
    """HAPI as any other system of the hospital sees it: plain HTTP, no code of ours."""

    def __init__(self, base_url: str) -> None:
        self.base_url = base_url
        self._http = httpx.AsyncClient(timeout=60, trust_env=False, headers=FHIR_JSON)

    async def close(self) -> None:
        await self._http.aclose()

    async def write(self, resource: dict[str, Any]) -> dict[str, Any]:
        """Update or create under the resource's own id; the stored version."""
        url = f"{self.base_url}/{resource['resourceType']}/{resource['id']}"
        answer = await self._http.put(url, content=orjson.dumps(resource))
        assert answer.status_code in {200, 201}, answer.text
        return answer.json()

    async def remove(self, relative: str) -> None:
        answer = await self._http.delete(f"{self.base_url}/{relative}")
        assert answer.status_code in {200, 204}, answer.text

    async def get(self, reference: str) -> httpx.Response:
        """The answer to reading `Type/id` or `Type/id/_history/version`."""
        return await self._http.get(f"{self.base_url}/{reference}")

    async def read(self, reference: str) -> dict[str, Any]:
        answer = await self.get(reference)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def all(self, query: str) -> list[dict[str, Any]]:
        """Every match of a search, over all its pages."""
        url: str | None = f"{self.base_url}/{query}{'&' if '?' in query else '?'}_count=50"
        found = []
        while url:
            answer = await self._http.get(url, headers={"Cache-Control": "no-cache"})
            assert answer.status_code == 200, answer.text
            bundle = answer.json()
            found += [e["resource"] for e in bundle.get("entry", [])]
            url = next((link["url"] for link in bundle["link"] if link["relation"] == "next"), None)
        return found


@dataclass
class Site:
    """A sidecar in this process, working for HAPI. `due` counts the events it must hear, by resource."""

    chart: Chart
    sidecar: Sidecar
    due: Counter[Reference] = field(default_factory=Counter)

    async def write(self, *resources: dict[str, Any]) -> None:
        for resource in resources:
            await self.chart.write(resource)
            self.due[Reference(resource["resourceType"], resource["id"])] += 1

    async def admit(self, patient_id: str) -> None:
        await self.write(patient(patient_id), encounter(patient_id))

    async def rows(self, sql: str) -> list[dict[str, Any]]:
        return [dict(r) for r in await self.sidecar.rooms.store.read(Statement("test", sql))]

    async def heard(self) -> Counter[Reference]:
        """How many events there were of each resource that is due; others are other tests'."""
        rows = await self.rows("SELECT focus_key, count(*) AS n FROM event WHERE focus_key IS NOT NULL GROUP BY 1")
        counts = {row["focus_key"]: row["n"] for row in rows}
        key = self.sidecar.rooms.archive.resource_key
        return Counter({focus: counts.get(key(focus), 0) for focus in self.due})

    async def settled(self) -> None:
        """Wait until all that is due was heard, and everything in the house came to its end."""

        async def idle() -> bool:
            # In this order: what is heard after the look at the queues would otherwise pass for done.
            if not await self.heard() >= self.due:
                return False
            found = await operations.status(self.sidecar.rooms.store)
            return not ({"pending", "routed"} & set(found["events"])) and "queued" not in found["writes"]

        await until(idle, PATIENCE_S)

    async def risk_assessments(self, patient_id: str) -> list[dict[str, Any]]:
        return await self.chart.all(f"RiskAssessment?patient={patient_id}")

    async def totals(self, patient_id: str) -> list[dict[str, Any]]:
        return [o for o in await self.chart.all(f"Observation?patient={patient_id}") if _is_total(o)]

    async def rested_on(self, risk: dict[str, Any]) -> list[Reference]:
        """What the sidecar's own record says an assessment rests on. HAPI stores references without their versions
        unless it is configured to keep them, so the chart cannot say which version was read."""
        stored = await self.sidecar.rooms.archive.latest(bytes.fromhex(_key(risk)))
        return list(stored.conclusion.evidence.basis)


def settings_for(folder: Path, base_url: str, ladder: str = "auto", debounce: str = "0.5s") -> Settings:
    """Settings of a site that works for `base_url`, with its database and keys in `folder`."""
    keys, secret = folder / "keys.toml", folder / "hook-secret"
    if not keys.exists():
        new_keys(keys)
        secret.write_text(SECRET)
        secret.chmod(0o600)
    port = free_port()
    news2 = {
        "version": "1.0.0",
        "promoted_by": "tests",
        "promoted_because": "tests",
        "debounce": debounce,
        "max_wait": "2s",
        "switches": {"room_air_when_undocumented": True},
    }
    return Settings.model_validate(
        {
            "facility": {"time_zone": "UTC"},
            "ehr": {"base_url": base_url, "timeout_s": 30, "write_ladder": ladder},
            "server": {
                "port": port,
                "public_url": f"http://127.0.0.1:{port}",
                "ops_port": free_port(),
                "hook_secret_file": secret,
            },
            "store": {"url": f"sqlite:///{folder}/sidecar.db", "key_file": keys},
            # A short overlap: HAPI's clock is ours, and the patients of the test before are not ours to score.
            "work": {"catch_up_interval": "5s", "catch_up_overlap": "2s"},
            "models": {"news2": news2},
        }
    )


async def subscriptions_of(chart: Chart, settings: Settings) -> list[dict[str, Any]]:
    found = await chart.all("Subscription")
    return [s for s in found if s["channel"]["endpoint"].startswith(settings.server.public_url + "/")]


async def unsubscribe(chart: Chart, settings: Settings) -> None:
    for subscription in await subscriptions_of(chart, settings):
        await chart.remove(f"Subscription/{subscription['id']}")


@contextlib.asynccontextmanager
async def running(chart: Chart, settings: Settings, clock: Clock = system_clock) -> AsyncIterator[Site]:
    """Start a sidecar; HAPI has activated every Subscription when this gives it. Its Subscriptions stay behind."""
    sidecar = Sidecar(settings, clock)
    try:
        await sidecar.start()

        async def listening() -> bool:
            # Our own view too: the sidecar must have seen that they are active.
            seen = await operations.status(sidecar.rooms.store)
            return [s["status"] for s in seen["subscriptions"]] == ["active"] * len(sidecar.rooms.sources)

        await until(listening, PATIENCE_S)
        yield Site(chart, sidecar)
    finally:
        await sidecar.close()


@contextlib.asynccontextmanager
async def site_at(chart: Chart, folder: Path, clock: Clock = system_clock, **choices: str) -> AsyncIterator[Site]:
    """The same, and its Subscriptions end with it."""
    settings = settings_for(folder, chart.base_url, **choices)
    try:
        async with running(chart, settings, clock) as site:
            yield site
    finally:
        await unsubscribe(chart, settings)


@pytest.fixture(scope="module")
def hapi_url(tmp_path_factory):
    """The base URL of an empty HAPI server."""
    with hapi.start(free_port(), tmp_path_factory.mktemp("hapi") / "hapi.log") as server:
        yield server.base_url


@pytest.fixture
async def chart(hapi_url):
    chart = Chart(hapi_url)
    yield chart
    await chart.close()


# The ward


class Pace:
    """Seconds of replay. They stand still while a resource is being written or the sidecar is behind: on a slow machine
    the ward takes longer and says the same, instead of growing stale before anyone reads it."""

    def __init__(self) -> None:
        self._passed, self._since = 0.0, time.monotonic()
        self._stopped = False

    def __call__(self) -> float:
        return self._passed if self._stopped else self._passed + time.monotonic() - self._since

    def stop(self) -> None:
        self._passed, self._stopped = self(), True

    def go(self) -> None:
        self._since, self._stopped = time.monotonic(), False


@dataclass
class PacedWriter:
    """Writes the ward into HAPI at the pace of who has to follow it."""

    site: Site
    pace: Pace
    written: int = 0

    async def write(self, resource: dict[str, Any]) -> dict[str, Any]:
        self.pace.stop()
        stored = await self.site.chart.write(resource)
        self.written += 1
        if self._is_subscribed(stored):
            self.site.due[Reference(stored["resourceType"], stored["id"])] += 1
        if self.written % 5 == 0 and await self._behind() > FEW_BEHIND:
            await until(self._caught_up, PATIENCE_S)
        self.pace.go()
        return stored

    async def _caught_up(self) -> bool:
        return await self._behind() <= FEW_BEHIND // 2

    async def _behind(self) -> int:
        sql = "SELECT (SELECT count(*) FROM event WHERE focus_type IS NOT NULL AND state = 'done') AS done, "
        sql += "(SELECT count(*) FROM delivery WHERE state = 'queued') AS queued"
        (row,) = await self.site.rows(sql)
        return self.site.due.total() - row["done"] + row["queued"]

    def _is_subscribed(self, stored: dict[str, Any]) -> bool:
        codes = {f"{c['system']}|{c['code']}" for c in stored.get("code", {}).get("coding", []) if "system" in c}
        for source in self.site.sidecar.rooms.sources:
            if source.type == stored["resourceType"]:
                return not source.query or bool(codes & set(dict(source.query)["code"].split(",")))
        return False


@dataclass(frozen=True)
class Replayed:
    """What the ward left behind, in HAPI and in the sidecar."""

    figures: dict[str, Any]
    due: Counter[Reference]
    heard: Counter[Reference]
    events: dict[str, int]
    writes: dict[str, int]
    effects: int
    devices: list[dict[str, Any]]
    risk_assessments: list[dict[str, Any]]
    rested_on: dict[str, list[Reference]]
    there: dict[str, dict[str, Any] | None]


async def _replay(base_url: str, folder: Path) -> Replayed:
    chart = Chart(base_url)
    pace = Pace()
    clock = WardClock(datetime.now(UTC), WARD_SPEED, pace)
    stays = [stay for stay in load_ward(shipped("ward")) if stay.name in STAYS]
    try:
        async with site_at(chart, folder, clock=clock.now, debounce="0.05s") as site:
            writer = PacedWriter(site, pace)
            started = time.monotonic()
            await Ward(stays, writer, clock).run()
            await site.settled()
            return await _left_behind(site, writer.written, time.monotonic() - started)
    finally:
        await chart.close()


async def _left_behind(site: Site, written: int, seconds: float) -> Replayed:
    status = await operations.status(site.sidecar.rooms.store)
    patients = sorted(focus.id for focus in site.due if focus.type == "Patient")
    risks = [risk for each in patients for risk in await site.risk_assessments(each)]
    rested_on = {_key(risk): await site.rested_on(risk) for risk in risks}
    cited = {r.versioned for basis in rested_on.values() for r in basis}
    cited |= {risk["basis"][0]["reference"] for risk in risks}
    return Replayed(
        figures=await _figures(site, status, risks) | {"resources": written, "seconds": round(seconds, 1)},
        due=site.due,
        heard=await site.heard(),
        events=status["events"],
        writes=status["writes"],
        effects=(await site.rows("SELECT count(*) AS n FROM effect WHERE risk_assessment IS NOT NULL"))[0]["n"],
        devices=await site.chart.all("Device?identifier=urn:ehr-sidecar:model-digest|"),
        risk_assessments=risks,
        rested_on=rested_on,
        there=await _look_up(site.chart, cited),
    )


async def _look_up(chart: Chart, references: Iterable[str]) -> dict[str, dict[str, Any] | None]:
    room = asyncio.Semaphore(8)

    async def look(reference: str) -> tuple[str, dict[str, Any] | None]:
        async with room:
            answer = await chart.get(reference)
            return reference, answer.json() if answer.status_code == 200 else None

    return dict(await asyncio.gather(*map(look, references)))


async def _figures(site: Site, status: dict[str, Any], risks: list[dict[str, Any]]) -> dict[str, Any]:
    outcomes = {row["outcome"]: row["n"] for row in status["assessments"]}
    sql = "SELECT 1000 * (settled_at - heard_at) AS ms FROM delivery WHERE state = 'written' ORDER BY ms"
    waits = [round(row["ms"]) for row in await site.rows(sql)]
    keys = {_key(risk) for risk in risks}
    return {
        "peer": "hapi-fhir-jpa r4",
        "events": (await site.heard()).total(),
        "assessments": sum(outcomes.values()),
        "incomplete": outcomes.get("incomplete", 0),
        "not_scored": outcomes.get("not_scored", 0),
        "in_ehr": len(risks),
        "duplicates": len(risks) - len(keys),
        "writes": status["writes"],
        "event_to_write_p50_ms": waits[len(waits) // 2],
        "event_to_write_p99_ms": waits[int(len(waits) * 0.99)],
    }


@pytest.fixture(scope="module")
def ward(hapi_url, tmp_path_factory):
    """The ward, replayed once."""
    return asyncio.run(_replay(hapi_url, tmp_path_factory.mktemp("ward")))


def test_the_ward_is_scored_in_hapi_without_a_duplicate(ward, capsys, tmp_path):
    line = orjson.dumps(ward.figures).decode()
    (tmp_path / "hapi-figures.json").write_text(line)
    with capsys.disabled():
        sys.stdout.write(f"\n{line}\n")

    assert ward.figures["in_ehr"] >= 50
    assert ward.figures["duplicates"] == 0
    assert ward.figures["in_ehr"] == ward.effects
    assert ward.figures["assessments"] > ward.figures["not_scored"] + ward.figures["incomplete"]


def test_every_version_that_hapi_stored_was_heard_once_and_came_to_its_end(ward):
    assert ward.heard == ward.due
    assert set(ward.events) == {"done"}
    assert set(ward.writes) <= {"written", "superseded", "cancelled", "expired"}


def test_everything_a_risk_assessment_rests_on_is_in_hapi_in_the_version_that_was_read(ward):
    for risk in ward.risk_assessments:
        rested_on = ward.rested_on[_key(risk)]
        assert rested_on
        for reference in rested_on:
            read = ward.there[reference.versioned]
            assert read is not None, reference.versioned
            assert (read["id"], read["meta"]["versionId"]) == (reference.id, reference.version)
            assert read["subject"] == risk["subject"]
        said = [b["reference"].partition("/_history/")[0] for b in risk["basis"]]
        assert [r for r in said if not _is_total(ward.there.get(r))] == [r.relative for r in rested_on]


def test_every_complete_score_has_its_total_beside_it_and_no_other_has(ward):
    complete = [r for r in ward.risk_assessments if "coding" in r["prediction"][0].get("qualitativeRisk", {})]
    assert complete
    for risk in ward.risk_assessments:
        total = ward.there[risk["basis"][0]["reference"]]
        assert _is_total(total) is (risk in complete)
        if risk in complete:
            assert (total["status"], total["subject"]) == (risk["status"], risk["subject"])
            assert _key(total) == _key(risk)
            assert total["derivedFrom"] == risk["basis"][1:]
            assert f"total {total['valueQuantity']['value']} " in risk["note"][0]["text"]


def test_one_model_version_is_one_device_that_all_scores_name(ward):
    (device,) = ward.devices
    assert {r["performer"]["reference"] for r in ward.risk_assessments} == {f"Device/{device['id']}"}


# One patient at a time

LAST_WRITES = (
    "SELECT d.assessment_id FROM delivery AS d JOIN assessment AS a ON a.id = d.assessment_id WHERE a.latest = 1"
)


@pytest.mark.parametrize("ladder", ["conditional", "search", "put"])
async def test_a_repeated_event_or_write_leaves_one_resource_in_one_version(chart, tmp_path, ladder):
    patients = [f"{ladder}-{n}" for n in range(3)]
    async with site_at(chart, tmp_path, ladder=ladder) as site:
        for patient_id in patients:
            await site.admit(patient_id)
            await site.write(*observation_set(patient_id, now(5), c9279_1=26))
        await site.settled()
        before = {p: (await site.risk_assessments(p) + await site.totals(p)) for p in patients}
        assert {p: len(found) for p, found in before.items()} == dict.fromkeys(patients, 2)
        if ladder == "put":
            keys = {r["id"]: r["identifier"][0]["value"] for found in before.values() for r in found}
            assert all(logical_id[3:] == key[:40] for logical_id, key in keys.items())

        # The same news again, not recognisable as a repeat; and a process that died between a write and its record.
        await _tell_again(site, patients)
        await _forget_that_it_was_written(site)
        site.sidecar.wake()
        await site.settled()

        assert {p: (await site.risk_assessments(p) + await site.totals(p)) for p in patients} == before
        assert await site.rows(f"{LAST_WRITES} AND (d.state <> 'written' OR d.attempts < 2)") == []


async def _tell_again(site: Site, patients: Iterable[str]) -> None:
    """Send one notification a patient as a server would that puts no version into it."""
    headers = FHIR_JSON | {"Authorization": f"Bearer {SECRET}"}
    async with httpx.AsyncClient(trust_env=False, headers=headers) as http:
        for patient_id in patients:
            (reading_, *_) = await site.chart.all(f"Observation?patient={patient_id}&code=9279-1")
            bare = {name: value for name, value in reading_.items() if name != "meta"}
            hook = f"{site.sidecar.settings.server.public_url}/notify/observation/Observation/{bare['id']}"
            assert (await http.put(hook, content=orjson.dumps(bare))).status_code == 200
            site.due[Reference("Observation", bare["id"])] += 1


async def _forget_that_it_was_written(site: Site) -> None:
    """The database as it is when a process dies after the EHR took a write and before that was recorded."""
    forget = (Statement("forget_effects", "DELETE FROM effect"), Statement("forget_device", "DELETE FROM device"))
    again = Statement(
        "queue_again",
        f"UPDATE delivery SET state = 'queued', settled_at = NULL WHERE assessment_id IN ({LAST_WRITES})",
    )
    await site.sidecar.rooms.store.commit(*map(Step, forget), Step(again))


async def test_of_many_who_write_one_identity_at_once_one_resource_comes_to_be(chart):
    client = EhrClient(chart.base_url, NoCredentials(), timeout_s=30, connections=8)
    device = {
        "resourceType": "Device",
        "id": "not-used-by-a-conditional-create",
        "identifier": [{"system": "urn:tests:race", "value": "one"}],
        "status": "active",
    }
    try:
        writer = LadderWriter(client, await capability.read(client), "conditional")

        async def write() -> str:
            while True:
                # HAPI-2745 (409): another transaction is creating the same.
                with contextlib.suppress(Retryable):
                    return await writer.write(device, None, look_first=True)

        ids = await asyncio.gather(*(write() for _ in range(8)))
    finally:
        await client.close()
    found = await chart.all("Device?identifier=urn:tests:race|one")
    assert [d["id"] for d in found] == list(set(ids))


async def test_a_corrected_reading_corrects_the_assessment_that_rested_on_it(chart, tmp_path):
    moment = now(5)
    async with site_at(chart, tmp_path) as site:
        await site.admit("corrected")
        await site.write(*observation_set("corrected", moment, c9279_1=30))
        await site.settled()
        (before,) = await site.risk_assessments("corrected")
        assert (before["status"], _band(before)) == ("final", "low-medium")

        right = reading("corrected", "9279-1", 18, moment, status="corrected")
        await site.write(right)
        await site.settled()

        (after,) = await site.risk_assessments("corrected")
        assert (after["id"], after["status"], _band(after)) == (before["id"], "corrected", "low")
        assert int(after["meta"]["versionId"]) == int(before["meta"]["versionId"]) + 1
        assert Reference("Observation", right["id"], "2") in await site.rested_on(after)
        (total,) = await site.totals("corrected")
        assert (total["status"], total["valueQuantity"]["value"]) == ("corrected", 0)


@pytest.mark.parametrize("how", ["voided", "deleted"])
async def test_nothing_in_force_rests_on_a_reading_that_was_taken_back(chart, tmp_path, how):
    earlier, later = now(60), now(5)
    async with site_at(chart, tmp_path) as site:
        await site.admit(how)
        await site.write(*observation_set(how, earlier))
        await site.settled()
        wrong = reading(how, "9279-1", 30, later)
        await site.write(wrong)
        await site.settled()
        assert [r["status"] for r in await site.risk_assessments(how)] == ["final", "final"]

        if how == "voided":
            await site.write(wrong | {"status": "entered-in-error"})
        else:
            await _remove_and_review(site, Reference("Observation", wrong["id"]))
        await site.settled()

        risks, totals = await site.risk_assessments(how), await site.totals(how)
        assert sorted(r["status"] for r in risks) == sorted(t["status"] for t in totals)
        assert Counter(r["status"] for r in risks)["entered-in-error"] == 1
        in_force = [r for r in risks if r["status"] in IN_FORCE]
        assert [_band(r) for r in in_force] == ["low"]
        assert wrong["id"] not in str(in_force)


async def _remove_and_review(site: Site, reference: Reference) -> None:
    """HAPI tells nobody of a deletion: the review finds it."""
    await site.chart.remove(reference.relative)
    rooms = site.sidecar.rooms
    assert await review(rooms.client, rooms.archive, rooms.events, system_clock) == 1
    site.due[reference] += 1
    site.sidecar.wake()


async def test_what_happened_while_the_sidecar_was_down_is_found_when_it_is_back(chart, tmp_path):
    async with site_at(chart, tmp_path) as site:
        await site.admit("missed")
        await site.write(*observation_set("missed", now(30)))
        await site.settled()

    # No Subscription can tell of this set, and no retry of HAPI's: there is none now, and later one at another address.
    unheard = observation_set("missed", now(5), c9279_1=26)
    for resource in unheard:
        await chart.write(resource)

    async with site_at(chart, tmp_path) as site:
        site.due.update(Reference("Observation", resource["id"]) for resource in unheard)
        await site.settled()
        risks = await site.risk_assessments("missed")
        assert sorted(_band(r) for r in risks) == ["low", "low-medium"]
        assert {r["status"] for r in risks} == {"final"}


async def test_a_second_start_adopts_the_subscriptions_of_the_first(chart, tmp_path):
    settings = settings_for(tmp_path, chart.base_url)
    try:
        found = []
        for _ in range(2):
            async with running(chart, settings) as site:
                wanted = sorted(s.criteria for s in site.sidecar.rooms.sources)
            found.append({s["id"]: s for s in await subscriptions_of(chart, settings)})
        first, second = found
        assert sorted(s["criteria"] for s in first.values()) == wanted
        assert second == first
        assert {s["status"] for s in second.values()} == {"active"}
    finally:
        await unsubscribe(chart, settings)


async def test_its_capability_statement_is_read_as_what_it_can_do(chart):
    client = EhrClient(chart.base_url, NoCredentials(), timeout_s=30, connections=1)
    try:
        able = await capability.read(client)
    finally:
        await client.close()
    for type_name in ("RiskAssessment", "Observation", "Device"):
        abilities = able.of(type_name)
        assert (abilities.create, abilities.update, abilities.conditional_create) == (True, True, True)
        # PUT does create, but the statement does not say so: we do not count on it.
        assert abilities.update_create is False
        assert "identifier" in abilities.search
        assert able.ladder(type_name) == "conditional"
    assert {"patient", "code", "date", "_lastUpdated"} <= able.of("Observation").search
    assert able.of("NoSuchType").create is False
    assert able.ladder("NoSuchType") == "search"


def _band(risk: dict[str, Any]) -> str:
    return risk["prediction"][0]["qualitativeRisk"]["coding"][0]["code"]


def _key(resource: dict[str, Any]) -> str:
    (identifier,) = resource["identifier"]
    return identifier["value"]


def _is_total(resource: dict[str, Any] | None) -> bool:
    return resource is not None and any(i["system"] == SCORE_SYSTEM for i in resource.get("identifier", []))
