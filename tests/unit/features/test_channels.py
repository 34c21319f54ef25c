"""Features that read the same share one reading of each fact, and each is what it would be alone."""

import math

from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.features import Extractor, SiteChoices
from sidecar.manifest import Manifest
from sidecar.records import DeidentifiedSnapshot, Fact

LACTATE, GLUCOSE = "http://loinc.org|2524-7", "http://loinc.org|2345-7"
SELECTED = ("latest", "min", "max", "mean", "count")
PLAIN = {"label": "lactate", "unit": "mmol/L", "max_age": "4h", "from": [{"codes": [LACTATE]}]}
FEATURES = {
    **{f"lactate_{select}": {**PLAIN, "select": select} for select in SELECTED},
    "lactate_short": {**PLAIN, "select": "max", "window": "1h"},
    "lactate_old": {**PLAIN, "max_age": "30d", "in_set": False},
    "lactate_mg": {**PLAIN, "unit": "mg/dL"},
    "lactate_plausible": {**PLAIN, "plausible": [0, 20]},
    "lactate_larger": {**PLAIN, "same_moment": "larger"},
    "either": {**PLAIN, "from": [{"codes": [GLUCOSE, LACTATE]}]},
    "glucose_first": {**PLAIN, "from": [{"codes": [GLUCOSE]}, {"codes": [LACTATE], "above": 2}]},
}


def extractor(features):
    return Extractor(
        Manifest.model_validate(
            {
                "schema": 1, "name": "tiny", "version": "1.0.0", "title": "Tiny", "kind": "points", "validity": "6h",
                "spread": "900d",
                "graph": {"sha256": "0" * 64, "total": "score", "points": "points", "features": list(features), "point_names": [next(iter(features))]},
                "features": features,
                "bands": [{"risk": "low", "text": "low", "at_least": 0}],
                "incomplete": {"urgent_at_least": 5, "urgent_any_points": 3},
                "result": {"code": "urn:x|y", "display": "tiny", "outcome": "tiny", "risk_system": "urn:x"},
            }
        ),
        SiteChoices(),
    )  # fmt: skip


TOGETHER = extractor(FEATURES)
ALONE = {name: extractor({name: spec}) for name, spec in FEATURES.items()}
FACTS = st.builds(
    Fact,
    index=st.integers(0, 9),
    type=st.just("Observation"),
    codes=st.lists(st.sampled_from([LACTATE, GLUCOSE]), min_size=1, max_size=2).map(tuple),
    seconds=st.one_of(st.none(), st.sampled_from([0.0, -60.0, -5_000.0, -20_000.0, 100.0, 1_000.0, 9_000.0])),
    value=st.one_of(st.none(), st.sampled_from([0.0, 1.0, 2.5, 30.0])),
    unit=st.sampled_from(["mmol/L", "mg/dL", "unknown", None]),
    trouble=st.sampled_from([None, None, None, "comparator", "status"]),
    recorded=st.sampled_from([-math.inf, 0.0, 5.0]),
)


def run(one, facts):
    clean = DeidentifiedSnapshot((50, 50), False, False, True, facts, "digest")
    return one.run(clean)[1]


@settings(max_examples=400, deadline=None, print_blob=True)
@given(st.lists(FACTS, max_size=8).map(tuple))
def test_a_feature_among_others_is_what_it_is_alone(facts):
    # Ages count from the moment of the set: alone, a feature is its own set, so one of them must lead all the others.
    lead = Fact(99, "Observation", (LACTATE, GLUCOSE), 0.0, 1.0, "mmol/L")
    together = run(TOGETHER, (*facts, lead))
    for name, one in ALONE.items():
        alone = run(one, (*facts, lead))[name]
        assert str(together[name]) == str(alone), name


def test_a_model_reads_the_codes_of_its_sources_and_no_others():
    panelled = {**PLAIN, "from": [{"codes": [LACTATE], "panels": ["http://loinc.org|24336-0"]}]}
    diagnosed = {**PLAIN, "from": [{"type": "Condition", "codes": ["http://snomed.info/sct|1"], "values": {"*|*": 1}}]}
    diagnosed["select"] = "any"
    reads = extractor({"a": panelled, "b": PLAIN, "c": diagnosed}).reads
    assert reads == {"Observation": {LACTATE}, "Condition": {"http://snomed.info/sct|1"}}


def test_a_statement_of_two_codes_is_one_reading():
    facts = (Fact(0, "Observation", (GLUCOSE, LACTATE), 0.0, 4.0, "mmol/L"),)
    counted = extractor({"n": {**PLAIN, "select": "count", "from": [{"codes": [LACTATE, GLUCOSE]}]}})
    assert run(counted, facts)["n"].value == 1
