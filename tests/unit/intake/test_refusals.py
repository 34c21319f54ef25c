"""A refusal names the element and what is wrong with it, and quotes nothing, whatever was sent."""

import copy
import random
import re

import orjson
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.intake import Refused, Source, read_bundle, read_put
from sidecar.records import Reference
from tests.campaigns.leaks import Searcher
from tests.campaigns.planted import Planter
from tests.campaigns.telling import bundle

SOURCE = Source("observation", "Observation")
KINDS = ("words", "name", "id", "digits", "decimal", "instant", "date", "address", "mail", "token", "code", "blob")
PATHS = re.compile(
    r"(Bundle|Observation|Parameters)(\.(resourceType|id|meta|type|parameter|versionId|lastUpdated|entry\[0\]\.resource))*"
    r"|notification-event|event-number|events-since-subscription-start|focus|type|subscription|status|"
    r"eventNumber|eventsSinceSubscriptionStart"
)
PROBLEMS = {
    "is not the type in the path", "is not the id in the path", "must be an object", "is not a FHIR id", "is not an instant",
    "the body is empty", "the body is not complete, valid JSON, or deeper than 1024", "is an answer to a query, not a notification",
    "is not Bundle", "is not that of a notification", "more than 10000", "more than 10100", "is not a kind of notification",
    "is not a subscription status", "is said twice", "is not a counter", "is not a reference to a resource",
    "this hook takes Observation", "a list is expected where there is none", "a list holds something that is no object",
}  # fmt: skip


def nodes(document):
    """Every object and list in it."""
    if isinstance(document, dict | list):
        yield document
        for child in document.values() if isinstance(document, dict) else document:
            yield from nodes(child)


def spoilt(document, draw, planter):
    """The document with planted values in the place of some of its own, or as names, or beside them."""
    for _ in range(draw(st.integers(1, 3))):
        inside = [n for n in nodes(document) if n]
        node = inside[draw(st.integers(0, len(inside) - 1))]
        key = draw(st.sampled_from(sorted(node) if isinstance(node, dict) else range(len(node))))
        value = getattr(planter, draw(st.sampled_from(KINDS)))("spoilt")
        made = draw(
            st.sampled_from(
                [value, [value], {"x": value}, [[value]], {"reference": value}, {"resourceType": value}, None]
            )
        )
        what = draw(st.sampled_from(["replace", "rename", "add", "double"]))
        if what == "rename" and isinstance(node, dict):
            node[planter.code("name")] = node.pop(key)
        elif what == "add" and isinstance(node, list):
            node.append(made)
        elif what == "double" and isinstance(node, list):
            node.append(copy.deepcopy(node[key]))
        else:
            node[key] = made
    return orjson.dumps(document)


def refused(call):
    try:
        call()
    except Refused as refusal:
        return refusal
    return None


@settings(max_examples=150, deadline=None, print_blob=True)
@given(st.data())
def test_no_refusal_quotes_what_was_sent(data):
    planter = Planter(random.Random(data.draw(st.integers(0, 2**32))))
    own = {
        "resourceType": "Observation",
        "id": planter.id("id"),
        "meta": {"versionId": planter.id("version"), "lastUpdated": planter.instant("updated")},
    }
    focus = Reference("Observation", own["id"])
    sent = bundle(f"Observation/{own['id']}", [copy.deepcopy(own)], planter)
    put, told = spoilt(own, data.draw, planter), spoilt(sent, data.draw, planter)
    cut = told[: data.draw(st.integers(0, len(told)))]
    refusals = [
        refused(lambda: read_put(put, "observation", focus, 0.0)),
        *(refused(lambda body=body: read_bundle(body, SOURCE, 0.0)) for body in (told, cut)),
    ]
    searcher = Searcher(planter.canaries)
    for refusal in filter(None, refusals):
        assert PATHS.fullmatch(refusal.path), refusal.path
        assert refusal.problem in PROBLEMS
        assert searcher.search("refusal", f"{refusal!r} {refusal}".encode()) == set()
