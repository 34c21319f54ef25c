"""A model's declaration (`manifest.toml`): closed, so a typo refuses the start with its line and a suggestion.

Read by context (what to fetch), features (how to compute), scoring (how to run) and monitoring (what to count).
Codes are `system|code`; units are UCUM (https://ucum.org/ucum); durations are a number with s, m, h or d.
"""

from sidecar.manifest.card import Card, load_card, missing_mandatory
from sidecar.manifest.codes import Group, ValueSet
from sidecar.manifest.cohort import Cohort, CohortFact, CohortNeed
from sidecar.manifest.declaration import Manifest, Rollout, load
from sidecar.manifest.folder import ModelFolder, files_in, read_file, read_folder
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
    Further,
    Graph,
    Horizon,
    Incomplete,
    Output,
    ProbabilityBand,
    Recalibration,
    Remark,
    Result,
)
from sidecar.manifest.vectors import Agreement, Vectors
from sidecar.manifest.wanted import ANY, PathRead, Wanted, wanted

__all__ = [
    "ANY",
    "OF_A_STAY",
    "OF_NOTHING",
    "OVER_WINDOW",
    "SOURCE_TYPES",
    "Agreement",
    "Band",
    "Card",
    "Choice",
    "Cohort",
    "CohortFact",
    "CohortNeed",
    "Component",
    "Explanation",
    "FeatureSpec",
    "Further",
    "Graph",
    "Group",
    "Horizon",
    "Incomplete",
    "Manifest",
    "ModelFolder",
    "Output",
    "PathRead",
    "ProbabilityBand",
    "Recalibration",
    "Remark",
    "Result",
    "Rollout",
    "Source",
    "Switch",
    "ValueSet",
    "Vectors",
    "Wanted",
    "files_in",
    "in_unit",
    "load",
    "load_card",
    "missing_mandatory",
    "read_file",
    "read_folder",
    "wanted",
]
