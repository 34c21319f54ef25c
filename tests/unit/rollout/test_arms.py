"""Arms: the same patients each time, more of them when the share grows, and about as many as it says."""

import hmac

from hypothesis import given
from hypothesis import strategies as st

from sidecar.rollout import in_canary

TOKENS = st.binary(min_size=32, max_size=32)
SHARES = st.floats(0, 100)


@given(TOKENS, SHARES, SHARES)
def test_a_larger_share_moves_patients_to_the_canary_and_none_back(token, one, other):
    low, high = sorted((one, other))
    assert in_canary(token, high) or not in_canary(token, low)


@given(TOKENS)
def test_nobody_is_in_a_share_of_0_and_everybody_in_one_of_100(token):
    assert not in_canary(token, 0)
    assert in_canary(token, 100)


def test_the_share_of_keyed_fingerprints_is_what_it_says():
    tokens = [hmac.digest(b"k", str(n).encode(), "sha256") for n in range(20_000)]
    for percent in (0.5, 5, 50, 95):
        share = sum(in_canary(token, percent) for token in tokens) / len(tokens)
        sd = (percent / 100 * (1 - percent / 100) / len(tokens)) ** 0.5
        assert abs(share - percent / 100) < 5 * sd
