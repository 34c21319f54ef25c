"""The manifest as a whole, and whether its parts fit each other."""

import difflib
from collections.abc import Iterator, Mapping
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from sidecar import toml
from sidecar.errors import Misconfigured
from sidecar.manifest.codes import Closed, Digest, ValueSet, read_set, set_file
from sidecar.manifest.cohort import Cohort, CohortFact, CohortNeed
from sidecar.manifest.inputs import MAY_BE_DOUBTFUL, Choice, FeatureSpec, Source, Switch
from sidecar.manifest.outputs import Band, Explanation, Further, Graph, Incomplete, Output, Remark, Result
from sidecar.manifest.vectors import Vectors
from sidecar.toml import Duration, Name

FileName = Annotated[
    str, Field(max_length=200, pattern=r"^(?:[A-Za-z0-9_][A-Za-z0-9_.\-]*/){0,2}[A-Za-z0-9_][A-Za-z0-9_.\-]*$")
]


class Rollout(Closed):
    """How long events of one patient wait for each other."""

    debounce: Duration = timedelta(seconds=2)
    max_wait: Duration = timedelta(seconds=30)


class Manifest(Closed):
    """Everything the sidecar needs to know of a model.

    A `points` model has bands of its total and no outputs; without `incomplete`, a rule for incomplete totals, it is
    not scored when an input is missing. A `probability` model has one output for each outcome and horizon and is never
    reported when an input is missing. Its graph gives terms, or `explanation` says how it is explained without.

    `files` pins every other file of the folder by its SHA-256 (`sidecar models seal` writes them): the card, scripts,
    golden Bundles, frozen vectors. One that is not named refuses the folder.

    `replaced_by_newer` is whether newer readings end the results before them, also where they give no new one. It is
    the default of a probability, which speaks of the future; a total is a measurement of its moment, one of a series.
    """

    schema_version: Literal[1] = Field(alias="schema")
    name: Name
    version: str = Field(pattern=r"^\d+\.\d+\.\d+$")
    title: str
    short: str = ""
    kind: Literal["points", "probability"]
    acknowledgement: str = ""
    validity: Duration
    replaced_by_newer: bool | None = None
    spread: Duration
    reference: str | None = Field(default=None, pattern=r"^[a-z_]+\.json$")
    reference_sha256: Digest | None = None
    files: dict[FileName, Digest] = Field(default_factory=dict)
    graph: Graph
    cohort: Cohort = Cohort()
    switches: dict[Name, Switch] = Field(default_factory=dict)
    choices: dict[Name, Choice] = Field(default_factory=dict)
    valuesets: dict[Name, Digest] = Field(default_factory=dict)
    features: dict[Name, FeatureSpec]
    bands: tuple[Band, ...] = ()
    incomplete: Incomplete | None = None
    outputs: tuple[Output, ...] = ()
    further: tuple[Further, ...] = ()
    remarks: tuple[Remark, ...] = ()
    explanation: Explanation | None = None
    result: Result
    vectors: Vectors | None = None
    events: Rollout = Rollout()

    @model_validator(mode="after")
    def _files_fit(self) -> Self:
        if (self.reference is None) != (self.reference_sha256 is None):
            raise ValueError("reference and reference_sha256 belong together")
        if twice := {"manifest.toml", self.graph.file, self.reference} & set(self.files):
            raise ValueError(f"files names what is pinned elsewhere: {', '.join(sorted(map(str, twice)))}")
        return self

    @model_validator(mode="after")
    def _kind_fits(self) -> Self:
        points = self.bands and self.graph.points and not self.outputs
        if self.kind == "points" and (not points or self.graph.probabilities or self.explanation):
            raise ValueError(
                'kind = "points" needs bands, and graph.total, graph.points and graph.point_names; '
                "and no outputs, explanation or graph.probabilities"
            )
        probability = bool(self.outputs) and self.graph.probabilities
        if self.kind == "probability" and (not probability or self.bands or self.incomplete):
            raise ValueError(
                'kind = "probability" needs outputs, graph.probabilities, and no bands or incomplete of its own'
            )
        return self

    @model_validator(mode="after")
    def _outputs_fit(self) -> Self:
        if len({o.name for o in self.outputs}) < len(self.outputs):
            raise ValueError("two outputs have one name")
        columns = [o.column for o in self.outputs if o.column is not None]
        if columns and len(columns) < len(self.outputs):
            raise ValueError("give column for every output or for none")
        if len(set(columns)) < len(columns):
            raise ValueError("two outputs have one column")
        return self

    @model_validator(mode="after")
    def _is_explained(self) -> Self:
        result = self.result
        if self.explanation is None:
            if self.kind == "probability" and not self.graph.points:
                raise ValueError(
                    "a graph without total, points and point_names is explained by Shapley values or occlusion: "
                    "give [explanation] with method, and prototypes or typical"
                )
            if self.kind == "probability" and not (result.effect and result.compared_with):
                raise ValueError("terms need result.effect and result.compared_with, to be told in words")
            return self
        if self.graph.points:
            raise ValueError("the graph's points explain it exactly: leave out either them or [explanation]")
        if result.effect or result.compared_with:
            raise ValueError("result.effect and result.compared_with are about terms, and the graph gives none")
        if loose := [n for n in self.graph.features if n in self.features and not self.features[n].required]:
            raise ValueError(f"a graph without terms is never run without an input, so required: {', '.join(loose)}")
        if len(self.outputs) != 1:
            raise ValueError("one probability is explained so: give one output, and a model for each other one")
        return self._typical_fits(self.explanation.typical) if self.explanation.typical else self

    def _typical_fits(self, typical: Mapping[str, float]) -> Self:
        wanted = set(self.graph.features)
        if stray := sorted(set(typical) - wanted):
            near = difflib.get_close_matches(stray[0], sorted(wanted), n=1)
            hint = f'; did you mean "{near[0]}"?' if near else ""
            raise ValueError(f"explanation.typical names what is no input of the graph: {', '.join(stray)}{hint}")
        if lost := wanted - set(typical):
            raise ValueError(f"explanation.typical has no value for: {', '.join(sorted(lost))}")
        for name, value in typical.items():
            spec, choice = self.features.get(name), self.choices.get(name)
            if spec and not spec.can_be(value):
                raise ValueError(f"explanation.typical.{name} is no value that {name} can have; which unit is it in?")
            if choice and value not in choice.values.values():
                raise ValueError(f"explanation.typical.{name} is none of the choice's values")
        return self

    @model_validator(mode="after")
    def _names_resolve(self) -> Self:
        inputs = {*self.features, *self.choices}
        wanted = [c.feature for c in self.cohort.exclude_when] + [c.feature for c in self.cohort.require]
        unknown = [n for n in self.graph.features if n not in inputs]
        unknown += [name for name in wanted if name not in self.features]
        if unknown:
            raise ValueError(f"no [features] table for: {', '.join(unknown)}")
        if twice := set(self.features) & set(self.choices):
            raise ValueError(f"both a feature and a choice: {', '.join(sorted(twice))}")
        named = {name for source in self._sources() for name in source.valuesets}
        if unlike := named ^ set(self.valuesets):
            raise ValueError(f"[valuesets] and the sources must name the same: {', '.join(sorted(unlike))}")
        if unused := set(self.choices) - set(self.graph.features):
            raise ValueError(f"choices that are no input of the graph: {', '.join(sorted(unused))}")
        used = {f.absent_switch for f in self.features.values()}
        used |= {s.ambiguous_switch for s in self._sources()}
        if lost := used - {None} - set(self.switches):
            raise ValueError(f"no [switches] table for: {', '.join(sorted(str(n) for n in lost))}")
        return self

    @model_validator(mode="after")
    def _nothing_doubtful_goes_in(self) -> Self:
        for name in set(self.graph.features) & {n for n, f in self.features.items() if f.select in {"latest", "first"}}:
            if doubtful := {s.type for s in self.features[name].sources} & MAY_BE_DOUBTFUL:
                raise ValueError(f'{name}: a suspected {min(doubtful)} is none, so an input takes select = "any"')
        return self

    @model_validator(mode="after")
    def _stays_are_known(self) -> Self:
        of_stays = [n for n, f in self.features.items() if f.anchor == "encounter"]
        if of_stays and not self.cohort.of_a_stay:
            raise ValueError(
                f"{', '.join(of_stays)}: of the present stay, so say in [cohort] which stays there are: "
                'stays = ["http://terminology.hl7.org/CodeSystem/v3-ActCode|IMP"], or exclude the discharged'
            )
        for name, feature in self.features.items():
            units = [self.features[n].unit if n in self.features else "" for n in feature.inputs]
            if units and not (units[0] == "kg" and units[1] in {"m", "cm"}):
                raise ValueError(f"{name}: inputs are two features, a weight in kg and a height in m or cm")
        return self

    @model_validator(mode="after")
    def _points_resolve(self) -> Self:
        points = {c.points for c in self.result.components} - set(self.graph.point_names)
        if points:
            raise ValueError(f"result.components name unknown points: {', '.join(sorted(points))}")
        explained = {*self.graph.point_names, *(c.when_feature or c.points for c in self.result.components)}
        explained -= set(self.graph.rest)
        explained |= {r.feature for r in self.remarks} | {f.feature for o in self.outputs for f in o.exclude_when}
        if stray := explained - set(self.graph.features):
            raise ValueError(f"points and conditions must be named as graph.features are: {', '.join(sorted(stray))}")
        return self

    @model_validator(mode="after")
    def _vectors_resolve(self) -> Self:
        if self.vectors is None:
            return self
        known = {*self.features, *self.choices, *(s.name for s in self._sources())}
        lost = set(self.vectors.inputs.values()) - known
        lost |= {*self.vectors.units, *self.vectors.values} - set(self.vectors.inputs)
        bands = {b.risk for b in self.bands} | {b.risk for o in self.outputs for b in o.bands}
        found = {*self.features, *(o.name for o in self.outputs), *(f.name for f in self.further)}
        for word, there in (
            ("total", self.graph.total),
            ("probability", self.graph.probabilities),
            ("risk", bands),
            ("observed", any(b.observed is not None for b in self.bands)),
        ):
            found |= {word} if there else set()
        for expected in (self.vectors.expected, *self.vectors.expected_of.values()):
            lost |= {a.of for a in expected.values()} - found
            lost |= {w for a in expected.values() for w in a.words.values()} - {*bands, ""}
        if lost:
            raise ValueError(f"vectors name what the manifest does not have: {', '.join(sorted(lost))}")
        return self

    def _sources(self) -> Iterator[Source]:
        return (s for f in self.features.values() for s in f.sources)

    @cached_property
    def pinned(self) -> Mapping[str, str]:
        """The SHA-256 of every file of the folder but the manifest and value sets, by its name there."""
        given = {**self.files, self.graph.file: self.graph.sha256}
        if self.reference is not None and self.reference_sha256 is not None:
            given[self.reference] = self.reference_sha256
        return given

    @property
    def rules(self) -> tuple[CohortFact | CohortNeed, ...]:
        """Everything that keeps the model, or one of its outputs, from speaking of a patient."""
        of_outputs = (rule for output in self.outputs for rule in output.exclude_when)
        return (*self.cohort.exclude_when, *self.cohort.require, *of_outputs)

    def reason_text(self, reason: str) -> str:
        """What the manifest itself says of the reason of one of its rules; empty if nothing."""
        return next((rule.text for rule in self.rules if rule.reason == reason and rule.text), "")

    @property
    def called(self) -> str:
        """The model's name as a clinician knows it."""
        return self.short or self.name.upper()

    def label(self, name: str) -> str | None:
        """What a feature, a choice, or a value that a feature is derived from is called; None when it is none."""
        if name in self.features:
            return self.features[name].label
        if name in self.choices:
            return self.choices[name].label
        return next((s.label for s in self._sources() if s.name == name), None)

    def say(self, name: str, value: float) -> str:
        """The value of a feature or choice as a clinician reads it, after its label."""
        spec = self.features.get(name) or self.choices[name]
        return f"{spec.label} {spec.say(value)}"

    def say_value(self, name: str, value: float) -> str:
        """A value that a feature or choice could have, without the label."""
        return self.features[name].say(value) if name in self.features else self.choices[name].word(value)

    @property
    def newer_ends_older(self) -> bool:
        """Whether at most one result of a patient is in force: the one of the newest readings."""
        return self.kind == "probability" if self.replaced_by_newer is None else self.replaced_by_newer

    @cached_property
    def uses_exact_age(self) -> bool:
        """Whether the day of birth can be computed from what goes in and what comes out."""
        # Years by birthdays tell it on the day when they change.
        ages = {"age", "completed_years"}
        return any(f.derive in ages for f in self.features.values()) or any(s.derive for s in self._sources())

    @cached_property
    def members(self) -> frozenset[str]:
        """The features that belong to the observation set: they decide its time."""
        return frozenset(n for n, f in self.features.items() if f.of_set)

    @cached_property
    def observation_codes(self) -> frozenset[str]:
        """Every Observation code a feature reads; a new Observation with one of them triggers the model."""
        return self.codes_of("Observation")

    @cached_property
    def types(self) -> frozenset[str]:
        """The resource types that a feature reads."""
        return frozenset(s.type for s in self._sources())

    @cached_property
    def set_codes(self) -> frozenset[str]:
        """Codes of the readings that make up an observation set: they decide its time and its encounter."""
        return frozenset(c for n in self.members for c in self.features[n].codes("Observation"))

    @cached_property
    def of_present_stay(self) -> bool:
        """Whether a feature asks when the present stay began, or for other stays."""
        return any(f.anchor == "encounter" for f in self.features.values())

    @cached_property
    def awaited(self) -> Mapping[str, frozenset[str]]:
        """Codes by type, but for Observations, that trigger the model for a patient of whom nothing is concluded yet.

        All that it reads of a type, if such a statement can be what it waits for: an input, or what must be shown. None
        of a type that only excludes: a score must not appear because somebody charted a diagnosis. A model that is told
        of a stay waits for every stay of its classes.
        """
        inputs = {*self.graph.features, *(need.feature for need in self.cohort.require)} & set(self.features)
        kinds: set[str] = {s.type for name in inputs for s in self.features[name].sources}
        kinds -= {"Observation"}
        found = {kind: self.codes_of(kind) for kind in kinds}
        if self.cohort.stays:
            found["Encounter"] = frozenset(self.cohort.stays)
        return found

    def codes_of(self, resource_type: str) -> frozenset[str]:
        """Every code of `resource_type` that a feature reads."""
        return frozenset(code for feature in self.features.values() for code in feature.codes(resource_type))


def load(path: Path) -> Manifest:
    """Read one manifest, and the value sets it names into the features that read them.

    Raises:
        Misconfigured: naming file, line and what was probably meant; or a value set is not the one that was pinned.
    """
    manifest = toml.load(path, Manifest)
    own = (set_file(name) for name in manifest.valuesets)
    return with_sets(manifest, path, {name: p.read_bytes() for name in own if (p := path.parent / name).is_file()})


def with_sets(manifest: Manifest, path: Path, files: Mapping[str, bytes]) -> Manifest:
    """`manifest`, at `path`, with the value sets that it names: from `files` of its folder, or of those that ship.

    Raises:
        Misconfigured: there is none of that name, or it is not the one that was pinned.
    """
    if not manifest.valuesets:
        return manifest
    pinned = manifest.valuesets.items()
    sets = {name: read_set(name, sha256, path.parent, files.get(set_file(name))) for name, sha256 in pinned}
    problems: list[str] = []
    features = {name: _expanded(name, spec, sets, problems) for name, spec in manifest.features.items()}
    if problems:
        raise Misconfigured([f"{path}: {problem}" for problem in problems])
    return manifest.model_copy(update={"features": features})


def _expanded(name: str, spec: FeatureSpec, sets: Mapping[str, ValueSet], problems: list[str]) -> FeatureSpec:
    """A feature with the codes of its value sets in the place of their names."""
    named = list(dict.fromkeys(n for source in spec.sources for n in source.valuesets))
    groups = {g: group for n in named for g, group in sets[n].groups.items()}
    if bool(groups) != (spec.select == "weights" and bool(named)):
        problems.append(f'features.{name}: select = "weights" and a value set with groups belong together')
        return spec
    sources = tuple(
        s.model_copy(update={"codes": tuple(dict.fromkeys([*s.codes, *(c for n in s.valuesets for c in sets[n].all)]))})
        for s in spec.sources
    )
    return spec.model_copy(update={"sources": sources, "groups": {**spec.groups, **groups}})
