"""The ward through each of the four servers: every version accounted for, no result twice, and no fewer than fifty."""

import asyncio
import re
import sys

import orjson
import pytest

from tests.peers.servers import NAMES, usable, why_missing
from tests.peers.site import is_total, key_of
from tests.peers.ward import replay

pytestmark = pytest.mark.timeout(600)

ENDS_OF_A_WRITE = {"written", "superseded", "cancelled", "expired"}


@pytest.mark.parametrize("name", NAMES)
def test_the_server_can_be_started_here(name):
    if name not in usable():
        pytest.skip(why_missing(name))


@pytest.fixture(scope="module", params=usable())
def ward(request, server_named, tmp_path_factory):
    """The ward, replayed once into each server."""
    server = server_named(request.param)
    return asyncio.run(replay(server, tmp_path_factory.mktemp(f"ward-{server.name}")))


def test_the_ward_is_scored_without_a_duplicate(ward, capsys, tmp_path):
    line = orjson.dumps(ward.figures).decode()
    (tmp_path / "figures.json").write_text(line)
    with capsys.disabled():
        sys.stdout.write(f"\n{line}\n")

    assert ward.figures["in_ehr"] >= 50
    assert ward.figures["duplicates"] == 0
    assert ward.figures["in_ehr"] == ward.effects
    assert ward.figures["assessments"] > ward.figures["not_scored"] + ward.figures["incomplete"]


def test_every_version_that_the_server_stored_was_heard_once_or_superseded_and_came_to_its_end(ward):
    assert (ward.account.lost, ward.account.open) == (0, 0)
    assert ward.account.heard + ward.account.superseded == ward.account.written
    # A Subscription tells of every version; a search shows the newest.
    assert ward.account.superseded == 0 or ward.figures["server"] == "medplum"
    assert set(ward.events) == {"done"}
    assert set(ward.writes) <= ENDS_OF_A_WRITE


def test_everything_a_result_rests_on_is_in_the_server_in_the_version_that_was_read(ward):
    for result in ward.results:
        rested_on = ward.rested_on[key_of(result)]
        assert rested_on
        for reference in rested_on:
            read = ward.there[reference.versioned]
            assert read is not None, reference.versioned
            assert (read["id"], read["meta"]["versionId"]) == (reference.id, reference.version)
            assert read["subject"] == result["subject"]
        cited = result["basis"] if result["resourceType"] == "RiskAssessment" else result["derivedFrom"]
        said = [b["reference"].partition("/_history/")[0] for b in cited]
        assert [r for r in said if not is_total(ward.there.get(r))] == [r.relative for r in rested_on]


def test_every_complete_score_has_its_total_beside_it_and_no_other_has(ward):
    risks = [r for r in ward.results if r["resourceType"] == "RiskAssessment"]
    complete = [r for r in risks if re.search(r" total \d", r["note"][0]["text"])]
    assert all(r in complete for r in risks if "coding" in r["prediction"][0].get("qualitativeRisk", {}))
    assert bool(complete) is bool(risks)
    for risk in risks:
        total = ward.there[risk["basis"][0]["reference"]]
        assert is_total(total) is (risk in complete)
        if risk in complete:
            assert (total["status"], total["subject"]) == (risk["status"], risk["subject"])
            assert key_of(total) == key_of(risk)
            assert total["derivedFrom"] == risk["basis"][1:]
            assert f"total {total['valueQuantity']['value']} " in risk["note"][0]["text"]


def test_one_model_version_is_one_device_that_all_scores_name(ward):
    (device,) = ward.devices
    named = {(r.get("performer") or r["device"])["reference"] for r in ward.results}
    assert named == {f"Device/{device['id']}"}
