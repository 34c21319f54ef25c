"""Train `model.onnx`: readmission within 30 days after a hospital stay of a patient with diabetes.

Data: Diabetes 130-US hospitals for years 1999-2008. UCI Machine Learning Repository, dataset 296, CC BY 4.0.
Strack B, DeShazo JP, Gennings C, et al. Impact of HbA1c measurement on hospital readmission rates. BioMed Research
International 2014;781670.

The file is the repository's `diabetic_data.csv`, plain or gzipped. The outcome is `readmitted` = `<30`. Stays ended by
death or in hospice (dispositions 11, 13, 14, 19, 20, 21) are not of the cohort. Inputs are what a FHIR server knows
at discharge; race, payer and specialty are none, and sex made no difference. Only the three listed diagnoses are read.

The data have no dates. The number of the encounter is taken as their order for the check by time, which nobody states.

Run `python models/readmission_30d/1.0.0/train.py train --data FILE --out DIR` (with the extra `train`); the same data
give the same bytes. `evaluate --data FILE` holds the shipped graph against any file of the same format.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sidecar.training import Cases, Recipe, Shape, read_table, run

Codes = npt.NDArray[np.float64]
Flag = npt.NDArray[np.bool_]

ENDED = frozenset({"11", "13", "14", "19", "20", "21"})
# Where the patient went: 0 home, 1 home with home health, 2 nursing or long-term care, 3 rehabilitation, 4 psychiatric
# hospital, 5 another hospital or facility, 6 left against advice, 7 charted as something else, or not mapped.
WENT = {
    "1": 0.0,
    **dict.fromkeys(["6", "8"], 1.0),
    **dict.fromkeys(["3", "4", "15", "23", "24"], 2.0),
    "22": 3.0,
    "28": 4.0,
    **dict.fromkeys(["2", "5", "9", "10", "12", "16", "17", "27", "29", "30"], 5.0),
    "7": 6.0,
}
DIAGNOSES = ("diag_1", "diag_2", "diag_3")


def _between(low: float, high: float) -> Callable[[Codes], Flag]:
    return lambda codes: (codes >= low) & (codes < high)


# ICD-9-CM, the upper end excluded.
CONDITIONS: dict[str, tuple[Callable[[Codes], Flag], ...]] = {
    "heart_failure": (_between(428, 429),),
    "chronic_kidney_disease": (_between(585, 587), _between(403, 405)),
    "acute_kidney_injury": (_between(584, 585),),
    "cancer": (_between(140, 210),),
    "liver_disease": (_between(570, 574),),
    "cerebrovascular_disease": (_between(430, 439),),
    "peripheral_vascular_disease": (_between(440, 444),),
    "pneumonia": (_between(480, 487),),
    "diabetic_organ_damage": (_between(250.4, 250.8),),
    "diabetic_acute_crisis": (_between(250.1, 250.4),),
    "diabetes_other_complication": (_between(250.8, 251),),
    "electrolyte_disorder": (_between(276, 277),),
    "pancreas_disease": (_between(577, 578),),
    "paralysis": (_between(342, 343), _between(344, 345)),
}
CIRCULATORY = (_between(390, 460), _between(785, 786))
SHAPES = (
    Shape("age", "step", (20.0, 30.0, 50.0, 60.0, 80.0)),
    Shape("length_of_stay", "linear", (1.0, 4.0, 8.0, 14.0)),
    Shape("prior_admissions", "linear", (0.0, 1.0, 2.0, 3.0, 5.0, 8.0)),
    Shape("ed_visits", "linear", (0.0, 1.0, 2.0, 4.0, 8.0)),
    Shape("discharge_to", "codes", (0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0)),
    Shape("diabetes_medicine", "codes", (0.0, 1.0)),
    *(Shape(name, "codes", (0.0, 1.0)) for name in CONDITIONS),
)
NAMES = tuple(shape.name for shape in SHAPES)
EDGES: dict[str, tuple[float, ...]] = {
    "age": (20, 30, 40, 50, 60, 70, 80, 90),
    "length_of_stay": (2, 3, 4, 6, 8, 11),
    "prior_admissions": (1, 2, 3, 5),
    "ed_visits": (1, 2, 4),
    "discharge_to": (0.5, 1.5, 2.5, 3.5, 4.5, 5.5, 6.5),
    "diabetes_medicine": (0.5,),
    **dict.fromkeys(CONDITIONS, (0.5,)),
}


def read(path: Path) -> Cases:
    """The stays of the cohort in `path`.

    Raises:
        BadData: it is not a file of that format.
    """
    text = ["patient_nbr", "race", "gender", "age", "discharge_disposition_id", *DIAGNOSES, "diabetesMed", "readmitted"]
    numbers = ["encounter_id", "time_in_hospital", "number_inpatient", "number_emergency"]
    table = read_table(path, ",", text=text, numbers=numbers)
    word, number = table.text, table.numbers
    codes = np.column_stack([[_icd9(code) for code in word[name]] for name in DIAGNOSES])
    inputs = np.column_stack(
        [
            [_middle(band) for band in word["age"]],
            number["time_in_hospital"],
            number["number_inpatient"],
            number["number_emergency"],
            [WENT.get(code, 7.0) for code in word["discharge_disposition_id"]],
            [{"Yes": 1.0, "No": 0.0}.get(said, np.nan) for said in word["diabetesMed"]],
            *(_any(codes, tests) for tests in CONDITIONS.values()),
        ]
    )
    alive = np.array([code not in ENDED for code in word["discharge_disposition_id"]])
    cases = Cases(
        inputs=inputs,
        outcome=np.array([float(said == "<30") for said in word["readmitted"]]),
        patients=np.array(word["patient_nbr"]),
        weight=np.ones(table.rows),
        groups=_groups(word, inputs[:, 0], _any(codes[:, :1], CIRCULATORY)),
        order=number["encounter_id"],
        excluded=int((~alive).sum()),
    )
    return cases.only(alive).with_both_outcomes(path)


def _groups(word: dict[str, list[str]], age: Codes, circulatory: Codes) -> dict[str, npt.NDArray[np.str_]]:
    bands = np.select(
        [age < 30, age < 50, age < 70, age < 80, age >= 80], ["<30", "30-49", "50-69", "70-79", ">=80"], ""
    )
    return {
        "sex": np.array([{"Female": "female", "Male": "male"}.get(said, "") for said in word["gender"]]),
        "age": bands,
        "race": np.array(["" if said == "?" else said for said in word["race"]]),
        "primary_diagnosis": np.where(circulatory == 1, "circulatory", "other"),
    }


def _middle(band: str) -> float:
    """The middle of a ten-year band, `[70-80)`; NaN for what is none."""
    low, dash, high = band.strip("[)").partition("-")
    return (float(low) + float(high)) / 2 if dash and low.isdigit() and high.isdigit() else np.nan


def _icd9(code: str) -> float:
    """The code as a number; those that begin with a letter (causes, contacts) and none are -1."""
    try:
        return float(code)
    except ValueError:
        return -1.0


def _any(codes: Codes, tests: tuple[Callable[[Codes], Flag], ...]) -> Codes:
    found: Any = np.any([test(codes) for test in tests], axis=0)
    return np.asarray(found.any(axis=1), dtype=np.float64)


RECIPE = Recipe(
    name="readmission_30d",
    version="1.0.0",
    names=NAMES,
    read=read,
    shapes=lambda _inputs: SHAPES,
    penalties=(0.00003, 0.0001, 0.001, 0.003, 0.01),
    whose="Diabetes 130-US hospitals 1999-2008 (UCI dataset 296, CC BY 4.0; Strack et al. 2014)",
    seed=20140411,
    edges=EDGES,
)

if __name__ == "__main__":
    sys.exit(run(RECIPE, Path(__file__).parent))
