"""Search: token, date and reference rules, paging, and what a server may leave out."""

from urllib.parse import quote

import pytest

from sidecar.sandbox.ehr import Capabilities

HR = {"system": "http://loinc.org", "code": "8867-4"}


async def _observations(ehr, make, **variants):
    for logical_id, elements in variants.items():
        await ehr.write(make.observation(logical_id, **elements))


def _code(*codings):
    return {"coding": list(codings)}


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ("8867-4", "loinc local bare"),
        ("http://loinc.org|8867-4", "loinc"),
        ("|8867-4", "bare"),
        ("http://loinc.org|", "loinc other"),
        ("8867-4,9279-1", "loinc local bare other"),
        ("http://loinc.org|9279-1,|8867-4", "bare other"),
        ("8867", ""),
    ],
)
async def test_tokens_match_by_code_by_system_or_by_having_none(client, ehr, make, wanted, found):
    await _observations(
        ehr,
        make,
        loinc={"code": _code(HR)},
        local={"code": _code({"system": "urn:local", "code": "8867-4"})},
        bare={"code": _code({"code": "8867-4"})},
        other={"code": _code({"system": "http://loinc.org", "code": "9279-1"})},
    )
    reply = await client("GET", f"Observation?code={quote(wanted)}")
    assert reply.ids == found.split()


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("date=2026-03-01", "minute second"),
        ("date=ge2026-03-01T10:00:30Z", "minute second later"),
        ("date=gt2026-03-01T10:00:30Z", "minute later"),
        ("date=lt2026-03-01T10:00:30Z", "earlier minute"),
        ("date=le2026-03-01T10:00:30Z", "earlier minute second"),
        ("date=ge2026-03-01&date=lt2026-03-02", "minute second"),
        ("date=2026-03-01T12:00:30%2B02:00", "second"),
        ("date=ne2026-03-01", "earlier later"),
        ("date=2025,2027", "earlier later"),
    ],
)
async def test_dates_compare_as_spans_of_their_precision(client, ehr, make, query, found):
    for logical_id, effective in {
        "earlier": {"effectiveDateTime": "2025-12-31"},
        "minute": {"effectivePeriod": {"start": "2026-03-01T10:00:00Z", "end": "2026-03-01T10:01:00Z"}},
        "second": {"effectiveDateTime": "2026-03-01T10:00:30Z"},
        "later": {"effectiveDateTime": "2027-01-01T00:00:00Z"},
    }.items():
        observation = make.observation(logical_id)
        del observation["effectiveDateTime"]
        await ehr.write({**observation, **effective})
    assert (await client("GET", f"Observation?{query}")).ids == found.split()


async def test_an_open_encounter_period_reaches_into_the_future(client, ehr, make):
    await ehr.write(make.encounter("open", period={"start": "2026-03-01T08:00:00Z"}))
    await ehr.write(make.encounter("over", period={"start": "2026-02-01", "end": "2026-02-03"}))
    assert (await client("GET", "Encounter?date=gt2030-01-01")).ids == ["open"]
    assert (await client("GET", "Encounter?date=lt2026-03-01")).ids == ["over"]


async def test_last_updated_finds_what_its_own_meta_says(client, ehr, make, clock):
    for logical_id in ("a", "b", "c"):
        await ehr.write(make.observation(logical_id))
        clock.advance(0.0015)
    stamp = ehr.read("Observation", "b")["meta"]["lastUpdated"]
    assert (await client("GET", f"Observation?_lastUpdated={stamp}")).ids == ["b"]
    assert (await client("GET", f"Observation?_lastUpdated=ge{stamp}")).ids == ["b", "c"]
    assert (await client("GET", f"Observation?_lastUpdated=gt{stamp}")).ids == ["c"]
    assert (await client("GET", f"Observation?_lastUpdated=lt{stamp}")).ids == ["a"]
    assert (await client("GET", "Observation?_sort=-_lastUpdated")).ids == ["c", "b", "a"]


async def test_sorting_by_date_puts_what_has_none_last_either_way(client, ehr, make):
    await _observations(ehr, make, b={"effectiveDateTime": "2026-02-02"}, a={"effectiveDateTime": "2026-01-01"})
    undated = make.observation("undated")
    del undated["effectiveDateTime"]
    await ehr.write(undated)
    assert (await client("GET", "Observation?_sort=date")).ids == ["a", "b", "undated"]
    assert (await client("GET", "Observation?_sort=-date")).ids == ["b", "a", "undated"]


@pytest.mark.parametrize(
    "wanted",
    ["patient=p1", "patient=Patient/p1", "patient={base}/Patient/p1", "subject=p1", "subject:Patient=p1"],
)
async def test_a_patient_is_found_by_every_way_of_writing_the_reference(client, ehr, make, wanted):
    base = ehr.base_url
    await _observations(
        ehr,
        make,
        relative={},
        absolute={"subject": {"reference": f"{base}/Patient/p1"}},
        versioned={"subject": {"reference": "Patient/p1/_history/3"}},
        other={"subject": {"reference": "Patient/p11"}},
        foreign={"subject": {"reference": "https://elsewhere.example/Patient/p1"}},
    )
    found = (await client("GET", f"Observation?{wanted.format(base=base)}")).ids
    assert sorted(found) == ["absolute", "relative", "versioned"]


async def test_patient_never_matches_a_group_of_the_same_id(client, ehr, make):
    await _observations(ehr, make, group={"subject": {"reference": "Group/p1"}})
    assert (await client("GET", "Observation?patient=p1")).ids == []
    assert (await client("GET", "Observation?subject=p1")).ids == ["group"]


async def test_parameters_are_anded_values_are_ored(client, ehr, make):
    await _observations(ehr, make, a={}, b={"status": "amended"}, c={"subject": {"reference": "Patient/p2"}})
    assert (await client("GET", "Observation?patient=p1,p2&status=final")).ids == ["a", "c"]
    assert (await client("GET", "Observation?patient=p1&patient=p2")).ids == []


async def test_the_other_parameters_select_what_they_name(client, ehr, make):
    await ehr.write(make.patient(identifier=[{"system": "urn:mrn", "value": "7"}], birthDate="1950-05-05", active=True))
    await ehr.write(make.patient("p2", active=False))
    await ehr.write(make.encounter("e1"))
    await ehr.write(make.encounter("e2", status="finished"))
    await ehr.write(make.risk(id="r1", encounter={"reference": "Encounter/e1"}, occurrenceDateTime="2026-03-01"))
    component = [{"code": _code({"system": "http://loinc.org", "code": "8480-6"})}]
    await ehr.write(make.observation("bp", component=component, encounter={"reference": "Encounter/e1"}))
    await ehr.write({"resourceType": "Device", "id": "d1", "identifier": [{"value": "m"}]})
    for query, ids in {
        "Patient?identifier=urn:mrn|7": ["p1"],
        "Patient?identifier=7": ["p1"],
        "Patient?birthdate=lt1960": ["p1"],
        "Patient?active=false": ["p2"],
        "Patient?active:missing=true": [],
        "Patient?_id=p2,p1": ["p1", "p2"],
        "Encounter?status=in-progress&class=IMP": ["e1"],
        "Encounter?status:not=finished": ["e1"],
        "RiskAssessment?identifier=urn:score|k1&encounter=e1&date=2026": ["r1"],
        "Observation?code=8480-6": [],
        "Observation?combo-code=8480-6": ["bp"],
        "Observation?encounter=Encounter/e1": ["bp"],
        "Device?identifier=m": ["d1"],
    }.items():
        assert ((await client("GET", query)).ids, query) == (ids, query)


async def test_paging_visits_each_resource_once_while_writes_go_on(client, ehr, make):
    before = [f"o{n}" for n in range(25)]
    for logical_id in before:
        await ehr.write(make.observation(logical_id))
    page = await client("GET", "Observation?patient=p1&_sort=-_lastUpdated&_count=10")
    seen, pages = page.ids, 1
    while url := page.link("next"):
        await ehr.write(make.observation(f"new{pages}"))
        await ehr.write(make.observation("o3", status="amended"))
        await ehr.remove("Observation", f"o{10 + pages}")
        page = await client("GET", url)
        seen, pages = seen + page.ids, pages + 1
    assert pages == 3
    assert sorted(seen) == sorted(before)


@pytest.mark.parametrize(("count", "pages"), [(3, 2), (5, 2), (6, 1), (7, 1)])
async def test_the_last_page_has_no_next_link(client, ehr, make, count, pages):
    for n in range(6):
        await ehr.write(make.observation(f"o{n}"))
    page, seen = await client("GET", f"Observation?_count={count}"), 1
    while url := page.link("next"):
        page, seen = await client("GET", url), seen + 1
        assert page.ids
    assert seen == pages


async def test_an_invented_page_is_gone(client):
    assert (await client("GET", "_page?search=x&offset=0")).status == 410


async def test_count_is_capped_and_zero_means_count_only(client, ehr, make):
    for n in range(60):
        await ehr.write(make.observation(f"o{n}"))
    assert len((await client("GET", "Observation")).ids) == 50
    assert len((await client("GET", "Observation?_count=1000")).ids) == 60
    for query in ("_count=0", "_summary=count"):
        reply = await client("GET", f"Observation?{query}")
        assert (reply.body["total"], reply.ids) == (60, [])


async def test_elements_leaves_out_the_rest_and_says_so(client, ehr, make):
    await ehr.write(make.observation())
    (entry,) = (await client("GET", "Observation?_elements=value,subject")).body["entry"]
    resource = entry["resource"]
    assert set(resource) == {"resourceType", "id", "meta", "status", "code", "subject", "valueQuantity"}
    assert [tag["code"] for tag in resource["meta"]["tag"]] == ["SUBSETTED"]
    assert "tag" not in ehr.read("Observation", "o1")["meta"]


async def test_include_adds_each_referenced_resource_once(client, ehr, make):
    await ehr.write(make.patient())
    await ehr.write(make.encounter("e1"))
    await ehr.write(make.encounter("e2"))
    reply = await client("GET", "Encounter?_include=Encounter:patient")
    modes = [(entry["resource"]["id"], entry["search"]["mode"]) for entry in reply.body["entry"]]
    assert modes == [("e1", "match"), ("e2", "match"), ("p1", "include")]
    assert reply.body["total"] == 2
    await ehr.write(make.observation(encounter={"reference": "Encounter/e1"}))
    reply = await client("GET", "Observation?_include=Observation:encounter&_include=Observation:subject")
    assert reply.ids == ["o1", "e1", "p1"]


async def test_an_unknown_parameter_is_ignored_and_missing_from_self_or_refused_when_strict(client, ehr, make):
    await ehr.write(make.observation())
    lax = await client("GET", "Observation?code=8867-4&colour=red")
    assert lax.ids == ["o1"]
    assert lax.link("self") == f"{ehr.base_url}/Observation?code=8867-4"
    strict = await client("GET", "Observation?colour=red", Prefer="handling=strict")
    assert strict.status == 400
    assert "colour" in strict.said


async def test_a_server_without_identifier_search_ignores_it_and_finds_everything(connect, make):
    client = await connect(capabilities=Capabilities(identifier_search=False, include=False))
    await client.ehr.write(make.patient())
    await client.ehr.write(make.risk("k1"))
    await client.ehr.write(make.risk("k2"))
    reply = await client("GET", "RiskAssessment?identifier=urn:score|k1&_include=RiskAssessment:patient")
    assert len(reply.ids) == 2
    assert "identifier" not in reply.link("self")
    assert (await client("GET", "Patient?identifier=x")).ids == []


@pytest.mark.parametrize(
    "query",
    [
        "date=yesterday",
        "date=2026-03-01T10:00:00+01:00",
        "date=ap2026",
        "code=a|b|c",
        "code=",
        "patient.name=x",
        "code:in=x",
        "_count=-1",
        "_sort=code",
        "_include=Patient:link",
        "_summary=true",
        "status:missing=maybe",
    ],
)
async def test_a_value_that_cannot_be_understood_is_refused_not_ignored(client, query):
    reply = await client("GET", f"Observation?{query}".replace("T10:00:00+", "T10:00:00%20"))
    assert reply.status == 400
    assert reply.said


async def test_a_search_can_be_posted_so_that_nothing_identifying_is_in_the_url(client, ehr, make):
    await ehr.write(make.observation())
    form = {"Content_Type": "application/x-www-form-urlencoded"}
    reply = await client("POST", "Observation/_search?status=final", b"patient=Patient%2Fp1", **form)
    assert reply.ids == ["o1"]
    assert (await client("POST", "Observation/_search", b"patient=p2", **form)).ids == []
    assert (await client("POST", "Observation/_search", {"patient": "p1"})).status == 415


async def test_a_comma_in_a_value_can_be_escaped(client, ehr, make):
    await _observations(ehr, make, a={"code": _code({"code": "a,b"})}, b={"code": _code({"code": "b"})})
    assert (await client("GET", "Observation?code=a%5C,b")).ids == ["a"]
    assert (await client("GET", "Observation?code=a,b")).ids == ["b"]


async def test_an_index_never_hides_what_changed(client, ehr, make):
    await ehr.write(make.observation())
    await ehr.write(make.observation(subject={"reference": "Patient/p2"}))
    assert (await client("GET", "Observation?patient=p1")).ids == []
    assert (await client("GET", "Observation?patient=p2")).ids == ["o1"]
    await ehr.remove("Observation", "o1")
    assert (await client("GET", "Observation?patient=p2")).ids == []
