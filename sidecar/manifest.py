"""A model's declaration (`manifest.toml`): closed, so a typo refuses the start with its line and a suggestion.

Read by context (what to fetch), features (how to compute), scoring (how to run) and monitoring (what to count).
Codes are `system|code`; units are UCUM (https://ucum.org/ucum); durations are a number with s, m, h or d.
"""

from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from sidecar import toml
from sidecar.toml import Duration, Name

Code = Annotated[str, Field(pattern=r"^[^|\s]+\|[^|\s]+$")]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Range = tuple[float, float]


class Closed(BaseModel):
    """Unknown keys are errors; values do not change after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Switch(Closed):
    """A decision the site makes, named in the note whichever way it goes."""

    default: bool = False
    on: str
    off: str = ""


class Source(Closed):
    """One way a feature is charted: a resource type, its codes, and how the value becomes a number.

    `codes` are looked for in the Observation and its components; `panels` are the Observations to fetch whose
    components hold them. `ambiguous` values count only where the site turned `ambiguous_switch` on; otherwise they
    leave the feature missing, whatever was charted before.
    """

    type: Literal["Observation", "Condition"] = "Observation"
    codes: tuple[Code, ...] = Field(min_length=1)
    panels: tuple[Code, ...] = ()
    values: dict[Code, float] = Field(default_factory=dict)
    unit: str | None = None
    plausible: Range | None = None
    above: float | None = None
    below: float | None = None
    ambiguous: dict[Code, float] = Field(default_factory=dict)
    ambiguous_switch: Name | None = None

    @model_validator(mode="after")
    def _one_reading(self) -> Self:
        if sum((self.above is not None, self.below is not None, bool(self.values))) > 1:
            raise ValueError("use one of values, above, below")
        if self.type == "Condition" and not self.values:
            raise ValueError('a Condition has no number: give values, for example { "*|*" = 1 }')
        return self


class FeatureSpec(Closed):
    """One feature: where it comes from, how readings become one number, and how absence is treated.

    Of two readings of one moment the `first` source's counts, or the `larger` (the sicker) whatever its source.
    A newer reading that cannot be used (unknown unit, `<`, implausible) makes the feature missing: an older
    value never stands in for it in silence.
    """

    label: str
    unit: str
    sources: tuple[Source, ...] = Field(min_length=1, alias="from")
    select: Literal["latest", "min", "max", "mean", "count"] = "latest"
    window: Duration | None = None
    max_age: Duration
    plausible: Range | None = None
    required: bool = True
    absent: float | None = None
    absent_switch: Name | None = None
    in_set: bool = True
    same_moment: Literal["first", "larger"] = "first"
    words: dict[str, str] = Field(default_factory=dict)

    @property
    def reach(self) -> timedelta:
        """How far back readings are needed."""
        return max(self.window or self.max_age, self.max_age)

    def say(self, value: float) -> str:
        """The value as a clinician reads it."""
        if (word := self.words.get(f"{value:g}")) is not None:
            return word
        return in_unit(value, self.unit)


def in_unit(value: float, unit: str) -> str:
    """`value` with its unit as a clinician reads it; a UCUM annotation is not a unit."""
    plain = "" if unit.startswith("{") or unit == "1" else f" {unit}"
    said = {"Cel": " °C", "mm[Hg]": " mmHg", "%": " %", "/min": "/min"}.get(unit, plain)
    return f"{value:g}{said}"


class CohortFact(Closed):
    """A feature value that puts a patient outside the model's cohort."""

    feature: Name
    equals: float
    reason: Name
    unknown: str = ""


class Cohort(Closed):
    """For whom the model is meant."""

    min_age_years: int | None = None
    max_age_years: int | None = None
    exclude: tuple[Literal["deceased", "inactive", "discharged"], ...] = (
        "deceased",
        "inactive",
        "discharged",
    )
    exclude_when: tuple[CohortFact, ...] = ()


class Graph(Closed):
    """The ONNX file and the names of its tensors: features float32 [N, F] in, total [N, 1] and points [N, P] out."""

    file: str = Field(default="model.onnx", pattern=r"^[A-Za-z0-9_.\-]+\.onnx$")
    sha256: Digest
    input: str = "features"
    features: tuple[Name, ...] = Field(min_length=1)
    total: str = "score"
    points: str = "points"
    point_names: tuple[Name, ...] = Field(min_length=1)


class Band(Closed):
    """A risk category: the first whose condition holds."""

    risk: Annotated[str, Field(pattern=r"^[a-z][a-z\-]{0,31}$")]
    text: str
    at_least: float | None = None
    any_points: float | None = None


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
    """How the total is charted as an Observation."""

    code: Code
    display: str
    outcome: str
    risk_system: str
    components: tuple[Component, ...] = ()


class Rollout(Closed):
    """How long events of one patient wait for each other."""

    debounce: Duration = timedelta(seconds=2)
    max_wait: Duration = timedelta(seconds=30)


class Manifest(Closed):
    """Everything the sidecar needs to know of a model."""

    schema_version: Literal[1] = Field(alias="schema")
    name: Name
    version: str = Field(pattern=r"^\d+\.\d+\.\d+$")
    title: str
    kind: Literal["points"]
    acknowledgement: str = ""
    validity: Duration
    spread: Duration
    reference: str | None = Field(default=None, pattern=r"^[a-z_]+\.json$")
    reference_sha256: Digest | None = None
    graph: Graph
    cohort: Cohort = Cohort()
    switches: dict[Name, Switch] = Field(default_factory=dict)
    features: dict[Name, FeatureSpec]
    bands: tuple[Band, ...] = Field(min_length=1)
    incomplete: Incomplete
    result: Result
    events: Rollout = Rollout()

    @model_validator(mode="after")
    def _names_resolve(self) -> Self:
        unknown = [n for n in self.graph.features if n not in self.features]
        unknown += [c.feature for c in self.cohort.exclude_when if c.feature not in self.features]
        if unknown:
            raise ValueError(f"no [features] table for: {', '.join(unknown)}")
        used = {f.absent_switch for f in self.features.values()}
        used |= {s.ambiguous_switch for f in self.features.values() for s in f.sources}
        if lost := used - {None} - set(self.switches):
            raise ValueError(f"no [switches] table for: {', '.join(sorted(str(n) for n in lost))}")
        points = {c.points for c in self.result.components} - set(self.graph.point_names)
        if points:
            raise ValueError(f"result.components name unknown points: {', '.join(sorted(points))}")
        explained = {*self.graph.point_names, *(c.when_feature or c.points for c in self.result.components)}
        if stray := explained - set(self.graph.features):
            raise ValueError(f"points and conditions must be named as graph.features are: {', '.join(sorted(stray))}")
        return self

    @property
    def observation_codes(self) -> frozenset[str]:
        """Every Observation code a feature reads; a new Observation with one of them triggers the model."""
        return self.codes_of("Observation")

    @property
    def set_codes(self) -> frozenset[str]:
        """Codes of the readings that make up an observation set: they decide its time and its encounter."""
        members = [f for f in self.features.values() if f.in_set]
        return frozenset(
            c for f in members for s in f.sources if s.type == "Observation" for c in (*s.codes, *s.panels)
        )

    def codes_of(self, resource_type: str) -> frozenset[str]:
        """Every code of `resource_type` that a feature reads."""
        return frozenset(
            code
            for feature in self.features.values()
            for source in feature.sources
            if source.type == resource_type
            for code in (*source.codes, *source.panels)
        )


def load(path: Path) -> Manifest:
    """Read one manifest.

    Raises:
        Misconfigured: naming file, line and what was probably meant.
    """
    return toml.load(path, Manifest)
