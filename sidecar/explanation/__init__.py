"""Why a score is what it is, in numbers and in words. Pure. Goes on to `sidecar.writeback` with the assessment."""

from sidecar.explanation.conclude import conclude
from sidecar.explanation.words import rationale, reason_in_words

__all__ = ["conclude", "rationale", "reason_in_words"]
