"""What a model needs to know of a patient: sources, and the features they come to."""

from datetime import timedelta
from typing import Any, Literal, Self, get_args

from pydantic import Field, field_validator, model_validator

from sidecar.manifest.codes import Closed, Code, CodePattern, Group, groups_fit
from sidecar.manifest.fhirpath import parse
from sidecar.toml import Duration, Name

Range = tuple[float, float]


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


SourceType = Literal[
    "Observation",
    "Condition",
    "Encounter",
    "MedicationRequest",
    "MedicationStatement",
    "MedicationAdministration",
    "Procedure",
    "Appointment",
    "AllergyIntolerance",
    "Immunization",
    "DiagnosticReport",
]


SOURCE_TYPES: tuple[str, ...] = get_args(SourceType)
MAY_BE_DOUBTFUL = frozenset(SOURCE_TYPES) - {
    "Observation",
    "DiagnosticReport",
    "Encounter",
    "Appointment",
    "Immunization",
}
"""What may be charted as a suspicion, a plan or a start."""


class Source(Closed):
    """One way a feature is charted: a resource type, its codes, and how the value becomes a number.

    `codes` are looked for in the Observation and its components; `panels` are the Observations to fetch whose
    components hold them. `units` are the units the value may be charted in, each with the factor into `unit`; without
    it `unit` alone is read. `plausible`, `above` and `below` are in `unit`. `ambiguous` values count only where the
    site turned `ambiguous_switch` on; otherwise they leave the feature missing, whatever was charted before.
    `derive` computes the feature from the value, which `factor` brings from `unit` into the equation's; `above` and
    `below` then judge the result. `name` and `label` say what the value itself is called in reasons, and `remark` what
    the note says when it is used: `{value}` stands for the value in `unit`. With `only_newest` an older reading of the
    same source says nothing beside the newest one, also where `select` looks at a window.

    A statement of another type than Observation has no number: it is 1 where it is there, or what `values` say of its
    code. What its codes are by type: of an Encounter its class, type, service type, priority, admit source and
    discharge disposition; of a medicine what it is; of an Appointment its type, service, specialty and, as
    `http://hl7.org/fhir/appointmentstatus|noshow`, its status; of the others `code` (`vaccineCode`). The values of a
    DiagnosticReport are its conclusion codes. `valuesets` name files of codes that count as if they stood in `codes`.
    What is over (a resolved diagnosis, a stopped medicine) counts only with `history`; what never was, was only
    planned, or must not be done counts never; an Appointment that is proposed, pending, on a waiting list, cancelled or
    missed counts by its status alone. `placed` is "charted" where the moment it was written down is what
    matters (an Appointment's `created`). `fhirpath` finds the value instead: a number, a Quantity, or true (1) and
    false (0), by a small part of FHIRPath and out of elements that the de-identification policy keeps.
    """

    type: SourceType = "Observation"
    codes: tuple[CodePattern, ...] = ()
    valuesets: tuple[Name, ...] = ()
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
    history: bool = False
    only_newest: bool = False
    placed: Literal["happened", "charted"] = "happened"
    fhirpath: str | None = None
    name: Name | None = None
    label: str = ""
    remark: str = ""

    @model_validator(mode="after")
    def _one_reading(self) -> Self:
        if sum((self.above is not None, self.below is not None, bool(self.values))) > 1:
            raise ValueError("use one of values, above, below")
        if self.derive and (self.values or self.plausible is None or self.unit is None):
            raise ValueError("derive needs unit and plausible of the value it starts from, and no values")
        if self.factor != 1 and not self.derive:
            raise ValueError("factor belongs to derive; units charted otherwise go into units, each with its factor")
        if (self.name is None) != (not self.label):
            raise ValueError("a source has both name and label, or neither")
        return self

    @field_validator("fhirpath")
    @classmethod
    def _is_understood(cls, written: str | None) -> str | None:
        if written is not None:
            parse(written)
        return written

    @model_validator(mode="after")
    def _fits_its_type(self) -> Self:
        if not self.codes and not self.valuesets:
            raise ValueError('give codes or valuesets; "*|*" is every statement of the type')
        if self.type == "Observation":
            if self.history or self.valuesets or any("*" in code for code in self.codes):
                raise ValueError("an Observation is read by single codes, and none is over")
            return self
        if self.fhirpath is None and (self.above is not None or self.below is not None or self.unit or self.units):
            raise ValueError(f"a {self.type} has no number: it is there (1) or has values, or give fhirpath")
        if self.derive or self.panels or self.ambiguous:
            raise ValueError(f"derive, panels and ambiguous are about Observations, not about a {self.type}")
        named = [c for c in self.codes if "*" not in c] if self.values and "*|*" not in self.values else []
        if self.type != "DiagnosticReport" and (lost := [c for c in named if c not in self.values]):
            raise ValueError(f'values say nothing of {", ".join(lost)}; "*|*" stands for all others')
        return self

    @property
    def span(self) -> Range | None:
        """The least and the largest value that a reading gives the feature; None where that is not declared."""
        if self.above is not None or self.below is not None:
            return 0.0, 1.0
        if known := [*self.values.values(), *self.ambiguous.values()]:
            return min(known), max(known)
        if self.type != "Observation" and self.fhirpath is None:
            return 1.0, 1.0
        return None if self.derive else self.plausible


Select = Literal[
    "latest",
    "first",
    "min",
    "max",
    "mean",
    "sum",
    "count",
    "any",
    "slope",
    "delta",
    "time_since",
    "duration",
    "weights",
    "persistent",
]
"""How readings become one number."""
OVER_WINDOW = frozenset({"first", "min", "max", "mean", "sum", "count", "any", "slope", "delta", "duration", "weights"})
OF_NOTHING = frozenset({"count", "any", "sum", "weights", "duration"})
"""What is 0 where nothing is charted, unless `absent` says otherwise."""
_TIMES = frozenset({"s", "min", "h", "d", "wk", "a"})
_CLASS, _PRIORITY = (f"http://terminology.hl7.org/CodeSystem/v3-Act{of}" for of in ("Code", "Priority"))
_SNOMED = "http://snomed.info/sct"
_STAYS: dict[str, tuple[str, ...]] = {
    "prior_admissions": tuple(f"{_CLASS}|{code}" for code in ("IMP", "ACUTE", "NONAC")),
    "ed_visits": (f"{_CLASS}|EMER",),
}
# Emergency hospital admission, emergency room admission; elective hospital admission.
_URGENT = (
    *(f"{_PRIORITY}|{code}" for code in ("EM", "UR", "S", "A")),
    "http://terminology.hl7.org/CodeSystem/admit-source|emd",
    f"{_CLASS}|EMER",
    f"{_SNOMED}|183452005",
    f"{_SNOMED}|50849002",
)
_PLANNED = (f"{_PRIORITY}|EL", f"{_PRIORITY}|R", f"{_SNOMED}|8715000")
OF_A_STAY = frozenset({*_STAYS, "length_of_stay", "urgent_admission"})
"""Derived features that are about the patient's stays, by the classes of HL7 unless `from` names others."""


class FeatureSpec(Closed):
    """One feature: where it comes from, how readings become one number, and how absence is treated.

    Of two readings of one moment the `first` source's counts, or the `larger` (the sicker) whatever its source.
    A newer reading that cannot be used (unknown unit, `<`, implausible) makes the feature missing: an older
    value never stands in for it in silence. So does one inside the window of a feature that is computed from several.

    `select`: `latest`; or over the readings inside `window`: `first`, `min`, `max`, `mean`, `sum`, `count`, `any` (1
    when one of them is not 0), `slope` (least squares, by `per`: an hour or a day), `delta` (the newest less the
    oldest), `duration` (how long the periods cover, in `unit`), `weights` (the sum over `groups`, or over the groups of
    a value set). `time_since` is the time since the latest, in `unit`. `persistent` is 1 when an unbroken run of
    readings of 1 up to the newest, inside `window`, or one confirmed Condition shows it for as long as `apart`.

    `window` ends at the event. With `anchor = "encounter"` it ends where the present stay began, which is not among
    what is counted, nor what it came out of (a visit that ended within `joined`); without `window` it is the present
    stay itself. `absent` is the value where nothing is charted: a number, or `nan` for a graph that handles it,
    which takes what is too old as absent, too. A feature without `absent` is missing then, and a model that requires
    it is not scored.

    `derive` is about the patient (exact age; completed years, for a score by birthdays; sex), about `inputs` (bmi: a
    weight in kg and a height in cm or m, both features, where no newer BMI is charted), or about stays:
    `length_of_stay` (days by the calendar of the facility, of the present stay), `prior_admissions` and `ed_visits` (a
    count in `window` before the present stay), `urgent_admission` (1 or 0, by priority, admit source, or out of an
    emergency visit).
    """

    label: str
    unit: str
    sources: tuple[Source, ...] = Field(default=(), alias="from")
    derive: (
        Literal[
            "age",
            "completed_years",
            "sex",
            "bmi",
            "length_of_stay",
            "prior_admissions",
            "ed_visits",
            "urgent_admission",
        ]
        | None
    ) = None
    inputs: tuple[Name, ...] = ()
    select: Select = "latest"
    groups: dict[Name, Group] = Field(default_factory=dict)
    per: Literal["h", "d"] | None = None
    window: Duration | None = None
    anchor: Literal["event", "encounter"] = "event"
    joined: Duration = timedelta(hours=12)
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

    @model_validator(mode="before")
    @classmethod
    def _groups_are_codes(cls, written: Any) -> Any:
        """Where groups stand in the manifest itself, their codes are those of each source without any."""
        groups = written.get("groups") if isinstance(written, dict) else None
        sources = written.get("from") if isinstance(written, dict) else None
        if not isinstance(groups, dict) or not isinstance(sources, list | tuple):
            return written
        codes = [c for g in groups.values() if isinstance(g, dict) for c in g.get("codes", ())]
        return {**written, "from": [{"codes": codes, **s} if isinstance(s, dict) else s for s in sources]}

    @model_validator(mode="before")
    @classmethod
    def _stays_are_encounters(cls, written: Any) -> Any:
        """What `prior_admissions` and the like stand for, in the words of the language."""
        derive = written.get("derive") if isinstance(written, dict) else None
        if derive not in OF_A_STAY:
            return written
        codes: list[tuple[tuple[str, ...], dict[str, float]]] = [(_STAYS.get(derive, ("*|*",)), {})]
        if derive == "urgent_admission":
            codes = [(_URGENT, dict.fromkeys(_URGENT, 1.0)), (_PLANNED, dict.fromkeys(_PLANNED, 0.0))]
        sources = [{"type": "Encounter", "codes": listed, "values": values} for listed, values in codes]
        counted = {"select": "count", "anchor": "encounter"} if derive in _STAYS else {"anchor": "encounter"}
        in_set = {"in_set": False} if derive != "length_of_stay" else {}
        return {"from": sources, **counted, **in_set, **written}

    @model_validator(mode="after")
    def _has_a_source(self) -> Self:
        alone = self.derive in {"age", "completed_years", "sex"}
        if alone == bool(self.sources) and self.derive != "bmi":
            raise ValueError("give either from, with at least one source, or derive")
        if (self.derive == "bmi") != bool(self.inputs) or len(self.inputs) not in {0, 2}:
            raise ValueError(
                'derive = "bmi" needs inputs: the names of two features, weight and height; nothing else has inputs'
            )
        if self.derive in OF_A_STAY and (not self.of_encounters or self.anchor != "encounter"):
            raise ValueError(f'{self.derive} is computed from Encounters, by anchor = "encounter"')
        if self.derive in _STAYS and self.window is None:
            raise ValueError(f"{self.derive} needs the window before the stay, such as 365d")
        return self

    @model_validator(mode="after")
    def _is_timed(self) -> Self:
        bounded = self.window is not None and self.select in OVER_WINDOW
        if self.sources and not self.max_age and not bounded and self.anchor == "event":
            raise ValueError("max_age is needed where there are readings")
        if (self.select == "persistent") != (self.apart is not None):
            raise ValueError('select = "persistent" and apart belong together')
        if (self.select == "slope") != (self.per is not None):
            raise ValueError('select = "slope" and per ("h" or "d") belong together')
        if self.select in {"time_since", "duration"} and self.unit not in _TIMES:
            raise ValueError(f"{self.select} is a time: its unit is one of {', '.join(sorted(_TIMES))}")
        return self

    @model_validator(mode="after")
    def _groups_belong(self) -> Self:
        if self.groups and self.select != "weights":
            raise ValueError('groups belong to select = "weights"')
        groups_fit(self.groups)
        return self

    @property
    def of_set(self) -> bool:
        """Whether it belongs to the observation set: what is measured does, diagnoses and orders do not."""
        measured = not self.sources or any(s.type == "Observation" for s in self.sources)
        return self.in_set and (measured or self.derive == "length_of_stay")

    @property
    def of_encounters(self) -> bool:
        """Whether every source is an Encounter."""
        return bool(self.sources) and all(s.type == "Encounter" for s in self.sources)

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
        if value == self.absent or self.select not in {"latest", "first", "min", "max", "mean"} or self.derive:
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
