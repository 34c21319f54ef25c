"""Scopes in both versions' words: what is needed, what was granted, what is missing."""

import pytest

from sidecar.app import shipped
from sidecar.fhir import scopes
from sidecar.manifest import load

NEWS2 = load(shipped("models") / "news2" / "1.0.0" / "manifest.toml")
READS = "system/Condition.rs system/Encounter.rs system/Observation.rs system/Patient.rs system/Subscription.crus"
WRITES = (
    "system/Condition.rs system/Device.crus system/Encounter.rs system/Observation.crus system/Patient.rs "
    "system/RiskAssessment.crus system/Subscription.crus"
)


def test_a_model_in_shadow_needs_to_read_and_one_that_writes_needs_no_more_than_that():
    assert scopes.text(scopes.needed([NEWS2], writes=False)) == READS
    assert scopes.text(scopes.needed([NEWS2], writes=True)) == WRITES


def test_without_a_model_that_reads_it_nothing_is_asked_for():
    assert "Observation" not in scopes.text(scopes.needed([], writes=False))


def test_version_1_words_cover_the_letters():
    found = scopes.text(scopes.needed([NEWS2], writes=True), v1=True).split()
    assert "system/Patient.read" in found
    assert "system/Patient.write" not in found
    assert {"system/Device.read", "system/Device.write"} <= set(found)


@pytest.mark.parametrize(
    ("scope", "letters"),
    [
        ("system/Patient.rs", "rs"), ("system/Patient.read", "rs"), ("system/*.read", "rs"), ("system/*.rs", "rs"), ("system/Patient.*", "cruds"),
        ("system/*.*", "cruds"), ("system/*.cruds", "cruds"), ("system/Patient.write", "cud"), ("system/Patient.r system/Patient.s", "rs"),
        ("system/Patient.sr", ""), ("system/Patient.rs?active=true", ""), ("user/Patient.rs", ""), ("patient/Patient.rs", ""), ("system/patient.rs", ""),
        ("system/Patient", ""), ("system/Patient.reads", ""), ("SYSTEM/Patient.rs", ""), ("openid system/Observation.rs", ""),
    ],
)  # fmt: skip
def test_a_grant_counts_for_what_it_says_and_no_more(scope, letters):
    wanted = {"Patient": frozenset("cruds")}
    got = scopes.granted(scope) or {}
    assert {m.letter for m in scopes.missing(wanted, got)} == set("cruds") - set(letters)


@pytest.mark.parametrize("scope", ["", "openid fhirUser", "fhir.read", "user/*.rs"])
def test_a_grant_without_system_scopes_says_nothing(scope):
    assert scopes.granted(scope) is None


def test_every_missing_permission_says_what_will_not_work():
    wanted = scopes.needed([NEWS2], writes=True)
    lost = scopes.missing(wanted, {})
    assert len(lost) == sum(map(len, wanted.values()))
    for one in lost:
        assert one.means
        assert one.scope == f"system/{one.type}.{one.letter}"
    assert scopes.missing(wanted, wanted) == ()
    assert scopes.missing(wanted, {"*": frozenset("cruds")}) == ()
