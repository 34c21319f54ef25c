"""What the pure core costs, counted in calls rather than in time: a chart grows, and the work grows by as little."""

import sys
import time
from datetime import timedelta
from zoneinfo import ZoneInfo

import orjson

from sidecar.context import from_bundle
from sidecar.deid import deidentify
from sidecar.features import Extractor, SiteChoices
from sidecar.manifest import Manifest
from sidecar.records import PatientSnapshot
from tests.unit.chart import AT, bundle, measured, panel, person, rules, stay

CODES = {
    "8867-4": ("/min", 70), "8480-6": ("mm[Hg]", 120), "9279-1": ("/min", 16), "8310-5": ("Cel", 37),
    "59408-5": ("%", 97), "6690-2": ("10*3/uL", 9), "2524-7": ("mmol/L", 1.6),
}  # fmt: skip


def extractor(*selects):
    """One feature for each of seven codes and each of `selects`."""
    features = {
        f"f{code}_{select}".replace("-", "_"): {
            "label": code, "unit": unit, "max_age": "24h", "select": select, "from": [{"codes": [f"http://loinc.org|{code}"]}],
        }
        for code, (unit, _) in CODES.items()
        for select in selects
    }  # fmt: skip
    names = list(features)
    return Extractor(
        Manifest.model_validate(
            {
                "schema": 1, "name": "wide", "version": "1.0.0", "title": "Wide", "kind": "points", "validity": "6h",
                "spread": "24h", "graph": {"sha256": "0" * 64, "total": "score", "points": "points", "features": names, "point_names": names}, "features": features,
                "bands": [{"risk": "low", "text": "low", "at_least": 0}],
                "incomplete": {"urgent_at_least": 5, "urgent_any_points": 3},
                "result": {"code": "urn:x|y", "display": "wide", "outcome": "wide", "risk_system": "urn:x"},
            }
        ),
        SiteChoices(),
    )  # fmt: skip


WIDE, NARROW = extractor("latest", "min", "max", "mean"), extractor("latest")


def readings(number, apart=timedelta(minutes=5)):
    """`number` readings, seven at a time."""
    codes = [(code, value, unit) for code, (unit, value) in CODES.items()]
    ago = [apart * (n // len(codes)) for n in range(number)]
    return [
        measured(*codes[n % len(codes)], ago[n], id=f"o{n}", issued=(AT - ago[n]).isoformat()) for n in range(number)
    ]


def unread(number):
    return [measured(f"{1000 + n}-1", 5, "mg/dL", timedelta(minutes=n), id=f"u{n}") for n in range(number)]


def calls(run):
    """The names of all functions that are called, built-in ones among them."""
    seen = []

    def note(frame, event, arg):
        if event == "call":
            seen.append(frame.f_code.co_name)
        elif event == "c_call":
            seen.append(arg.__name__)

    sys.setprofile(note)
    try:
        run()
    finally:
        sys.setprofile(None)
    return seen


def crossing(resources, one=WIDE):
    snapshot = PatientSnapshot(person(), stay(), tuple(resources), AT)
    return deidentify(snapshot, rules(), one.reads)


def assess(resources, one=WIDE):
    return one.run(crossing(resources, one))


def growth(run, few, many):
    """How many more calls each resource costs."""
    return (len(calls(lambda: run(many))) - len(calls(lambda: run(few)))) / (len(many) - len(few))


def test_each_written_time_is_parsed_once_however_often_it_stands_in_the_chart():
    charted = readings(70)
    moments = {r["effectiveDateTime"] for r in charted}
    assert calls(lambda: crossing(charted)).count("fromisoformat") == len(moments) == 10


def test_of_what_is_not_read_no_time_is_parsed():
    assert "fromisoformat" not in calls(lambda: crossing(unread(50)))


def test_a_reading_costs_few_calls():
    assert growth(assess, readings(70), readings(700)) < 120


def test_a_statement_that_is_not_read_costs_a_fraction_of_one_that_is():
    read, not_read = (growth(crossing, make(10), make(110)) for make in (readings, unread))
    assert not_read < read / 2


def test_a_reading_costs_little_more_when_four_features_select_from_it_than_when_one_does():
    narrow, wide = (growth(lambda r, one=one: assess(r, one), readings(70), readings(700)) for one in (NARROW, WIDE))
    assert wide < narrow * 1.5


def test_a_component_that_is_not_read_is_not_walked():
    parts = [
        {"code": {"coding": [{"system": "http://loinc.org", "code": f"{n}-1"}]}, "valueString": "x"} for n in range(100)
    ]
    plain = panel(120)
    assert (
        len(calls(lambda: crossing([{**plain, "component": plain["component"] + parts}])))
        < len(calls(lambda: crossing([plain]))) + 100 * 20
    )


def test_a_bundle_reads_each_reference_to_one_patient_once():
    chart = bundle(person(), stay(), *readings(70))
    parsed = calls(lambda: from_bundle(chart, frozenset({"http://loinc.org|8867-4"}), None, ZoneInfo("UTC")))
    assert parsed.count("parse") < 20


def test_the_core_costs_a_small_multiple_of_decoding_the_same_bytes():
    charted = [*readings(25), *unread(25)]
    raw = orjson.dumps(bundle(person(), stay(), *charted))

    def cpu(run):
        traced = sys.gettrace()
        sys.settrace(None)  # counting lines for a coverage report costs Python much and C nothing
        began = time.thread_time()
        for _ in range(200):
            run()
        took = time.thread_time() - began
        sys.settrace(traced)
        return took

    ratios = [cpu(lambda: assess(charted)) / cpu(lambda: orjson.loads(raw)) for _ in range(7)]
    sys.stdout.write(f"de-identification and features / decoding: {min(ratios):.2f} to {max(ratios):.2f}\n")
    assert min(ratios) < 10
