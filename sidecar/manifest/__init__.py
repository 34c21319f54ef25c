"""A model's declaration (`manifest.toml`): closed, so a typo refuses the start with its line and a suggestion.

Read by context (what to fetch), features (how to compute), scoring (how to run) and monitoring (what to count).
Codes are `system|code`; units are UCUM (https://ucum.org/ucum); durations are a number with s, m, h or d.
"""

from sidecar.manifest.codes import Group, ValueSet
from sidecar.manifest.cohort import Cohort, CohortFact, CohortNeed
from sidecar.manifest.declaration import Agreement, Manifest, Rollout, Vectors, load
from sidecar.manifest.inputs import (
    OF_A_STAY,
    OF_NOTHING,
    OVER_WINDOW,
    SOURCE_TYPES,
    Choice,
    FeatureSpec,
    Source,
    Switch,
    in_unit,
)
from sidecar.manifest.outputs import (
    Band,
    Component,
    Explanation,
    Graph,
    Horizon,
    Incomplete,
    Output,
    ProbabilityBand,
    Result,
)
from sidecar.manifest.wanted import ANY, PathRead, Wanted, wanted

__all__ = [
    "ANY",
    "OF_A_STAY",
    "OF_NOTHING",
    "OVER_WINDOW",
    "SOURCE_TYPES",
    "Agreement",
    "Band",
    "Choice",
    "Cohort",
    "CohortFact",
    "CohortNeed",
    "Component",
    "Explanation",
    "FeatureSpec",
    "Graph",
    "Group",
    "Horizon",
    "Incomplete",
    "Manifest",
    "Output",
    "PathRead",
    "ProbabilityBand",
    "Result",
    "Rollout",
    "Source",
    "Switch",
    "ValueSet",
    "Vectors",
    "Wanted",
    "in_unit",
    "load",
    "wanted",
]
