"""/metrics, /livez and /readyz."""

import asyncio
import contextlib
import sqlite3

import httpx
from prometheus_client import parser
from prometheus_client.metrics import MetricWrapperBase

from sidecar import metrics
from sidecar.sandbox.ehr import PracticeEhr
from tests.harness import House, house, now, observation_set, serve, until, write_site

WHO = "pat-canary-55"


async def get(site: House, path: str) -> httpx.Response:
    async with httpx.AsyncClient(trust_env=False) as client:
        return await client.get(f"http://{site.sidecar.addresses[1]}{path}")


def described() -> set[str]:
    """The names of every metric that `sidecar.metrics` declares."""
    declared = [value for value in vars(metrics).values() if isinstance(value, MetricWrapperBase)]
    return {family.name for value in declared for family in value.describe()}


async def test_every_declared_metric_is_exposed(tmp_path):
    async with house(tmp_path) as site:
        families = {f.name for f in parser.text_string_to_metric_families((await get(site, "/metrics")).text)}
        assert len(described()) >= 15
        assert described() <= families


async def test_every_metric_is_named_after_the_project_and_described(tmp_path):
    async with house(tmp_path) as site:
        for family in parser.text_string_to_metric_families((await get(site, "/metrics")).text):
            assert family.name.startswith("sidecar_"), family.name
            assert len(family.documentation) > 10, family.name


async def test_no_label_value_holds_an_id_or_a_value_of_the_chart(tmp_path):
    async with house(tmp_path) as site:
        await site.admit(WHO)
        await site.chart(observation_set(WHO, now(1), c9279_1=26))
        await site.settled()
        assert len(site.risk_assessments()) == 1
        text = (await get(site, "/metrics")).text
        labels = {v for f in parser.text_string_to_metric_families(text) for s in f.samples for v in s.labels.values()}
        ids = {
            r["id"]
            for t in ("Patient", "Encounter", "Observation", "RiskAssessment", "Device", "Subscription")
            for r in site.ehr.all(t)
        }
        assert not labels & ids
        assert not [v for v in labels if WHO in v or "http" in v]


async def test_a_run_is_counted(tmp_path):
    async with house(tmp_path) as site:
        before = {
            s.name + str(s.labels): s.value
            for f in parser.text_string_to_metric_families((await get(site, "/metrics")).text)
            for s in f.samples
        }
        await site.admit("p1")
        await site.chart(observation_set("p1", now(1)))
        await site.settled()
        after = {
            s.name + str(s.labels): s.value
            for f in parser.text_string_to_metric_families((await get(site, "/metrics")).text)
            for s in f.samples
        }
        for name in (
            "sidecar_notifications_total{'result': '200', 'source': 'observation'}",
            "sidecar_assessments_total{'model': 'news2', 'outcome': 'scored'}",
        ):
            assert after[name] > before.get(name, 0), name
        assert after["sidecar_queue_depth{'queue': 'events'}"] == 0


async def test_ready_does_not_depend_on_the_ehr(tmp_path):
    async with house(tmp_path) as site:
        site.ehr.faults.down = True
        site.sidecar.wake()
        await until(lambda: not site.sidecar.rooms.gate.is_open)
        assert (await get(site, "/readyz")).status_code == 200
        assert (await get(site, "/livez")).status_code == 200
        assert "sidecar_ehr_available 0.0" in (await get(site, "/metrics")).text


async def test_not_ready_while_the_database_cannot_be_read_and_the_metrics_are_still_there(tmp_path):
    async with house(tmp_path, work='catch_up_interval = "1h"') as site:
        await site.settled()
        with contextlib.closing(sqlite3.connect(site.sidecar.rooms.store.path)) as other:
            other.execute("ALTER TABLE event RENAME TO away")
            answers = [await get(site, path) for path in ("/readyz", "/livez", "/metrics")]
            other.execute("ALTER TABLE away RENAME TO event")
        assert [a.status_code for a in answers] == [503, 200, 200]
        assert (await get(site, "/readyz")).status_code == 200


async def test_the_ops_door_has_no_other_way_in(tmp_path):
    async with house(tmp_path) as site:
        for path in ("/", "/status", "/dead-letters", "/replay", "/notify/observation"):
            assert (await get(site, path)).status_code == 404, path


async def test_every_bin_of_every_feature_is_there_with_zero_when_a_server_starts(tmp_path):
    ehr = PracticeEhr()
    await ehr.start()
    served = await asyncio.to_thread(serve, write_site(tmp_path, ehr.base_url))
    try:
        async with httpx.AsyncClient(trust_env=False) as client:
            text = (await client.get(f"http://127.0.0.1:{served.settings.server.ops_port}/metrics")).text
    finally:
        served.kill()
        await ehr.stop()
    samples = [s for f in parser.text_string_to_metric_families(text) for s in f.samples]
    observed = {
        tuple(sorted(s.labels.items())): s.value for s in samples if s.name == "sidecar_feature_bin_observations_total"
    }
    reference = {tuple(sorted(s.labels.items())) for s in samples if s.name == "sidecar_feature_bin_reference_ratio"}
    assert set(observed) == reference
    assert len({dict(labels)["feature"] for labels in observed}) >= 7
    assert set(observed.values()) == {0.0}
    assert all(
        any(dict(o)["feature"] == dict(labels)["feature"] and dict(o)["bin"] == "missing" for o in observed)
        for labels in observed
    )
