"""One origin under its spellings, and no other host under any."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.fhir import references
from sidecar.fhir.origin import Base, origin
from sidecar.records import Reference

BASES = [
    "https://ehr.example/fhir/r4",
    "https://ehr.example:443/fhir/r4",
    "HTTPS://EHR.example/fhir/r4/",
    "https://Ehr.Example:0443/fhir/r4",
]
SAME = [
    "https://ehr.example/fhir/r4/Patient/p1",
    "https://ehr.example:443/fhir/r4/Patient/p1",
    "https://EHR.EXAMPLE/fhir/r4/Patient/p1",
    "HTTPS://ehr.example:0443/fhir/r4/Patient/p1",
    "https://ehr.example:/fhir/r4/Patient/p1",
    "/fhir/r4/Patient/p1",
    "//ehr.example/fhir/r4/Patient/p1",
    "Patient/p1",
]
OTHERS = [
    "http://ehr.example/fhir/r4/Patient/p1",
    "http://ehr.example:443/fhir/r4/Patient/p1",
    "https://ehr.example:80/fhir/r4/Patient/p1",
    "https://ehr.example:8443/fhir/r4/Patient/p1",
    "https://ehr.example:0/fhir/r4/Patient/p1",
    "https://ehr.example./fhir/r4/Patient/p1",
    "https://xn--ehr-.example/fhir/r4/Patient/p1",
    "https://ehr.example@evil.example/fhir/r4/Patient/p1",
    "https://evil.example/fhir/r4/Patient/p1",
    "https://ehr.example/fhir/R4/Patient/p1",
    "https://ehr.example/fhir/r4x/Patient/p1",
    "https://ehr.example/fhir/Patient/p1",
]


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("link", SAME)
def test_a_default_port_and_the_case_of_a_host_make_no_other_origin(base, link):
    assert Base(base).inside(link) == "Patient/p1"


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("link", OTHERS)
def test_everything_else_does(base, link):
    assert Base(base).inside(link) is None


@pytest.mark.parametrize("link", [*SAME[:4], "Patient/p1"])
def test_a_reference_to_our_own_server_is_ours_in_each_spelling(link):
    assert references.parse(link, "https://ehr.example/fhir/r4") == Reference("Patient", "p1")
    assert references.parse(f"{link}/_history/2", "https://ehr.example/fhir/r4") == Reference("Patient", "p1", "2")


@pytest.mark.parametrize(
    "value",
    [
        *OTHERS, "https://ehr.example/fhir/r4/Patient/p1#x", "https://ehr.example/fhir/r4/Patient/p1?x=1", "https://ehr.example/fhir/r4//Patient/p1",
        "#p1", "urn:uuid:1", "Patient?identifier=x", "https://ehr.example:443/fhir/r4/Patient/..", "https://ehr.example:443/fhir/r4/Patient/p1/../p2",
    ],
)  # fmt: skip
def test_any_other_reference_is_nobody(value):
    assert references.parse(value, "https://ehr.example/fhir/r4") is None


def test_a_token_endpoint_beside_the_base_is_spelled_with_the_bases_own_host():
    base = Base("https://ehr.example/fhir/r4")
    assert base.beside("https://EHR.example:443/oauth2/token?tenant=1") == "https://ehr.example/oauth2/token?tenant=1"
    assert base.beside("https://ehr.example") == "https://ehr.example/"
    assert base.beside("/oauth2/token#x") == "https://ehr.example/oauth2/token"
    for link in ("https://login.example/token", "http://ehr.example/token", "//evil.example/token", "https:/token"):
        assert base.beside(link) is None


@given(st.text(st.characters(max_codepoint=0x250), max_size=60))
def test_whatever_a_link_says_what_is_kept_of_it_is_a_path(text):
    base = Base("http://127.0.0.1:8080/fhir")
    for link in (text, f"http://127.0.0.1:8080{text}", f"http://127.0.0.1:8080/fhir{text}", f"//{text}"):
        kept = base.inside(link)
        if kept is not None:
            assert origin(f"{base.text}/{kept}") == ("http", "127.0.0.1", 8080)
            assert ".." not in kept.partition("?")[0].split("/")
        beside = base.beside(link)
        assert beside is None or origin(beside) == ("http", "127.0.0.1", 8080)
