"""What a model says, and how it is charted."""

import datetime as dt
from typing import Annotated, Literal, Self

from pydantic import Field, FiniteFloat, model_validator

from sidecar.manifest.codes import Closed, Code, Digest
from sidecar.manifest.cohort import CohortFact
from sidecar.toml import Name

Risk = Annotated[str, Field(pattern=r"^[a-z][a-z\-]{0,31}$")]


class Graph(Closed):
    """The ONNX file and the names of its tensors.

    `features` [N, F] in; `total` [N, 1] and `points` [N, P], which sum to it, out; each float32 or float64. The total
    of a probability model is its linear predictor and its points are the terms; `probabilities` [N, C], each in [0, 1],
    has a column for each of the manifest's outputs. Outputs that have terms of their own have them in a total [N, C]
    and points [N, C, P]. `rest` says in words what points mean that belong to no input: a constant, a rounding. A
    probability model may leave out `total`, `points` and `point_names`, as a classifier that an ordinary training
    library exports does: then `[explanation]` says how it is explained.
    """

    file: str = Field(default="model.onnx", pattern=r"^[A-Za-z0-9_.\-]+\.onnx$")
    sha256: Digest
    input: str = "features"
    features: tuple[Name, ...] = Field(min_length=1)
    total: str | None = None
    points: str | None = None
    point_names: tuple[Name, ...] = ()
    rest: dict[Name, str] = Field(default_factory=dict)
    probabilities: str | None = None

    @model_validator(mode="after")
    def _terms_are_whole(self) -> Self:
        given = {bool(self.total), bool(self.points), bool(self.point_names)}
        if len(given) > 1:
            raise ValueError("total, points and point_names belong together: give all three or none")
        if stray := set(self.rest) - set(self.point_names) | set(self.rest) & set(self.features):
            raise ValueError(f"rest names what is no point or is an input: {', '.join(sorted(stray))}")
        return self


class Explanation(Closed):
    """How a graph that gives no terms is explained.

    `occlusion`: the probability is computed again with one input at a time at its `typical` value, and the difference
    is told. The differences do not add up to anything, and they are not Shapley values. What is typical is the
    author's decision, taken from the data that the model was made with.

    `shapley`: the probability less the mean over stored `prototypes` is shared out among the inputs, by Shapley values;
    they sum to it. The file, `{"features": [...], "rows": [[...], ...]}`, holds 2 to 200 rows that stand for those the
    model was made with and are nobody's, such as medians of clusters; some 50 do.
    """

    method: Literal["occlusion", "shapley"]
    typical: dict[Name, FiniteFloat] = Field(default_factory=dict)
    prototypes: str | None = Field(default=None, pattern=r"^[a-z_]+\.json$")

    @model_validator(mode="after")
    def _has_what_the_method_needs(self) -> Self:
        occlusion = self.method == "occlusion"
        if occlusion != bool(self.typical) or occlusion == bool(self.prototypes):
            raise ValueError("occlusion needs typical, shapley needs prototypes, and neither takes the other's")
        return self


class Band(Closed):
    """A risk category: the first whose condition holds.

    `observed` is how often the outcome came in a published group of that category, which `source` cites. It is said in
    words and never written as the patient's probability: points are not one.
    """

    risk: Risk
    text: str
    at_least: float | None = None
    any_points: float | None = None
    observed: float | None = Field(default=None, ge=0, le=1)
    source: str = ""

    @model_validator(mode="after")
    def _is_cited(self) -> Self:
        if self.observed is not None and not self.source:
            raise ValueError("observed needs source")
        return self

    @property
    def words(self) -> str:
        """The category as a clinician reads it."""
        rate = "" if self.observed is None else f"{self.observed * 100:.3g} % in the published group of such patients"
        return "; ".join(filter(None, (self.text, rate, self.source)))


class Further(Closed):
    """Another total of the same inputs, `tensor` [N, 1] of the graph. It is kept with the result and is not charted."""

    name: Name
    tensor: str
    label: str


class Remark(Closed):
    """What the note says when an input is at such a value: that a limit acts which the published equation has."""

    feature: Name
    below: float | None = None
    above: float | None = None
    equals: float | None = None
    text: str = Field(min_length=1)

    @model_validator(mode="after")
    def _one_condition(self) -> Self:
        if sum(limit is not None for limit in (self.below, self.above, self.equals)) != 1:
            raise ValueError("use one of below, above, equals")
        return self

    def holds(self, value: float) -> bool:
        """Whether it is said of `value`; never of a missing one (NaN)."""
        if self.below is not None:
            return value < self.below
        return value > self.above if self.above is not None else value == self.equals


class ProbabilityBand(Closed):
    """A range of a probability that guidance names: the first whose condition holds, or none. `source` is cited."""

    risk: Risk
    text: str
    at_least: float | None = Field(default=None, ge=0, le=1)
    above: float | None = Field(default=None, ge=0, le=1)
    source: str = Field(min_length=1)

    @model_validator(mode="after")
    def _one_condition(self) -> Self:
        if (self.at_least is None) == (self.above is None):
            raise ValueError("use one of at_least, above")
        return self

    def holds(self, probability: float) -> bool:
        """Whether `probability`, unrounded, is in the band."""
        return probability > self.above if self.above is not None else probability >= (self.at_least or 0.0)


class Incomplete(Closed):
    """When an incomplete total must be shown all the same."""

    urgent_at_least: float
    urgent_any_points: float


class Component(Closed):
    """The coding under which one parameter's points are charted."""

    points: Name
    code: Code
    display: str
    when_feature: Name | None = None
    equals: float | None = None


class Result(Closed):
    """How the result is charted: as an Observation (a total, or probabilities), and what the outcome is.

    `effect` says what a term of the linear predictor multiplies, and `compared_with` whom it compares the patient with;
    a graph without terms has neither.
    """

    code: Code
    display: str
    outcome: str
    outcome_code: Code | None = None
    risk_system: str
    components: tuple[Component, ...] = ()
    effect: Literal["hazard", "odds"] | None = None
    compared_with: str = ""


class Horizon(Closed):
    """From now until when a probability speaks: a number of years, months, days or hours, by UCUM code."""

    value: float = Field(gt=0)
    unit: Literal["a", "mo", "d", "h"]

    @property
    def unit_word(self) -> str:
        """The unit in words, in its number."""
        word = {"a": "year", "mo": "month", "d": "day", "h": "hour"}[self.unit]
        return word if self.value == 1 else f"{word}s"

    @property
    def words(self) -> str:
        """As a clinician reads it: "2 years"."""
        return f"{self.value:g} {self.unit_word}"


class Recalibration(Closed):
    """A site's own correction of a probability: its log odds become `intercept` + `slope` x log odds.

    Found on `n` patients of the site, on `date`. https://doi.org/10.1186/s12916-019-1466-7
    """

    intercept: FiniteFloat
    slope: FiniteFloat = Field(gt=0)
    date: dt.date
    n: int = Field(ge=1)

    @property
    def words(self) -> str:
        """As a clinician reads it."""
        return f"Recalibrated for this site on {self.date.isoformat()}, with {self.n} patients."


class Output(Closed):
    """One probability of a probability model. `code` and `display` name it as a component of an Observation.

    `column` is its place in the graph's probabilities, from 0; left out by all outputs, they are in the graph's order.
    `outcome` is what it is the probability of, where that is not `result.outcome`. `exclude_when` are the values for
    which it alone is not given, while others are. `recalibration` corrects it for this site, before the bands.
    """

    name: Name
    column: int | None = Field(default=None, ge=0)
    horizon: Horizon
    code: Code
    display: str
    outcome: str = ""
    outcome_code: Code | None = None
    exclude_when: tuple[CohortFact, ...] = ()
    recalibration: Recalibration | None = None
    bands: tuple[ProbabilityBand, ...] = ()

    def band(self, probability: float) -> ProbabilityBand | None:
        """The band that the unrounded `probability` is in, if any."""
        return next((b for b in self.bands if b.holds(probability)), None)
