"""What an exact age went into gives the day of birth: it is stored sealed, and is there again when it is read."""

import math
import re
from datetime import timedelta

from sidecar.deid import load_rules
from sidecar.pipeline import conclude
from sidecar.records import PatientId, PatientSnapshot
from sidecar.store.inventory import SEALED
from sidecar.store.schema import metadata
from tests.acceptance.test_kidney import BORN, SITE, diagnosis, result
from tests.harness import house

CHART = [diagnosis(), result("2160-0", 2.4), result("9318-7", 512, timedelta(minutes=9))]


async def stored(site):
    found = await site.sidecar.rooms.archive.current(PatientId("p1"), "kfre_4var")
    assert found is not None
    return found


async def numbers_in_the_open(site):
    """Every number with decimals in every column that is not sealed, also inside of texts; whole ones are in ids, too."""
    found = set()
    for table in metadata.sorted_tables:
        for row in await site.rows(f"SELECT * FROM {table.name}"):
            for name, value in row.items():
                if f"{table.name}.{name}" not in {c.place for c in SEALED} and not isinstance(value, bytes):
                    found |= {float(n) for n in re.findall(r"-?\d+\.\d+(?:e-?\d+)?", str(value))}
    return found


async def test_no_column_in_the_open_holds_a_number_that_the_day_of_birth_can_be_computed_from(tmp_path):
    async with house(tmp_path, models__kfre_4var=SITE) as site:
        await site.admit("p1", **BORN)
        await site.chart(CHART)
        await site.settled()
        # A co-signature stores what it rests on again.
        await site.chart([result("2160-0", 2.4, note=[{"text": "co-signed"}])])
        await site.settled()

        a = (await stored(site)).conclusion.assessment
        telling = [f.value for f in a.vector.features if f.name in {"age", "egfr"}]
        telling += [a.score, a.contributions["age"], a.contributions["egfr"], *a.probabilities.values()]
        assert len(telling) == 7
        plain = await numbers_in_the_open(site)
        near = [n for n in telling if any(math.isclose(n, p, rel_tol=1e-4) for p in plain)]
        assert near == []


async def test_what_was_sealed_is_read_back_as_it_was_concluded(tmp_path):
    async with house(tmp_path, models__kfre_4var=SITE) as site:
        await site.admit("p1", **BORN)
        await site.chart(CHART)
        await site.settled()
        found = await stored(site)

        person, charted = site.ehr.read("Patient", "p1"), [site.ehr.read(r["resourceType"], r["id"]) for r in CHART]
        at = found.conclusion.evidence.at
        again = conclude(
            PatientSnapshot(person, None, tuple(charted), at), site.sidecar.rooms.models["kfre_4var"], load_rules()
        )
        assert again.assessment.tells_birth_date
        assert _without_index(found.conclusion.assessment) == _without_index(again.assessment)


def _without_index(a):
    features = [(f.name, f.value, f.unit, f.seconds, f.reason) for f in a.vector.features]
    return (features, a.vector.remarks, a.score, dict(a.contributions), dict(a.probabilities), a.tells_birth_date)
