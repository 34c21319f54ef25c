"""The table of differences itself: the practice EHR stays on the main line, and the main line is some real server's."""

import pytest

from tests.contract.differences import CLAIMS
from tests.peers.servers import NAMES


@pytest.mark.parametrize("claim", CLAIMS)
def test_the_practice_ehr_does_what_the_main_line_says(claim):
    assert "practice" not in CLAIMS[claim].differs


@pytest.mark.parametrize("claim", CLAIMS)
def test_a_difference_is_one_and_belongs_to_a_server_of_the_suite(claim):
    assert set(CLAIMS[claim].differs) <= set(NAMES)
    assert CLAIMS[claim].main not in CLAIMS[claim].differs.values()


# No real server here declares and does update-as-create for RiskAssessment; many do elsewhere (MS, Aidbox).
ALONE = {"updateCreate of RiskAssessment"}


@pytest.mark.parametrize("claim", CLAIMS)
def test_the_practice_ehr_is_not_alone_on_the_main_line(claim):
    alone = set(CLAIMS[claim].differs) >= set(NAMES) - {"practice"}
    assert alone is (claim in ALONE)
