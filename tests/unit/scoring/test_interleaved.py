"""Every reply is its own patient's, whoever else is scored at the same time on the same session."""

import random
from concurrent.futures import ThreadPoolExecutor
from itertools import count

import pytest

from sidecar.records import Feature, FeatureVector
from tests.unit.opaque import FEATURES, TYPICAL, early_warning, probability

PATIENTS, AT_ONCE = 100_000, 8


def patients(seed):
    rng = random.Random(seed)
    for _ in range(PATIENTS):
        yield {
            "respiratory_rate": round(rng.uniform(8, 40), 1), "spo2": round(rng.uniform(80, 100), 1),
            "systolic_bp": round(rng.uniform(80, 180), 1), "pulse": round(rng.uniform(40, 160), 1),
        }  # fmt: skip


@pytest.mark.timeout(300)
def test_a_hundred_thousand_scorings_at_once_each_give_their_own_patients_answer():
    seed = random.randrange(2**32)
    model = early_warning()
    asked = list(patients(seed))
    wrong, number = [], count()

    def score(share):
        for values in asked[share::AT_ONCE]:
            row = FeatureVector(tuple(Feature(name, values[name], "1") for name in FEATURES))
            said = model.score(row)
            alone = {name: probability(values | {name: TYPICAL[name]}) for name in ("pulse", "spo2")}
            own = probability(values)
            if abs(said.probabilities["within_a_day"] - own) > 1e-6:
                wrong.append(values)
            if any(abs(said.changes[name] - (own - alone[name])) > 1e-6 for name in alone):
                wrong.append(values)
            next(number)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(score, range(AT_ONCE)))

    assert next(number) == PATIENTS
    assert wrong == [], f"seed {seed}"
