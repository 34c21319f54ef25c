"""Who is scored by a canary: the same patients (or units) each time, and more of them when the share grows. Pure."""

STEPS = 1 << 32


def in_canary(token: bytes, percent: float) -> bool:
    """Whether the one with this keyed fingerprint belongs to the `percent` of all whom a canary scores.

    `token` must be uniform, as an HMAC is. It has a fixed place between 0 and 100: a larger share takes more in and
    nobody out. A share of 100 takes everybody, of 0 nobody.
    """
    return int.from_bytes(token[:4], "big") < round(percent * STEPS / 100)
