"""A sample of each campaign about repeats, outages and load, a new seed each time; `make campaign` runs the whole."""

import random
import sys
import xml.etree.ElementTree as ET

import pytest

from tests import postgres
from tests.campaigns import duplicates, flat, memory, outage, overload
from tests.campaigns.runs import Run, fresh_seed
from tests.harness import ENGINES

pytestmark = pytest.mark.timeout(600)


@pytest.fixture
def seed():
    found = fresh_seed()
    sys.stdout.write(f"SIDECAR_SEED={found}\n")
    return found


@pytest.mark.parametrize("engine", ENGINES)
async def test_notifications_sent_many_times_at_once_later_and_after_a_restart_double_nothing(tmp_path, seed, engine):
    if engine == "postgres":
        postgres.skip_when_missing()

    found = await duplicates.one(Run(ENGINES.index(engine), seed, tmp_path))

    assert found["ok"], found
    assert found["engine"] == engine
    assert found["sent"] > 4 * found["heard"] > 0
    assert found["risk_assessments"] > 0


async def test_an_ehr_that_goes_away_in_any_way_loses_nothing_and_is_not_stormed(tmp_path, seed):
    found = (await outage.Outages(Run(0, seed, tmp_path), "put", longest_s=6.0).go()).found()

    assert found["ok"], found
    assert sum(found["outages"].values()) == outage.OUTAGES
    assert found["acknowledged_while_away"] > 0


async def test_three_times_what_can_be_worked_through_loses_nothing_acknowledged(tmp_path, seed):
    found = await overload.overloaded(Run(0, seed, tmp_path), seconds=3.0, times=3.0, window=100)

    assert (found["lost"], found["duplicates"], found["buried"]) == (0, 0, 0), found
    assert found["acknowledged"] > 0
    assert found["rss_max_mib"] - found["rss_start_max_mib"] < overload.GROWTH_MIB


async def test_memory_stays_and_what_is_past_its_retention_goes(tmp_path, seed):
    found = await memory.remembered(Run(0, seed, tmp_path), events=400)

    assert found["ok"], found
    assert found["pruned"] > 300


async def test_a_long_history_in_the_chart_costs_no_request_more(tmp_path, seed):
    asked = {}
    for number, length in enumerate((100, 10_000)):
        folder = tmp_path / str(length)
        folder.mkdir()
        found = await flat.chart_of(Run(number, seed, folder), length, events=40)
        asked[length] = found["curve"][0][-1]

    assert asked[10_000] < asked[100] * 1.1, asked


def test_a_curve_that_rises_is_named():
    rows = {100: 1000.0, 1000: 1100.0, 10_000: 2000.0}
    done = {
        number: {"what": "readings in the chart", "curve": [[size, cost, cost, cost, 3.0]]}
        for number, (size, cost) in enumerate(rows.items())
    }
    assert flat.steep(done) == ["the dearest event costs 2.00 times the cheapest, by readings in the chart"]
    del done[2]
    assert flat.steep(done) == []


def test_the_picture_of_the_curves_is_an_svg_of_every_point(tmp_path):
    rng = random.Random(1)
    curves = {
        name: [[size, 1000 * rng.uniform(3, 4), 2900, 4100, 0] for size in (100, 1000, 10_000)]
        for name in ("a & b", "c")
    }
    done = {number: {"what": name, "curve": rows} for number, (name, rows) in enumerate(curves.items())}
    file = tmp_path / "flat.svg"

    flat.plot(done, file)

    root = ET.fromstring(file.read_text())
    assert root.tag.endswith("svg")
    assert len(root.findall("{*}circle")) == 6
    assert "by a & b" in "".join(root.itertext())
