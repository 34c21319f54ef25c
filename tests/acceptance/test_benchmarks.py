"""The benchmarks measure what they say: small runs, end to end, with real processes."""

import contextlib
import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import httpx
import orjson
import pytest
import uvloop

from tests.benchmarks import cpu, load, model, payloads, sides, trial
from tests.benchmarks.scenarios import SCENARIOS, Bench
from tests.benchmarks.sides import ROOT, Refused, Running, Stub

pytestmark = pytest.mark.timeout(300)
EVENTS = 20


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """One for all: what was measured when saturated is needed again."""
    seed, scratch = random.SystemRandom().randrange(2**32), tmp_path_factory.mktemp("bench")
    print(f"seed {seed}")  # noqa: T201 -- shown when the test fails
    return Bench(scratch, model.write(scratch / "models", seed), 1, EVENTS, seed, print)


@pytest.fixture
def stub(tmp_path: Path) -> Iterator[Stub]:
    with sides.ehr(tmp_path, 50, "all") as started:
        yield started


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_small_run_of_each_scenario_finds_its_figures(bench: Bench, name: str):
    figures = list(SCENARIOS[name](bench))

    assert not bench.refused
    assert figures or (name == "postgres" and bench.skipped)
    for figure in figures:
        assert 0 < figure.found.median < 200
        assert all(len(rounds) == 1 for rounds in figure.sides.values())


def test_both_sides_chart_the_same_probability(bench: Bench):
    said = []
    for side in (sides.sidecar, sides.yardstick):
        folder = bench.folder()
        folder.mkdir()
        with sides.ehr(folder, 50, "all") as stub, side(folder, stub, bench.graph) as running:
            bodies = trial.bodies_for(stub, running, ["p0", "p1"], 1)
            uvloop.run(load.send(running.target, bodies))
            running.process.wait_for(lambda stub=stub: stub.ask("stats")["patients"] == 2, "two results")
            said.append(stub.ask("result/p1")["prediction"][0]["probabilityDecimal"])

    percent, fraction = said
    assert percent == pytest.approx(100 * fraction, abs=0.1)


def test_a_round_in_which_a_side_did_not_finish_is_measured_again_and_then_given_up(bench: Bench):
    @contextlib.contextmanager
    def lazy(folder: Path, stub: Stub, graph: Path) -> Iterator[Running]:
        with sides.yardstick(folder, stub, graph) as running:
            yield Running(running.process, running.target, "s1", 0.0, _unfinished)

    bench = replace(bench, refused=[])
    with pytest.raises(Refused, match="one row waits"):
        bench.compare("lazy", {"lazy": (lazy, lambda _: trial.Load(trial.distinct(3)))})

    assert len(bench.refused) == 3


def _unfinished(_: int) -> None:
    raise Refused("one row waits")


def test_an_interrupted_run_leaves_no_process_behind(tmp_path: Path):
    command = [sys.executable, "-m", "tests.benchmarks", "--quick", "--only", "saturated", "--json"]
    running = subprocess.Popen([*command, str(tmp_path / "bench.json")], cwd=ROOT, start_new_session=True)
    started = _wait_for_children(running)

    running.send_signal(signal.SIGINT)

    assert running.wait(60) == 130
    assert not (tmp_path / "bench.json").exists()
    assert not [pid for pid in started if Path(f"/proc/{pid}").exists()]


def _wait_for_children(running: subprocess.Popen[bytes]) -> list[int]:
    deadline = time.monotonic() + 60
    while len(found := list(cpu.tree(running.pid))) < 3:
        assert running.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return found


def test_a_run_tells_its_figures_with_what_is_behind_them(tmp_path: Path):
    command = [sys.executable, "-m", "tests.benchmarks", "--quick", "--only", "durable", "--seed", "3", "--json"]
    done = subprocess.run([*command, str(tmp_path / "bench.json")], cwd=ROOT, check=True, capture_output=True)
    found = json.loads((tmp_path / "bench.json").read_text())

    assert found["durable_insert_cpu_ratio"] == found["rounds"]["durable_insert_cpu_ratio"][0]
    assert found["absolute"]["durable_insert_rate_ratio"]["yardstick"]["events_per_s"] > 0
    assert (found["asked"]["seed"], found["refused"], found["skipped"]) == (3, [], [])
    assert {"python", "onnxruntime", "sqlite"} <= found["versions"].keys()
    assert b"durable_insert_cpu_ratio" in done.stdout


def test_a_notification_has_the_size_that_servers_send(stub: Stub):
    told = payloads.notification(stub.chart, "p1", 0, 1, "s1")

    assert 5_000 < len(orjson.dumps(told)) < 5_800
    assert told["entry"][1]["resource"]["id"] == "o-p1-0"


def _search(stub: Stub, **query: str) -> list[dict[str, object]]:
    """Every page of a search."""
    url: str | None = str(httpx.URL(f"{stub.chart.base}/Observation", params=query))
    found = []
    while url is not None:
        bundle = httpx.get(url).json()
        found += [entry["resource"] for entry in bundle["entry"]]
        url = next((link["url"] for link in bundle["link"] if link["relation"] == "next"), None)
    return found


def test_a_search_finds_the_patients_readings_newest_first_page_by_page(stub: Stub):
    found = _search(stub, patient="p1", _count="20")

    assert [r["id"] for r in found] == [f"o-p1-{k}" for k in range(50)]
    assert {r["subject"]["reference"] for r in found} == {"Patient/p1"}


def test_a_search_leaves_out_other_codes_and_older_readings(stub: Stub):
    since = stub.chart.now - timedelta(hours=5)
    found = _search(stub, patient="p1", code="http://loinc.org|8867-4", date=f"ge{since.isoformat()}", _sort="date")

    assert [r["id"] for r in found] == ["o-p1-0"]
    assert len(_search(stub, patient="p1", code="8867-4,2160-0")) == 7
    assert [r["id"] for r in _search(stub, patient="p1", code="8867-4", _sort="date")][-1] == "o-p1-0"


def test_a_search_shows_the_named_elements_and_what_a_summary_must_have(stub: Stub):
    (found,) = _search(stub, _id="o-p1-3", _elements="subject")

    assert set(found) == {"resourceType", "id", "meta", "status", "code", "subject"}
    assert found["meta"]["tag"][0]["code"] == "SUBSETTED"


def test_a_search_brings_the_patient_along_when_it_is_asked_to(stub: Stub):
    found = _search(stub, patient="p1", _include="Observation:patient")

    assert [r["id"] for r in found if r["resourceType"] == "Patient"] == ["p1"]
    assert len(found) == 51


def test_a_search_for_no_patient_finds_nothing(stub: Stub):
    assert _search(stub, code="8867-4") == []


def test_a_second_resource_of_one_result_and_an_idle_write_are_duplicates(stub: Stub):
    body = {"resourceType": "RiskAssessment", "identifier": [{"value": "k"}], "subject": {"reference": "Patient/p1"}}
    counted = []
    for logical_id, more in (("a", {}), ("a", {"status": "amended"}), ("a", {"status": "amended"}), ("b", {})):
        httpx.put(f"{stub.chart.base}/RiskAssessment/{logical_id}", json=body | more)
        counted.append(stub.ask("stats")["duplicates"])

    assert counted == [0, 0, 1, 2]


def test_a_restless_chart_has_another_version_of_its_newest_reading_at_each_look(tmp_path: Path):
    with sides.ehr(tmp_path, 50, "all", restless=True) as stub:
        looks = [{r["id"]: r["meta"]["versionId"] for r in _search(stub, patient="p1")} for _ in range(2)]

    assert looks[0]["o-p1-0"] != looks[1]["o-p1-0"]
    assert looks[0]["o-p1-1"] == looks[1]["o-p1-1"] == "1"
