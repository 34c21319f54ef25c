"""Exactly one effect, each way on a server that needs it: lost answers, repeated deliveries, a kill before the record.

sekmet: PUT to an id of ours (no RiskAssessment by identifier there). HAPI and Medplum: `If-None-Exist`. The practice EHR
with both switched off, with and without a search by identifier: search, then POST; HAPI again, set to it by its site.
"""

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from sidecar.fhir import capability
from sidecar.fhir.auth import NoCredentials
from sidecar.fhir.client import EhrClient
from sidecar.sandbox.ehr import Capabilities
from sidecar.store import Statement, Step
from sidecar.writeback import LadderWriter
from tests.harness import Unguarded, encounter, now, observation_set, patient, serve, until, write_site
from tests.peers.cutting import Cutting, cutting
from tests.peers.servers import Server, practice, usable
from tests.peers.site import PATIENCE_S, Chart, Site, is_total, running, settings_for, unsubscribe

pytestmark = pytest.mark.timeout(600)

PATIENT_S = 8.0
NEITHER = Capabilities(update_create=False, conditional_create=False)


@dataclass(frozen=True)
class Way:
    """A rung of the ladder, the server that it is proved on, and what its site has set."""

    rung: str
    server: str
    setting: str = "auto"
    abilities: Capabilities | None = None


WAYS = [
    Way("put", "sekmet"),
    Way("conditional", "hapi"),
    Way("conditional", "medplum"),
    Way("search", "practice", abilities=NEITHER),
    Way("search", "practice", abilities=replace(NEITHER, identifier_search=False)),
    Way("search", "hapi", "search"),
]
each_way = pytest.mark.parametrize(
    "way", [w for w in WAYS if w.server in usable()], ids=lambda w: f"{w.rung}-{w.server}"
)


@contextlib.asynccontextmanager
async def chart_of(way: Way, server_named) -> AsyncIterator[Chart]:
    with contextlib.ExitStack() as stack:
        if way.abilities is None:
            server = server_named(way.server)
        else:
            base_url = stack.enter_context(practice(way.abilities))
            server = Server("practice", base_url, takes_our_ids=False)
        chart = Chart(server)
        try:
            yield chart
        finally:
            await chart.close()


@contextlib.asynccontextmanager
async def site_behind(way: Way, server_named, folder: Path) -> AsyncIterator[tuple[Site, Chart, Cutting]]:
    """A sidecar that knows the server as the proxy's address only."""
    async with chart_of(way, server_named) as chart, cutting(chart.base_url) as proxy:
        every = "5s" if chart.server.tells else "1s"
        settings = settings_for(folder, proxy.base_url, way.setting, catch_up_interval=every)
        # Where only a search guards a create, a lost answer is waited for more than twice as long.
        settings = settings.model_copy(update={"ehr": settings.ehr.model_copy(update={"timeout_s": PATIENT_S})})
        try:
            async with running(chart, settings) as site:
                yield site, chart, proxy
        finally:
            await unsubscribe(chart, settings)


async def results(chart: Chart, patient_id: str) -> list[dict[str, Any]]:
    """What the chart holds of ours about a patient; a server that names no RiskAssessment gets the Observation alone."""
    own = chart.reference(f"Patient/{patient_id}").partition("/")[2]
    totals = [o for o in await chart.all(f"Observation?patient={own}") if is_total(o)]
    return totals + (await chart.all(f"RiskAssessment?patient={own}") if chart.server.name != "sekmet" else [])


def wanted(chart: Chart) -> list[str]:
    return ["Observation"] if chart.server.name == "sekmet" else ["Observation", "RiskAssessment"]


@each_way
async def test_the_rung_follows_from_the_capability_statement_alone(way, server_named):
    async with chart_of(way, server_named) as chart:
        client = EhrClient(chart.base_url, NoCredentials(), timeout_s=30, connections=1)
        try:
            able = await capability.read(client)
            writer = LadderWriter(client, able)
            taken = [t for t in ("Device", "Observation", "RiskAssessment") if writer.takes(t)]
            assert taken == ["Device", *wanted(chart)]
            if way.setting == "auto":
                assert {able.ladder(type_name) for type_name in taken} == {way.rung}
        finally:
            await client.close()


@each_way
async def test_answers_lost_after_the_write_leave_one_of_each(way, server_named, tmp_path):
    who = f"lost-{uuid4().hex[:8]}"
    async with site_behind(way, server_named, tmp_path) as (site, chart, proxy):
        await site.admit(who)
        for type_name in wanted(chart):
            # The HTTP client itself sends a PUT once more when a kept-alive connection is cut.
            proxy.lose(type_name, chart.reference(f"Patient/{who}"), 2 if way.rung == "put" else 1)
        await site.write(*observation_set(who, now(5), c9279_1=26))
        await site.settled()

        ends = await site.rows("SELECT state, reason FROM delivery ORDER BY queued_at")
        outcomes = await site.rows("SELECT outcome, reasons, latest FROM assessment ORDER BY assessed_at")
        assert [end["state"] for end in ends][-1:] == ["written"], (ends, outcomes)
        assert proxy.lost == dict.fromkeys(wanted(chart), 2 if way.rung == "put" else 1)
        assert sorted(r["resourceType"] for r in await results(chart, who)) == wanted(chart)
        assert len(await chart.all("Device?identifier=urn:ehr-sidecar:model-digest|")) == 1


@each_way
async def test_a_delivery_that_is_repeated_changes_nothing(way, server_named, tmp_path):
    who = f"again-{uuid4().hex[:8]}"
    async with site_behind(way, server_named, tmp_path) as (site, chart, _):
        await site.admit(who)
        await site.write(*observation_set(who, now(5), c9279_1=26))
        await site.settled()
        before = await results(chart, who)
        assert sorted(r["resourceType"] for r in before) == wanted(chart)

        # The database as it is when a process dies after the server took a write and before that was recorded.
        latest = "SELECT id FROM assessment WHERE latest = 1 AND outcome = 'scored'"
        again = f"UPDATE delivery SET state = 'queued', settled_at = NULL WHERE assessment_id IN ({latest})"
        await site.sidecar.rooms.store.commit(
            *(Step(Statement(f"forget_{t}", f"DELETE FROM {t}")) for t in ("effect", "device")),
            Step(Statement("queue_again", again)),
        )
        site.sidecar.wake()
        await site.settled()

        assert await results(chart, who) == before
        assert len(await chart.all("Device?identifier=urn:ehr-sidecar:model-digest|")) == 1


@each_way
async def test_a_process_killed_between_the_write_and_its_record_has_one_effect(way, server_named, tmp_path):
    who = f"killed-{uuid4().hex[:8]}"
    async with chart_of(way, server_named) as chart, cutting(chart.base_url) as proxy:
        ehr = f'base_url = "{proxy.base_url}"\nwrite_ladder = "{way.setting}"\ntimeout_s = {PATIENT_S}'
        work = 'catch_up_interval = "1s"\nlease = "2s"\ncatch_up_overlap = "2s"'
        config = write_site(tmp_path, proxy.base_url, ehr=ehr, work=work)
        served = await asyncio.to_thread(serve, config)
        try:
            await until(lambda: listening(tmp_path, tells=chart.server.tells), PATIENCE_S)
            await chart.write(patient(who))
            about, types = chart.reference(f"Patient/{who}"), wanted(chart)
            proxy.hold(types[0], about)
            for resource in (encounter(who), *observation_set(who, now(5), c9279_1=26)):
                await chart.write(resource)
            for following in (*types[1:], None):
                await asyncio.wait_for(proxy.held.wait(), PATIENCE_S)
                await asyncio.to_thread(served.kill)
                if following:
                    proxy.hold(following, about)
                served = await asyncio.to_thread(serve, config)

            async def done() -> bool:
                return len(await results(chart, who)) >= len(types) and all_written(tmp_path)

            await until(done, PATIENCE_S)
            assert sorted(r["resourceType"] for r in await results(chart, who)) == types
        finally:
            await asyncio.to_thread(served.terminate)
            await unsubscribe(chart, served.settings)


def asked(folder: Path, sql: str) -> list[Any]:
    """Rows of the serving process's database, read from outside."""
    with contextlib.closing(sqlite3.connect(f"file:{folder / 'sidecar.db'}?mode=ro", uri=True)) as database:
        return database.execute(sql).fetchall()


def listening(folder: Path, *, tells: bool) -> bool:
    """Whether every source has a beginning for its searches, and a Subscription where the server has them."""
    rows = asked(folder, "SELECT status, watermark FROM subscription")
    return len(rows) >= 3 and all(mark and (status == "active" or not tells) for status, mark in rows)


def all_written(folder: Path) -> bool:
    """Whether every write that there was has been recorded as such."""
    states = {state for (state,) in asked(folder, "SELECT state FROM delivery")}
    return "written" in states and "queued" not in states


@pytest.mark.skipif("sekmet" not in usable(), reason="sekmet cannot be started here")
async def test_put_finds_its_own_by_id_where_nothing_can_be_searched_for(server_named):
    who, identity = f"by-id-{uuid4().hex[:8]}", uuid4().hex
    server = server_named("sekmet")
    risk = {
        "resourceType": "RiskAssessment",
        "id": f"sc-{identity}",
        "identifier": [{"system": "urn:tests:by-id", "value": identity}],
        "status": "final",
        "subject": {"reference": f"Patient/{who}"},
    }
    async with cutting(server.base_url) as proxy:
        client = EhrClient(proxy.base_url, NoCredentials(), timeout_s=30, connections=2)
        try:
            writer = LadderWriter(client, await capability.read(client), "put")
            assert await writer.locate(risk) is None
            for look_first in (False, True, True):
                assert await writer.write(risk, None, Unguarded(), look_first=look_first) == risk["id"]
            assert await writer.locate(risk) == risk["id"]
            chart = Chart(server)
            stored = await chart.read(f"RiskAssessment/{risk['id']}")
            await chart.close()
            assert stored["meta"]["versionId"] == "1"
        finally:
            await client.close()
