"""The check of metric labels finds what is from no closed set, and a fresh server's labels are all from one."""

import asyncio

import httpx
import pytest

from sidecar.sandbox.ehr import PracticeEhr
from sidecar.settings import load
from tests.campaigns.canaries import MOST_SERIES, SITE
from tests.campaigns.labels import closed_sets, strange
from tests.harness import serve, write_site


@pytest.fixture
def sets(tmp_path):
    (tmp_path / "site").mkdir()
    return closed_sets(load(write_site(tmp_path / "site", "http://127.0.0.1:1/fhir", **SITE)))


@pytest.mark.parametrize(
    ("metric", "labels"),
    [
        ("sidecar_events_total", 'result="Zebedee"'),
        ("sidecar_events_total", 'result="ehr_refused:4711"'),
        ("sidecar_notifications_total", 'source="patient/p1",result="200"'),
        ("sidecar_notifications_total", 'source="patient",result="999"'),
        ("sidecar_not_scored_total", 'model="news2",reason="missing:p1"'),
        ("sidecar_not_scored_total", 'model="news2",reason="shape: Zebedee"'),
        ("sidecar_ehr_request_duration_seconds_count", 'operation="GET /Patient/p1",status_class="2xx"'),
        ("sidecar_model_info", 'model="news2",version="1.0.0",digest="p1",arm="champion"'),
        ("sidecar_queue_depth", 'queue="events",patient="p1"'),
    ],
)
def test_a_value_from_no_closed_set_is_found(metric, labels, sets):
    kind = "counter" if metric.endswith("_total") else "gauge"
    name = metric.removesuffix("_count")
    text = f"# TYPE {name} {'histogram' if name != metric else kind}\n{metric}{{{labels}}} 1\n"
    assert list(strange(text, sets)), text


async def test_the_labels_of_a_server_are_from_closed_sets_and_its_series_few(tmp_path, sets):
    ehr = PracticeEhr()
    await ehr.start()
    served = await asyncio.to_thread(serve, write_site(tmp_path, ehr.base_url, **SITE))
    try:
        async with httpx.AsyncClient(trust_env=False, timeout=30) as client:
            text = (await client.get(f"http://127.0.0.1:{served.settings.server.ops_port}/metrics")).text
    finally:
        served.kill()
        await ehr.stop()
    assert list(strange(text, sets)) == []
    assert sum(not line.startswith("#") for line in text.splitlines()) <= MOST_SERIES
