"""Group commit on one file: whoever hands in, from wherever, is told; and nothing that was handed in is lost."""

import asyncio
import contextlib
import sqlite3
import threading
from collections.abc import Iterator

import pytest

from sidecar.errors import NotStored
from sidecar.store import SLOW_S, SqliteStore, Statement, Step
from tests.harness import open_store

ADD = Statement("add", "INSERT INTO device (model_digest, remote_id) VALUES (:name, 'x')")
ALL = Statement("all", "SELECT model_digest AS name FROM device ORDER BY model_digest")
COUNT_UP = (
    "SELECT count(*) AS n FROM (WITH RECURSIVE up(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM up WHERE i < 1500000) "
    "SELECT i FROM up)"
)
LONG = Statement("long", COUNT_UP, within_s=SLOW_S)


@pytest.fixture
def file(tmp_path):
    with open_store(tmp_path) as opened:
        assert isinstance(opened, SqliteStore)
        yield opened


def add(name: str) -> Step:
    return Step(ADD, [{"name": name}])


@contextlib.contextmanager
def ticking() -> Iterator[list[None]]:
    """Grows each time that the loop comes round."""
    ticks: list[None] = []

    async def tick() -> None:
        while True:
            await asyncio.sleep(0.001)
            ticks.append(None)

    task = asyncio.ensure_future(tick())
    yield ticks
    task.cancel()


async def names(store: SqliteStore) -> list[str]:
    return [row["name"] for row in await store.read(ALL)]


async def test_callers_on_several_loops_are_each_told_and_all_is_stored(file):
    told: list[str] = []

    async def some(prefix: str) -> None:
        for n in range(50):
            await file.commit(add(f"{prefix}{n:02}"))
            told.append(f"{prefix}{n:02}")

    threads = [threading.Thread(target=lambda p=p: asyncio.run(some(p))) for p in "abc"]
    for thread in threads:
        thread.start()
    await some("d")
    for thread in threads:
        await asyncio.to_thread(thread.join)
    assert sorted(told) == await names(file) == [f"{p}{n:02}" for p in "abcd" for n in range(50)]


def test_what_a_loop_handed_in_before_it_ended_does_not_stop_the_next_one_and_is_stored(tmp_path):
    with open_store(tmp_path) as file:
        assert isinstance(file, SqliteStore)

        async def hand_in(name: str) -> None:
            task = asyncio.ensure_future(file.commit(add(name)))
            await asyncio.sleep(0)
            task.cancel()

        loop = asyncio.new_event_loop()
        loop.run_until_complete(hand_in("of a loop that ended"))
        loop.close()
        asyncio.run(file.commit(add("of the next")))
        assert asyncio.run(names(file)) == ["of a loop that ended", "of the next"]


def test_closing_stores_what_a_loop_handed_in_before_it_ended(tmp_path):
    with open_store(tmp_path) as file:
        assert isinstance(file, SqliteStore)
        path = file.path

        async def hand_in() -> None:
            for n in range(40):
                asyncio.ensure_future(file.commit(add(f"{n:02}")))  # noqa: RUF006 -- its loop ends before it does
            await asyncio.sleep(0)

        loop = asyncio.new_event_loop()
        loop.run_until_complete(hand_in())
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()
    with contextlib.closing(sqlite3.connect(path)) as again:
        assert again.execute("SELECT model_digest FROM device ORDER BY 1").fetchall() == [
            (f"{n:02}",) for n in range(40)
        ]


async def test_what_may_take_long_holds_up_no_one_else_on_the_loop(file):
    with ticking() as ticks:
        ((row,),) = await file.commit(Step(LONG))
        assert row["n"] == 1_500_000
        assert len(ticks) > 10


async def test_a_group_that_cannot_be_committed_is_not_stored_and_the_next_one_is(file):
    with contextlib.closing(sqlite3.connect(file.path)) as other, ticking() as ticks:
        other.execute("BEGIN IMMEDIATE")  # held for longer than the writer waits
        results = await asyncio.gather(*(file.commit(add(f"lost{n}")) for n in range(5)), return_exceptions=True)
        other.rollback()
        assert len(ticks) > 100, "the loop waited, too"
    assert [type(r) for r in results] == [NotStored] * 5
    await file.commit(add("kept"))
    assert await names(file) == ["kept"]
