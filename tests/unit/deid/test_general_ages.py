"""Nobody over 89 shows their age: by birth, by death, by an age, by a distance or by a year."""

import json
from datetime import date, datetime, timedelta, timezone

import pytest

from sidecar.deid.general import Mode
from tests.unit.deid.general import TODAY, bundle, engine

UCUM = "http://unitsofmeasure.org"
CAPPED = {"value": 90, "comparator": ">=", "unit": "a", "system": UCUM, "code": "a"}
BARE_90 = {"value": 90, "unit": "a", "system": UCUM, "code": "a"}
SAFE = Mode.SAFE_HARBOR_RULES


def person(born, today=TODAY, **more):
    return engine(SAFE, today=today).resource({"resourceType": "Patient", "id": "p", "birthDate": born, **more})


MASKED = {"url": "http://hl7.org/fhir/StructureDefinition/data-absent-reason", "valueCode": "masked"}


def over_89(out):
    """Whether the person may be 90 or more, as far as anybody can see."""
    if "birthDate" in out:
        assert "_birthDate" not in out
        return False
    assert out["_birthDate"]["extension"] in ([{"url": "urn:ehr-sidecar:age", "valueAge": CAPPED}], [MASKED])
    return True


def said_over_89(out):
    """Whether it is said that the person is 90 or more."""
    return over_89(out) and out["_birthDate"]["extension"] != [MASKED]


@pytest.mark.parametrize(
    ("born", "today", "over"),
    [
        ("1936-11-26", "2026-11-25", False),  # 89 years and 364 days
        ("1936-11-25", "2026-11-25", True),  # 90 today
        ("1936-11-24", "2026-11-25", True),
        ("1937-01-01", "2026-12-31", False),
        ("1936-12-31", "2026-12-30", False),
        ("1936-02-29", "2026-02-27", False),
        ("1936-02-29", "2026-02-28", True),  # no 29 February in 2026: the earlier of the days on which it may count
        ("1936-02-29", "2026-03-01", True),
        ("1934-02-28", "2024-02-27", False),
        ("1934-02-28", "2024-02-28", True),
        ("1934-03-01", "2024-02-29", False),
        ("1936-12", "2026-11-30", False),
        ("1936-12", "2026-12-01", True),  # may have been born on the first
        ("1937", "2026-12-31", False),
        ("1936", "2026-01-01", True),  # may have been born on 1 January
        ("1900-01-01", "2026-11-25", True),
    ],
)  # fmt: skip
def test_the_year_of_birth_stays_up_to_the_eve_of_the_90th_birthday(born, today, over):
    out = person(born, date.fromisoformat(today))
    assert over_89(out) is over
    if not over:
        assert out["birthDate"] == born[:4]


@pytest.mark.parametrize("hours", [h / 4 for h in range(-14 * 4, 14 * 4 + 1)])
def test_a_death_counts_on_the_latest_day_that_it_was_anywhere(hours):
    """In every zone from -14 to +14 h: whoever had a 90th birthday anywhere on Earth at that moment had it."""
    zone = timezone(timedelta(hours=hours))
    birthday_begins = datetime(2020, 6, 10, 0, 0, tzinfo=timezone(timedelta(hours=14)))
    before, after = birthday_begins - timedelta(seconds=1), birthday_begins
    assert not over_89(person("1930-06-10", date(2020, 6, 1), deceasedDateTime=before.astimezone(zone).isoformat()))
    assert over_89(person("1930-06-10", date(2020, 6, 1), deceasedDateTime=after.astimezone(zone).isoformat()))


@pytest.mark.parametrize(
    ("died", "over"),
    [("2020-06-09", False), ("2020-06-10", True), ("2020-06", True), ("2020-05", False), ("2020", True)],
)
def test_of_a_part_of_a_date_of_death_the_last_day_counts(died, over):
    assert over_89(person("1930-06-10", date(2020, 1, 1), deceasedDateTime=died)) is over


@pytest.mark.parametrize(
    "death",
    [
        {"deceasedDateTime": "1999-06-09"}, {"deceasedDateTime": "2020-06-09"}, {"deceasedDateTime": "2020"},
        {"deceasedDateTime": "2020-06-10T00:30:00+14:00"}, {"deceasedDateTime": "spring"}, {"deceasedBoolean": True},
        {"_deceasedDateTime": {"extension": [MASKED]}},
    ],
)  # fmt: skip
def test_the_dead_who_would_be_over_89_today_lose_their_year_and_are_not_said_to_have_been_90(death):
    """Who died at 69 was 69, and who may have died at 89 may have been."""
    out = person("1930-06-10", **death)
    assert over_89(out)
    assert not said_over_89(out)
    assert any(name in out for name in ("deceasedBoolean", "deceasedDateTime", "_deceasedDateTime"))


@pytest.mark.parametrize("death", [{}, {"deceasedBoolean": False}, {"deceasedDateTime": "2020-06-12"}])
def test_who_is_or_was_over_89_for_certain_is_said_to_be(death):
    assert said_over_89(person("1930-06-10", **death))


@pytest.mark.parametrize(("born", "said"), [("1936-11", False), ("1936", False), ("1936-10", True), ("1935", True)])
def test_who_may_be_89_is_not_said_to_be_90(born, said):
    out = person(born)
    assert over_89(out)
    assert said_over_89(out) is said


def test_the_other_modes_keep_the_age_that_they_are_said_to_keep():
    who = {"resourceType": "Patient", "id": "p", "birthDate": "1900-05-04"}
    assert engine(Mode.LIMITED_DATA_SET).resource(who)["birthDate"] == "1900-05-04"
    assert abs(date.fromisoformat(engine().resource(who)["birthDate"]) - date(1900, 5, 4)) <= timedelta(days=365)


def age(value, unit="a", system=UCUM, **more):
    return {"value": value, "unit": unit, "system": system, "code": unit, **more}


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        (age(89), age(89)),
        (age(89.9), age(89.9)),
        (age(90), CAPPED),
        (age(97, comparator=">"), CAPPED),
        (age(95, comparator="<"), None),
        (age(1079, "mo"), age(1079, "mo")),
        (age(1080, "mo"), CAPPED),
        (age(4690, "wk"), age(4690, "wk")),
        (age(4696, "wk"), CAPPED),
        (age(32_871, "d"), age(32_871, "d")),
        (age(32_872, "d"), CAPPED),
        (age(89, "a", comparator=">"), age(89, "a", comparator=">")),
        (age(90, comparator="<"), None),
        (age(90, comparator="<="), None),
        (age(-95), None),
        ({"value": 92, "unit": "years"}, CAPPED),
        ({"value": 92, "unit": "y.o."}, CAPPED),
        ({"value": 92, "unit": "Jahre"}, CAPPED),
        ({"value": 92, "system": UCUM, "code": "a_j"}, CAPPED),
        ({"value": 45, "unit": "Years"}, age(45)),
        ({"value": 20, "unit": "Monate"}, age(20, "mo")),
        ({"value": 9000, "unit": "W"}, None),
        ({"value": 92, "unit": "Years", "code": "x", "system": "urn:x"}, CAPPED),
        ({"value": 92}, None),
        ({"value": 92, "unit": "summers"}, None),
        ({"value": "92", "unit": "a"}, None),
    ],
)
def test_an_age_of_90_or_more_is_90_or_more_in_whatever_unit(written, kept):
    source = {"resourceType": "Condition", "subject": {"reference": "Patient/p"}, "onsetAge": written}
    assert engine(SAFE).resource(source).get("onsetAge") == kept
    history = {
        "resourceType": "FamilyMemberHistory",
        "status": "completed",
        "ageAge": written,
        "condition": [{"onsetAge": written}],
    }
    out = engine(SAFE).resource(history)
    assert out.get("ageAge") == kept
    assert out.get("condition", [{}])[0].get("onsetAge") == kept


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        ({"low": age(50), "high": age(60)}, {"low": age(50), "high": age(60)}),
        ({"low": age(85), "high": age(95)}, {"low": age(85)}),
        ({"low": age(91), "high": age(95)}, {"low": BARE_90}),
        ({"high": age(95)}, None),
        ({"low": age(50, comparator="<")}, {"low": age(50, comparator="<")}),
        ({"low": {"value": "x"}, "high": age(60)}, None),
        ({"low": {"value": 92}, "high": {"value": 95}}, None),
        ({"low": {"value": 92, "unit": "summers"}}, None),
        ({"low": {"value": 92, "unit": "years"}, "high": {"value": 95, "unit": "years"}}, {"low": BARE_90}),
    ],
)
@pytest.mark.parametrize(
    ("type_name", "name"),
    [
        ("Condition", "onsetRange"), ("Condition", "abatementRange"), ("AllergyIntolerance", "onsetRange"),
        ("Procedure", "performedRange"), ("FamilyMemberHistory", "ageRange"), ("FamilyMemberHistory", "deceasedRange"),
    ],
)  # fmt: skip
def test_a_range_of_ages_is_open_where_it_reaches_beyond_89(type_name, name, written, kept):
    source = {"resourceType": type_name, "subject": {"reference": "Patient/p"}, name: written}
    assert engine(SAFE).resource(source).get(name) == kept
    if type_name == "FamilyMemberHistory":
        source = {"resourceType": type_name, "condition": [{"onsetRange": written}]}
        assert engine(SAFE).resource(source).get("condition", [{}])[0].get("onsetRange") == kept


@pytest.mark.parametrize("code", ["30525-0", "21612-7", "39016-1"])
@pytest.mark.parametrize(
    "value",
    [
        {"valueInteger": 96},
        {"valueQuantity": age(96)},
        {"valueQuantity": {"value": 96}},
        {"valueQuantity": age(96, "{count}")},
    ],
)
def test_an_observed_age_is_an_age(code, value):
    named = {"coding": [{"system": "http://loinc.org", "code": code}]}
    source = {
        "resourceType": "Observation",
        "status": "final",
        "code": named,
        "component": [{"code": named, **value}],
        **value,
    }
    out = engine(SAFE).resource(source)
    assert out["valueQuantity"] == out["component"][0]["valueQuantity"] == CAPPED
    assert "96" not in json.dumps(out)
    assert "96" in json.dumps(engine().resource(source))


def test_a_number_that_is_no_age_is_not_capped():
    named = {"coding": [{"system": "http://loinc.org", "code": "8867-4"}]}
    source = {"resourceType": "Observation", "status": "final", "code": named, "valueQuantity": age(120, "/min")}
    assert engine(SAFE).resource(source)["valueQuantity"]["value"] == 120


def test_no_year_shows_that_somebody_is_over_89():
    who = {"resourceType": "Patient", "id": "p", "birthDate": "1930-06-10"}
    about = {"reference": "Patient/p"}
    sick = {"resourceType": "Condition", "subject": about, "onsetDateTime": "1936-01-01", "recordedDate": "2020-01-01"}
    out = json.dumps(engine(SAFE).resource(bundle(who, sick)))
    assert "1936" not in out
    assert "1930" not in out
    later = {"resourceType": "Condition", "subject": about, "recordedDate": "2020-01-01", "onsetDateTime": "1936-01-01"}
    kept = engine(SAFE).resource(later)
    assert kept["recordedDate"] == "2020"
    assert "onsetDateTime" not in kept
    assert engine(SAFE).resource({"resourceType": "Condition", "subject": about, "recordedDate": "1936"})[
        "_recordedDate"
    ]
