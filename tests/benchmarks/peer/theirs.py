"""The peer's side, run by the peer's own interpreter: the job by its documented functions.

A validated Bundle, features by its `get_resources`, the graph, its `create_risk_assessment_from_prediction`.
"""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import numpy as np
import onnxruntime as ort
from fhir.resources.R4B.bundle import Bundle
from healthchain.fhir import create_risk_assessment_from_prediction, get_resources
from rounds import serve

CODES = ["8867-4", "8480-6", "9279-1", "8310-5", "59408-5", "6690-2", "2524-7"]
OUTCOME = {"code": "A41.9", "display": "Sepsis", "system": "http://hl7.org/fhir/sid/icd-10"}


def features(bundle):
    """The newest value of each code, and the age in years at the newest of them; NaN for what is not there."""
    newest = {}
    for observation in get_resources(bundle, "Observation"):
        for coding in observation.code.coding:
            if coding.code in CODES and observation.valueQuantity is not None:
                known = newest.get(coding.code)
                if known is None or observation.effectiveDateTime > known[0]:
                    newest[coding.code] = (observation.effectiveDateTime, float(observation.valueQuantity.value))
    at = max((when for when, _ in newest.values()), default=None)
    (patient,) = get_resources(bundle, "Patient")
    age = float("nan") if at is None else (at.date() - patient.birthDate).days / 365.25
    return [newest[code][1] if code in newest else float("nan") for code in CODES] + [age], patient.id, at


def main():
    bundles, graph = sys.argv[1:]
    logging.disable(logging.WARNING)
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])

    def job(raw):
        row, patient, at = features(Bundle(**json.loads(raw)))
        probability = float(session.run(["probabilities"], {"features": np.array([row], dtype=np.float32)})[0][0, 0])
        prediction = {
            "outcome": OUTCOME,
            "probability": round(probability, 4),
            "qualitative_risk": "high" if probability > 0.5 else "low",
        }
        made = create_risk_assessment_from_prediction(
            f"Patient/{patient}", prediction, occurrence_datetime=at.isoformat()
        )
        made.model_dump_json(exclude_none=True)
        return probability

    serve(Path(bundles), job)


if __name__ == "__main__":
    main()
