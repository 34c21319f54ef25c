"""The log of a real server: JSON lines, fields from a list, and nothing that was charted."""

import asyncio
import json
import subprocess
import sys

import httpx
import orjson

from sidecar.log import FIELDS
from sidecar.sandbox.ehr import PracticeEhr
from tests.harness import SECRET, encounter, now, observation_set, patient, serve, until, write_site

WHO = "pat-canary-77"
NAME = "Zebedee-Canary"
VALUE = 231.5


def logged(script: str) -> list[dict[str, object]]:
    """The JSON lines that `script` writes to standard error."""
    done = subprocess.run(
        [sys.executable, "-c", "import logging\nfrom sidecar import log\n" + script],
        capture_output=True,
        text=True,
        check=True,
    )
    return [json.loads(line) for line in done.stderr.splitlines()]


def test_only_fields_from_the_list_are_written():
    (line,) = logged('log.configure("info"); log.get().info("serving", count=1, patient="p1", url="http://x", value=7)')
    assert set(line) == {"event", "level", "timestamp", "count"}
    assert set(line) <= FIELDS


def test_a_librarys_record_is_named_by_logger_and_class_and_its_text_is_dropped():
    script = 'import aiohttp\nlog.configure("info")\ntry:\n    raise ValueError("canary 1")\nexcept ValueError:\n    logging.getLogger("aiohttp.server").exception("canary %s", "2")'
    (line,) = logged(script)
    assert "canary" not in json.dumps(line)
    assert (line["source"], line["error"], line["status"]) == ("aiohttp", "ValueError", "error")


def test_a_task_that_died_unseen_is_logged_without_its_text():
    script = (
        'import asyncio, gc\nlog.configure("info")\nasync def die():\n    raise ValueError("canary")\n'
        "async def run():\n    asyncio.ensure_future(die())\n    await asyncio.sleep(0.01)\n    gc.collect()\nasyncio.run(run())"
    )
    (line,) = logged(script)
    assert "canary" not in json.dumps(line)
    assert line["error"] == "ValueError"


def test_a_line_break_in_a_value_does_not_begin_a_new_line():
    (line,) = logged('log.configure("info"); log.get().warning("x", reason="a\\n{\\"event\\": \\"forged\\"}\\r\\n")')
    assert line["event"] == "x"


def test_lines_below_the_level_are_not_written():
    assert [e["event"] for e in logged('log.configure("warning"); log.get().info("a"); log.get().warning("b")')] == [
        "b"
    ]


async def test_a_servers_log_has_only_known_fields_and_nothing_of_the_chart(tmp_path):
    ehr = PracticeEhr()
    await ehr.start()
    served = await asyncio.to_thread(serve, write_site(tmp_path, ehr.base_url))
    try:
        await until(
            lambda: [s["status"] for s in ehr.all("Subscription")].count("active") == len(ehr.all("Subscription")) >= 3
        )
        await ehr.write(patient(WHO, name=[{"family": NAME}]))
        await ehr.write(encounter(WHO))
        for resource in observation_set(WHO, now(1), c8480_6=VALUE):
            await ehr.write(resource)
        await until(lambda: len(ehr.all("RiskAssessment")) == 1)
        async with httpx.AsyncClient(trust_env=False) as client:
            hook = f"http://127.0.0.1:{served.settings.server.port}/notify/observation/Observation/{WHO}"
            good = {"Authorization": f"Bearer {SECRET}", "Content-Type": "application/fhir+json"}
            for body in (
                b"{",
                orjson.dumps({"resourceType": NAME, "id": WHO}),
                orjson.dumps({"resourceType": "Observation", "id": WHO}),
            ):
                await client.put(hook, content=body, headers=good)
            await client.put(hook, content=b"{}", headers={"Authorization": f"Bearer {NAME}"})
        ehr.faults.fail_next(3, status=500)
        ehr.faults.cut_next(2)
        for resource in observation_set(WHO, now(), c8480_6=VALUE + 1):
            await ehr.write(resource)
        await until(lambda: len(ehr.all("RiskAssessment")) == 2)
        assert await asyncio.to_thread(served.terminate) == 0
    finally:
        served.kill()
        await ehr.stop()
    text = served.log.read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    assert {"serving", "stopped"} <= {line["event"] for line in lines}
    assert {name for line in lines for name in line} <= FIELDS
    ids = {r["id"] for t in ("Patient", "Encounter", "Observation", "RiskAssessment") for r in ehr.all(t)}
    for secret in {WHO, NAME, SECRET, str(VALUE), str(VALUE + 1), *ids}:
        assert secret not in text, secret
