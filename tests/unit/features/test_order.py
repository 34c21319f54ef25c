"""The order of a Bundle never changes the result."""

from datetime import timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.records import Conclusion
from tests.unit.chart import LOINC, amount, answered, judge, measured, observation, panel, scale, vitals

MOMENTS = st.sampled_from([timedelta(0), timedelta(minutes=7), timedelta(hours=1), timedelta(hours=5)])
VALUES = st.sampled_from([-1, 0, 0.4, 14, 15, 21, 30, 37, 70, 88, 97, 120])
UNITS = st.sampled_from(["/min", "%", "L/min", "mm[Hg]", "Cel", "{score}", "[degF]", "nonsense"])
CODES = st.sampled_from(["9279-1", "2708-6", "59408-5", "3151-8", "3150-6", "8480-6", "8867-4", "9269-2", "8310-5"])
COMPARATORS = st.sampled_from([{}, {}, {}, {"comparator": "<"}])


@st.composite
def readings(draw):
    quantity = amount(draw(VALUES), draw(UNITS)) | draw(COMPARATORS)
    return observation(f"{LOINC}|{draw(CODES)}", draw(MOMENTS), valueQuantity=quantity)


STRANGE = st.one_of(
    readings(),
    st.builds(scale, st.sampled_from([1, 2]), MOMENTS),
    st.builds(panel, VALUES, ago=MOMENTS),
    st.builds(
        answered,
        st.just(f"{LOINC}|80288-4"),
        st.sampled_from([f"{LOINC}|LA9340-6", f"{LOINC}|LA9343-0", "urn:x|y"]),
        MOMENTS,
    ),
)


def result(conclusion: Conclusion):
    """All a reader sees but which of two identical readings is cited."""
    a, e = conclusion.assessment, conclusion.evidence
    shown = [(f.name, str(f.value), f.seconds, f.reason, f.assumed, f.shown) for f in a.vector.features]
    return (
        a.outcome,
        a.reasons,
        a.score,
        a.at_least,
        a.risk,
        a.urgent,
        a.contributions,
        shown,
        a.vector.remarks,
        e.occurred_at,
    )


@settings(max_examples=300, deadline=None, print_blob=True)
@given(st.lists(STRANGE, min_size=1, max_size=12), st.randoms(use_true_random=False))
def test_the_order_of_a_bundle_never_changes_the_result(strange, random):
    charted = [*vitals().values(), *strange]
    named = [{**reading, "id": f"r{index}"} for index, reading in enumerate(charted)]
    shuffled = list(named)
    random.shuffle(shuffled)
    assert result(judge(shuffled)) == result(judge(named))


@settings(max_examples=50, deadline=None, print_blob=True)
@given(st.permutations(["resourceType", "id", "status", "code", "subject", "effectiveDateTime", "valueQuantity"]))
def test_the_order_of_elements_in_a_reading_never_changes_the_result(order):
    strange = measured("9279-1", 30, "/min", status="unknown", encounter=None)
    strange["valueQuantity"]["comparator"] = "<"
    reordered = {name: strange[name] for name in order}
    assert judge([reordered]).assessment.reasons == judge([strange]).assessment.reasons
