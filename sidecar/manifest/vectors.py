"""What the names in a file of test vectors mean, and how near is near enough."""

import math
from decimal import Decimal
from typing import Self

from pydantic import Field

from sidecar.manifest.codes import Closed
from sidecar.toml import Name


class Agreement(Closed):
    """What an expected value of a vectors file is compared with, and how far it may differ.

    `of` is "total", "probability" (the one with the vector's horizon), "risk" (the band that the total, or that
    probability, is in), "observed" (the published rate of that band), or the name of an output, a further total or a
    feature. A vector's own `atol` comes before this one. An expected number of at most `rounded` decimals may have been
    rounded to so many, and half of the last of them is allowed. `words` maps the file's words for bands to theirs; ""
    is no band. An expected null means: no result for this patient.
    """

    of: Name
    atol: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    rounded: int | None = Field(default=None, ge=0, le=15)
    words: dict[str, str] = Field(default_factory=dict)

    def tolerance(self, expected: float) -> float:
        """How far from `expected` is near enough, for a vector without an `atol` of its own."""
        decimals = -int(Decimal(repr(expected)).as_tuple().exponent) if math.isfinite(expected) else math.inf
        if self.rounded is None or decimals > self.rounded:
            return self.atol
        return max(self.atol, 0.5 * 10.0**-self.rounded)


class Vectors(Closed):
    """What the names in a file of test vectors mean: `sidecar models check --vectors` runs them through the graph.

    `inputs` maps a name to a feature, a choice, or the name of a source that a feature is derived from; `units` maps it
    to the field that holds its unit, where the file gives one; `values` maps an input's words to numbers ("true" and
    "false" are JSON's, and 1 and 0 of what is yes or no unless it says otherwise); the case of a word means nothing.
    `horizon` is the input that picks the output whose horizon has that value. `expected_of` stands in place of
    `expected` in a file of another score of the same inputs, by the file's `model`.
    """

    inputs: dict[Name, Name]
    units: dict[Name, Name] = Field(default_factory=dict)
    values: dict[Name, dict[str, float]] = Field(default_factory=dict)
    horizon: Name | None = None
    expected: dict[Name, Agreement] = Field(min_length=1)
    expected_of: dict[Name, dict[Name, Agreement]] = Field(default_factory=dict)

    def of_file(self, model: object) -> Self:
        """The same for a file whose `model` is that: one of a further score has expectations of its own."""
        own = self.expected_of.get(model) if isinstance(model, str) else None
        return self if own is None else self.model_copy(update={"expected": own})
