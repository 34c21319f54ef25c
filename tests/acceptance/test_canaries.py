"""A sample of the canary campaign, and the same with a server that leaks on purpose; `make campaign` runs the whole."""

import sys

from tests.campaigns.canaries import one
from tests.campaigns.leaking import WHERE
from tests.campaigns.runs import Run, fresh_seed

BUNDLES = 12


async def test_no_planted_value_is_found_again_in_seven_encodings(tmp_path):
    seed = fresh_seed()
    sys.stdout.write(f"SIDECAR_SEED={seed}\n")
    found = await one(Run(0, seed, tmp_path), BUNDLES)
    assert found["ok"], found["problems"]
    assert found["leaks"] == 0
    assert found["values"] >= 200 * BUNDLES
    assert found["element_paths_max"] >= 200
    assert found["written"] > 0


async def test_a_server_that_leaks_is_caught_at_every_place_where_it_does(tmp_path):
    seed = fresh_seed()
    sys.stdout.write(f"SIDECAR_SEED={seed}\n")
    found = await one(Run(0, seed, tmp_path), 6, "tests.campaigns.leaking")
    assert not found["ok"]
    missed = {f"{place}: {encoding}" for place, encoding in WHERE.items()} - set(found["where"])
    assert not missed, found["where"]
