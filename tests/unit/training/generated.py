"""Small made-up files in the formats that the models were trained on. Nothing in them is of anybody."""

import gzip
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import orjson

REPO = Path(__file__).parents[3]
DIABETES = (
    "encounter_id", "patient_nbr", "race", "gender", "age", "weight", "discharge_disposition_id", "time_in_hospital",
    "number_outpatient", "number_emergency", "number_inpatient", "diag_1", "diag_2", "diag_3", "diabetesMed", "readmitted",
)  # fmt: skip
CODES = ("428", "414", "486", "250.6", "250.13", "276", "V58", "584", "401", "?")
TYPICAL = {
    "HR": 84, "O2Sat": 97, "Temp": 36.9, "SBP": 122, "MAP": 84, "DBP": 64, "Resp": 18, "EtCO2": 33, "pH": 7.38, "PaCO2": 40,
    "BUN": 20, "Creatinine": 1.1, "Bilirubin_total": 0.9, "Glucose": 128, "Lactate": 2, "Potassium": 4, "Hgb": 10,
    "WBC": 10, "Platelets": 190, "PTT": 35, "Fibrinogen": 260, "TroponinI": 0.3,
}  # fmt: skip
WARD = list(TYPICAL)


def diabetes(path: Path, seed: int, rows: int = 3000) -> Path:
    """Stays in the format of the diabetes data; earlier stays raise the risk."""
    random = np.random.default_rng(seed)
    lines = [",".join(DIABETES)]
    for number in range(rows):
        prior = int(random.poisson(0.7))
        again = random.random() < 1 / (1 + np.exp(2.2 - 0.6 * prior))
        codes = [str(random.choice(CODES)) for _ in range(3)]
        band = int(random.integers(0, 10)) * 10
        lines.append(
            f"{1000 + number},{int(random.integers(1, rows // 2))},{random.choice(['Caucasian', 'AfricanAmerican', '?'])},"
            f"{random.choice(['Female', 'Male'])},[{band}-{band + 10}),?,{random.choice([1, 3, 6, 22, 11, 18])},"
            f"{int(random.integers(1, 15))},0,{int(random.poisson(0.2))},{prior},{','.join(codes)},"
            f"{random.choice(['Yes', 'No'])},{'<30' if again else random.choice(['NO', '>30'])}"
        )
    return write(path, "\n".join(lines) + "\n")


def ward(path: Path, seed: int, patients: int = 150) -> Path:
    """Hours in the format of the sepsis data; a fast pulse comes before sepsis."""
    random = np.random.default_rng(seed)
    lines = ["|".join(["patient", *WARD, "Age", "Gender", "ICULOS", "SepsisLabel"])]
    for patient in range(patients):
        ill = random.random() < 0.3
        age, gender = int(random.integers(18, 95)), int(random.integers(0, 2))
        for hour in range(1, int(random.integers(12, 40))):
            label = int(ill and hour > 8)
            row = []
            for name, typical in TYPICAL.items():
                known = random.random() < (0.9 if name in WARD[:7] else 0.3)
                shift = 1.15 if label and name in {"HR", "Resp", "Lactate"} else 1.0
                row.append(
                    f"{typical * shift * random.normal(1, 0.08 if name != 'Temp' else 0.01):.4g}" if known else "NaN"
                )
            lines.append("|".join([f"p{patient}", *row, str(age), str(gender), str(hour), str(label)]))
    return write(path, "\n".join(lines) + "\n")


def appointments(path: Path, seed: int, patients: int = 400) -> Path:
    """R4 Appointments, one a line; who missed one misses more, and what was made long ahead is missed more often."""
    random = np.random.default_rng(seed)
    lines, began = [], datetime(2024, 1, 1, tzinfo=UTC)
    for patient in range(patients):
        careless = random.normal(0, 1)
        for number in range(int(random.integers(1, 9))):
            start = began + timedelta(days=float(random.integers(0, 700)), hours=float(random.integers(8, 17)))
            ahead = float(random.exponential(12))
            missed = random.random() < 1 / (1 + np.exp(1.8 - careless - ahead / 20))
            status = random.choice(["noshow" if missed else "fulfilled", "cancelled"], p=[0.9, 0.1])
            lines.append(orjson.dumps({
                "resourceType": "Appointment", "id": f"a{patient}-{number}", "status": str(status),
                "created": (start - timedelta(days=ahead)).isoformat(), "start": start.isoformat(),
                "participant": [{"actor": {"reference": f"Patient/p{patient}"}, "status": "accepted"}],
            }).decode())  # fmt: skip
    return write(path, "\n".join(lines) + "\n")


def write(path: Path, content: str) -> Path:
    """The file, zipped where it is called so."""
    path.write_bytes(gzip.compress(content.encode()) if path.suffix == ".gz" else content.encode())
    return path
