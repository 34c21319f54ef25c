"""What a model says, and how it is charted."""

from typing import Annotated, Literal, Self

from pydantic import Field, FiniteFloat, model_validator

from sidecar.manifest.codes import Closed, Code, Digest
from sidecar.toml import Name

Risk = Annotated[str, Field(pattern=r"^[a-z][a-z\-]{0,31}$")]


class Graph(Closed):
    """The ONNX file and the names of its tensors.

    `features` [N, F] in; `total` [N, 1] and `points` [N, P], which sum to it, out; each float32 or float64. The total
    of a probability model is its linear predictor and its points are the terms; `probabilities` [N, C], each in [0, 1],
    has a column for each of the manifest's outputs. A probability model may leave out `total`, `points` and
    `point_names`, as a classifier that an ordinary training library exports does: then `[explanation]` says how it is
    explained.
    """

    file: str = Field(default="model.onnx", pattern=r"^[A-Za-z0-9_.\-]+\.onnx$")
    sha256: Digest
    input: str = "features"
    features: tuple[Name, ...] = Field(min_length=1)
    total: str | None = None
    points: str | None = None
    point_names: tuple[Name, ...] = ()
    probabilities: str | None = None

    @model_validator(mode="after")
    def _terms_are_whole(self) -> Self:
        given = {bool(self.total), bool(self.points), bool(self.point_names)}
        if len(given) > 1:
            raise ValueError("total, points and point_names belong together: give all three or none")
        return self


class Explanation(Closed):
    """How a graph that gives no terms is explained.

    `occlusion`: the probability is computed again with one input at a time at its `typical` value, and the difference
    is told. The differences do not add up to anything, and they are not Shapley values. What is typical is the
    author's decision, taken from the data that the model was made with.
    """

    method: Literal["occlusion"]
    typical: dict[Name, FiniteFloat] = Field(min_length=1)


class Band(Closed):
    """A risk category: the first whose condition holds."""

    risk: Risk
    text: str
    at_least: float | None = None
    any_points: float | None = None


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


class Output(Closed):
    """One probability of a probability model. `code` and `display` name it as a component of an Observation.

    `column` is its place in the graph's probabilities, from 0; left out by all outputs, they are in the graph's order.
    """

    name: Name
    column: int | None = Field(default=None, ge=0)
    horizon: Horizon
    code: Code
    display: str
    bands: tuple[ProbabilityBand, ...] = ()

    def band(self, probability: float) -> ProbabilityBand | None:
        """The band that the unrounded `probability` is in, if any."""
        return next((b for b in self.bands if b.holds(probability)), None)
