"""A points model that is told at discharge, made as a hospital would: a manifest, a value set, a graph of additions."""

import hashlib
from pathlib import Path

import numpy as np
from onnx import TensorProto, helper
from onnx.numpy_helper import from_array

from sidecar import manifest as manifests

FEATURES = ("days", "urgent", "charlson", "visits", "anticoagulant", "operated", "haemoglobin_fall")
MANIFEST = """
schema = 1
name = "discharge"
version = "1.0.0"
title = "Discharge points, for tests of the feature language"
short = "Discharge points"
kind = "points"
validity = "30d"
spread = "366d"

[graph]
sha256 = "{graph}"
features = ["days", "urgent", "charlson", "visits", "anticoagulant", "operated", "haemoglobin_fall"]
total = "total"
points = "points"
point_names = ["days", "urgent", "charlson", "visits", "anticoagulant", "operated", "haemoglobin_fall"]

[valuesets]
charlson_lace = "{charlson}"
anticoagulants = "{anticoagulants}"

[cohort]
exclude = ["deceased", "inactive"]
stays = ["http://terminology.hl7.org/CodeSystem/v3-ActCode|IMP", "http://terminology.hl7.org/CodeSystem/v3-ActCode|ACUTE"]

[features.days]
label = "length of stay"
unit = "d"
derive = "length_of_stay"
max_age = "30d"

[features.urgent]
label = "urgent admission"
unit = "{{yes}}"
derive = "urgent_admission"
words = {{ "0" = "no", "1" = "yes" }}

[features.charlson]
label = "comorbidity (LACE weights)"
unit = "{{score}}"
select = "weights"
max_age = "36500d"
[[features.charlson.from]]
type = "Condition"
valuesets = ["charlson_lace"]
history = true

[features.visits]
label = "emergency visits in the six months before"
unit = "{{count}}"
derive = "ed_visits"
window = "183d"

[features.anticoagulant]
label = "anticoagulant"
unit = "{{yes}}"
select = "any"
max_age = "3650d"
[[features.anticoagulant.from]]
type = "MedicationRequest"
valuesets = ["anticoagulants"]

[features.operated]
label = "procedure in the stay"
unit = "{{yes}}"
select = "any"
anchor = "encounter"
[[features.operated.from]]
type = "Procedure"
codes = ["*|*"]

[features.haemoglobin_fall]
label = "fall of haemoglobin in the stay"
unit = "g/dL"
select = "delta"
anchor = "encounter"
absent = 0
in_set = false
[[features.haemoglobin_fall.from]]
codes = ["http://loinc.org|718-7"]
unit = "g/dL"
plausible = [2, 25]

[[bands]]
risk = "high"
text = "high"
at_least = 10
[[bands]]
risk = "low"
text = "low"
at_least = -100

[incomplete]
urgent_at_least = 1000
urgent_any_points = 1000

[result]
code = "urn:ehr-sidecar:code|discharge-points"
display = "Discharge points"
outcome = "Readmission"
risk_system = "urn:ehr-sidecar:discharge-risk"

[events]
debounce = "0.05s"
max_wait = "0.5s"
"""
ANTICOAGULANTS = """
schema = 1
title = "Oral anticoagulants"
source = "ATC index of the WHO"
codes = ["http://www.whocc.no/atc|B01AA*", "http://www.whocc.no/atc|B01AF*", "http://www.nlm.nih.gov/research/umls/rxnorm|11289"]
"""


def graph() -> bytes:
    """Every feature is its own points; the total is their sum."""
    count = len(FEATURES)
    nodes = [
        helper.make_node("Identity", ["features"], ["points"]),
        helper.make_node("ReduceSum", ["features", "axes"], ["total"], keepdims=1),
    ]
    made = helper.make_graph(
        nodes, "discharge",
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["N", count])],
        [helper.make_tensor_value_info("total", TensorProto.FLOAT, ["N", 1]), helper.make_tensor_value_info("points", TensorProto.FLOAT, ["N", count])],
        initializer=[from_array(np.array([1], dtype=np.int64), "axes")],
    )  # fmt: skip
    return bytes(helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=9).SerializeToString())


def install(root: Path) -> Path:
    """The folder of the model below `root`."""
    folder = root / "discharge" / "1.0.0"
    (folder / "valuesets").mkdir(parents=True)
    (folder / "model.onnx").write_bytes(graph())
    (folder / "valuesets" / "anticoagulants.toml").write_text(ANTICOAGULANTS)
    shipped = Path(manifests.__file__).parent / "valuesets" / "charlson_lace.toml"
    digests = {
        "graph": graph(), "charlson": shipped.read_bytes(), "anticoagulants": ANTICOAGULANTS.encode(),
    }  # fmt: skip
    said = MANIFEST.format(**{name: hashlib.sha256(raw).hexdigest() for name, raw in digests.items()})
    (folder / "manifest.toml").write_text(said)
    return folder
