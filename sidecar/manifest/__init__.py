"""A model's declaration (`manifest.toml`): closed, so a typo refuses the start with its line and a suggestion.

Read by context (what to fetch), features (how to compute), scoring (how to run) and monitoring (what to count).
Codes are `system|code`; units are UCUM (https://ucum.org/ucum); durations are a number with s, m, h or d.
"""

from sidecar.manifest.card import Card, load_card, missing_mandatory
from sidecar.manifest.declaration import Agreement, Manifest, Rollout, Vectors, load
from sidecar.manifest.folder import ModelFolder, files_in, read_file, read_folder
from sidecar.manifest.inputs import Choice, Cohort, CohortFact, CohortNeed, FeatureSpec, Source, Switch, in_unit
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
    Remark,
    Result,
)

__all__ = [
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
    "Horizon",
    "Incomplete",
    "Manifest",
    "ModelFolder",
    "Output",
    "ProbabilityBand",
    "Remark",
    "Result",
    "Rollout",
    "Source",
    "Switch",
    "Vectors",
    "files_in",
    "in_unit",
    "load",
    "load_card",
    "missing_mandatory",
    "read_file",
    "read_folder",
]
