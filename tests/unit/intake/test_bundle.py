"""Backport Bundles as servers really send them: every shape is read alike, and what is wrong is refused with its path."""

import copy

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.intake import Refused, Source, read_bundle
from sidecar.records import Event, Reference

READINGS = Source("observation", "Observation", (("code", "http://loinc.org|8867-4"),))


def event(number: str = "2", focus: str | None = "Observation/o1", **more):
    part = [
        {"name": "event-number", "valueString": number},
        {"name": "timestamp", "valueInstant": "2026-01-01T00:00:00Z"},
    ]
    part += [{"name": "focus", "valueReference": {"reference": focus}}] if focus is not None else []
    return {"name": "notification-event", "part": part, **more}


def notification(*events, kind: str = "event-notification", since: str | None = "2", entries=(), **more):
    parameters = [
        {"name": "subscription", "valueReference": {"reference": "https://ehr.example/fhir/Subscription/s1"}},
        {"name": "topic", "valueCanonical": "http://ehr.example/topic"},
        {"name": "status", "valueCode": "active"},
        {"name": "type", "valueCode": kind},
        *([{"name": "events-since-subscription-start", "valueString": since}] if since is not None else []),
        *events,
    ]
    first = {
        "resource": {"resourceType": "Parameters", "parameter": parameters},
        "request": {"method": "GET", "url": "Subscription/s1/$status"},
        "response": {"status": "200"},
    }
    return {"resourceType": "Bundle", "type": "history", "entry": [first, *entries], **more}


def read(bundle):
    return read_bundle(orjson.dumps(bundle), READINGS, 5.0)


def the_event(version: str | None = None, updated: str | None = None) -> Event:
    return Event("observation", 5.0, Reference("Observation", "o1", version), updated)


def test_an_id_only_notification_names_event_number_and_count():
    found = read(notification(event()))
    assert found.events == (the_event(),)
    assert (found.notice.kind, found.notice.numbers, found.notice.since) == ("event-notification", (2,), 2)
    assert (found.notice.subscription, found.notice.status, found.notice.unnamed) == ("s1", "active", False)


@pytest.mark.parametrize("kind", ["handshake", "heartbeat"])
def test_a_sign_of_life_has_no_event(kind):
    found = read(notification(kind=kind, since="0"))
    assert (found.notice.kind, found.notice.since, found.events, found.notice.unnamed) == (kind, 0, (), False)


def test_a_full_resource_tells_a_repeat_from_news_by_version_and_time():
    resource = {
        "resourceType": "Observation",
        "id": "o1",
        "meta": {"versionId": "3", "lastUpdated": "2026-01-01T00:00:00Z"},
    }
    entry = {"resource": resource, "request": {"method": "PUT", "url": "Observation/o1"}, "response": {"status": "200"}}
    assert read(notification(event(), entries=[entry])).events == (the_event("3", "2026-01-01T00:00:00Z"),)


def sent_along(version: str | None = None, method: str = "PUT"):
    request = {"request": {"method": method, "url": "Observation/o1"}, "response": {"status": "200"}}
    if version is None:
        return request
    meta = {"versionId": version, "lastUpdated": f"2026-01-01T00:00:0{version}Z"}
    return request | {"resource": {"resourceType": "Observation", "id": "o1", "meta": meta}}


@pytest.mark.parametrize(
    "entries",
    [
        [sent_along("2"), sent_along("1")],
        [sent_along("1"), sent_along("2")],
        [sent_along(method="DELETE"), sent_along("1")],
        [sent_along("1"), sent_along(method="DELETE")],
    ],
)
def test_of_a_resource_that_is_there_twice_no_version_hides_the_other(entries):
    assert read(notification(event("1"), event("2"), entries=entries)).events == (the_event(),)


def test_what_may_be_said_once_is_not_said_twice():
    for name in ("focus", "event-number"):
        told = event()
        told["part"] += [part for part in told["part"] if part["name"] == name]
        with pytest.raises(Refused):
            read(notification(told))
    with pytest.raises(Refused):
        read(notification({"name": "type", "valueCode": "heartbeat"}))


def test_more_parameters_than_events_can_be_are_refused():
    with pytest.raises(Refused) as refusal:
        read(notification(*[{}] * 20_000))
    assert refusal.value.path == "Parameters.parameter"


@pytest.mark.parametrize("events", [[], [event(focus=None)], [event(), event("3", None)]])
def test_what_happened_without_being_named_must_be_searched_for(events):
    assert read(notification(*events)).notice.unnamed


@pytest.mark.parametrize(
    "focus",
    [
        "Observation/o1",
        "https://ehr.example/fhir/Observation/o1",
        "http://inner.name:8080/a/b/Observation/o1",
        "Observation/o1/_history/3",
    ],
)
def test_a_focus_may_be_relative_absolute_or_versioned(focus):
    (found,) = read(notification(event(focus=focus))).events
    assert (found.focus.type, found.focus.id) == ("Observation", "o1")


@pytest.mark.parametrize(
    "focus",
    [
        "Patient/o1", "https://x/Patient/o1", "urn:uuid:6f1b", "#o1", "Observation/", "Observation/..", "Observation/o1?x=1",
        "Observation?identifier=1", "ftp://x/Observation/o1", "https://x/Observation/o1#y", "Observation/o1/_history/", "",
        "https://u:p@x/y z/Observation/o1", "//x/Observation/o1", "\\\\x\\Observation\\o1", "Observation/o1\r\n",
    ],
)  # fmt: skip
def test_a_focus_that_names_no_resource_of_this_hook_refuses_the_whole_bundle(focus):
    with pytest.raises(Refused):
        read(notification(event("1"), event("2", focus)))


@pytest.mark.parametrize("name", ["valueInstant", "valueDateTime", "valueDate"])
def test_a_timestamp_may_have_any_precision(name):
    told = event()
    told["part"][1] = {"name": "timestamp", name: "2026-01-01"}
    assert read(notification(told)).notice.numbers == (2,)


def test_requests_and_responses_may_be_absent():
    bundle = notification(event())
    del bundle["entry"][0]["request"], bundle["entry"][0]["response"]
    assert read(bundle).events == (the_event(),)


def test_names_may_be_camel_case():
    bundle = notification(
        {
            "name": "notificationEvent",
            "part": [
                {"name": "eventNumber", "valueString": "2"},
                {"name": "focus", "valueReference": {"reference": "Observation/o1"}},
            ],
        }
    )
    bundle["entry"][0]["resource"]["parameter"][4] = {"name": "eventsSinceSubscriptionStart", "valueString": "2"}
    assert read(bundle) == read(notification(event()))


def test_a_subscription_status_of_r4b_is_read_alike():
    bundle = notification()
    bundle["entry"][0]["resource"] = {
        "resourceType": "SubscriptionStatus",
        "status": "active",
        "type": "event-notification",
        "eventsSinceSubscriptionStart": "2",
        "notificationEvent": [{"eventNumber": "2", "focus": {"reference": "Observation/o1"}}],
        "subscription": {"reference": "Subscription/s1"},
    }
    assert read(bundle) == read(notification(event()))


@pytest.mark.parametrize("since", ["2", 2])
@pytest.mark.parametrize("name", ["valueString", "valueInteger", "valueUnsignedInt", "valueInteger64"])
def test_a_counter_may_be_a_string_or_a_number(name, since):
    bundle = notification(event())
    bundle["entry"][0]["resource"]["parameter"][4] = {"name": "events-since-subscription-start", name: since}
    assert read(bundle).notice.since == 2


@pytest.mark.parametrize("since", ["", "-1", "1.5", "two", "9" * 17, "٣", True, -1, 2**60])
def test_what_is_no_counter_is_refused(since):
    with pytest.raises(Refused) as refusal:
        read(notification(event(), since=since))
    assert refusal.value.path == "events-since-subscription-start"
    assert "9999" not in str(refusal.value)


def test_a_server_that_does_not_count_is_heard_all_the_same():
    told = event()
    del told["part"][0]
    found = read(notification(told, since=None))
    assert (found.events, found.notice.numbers, found.notice.since) == ((the_event(),), (), None)


def test_an_event_inside_a_heartbeat_is_not_lost():
    found = read(notification(event(), kind="heartbeat"))
    assert (found.notice.kind, found.events) == ("event-notification", (the_event(),))


@pytest.mark.parametrize("kind", ["query-status", "query-event", "", "surprise"])
def test_what_is_no_notification_is_refused(kind):
    with pytest.raises(Refused) as refusal:
        read(notification(event(), kind=kind))
    assert refusal.value.path == "type"


@pytest.mark.parametrize(
    ("path", "change"),
    [
        ("Bundle.resourceType", {"resourceType": "Patient"}),
        ("Bundle.type", {"type": "transaction"}),
        ("Bundle.entry[0].resource", {"entry": []}),
        ("Bundle.entry[0].resource", {"entry": [{"resource": {"resourceType": "Observation", "id": "x"}}]}),
        ("Bundle", {"entry": {}}),
        ("Bundle", {"entry": ["x"]}),
    ],
)
def test_what_is_no_notification_bundle_is_refused_with_its_path(path, change):
    with pytest.raises(Refused) as refusal:
        read(notification(event()) | change)
    assert refusal.value.path == path


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.text(),
        lambda c: st.lists(c) | st.dictionaries(st.text(), c),
    )
)
def test_whatever_stands_in_a_parameter_is_read_or_refused_and_never_crashes(junk):
    bundle = notification(event())
    for place in range(5):
        broken = copy.deepcopy(bundle)
        broken["entry"][0]["resource"]["parameter"][place] = junk
        try:
            read(broken)
        except Refused:
            continue


def test_nothing_of_a_bundle_shows_in_its_repr():
    assert "o1" not in repr(read(notification(event())))


@pytest.mark.parametrize("kind", [["history"], {"x": "history"}, 7, None])
def test_a_type_that_is_no_word_is_refused_like_any_other(kind):
    with pytest.raises(Refused) as refusal:
        read(notification(event(), type=kind))
    assert refusal.value.path == "Bundle.type"
