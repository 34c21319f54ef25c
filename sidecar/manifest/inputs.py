"""What a model needs to know of a patient, and for whom it is meant."""

from datetime import timedelta
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

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


class Choice(Closed):
    """A decision the site must make: there is no default, because a wrong guess changes the answer.

    It is an input of the graph by its own name. `why` goes into the sentence that refuses the start without it.
    """

    label: str
    why: str
    values: dict[Name, float] = Field(min_length=2)
    words: dict[Name, str] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _words_are_of_values(self) -> Self:
        if lost := set(self.words) - set(self.values):
            raise ValueError(f"words for no value: {', '.join(sorted(lost))}")
        return self

    def word(self, value: float) -> str:
        """One of the values as a clinician reads it."""
        name = next((n for n, v in self.values.items() if v == value), f"{value:g}")
        return self.words.get(name, name)

    def say(self, value: float) -> str:
        """The chosen value as a clinician reads it."""
        return f"{self.word(value)} (chosen by this site)"


class Source(Closed):
    """One way a feature is charted: a resource type, its codes, and how the value becomes a number.

    `codes` are looked for in the Observation and its components; `panels` are the Observations to fetch whose
    components hold them. `units` are the units the value may be charted in, each with the factor into `unit`; without
    it `unit` alone is read. `plausible`, `above` and `below` are in `unit`. `ambiguous` values count only where the
    site turned `ambiguous_switch` on; otherwise they leave the feature missing, whatever was charted before.
    `derive` computes the feature from the value, which `factor` brings from `unit` into the equation's; `above` and
    `below` then judge the result. `name` and `label` say what the value itself is called in reasons, and `remark` what
    the note says when it is used: `{value}` stands for the value in `unit`.
    """

    type: Literal["Observation", "Condition"] = "Observation"
    codes: tuple[Code, ...] = Field(min_length=1)
    panels: tuple[Code, ...] = ()
    values: dict[Code, float] = Field(default_factory=dict)
    unit: str | None = None
    units: dict[str, float] = Field(default_factory=dict)
    plausible: Range | None = None
    above: float | None = None
    below: float | None = None
    ambiguous: dict[Code, float] = Field(default_factory=dict)
    ambiguous_switch: Name | None = None
    derive: Literal["egfr_ckd_epi_2021"] | None = None
    factor: float = 1.0
    name: Name | None = None
    label: str = ""
    remark: str = ""

    @model_validator(mode="after")
    def _one_reading(self) -> Self:
        if sum((self.above is not None, self.below is not None, bool(self.values))) > 1:
            raise ValueError("use one of values, above, below")
        if self.type == "Condition" and not self.values:
            raise ValueError('a Condition has no number: give values, for example { "*|*" = 1 }')
        if self.derive and (self.values or self.plausible is None or self.unit is None):
            raise ValueError("derive needs unit and plausible of the value it starts from, and no values")
        if self.factor != 1 and not self.derive:
            raise ValueError("factor belongs to derive; units charted otherwise go into units, each with its factor")
        if (self.name is None) != (not self.label):
            raise ValueError("a source has both name and label, or neither")
        return self

    @property
    def span(self) -> Range | None:
        """The least and the largest value that a reading gives the feature; None where that is not declared."""
        if self.above is not None or self.below is not None:
            return 0.0, 1.0
        if known := [*self.values.values(), *self.ambiguous.values()]:
            return min(known), max(known)
        return None if self.derive else self.plausible


class FeatureSpec(Closed):
    """One feature: where it comes from, how readings become one number, and how absence is treated.

    Of two readings of one moment the `first` source's counts, or the `larger` (the sicker) whatever its source.
    A newer reading that cannot be used (unknown unit, `<`, implausible) makes the feature missing: an older
    value never stands in for it in silence. `derive` is about the patient (exact age, sex) and needs no reading.
    `persistent` is 1 when an unbroken run of readings of 1 up to the newest, inside `window`, or one confirmed
    Condition shows it for as long as `apart`.
    """

    label: str
    unit: str
    sources: tuple[Source, ...] = Field(default=(), alias="from")
    derive: Literal["age", "sex"] | None = None
    select: Literal["latest", "min", "max", "mean", "count", "persistent"] = "latest"
    window: Duration | None = None
    apart: Duration | None = None
    max_age: Duration = timedelta(0)
    plausible: Range | None = None
    required: bool = True
    absent: float | None = None
    absent_switch: Name | None = None
    in_set: bool = True
    same_moment: Literal["first", "larger"] = "first"
    words: dict[str, str] = Field(default_factory=dict)
    decimals: int | None = Field(default=None, ge=0, le=6)

    @model_validator(mode="after")
    def _has_a_source(self) -> Self:
        if (self.derive is None) != bool(self.sources):
            raise ValueError("give either from, with at least one source, or derive")
        if self.sources and not self.max_age:
            raise ValueError("max_age is needed where there are readings")
        if (self.select == "persistent") != (self.apart is not None):
            raise ValueError('select = "persistent" and apart belong together')
        return self

    @property
    def reach(self) -> timedelta:
        """How far back readings are needed."""
        return max(self.window or self.max_age, self.max_age)

    def codes(self, resource_type: str) -> frozenset[str]:
        """Every code of `resource_type` that the feature reads."""
        named = [s for s in self.sources if s.type == resource_type]
        return frozenset(code for s in named for code in (*s.codes, *s.panels))

    def can_be(self, value: float) -> bool:
        """Whether `value` may come out, as far as the manifest says; one in another unit often may not."""
        if value == self.absent or self.select in {"count", "persistent"}:
            return True
        spans = [span for s in self.sources if (span := s.span) is not None]
        bounded = bool(spans) and len(spans) == len(self.sources)
        inside = not bounded or any(low <= value <= high for low, high in spans)
        return inside and (self.plausible is None or self.plausible[0] <= value <= self.plausible[1])

    def say(self, value: float) -> str:
        """The value as a clinician reads it."""
        if (word := self.words.get(f"{value:g}")) is not None:
            return word
        return in_unit(value if self.decimals is None else round(value, self.decimals), self.unit)


_SAID = {
    "Cel": " °C",
    "mm[Hg]": " mmHg",
    "%": " %",
    "/min": "/min",
    "a": " years",
    "umol/L": " µmol/L",
    "mL/min/{1.73_m2}": " mL/min/1.73 m²",
}


def in_unit(value: float, unit: str) -> str:
    """`value` with its unit as a clinician reads it; a UCUM annotation is not a unit."""
    plain = "" if unit.startswith("{") or unit == "1" else f" {unit}"
    return f"{value:g}{_SAID.get(unit, plain)}"


class CohortFact(Closed):
    """A feature value that puts a patient outside the model's cohort.

    A fact that is charted in a way that cannot be read excludes too, unless `unknown` says how the note tells of it.
    """

    feature: Name
    equals: float | None = None
    below: float | None = None
    at_least: float | None = None
    reason: Name
    unknown: str = ""

    @model_validator(mode="after")
    def _one_condition(self) -> Self:
        if sum(limit is not None for limit in (self.equals, self.below, self.at_least)) != 1:
            raise ValueError("use one of equals, below, at_least")
        return self

    def holds(self, value: float) -> bool:
        """Whether `value` excludes; a missing one (NaN) does not."""
        if self.below is not None:
            return value < self.below
        if self.at_least is not None:
            return value >= self.at_least
        return value == self.equals


class CohortNeed(Closed):
    """What must be shown of a patient. Asked only when every input is there: what is missing is said first."""

    feature: Name
    equals: float
    reason: Name


class Cohort(Closed):
    """For whom the model is meant. One that speaks of a hospital stay excludes the discharged; others ignore stays."""

    min_age_years: int | None = None
    max_age_years: int | None = None
    exclude: tuple[Literal["deceased", "inactive", "discharged"], ...] = (
        "deceased",
        "inactive",
        "discharged",
    )
    exclude_when: tuple[CohortFact, ...] = ()
    require: tuple[CohortNeed, ...] = ()

    @property
    def of_a_stay(self) -> bool:
        """Whether a result belongs to a stay and ends with it."""
        return "discharged" in self.exclude
