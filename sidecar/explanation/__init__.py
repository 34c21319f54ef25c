"""Why a score is what it is, in numbers and in words. Pure. Goes on to `sidecar.writeback` with the assessment."""

from sidecar.explanation.conclude import conclude, limits_that_act
from sidecar.explanation.withheld import rationale, rationales
from sidecar.explanation.words import reason_in_words

__all__ = ["conclude", "limits_that_act", "rationale", "rationales", "reason_in_words"]
