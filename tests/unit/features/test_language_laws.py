"""Laws of the whole language: order changes nothing, what is withheld is not named, what is read is all that crosses."""

from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.app import running_model
from sidecar.context import from_bundle
from sidecar.deid import deidentify
from sidecar.pipeline import conclude
from sidecar.scoring import load_model
from sidecar.settings import ModelSettings
from tests.unit.chart import AT, bundle, measured, person, rules
from tests.unit.discharge import install
from tests.unit.language import ATC, ICD, ago, clinically, diagnosis, order, procedure, visit

TIMES = st.sampled_from(
    [ago(days=d) for d in (0, 1, 3, 5, 9, 60, 200)] + ["2026-02-25", "2026-02", "2026", "2030-01-01"]
)
ENDS = st.one_of(st.none(), TIMES)
STATUS = st.sampled_from(["active", "resolved", "inactive", "odd"])


@st.composite
def statements(draw):
    kind = draw(st.integers(0, 4))
    if kind == 0:
        status = draw(st.sampled_from(["finished", "in-progress", "cancelled", "planned", "unknown"]))
        return visit("x", draw(TIMES), draw(ENDS), draw(st.sampled_from(["IMP", "EMER", "AMB"])), status=status)
    if kind == 1:
        code = draw(st.sampled_from(["I50.1", "I21.4", "C50.1", "C78.0", "E11.2", "E11.9", "N18.5", "Z00", "B20"]))
        return diagnosis(f"{ICD}|{code}", **clinically(draw(STATUS)))
    if kind == 2:
        return order(f"{ATC}|B01AA03", status=draw(st.sampled_from(["active", "stopped", "unknown", "draft"])))
    if kind == 3:
        return procedure("http://snomed.info/sct|80146002", draw(TIMES))
    return {
        **measured("718-7", draw(st.sampled_from([7, 10, 14])), draw(st.sampled_from(["g/dL", "furlong"]))),
        "effectiveDateTime": draw(TIMES),
    }


def model(tmp_path_factory):
    return running_model(load_model(install(tmp_path_factory.mktemp("models"))), ModelSettings())


def concluded(running, charted):
    classes = frozenset(running.loaded.manifest.cohort.stays)
    chart = bundle(person(), *charted)
    snapshot = from_bundle(chart, running.loaded.manifest.set_codes, AT, AT.tzinfo, classes)
    return conclude(snapshot, running, rules())


def shown(conclusion):
    """All a reader sees; which of several that say the same is cited first is nobody's business."""
    a, e = conclusion.assessment, conclusion.evidence
    features = [(f.name, str(f.value), f.reason, f.shown) for f in a.vector.features]
    return (
        a.outcome,
        a.reasons,
        a.score,
        a.risk,
        dict(a.contributions),
        features,
        a.vector.remarks,
        a.withheld,
        e.occurred_at,
    )


def test_the_order_of_a_chart_never_changes_what_is_concluded(tmp_path_factory):
    running = model(tmp_path_factory)

    @settings(max_examples=200, deadline=None, print_blob=True)
    @given(st.lists(statements(), max_size=8), st.randoms(use_true_random=False))
    def law(strange, random):
        charted = [visit("e1", ago(days=6), ago(days=1)), *({**s, "id": f"r{n}"} for n, s in enumerate(strange))]
        shuffled = list(charted)
        random.shuffle(shuffled)
        assert shown(concluded(running, shuffled)) == shown(concluded(running, charted))

    law()


def test_one_statement_more_that_cannot_be_read_never_gives_another_number(tmp_path_factory):
    running = model(tmp_path_factory)
    usual = [
        visit(
            "e1",
            ago(days=6),
            ago(days=1),
            priority={"coding": [{"system": "http://terminology.hl7.org/CodeSystem/v3-ActPriority", "code": "UR"}]},
        )
    ]

    @settings(max_examples=100, deadline=None, print_blob=True)
    @given(st.lists(statements(), max_size=4), st.integers(0, 3))
    def law(strange, which):
        odd = [
            diagnosis(f"{ICD}|C78.1", **clinically("odd")), order(f"{ATC}|B01AF01", status="unknown"),
            procedure("http://snomed.info/sct|80146002", ago(days=3), status="unknown"),
            visit("odd", ago(days=40), ago(days=39), "EMER", status="unknown"),
        ][which]  # fmt: skip
        charted = [*usual, *({**s, "id": f"r{n}"} for n, s in enumerate(strange))]
        before = concluded(running, charted).assessment
        after = concluded(running, [*charted, {**odd, "id": "odd"}]).assessment
        assert after.score in (None, before.score)

    law()


def test_a_sensitive_disease_counts_and_the_feature_that_it_counts_in_is_not_named(tmp_path_factory):
    running = model(tmp_path_factory)
    urgent = {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/v3-ActPriority", "code": "UR"}]}
    chart = [
        visit("e1", ago(days=6), ago(days=1), priority=urgent),
        diagnosis(f"{ICD}|I50.1", "c1"),
        diagnosis(f"{ICD}|B20", "c2"),
    ]
    found = concluded(running, chart).assessment
    assert found.contributions["charlson"] == 6
    assert found.withheld == ("charlson",)


def test_what_is_charted_more_finely_than_the_manifest_says_does_not_cross(tmp_path_factory):
    running = model(tmp_path_factory)
    chart = bundle(
        person(), visit("e1", ago(days=6)), diagnosis(f"{ICD}|I50.23", "c1"), diagnosis(f"{ICD}|Z63.0", "c2")
    )
    snapshot = from_bundle(chart, frozenset(), AT, AT.tzinfo, frozenset(running.loaded.manifest.cohort.stays))
    clean = deidentify(snapshot, rules(), running.extractor.reads)
    crossed = {code for fact in clean.facts for code in fact.codes if fact.type == "Condition"}
    assert crossed == {f"{ICD}|I50*"}
