"""One year a patient, in however many resources, runs and refusals: a second one beside distances would tell a day."""

import json
import re

import pytest

from sidecar.deid.general import KeyedNames, Mode, VaultNames
from sidecar.errors import Misconfigured
from tests.unit.deid.general import KEY, TODAY, Drawer, bundle, engine

SAFE = Mode.SAFE_HARBOR_RULES
DATA_ABSENT = "http://hl7.org/fhir/StructureDefinition/data-absent-reason"
SECONDS, DAYS = "urn:ehr-sidecar:relative-seconds", "urn:ehr-sidecar:relative-days"


def reading(when, patient="p1", **more):
    about = {"reference": f"Patient/{patient}"}
    return {"resourceType": "Observation", "status": "final", "subject": about, "effectiveDateTime": when, **more}


def told(out):
    """The year and the distance of an Observation's time."""
    said = {
        e["url"]: next(v for k, v in e.items() if k != "url")
        for e in out.get("_effectiveDateTime", {}).get("extension", ())
    }
    return out.get("effectiveDateTime"), said.get(SECONDS, said.get(DAYS))


def run(drawer, *sources):
    """One run of a vault: its outputs."""
    judge = engine(SAFE, names=VaultNames(drawer))
    return [judge.resource(each) for each in sources]


def test_two_runs_of_one_vault_measure_from_one_moment_and_give_one_year():
    drawer = Drawer()
    first = run(drawer, reading("2023-12-31T23:00:00Z"), reading("2024-01-01T01:00:00Z"))
    second = run(
        drawer,
        reading("2024-01-01T02:00:00Z"),
        reading("2023-12-31T22:00:00Z"),
        reading("2024-03"),
        reading("2024-01-02"),
    )
    assert [told(out) for out in first] == [("2023", 0), (None, 7_200)]
    assert [told(out) for out in second] == [(None, 10_800), (None, -3_600), (None, None), (None, 2)]


def test_distances_of_two_runs_lie_no_further_apart_than_89_years():
    drawer = Drawer()
    (first,) = run(drawer, reading("1980-01-01T00:00:00Z"))
    assert told(first) == ("1980", 0)
    assert told(run(drawer, reading("2026-01-01T00:00:00Z"))[0])[1] > 0
    assert told(run(drawer, reading("1940-01-01T00:00:00Z"))[0])[1] < 0
    assert told(run(drawer, reading("1930-01-01T00:00:00Z"))[0]) == (None, None)
    assert told(run(drawer, reading("1941-01-01T00:00:00Z"))[0])[1] < 0


def test_of_parts_of_dates_the_first_has_a_year_and_no_other_date_has_one():
    outs = run(
        Drawer(), reading("2011"), reading("2012-03"), reading("2024-01-01T02:00:00Z"), reading("2024-01-01T03:00:00Z")
    )
    assert [told(out) for out in outs] == [("2011", None), (None, None), (None, 0), (None, 3_600)]


def test_a_first_moment_before_the_last_89_years_has_no_year_and_gives_none_to_the_next():
    outs = run(Drawer(), reading("1936-05-01T08:00:00Z"), reading("1990-05-01T08:00:00Z"), reading("1990"))
    assert [told(out)[0] for out in outs] == [None, None, None]
    assert told(outs[0])[1] == 0


def procedure(when):
    return {
        "resourceType": "Procedure",
        "status": "completed",
        "subject": {"reference": "Patient/p1"},
        "performedDateTime": when,
    }


def test_beside_a_year_no_distance_leads_to_a_year_that_may_not_be_written():
    """1990 and 21,550 days before it is 1931: whoever had an operation then is 95 now."""
    drawer = Drawer()
    first, hidden, shown = run(drawer, procedure("1990-06-01"), procedure("1931-06-01"), procedure("1937-06-01"))
    assert (first["performedDateTime"], hidden.get("performedDateTime")) == ("1990", None)
    assert [e["url"] for e in hidden["_performedDateTime"]["extension"]] == [DATA_ABSENT]
    assert shown["_performedDateTime"]["extension"] == [{"url": DAYS, "valueInteger": -19_358}]
    assert told(run(drawer, reading("1936-12-31T23:00:00Z"))[0]) == (None, None)
    later = engine(SAFE, names=VaultNames(drawer), today=TODAY.replace(year=2028))
    assert told(later.resource(reading("1938-06-01T08:00:00Z"))) == (None, None)
    assert told(later.resource(reading("1939-06-01T08:00:00Z")))[1] is not None


def test_a_year_that_became_too_old_is_still_one_that_was_given_out():
    drawer = Drawer()
    assert told(run(drawer, reading("1937-06-01T08:00:00Z"))[0]) == ("1937", 0)
    later = engine(SAFE, names=VaultNames(drawer), today=TODAY.replace(year=2027))
    assert told(later.resource(reading("1937-06-02T08:00:00Z"))) == (None, None)
    assert told(later.resource(reading("1938-06-02T08:00:00Z")))[1] is not None


def test_beside_no_year_distances_lead_wherever_89_years_reach():
    first, second = run(Drawer(), procedure("1931-06-01"), procedure("1990-06-01"))
    assert "performedDateTime" not in first
    assert second["_performedDateTime"]["extension"] == [{"url": DAYS, "valueInteger": 21_550}]


REFUSED = {"modifierExtension": [{"url": "urn:x"}]}


@pytest.mark.parametrize(
    "refused",
    [
        {**reading("2020-06-01T00:00:00Z"), **REFUSED},
        {**bundle(reading("2020-06-01T00:00:00Z")), "implicitRules": "urn:x"},
        bundle({**reading("2020-06-01T00:00:00Z"), **REFUSED}),
        bundle({**reading("2020-06-01T00:00:00Z", contained=[reading("2020-06-01T00:00:00Z", id="c")]), **REFUSED}),
        {**reading(None), "contained": [{**reading("2020-06-01T00:00:00Z"), **REFUSED}]},
        {
            "resourceType": "Bundle",
            "type": "history",
            "entry": [{"resource": reading("2020-06-01T00:00:00Z"), "request": {"method": "?"}}],
        },
        {"resourceType": "Parameters", "parameter": [{"resource": {**reading("2020-06-01T00:00:00Z"), **REFUSED}}]},
    ],
)
def test_what_is_refused_uses_up_no_year_and_no_first_moment(refused):
    drawer = Drawer()
    _, after = run(drawer, refused, reading("2024-01-01T00:00:00Z"))
    assert told(after) == ("2024", 0)
    stretched = run(
        Drawer(),
        reading("2024-01-01T00:00:00Z"),
        {**reading("1938-01-01T00:00:00Z"), **REFUSED},
        reading("2027-01-01T00:00:00Z"),
    )
    assert told(stretched[2])[1] is not None
    assert len([name for name in drawer if "anchor" in name]) == 1


def test_an_error_that_nobody_expected_uses_up_no_year_either():
    class Full(Drawer):
        def put(self, name, value):
            if name.startswith("token|Observation|full"):
                raise OSError
            super().put(name, value)

    judge = engine(SAFE, names=VaultNames(Full()))
    with pytest.raises(OSError, match=r"^$"):
        judge.resource({**reading("2020-01-01T00:00:00Z"), "id": "full"})
    assert told(judge.resource(reading("2024-01-01T00:00:00Z"))) == ("2024", 0)


def test_two_sites_have_no_token_shift_or_first_moment_in_common():
    """Two servers may use one id for two people."""
    drawer = Drawer()
    outs = []
    for site in ("north", "south", ""):
        judge = engine(SAFE, names=VaultNames(drawer, site))
        outs.append(judge.resource({**reading("2024-01-01T00:00:00Z"), "id": "o1"}))
    assert len({out["id"] for out in outs}) == len({out["subject"]["reference"] for out in outs}) == 3
    assert {told(out) for out in outs} == {("2024", 0)}
    again = engine(SAFE, names=VaultNames(drawer, "north")).resource({**reading("2024-01-02T00:00:00Z"), "id": "o1"})
    assert (again["id"], told(again)) == (outs[0]["id"], (None, 86_400))
    keyed = [KeyedNames(KEY, site) for site in ("north", "south", "")]
    assert len({names.token("Patient", "p1") for names in keyed}) == 3
    assert len({tuple(names.shift(str(n)) for n in range(5)) for names in keyed}) == 3


@pytest.mark.parametrize("site", ["a|b", "ä", "a b", "x" * 65, "a\n", "|"])
def test_a_site_whose_name_could_be_mistaken_for_another_question_is_refused(site):
    for make in (lambda: VaultNames(Drawer(), site), lambda: KeyedNames(KEY, site)):
        with pytest.raises(Misconfigured, match="deid site"):
            make()


def test_what_the_vault_holds_of_a_moment_is_in_nothing_that_is_given_out():
    drawer = Drawer()
    said = json.dumps(run(drawer, reading("2024-05-06T07:08:09Z"), reading("2024-05-07T07:08:09Z")))
    (kept,) = [value for name, value in drawer.items() if "anchor" in name]
    assert kept.startswith("2024-05-06T07:08:09")
    assert not re.search(r"\d{4}-\d\d|\d\d:\d\d", said)
