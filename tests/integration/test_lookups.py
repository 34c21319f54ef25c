"""Look-ups that are asked for together: each gets its own rows, in their order, on either engine."""

import asyncio
import importlib
import pkgutil
from collections.abc import Iterator

import pytest

import sidecar
from sidecar.errors import NotStored
from sidecar.store import Statement, Step, Store
from sidecar.store.lookups import of_many
from tests.harness import ENGINES, open_store


def _is_quick(found: object) -> bool:
    return isinstance(found, Statement) and found.quick


ADD = Statement("add", "INSERT INTO device (model_digest, remote_id) VALUES (:name, :value)")
UP_TO = Statement(
    "up_to", "SELECT remote_id FROM device WHERE model_digest <= :digest ORDER BY model_digest DESC LIMIT 3", quick=True
)
MODULES = [
    importlib.import_module(found.name)
    for found in pkgutil.walk_packages(sidecar.__path__, "sidecar.")
    if not found.name.startswith("sidecar.store.migrations") and not found.name.endswith("__main__")
]
QUICK = list({found.name: found for module in MODULES for found in vars(module).values() if _is_quick(found)}.values())


@pytest.fixture(params=ENGINES)
def store(tmp_path, request) -> Iterator[Store]:
    with open_store(tmp_path, request.param) as opened:
        yield opened


async def test_each_of_many_asked_at_once_gets_its_own_rows_in_their_order(store):
    await store.commit(Step(ADD, [{"name": f"{n:03}", "value": str(n)} for n in range(100)]))
    asked = [n for n in range(-1, 100) for _ in range(3)]
    answers = await asyncio.gather(*(store.read(UP_TO, digest=f"{n:03}" if n >= 0 else "") for n in asked))
    for n, rows in zip(asked, answers, strict=True):
        assert [row["remote_id"] for row in rows] == [str(k) for k in range(n, max(n - 3, -1), -1)]


async def test_what_was_committed_before_a_look_up_is_in_it(store):
    for n in range(30):
        await store.commit(Step(ADD, [{"name": f"{n:03}", "value": str(n)}]))
        rows, *_ = await asyncio.gather(*(store.read(UP_TO, digest="999") for _ in range(5)))
        assert rows[0]["remote_id"] == str(n)


async def test_a_look_up_that_cannot_be_made_fails_those_who_asked_for_it_and_nobody_else(store):
    broken = Statement("broken", "SELECT nothing FROM nowhere WHERE a = :digest", quick=True)
    bad = [store.read(broken, digest="x") for _ in range(3)]
    results = await asyncio.gather(*bad, store.read(UP_TO, digest="x"), return_exceptions=True)
    assert [type(r) for r in results] == [NotStored] * 3 + [list]


@pytest.mark.parametrize("statement", QUICK, ids=[s.name for s in QUICK])
def test_every_quick_statement_can_be_asked_many_times_at_once(statement):
    sql, names = of_many(statement)
    assert names
    assert ":" not in sql.replace("::", "")


def test_there_are_quick_statements():
    assert len(QUICK) > 10
