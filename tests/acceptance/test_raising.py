"""Whatever raises, and whatever it says: the log names the class and the place, and nothing of what was said."""

import asyncio
import contextlib
import json
from datetime import UTC, datetime

import httpx

from sidecar.log import FIELDS
from tests.campaigns.canaries import SITE
from tests.campaigns.leaks import Searcher
from tests.campaigns.planted_chart import chart
from tests.campaigns.planted_ehr import PlantedEhr
from tests.campaigns.raising import PLACES, planted, raised
from tests.campaigns.telling import Teller
from tests.harness import spawn, until, write_site
from tests.ports import free_port


async def test_exceptions_at_more_than_25_places_leave_nothing_of_what_they_carry(tmp_path, monkeypatch):
    file, ehr, number = tmp_path / "raised", PlantedEhr(1, 0.0), 0
    monkeypatch.setenv("RAISED", str(file))
    await ehr.start(free_port())
    site = {**SITE, "work": 'catch_up_interval = "0.2s"\nreview_interval = "0.2s"\nlease = "3s"\nmax_attempts = 2'}
    served = spawn(write_site(tmp_path, ehr.base_url, **site), "tests.campaigns.raising")
    teller, charts, scrapes = Teller(served.settings, 1), [], []
    try:
        await until(lambda: len(set(ehr.subscribed)) == 4, 60)
        while len(raised(file)) < len(PLACES) and number < 90:
            charts.append(chart(1, number, datetime.now(UTC)))
            ehr.add(charts[-1])
            with contextlib.suppress(httpx.TransportError):
                await teller.tell(charts[-1])
                await teller.misuse_admin()
                scrapes.append(await teller.scrape())
            number += 1
            assert served.process.poll() is None
        assert await asyncio.to_thread(served.terminate, 40) == 0
    finally:
        served.kill()
        await teller.close()
        await ehr.stop()
    assert len(raised(file)) >= 35, set(PLACES) - raised(file)
    searcher = Searcher([*planted(), *teller.planter.canaries, *(c for told in charts for c in told.canaries)])
    text = served.log.read_bytes()
    assert searcher.search("log", text) == set()
    assert searcher.search("database", (tmp_path / "sidecar.db").read_bytes()) == set()
    assert searcher.search("answers", iter(teller.answers)) == set()
    assert searcher.search("metrics", "\n".join(scrapes).encode()) == set()
    lines = [json.loads(line) for line in text.splitlines()]
    assert {name for line in lines for name in line} <= FIELDS
    assert "withheld" not in {str(value) for line in lines for value in line.values()}
    unexpected = [line for line in lines if line["event"] in {"unexpected", "library"} and line["error"]]
    assert len({line["at"] for line in unexpected}) >= 10
    assert all(":" in line["at"] for line in unexpected)
