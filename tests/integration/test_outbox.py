"""Queued writes: a patient's results go out one at a time and in their order, whichever process delivers them."""

import asyncio
import itertools
import time
from collections.abc import Iterator

import pytest

from sidecar.errors import ClaimLost, Retryable
from sidecar.store import Cipher, Statement, Step, Store, open_store
from sidecar.store.schema import assessment
from sidecar.writeback import Outbox
from tests.harness import ENGINES, cipher_in, new_database

_COLUMNS = {
    c.name: ("x" if str(c.type) == "TEXT" else b"x" if str(c.type) == "BLOB" else 0) for c in assessment.columns
}
CONCLUDED = Statement(
    "concluded",
    f"INSERT INTO assessment ({', '.join(_COLUMNS)}) VALUES ({', '.join(f':{name}' for name in _COLUMNS)})",
)


class Process(Outbox):
    """The outbox of one process, and its store."""

    def __init__(self, store: Store, cipher: Cipher) -> None:
        super().__init__(store, cipher)
        self.store = store


@pytest.fixture(params=ENGINES)
def boxes(tmp_path, request) -> Iterator[list[Process]]:
    """Two processes on PostgreSQL, one twice on SQLite."""
    with new_database(tmp_path, request.param) as url:
        stores = [open_store(url)]
        stores += [open_store(url)] if request.param == "postgres" else []
        yield [Process(store, cipher_in(tmp_path)) for store in (stores * 2)[:2]]
        for store in stores:
            store.close()


class Ward:
    """Concludes results, and remembers in which order."""

    def __init__(self, box: Process) -> None:
        self._box, self._at = box, itertools.count(1000)

    async def conclude(self, patient: str, name: str, revision: int = 1) -> None:
        identity, now = name.encode(), float(next(self._at))
        row = _COLUMNS | {
            "id": f"{name}.{revision}", "identity": identity, "revision": revision, "patient_key": patient.encode(),
        }  # fmt: skip
        await self._box.store.commit(Step(CONCLUDED, [row]), *self._box.queue(f"{name}.{revision}", identity, now, now))


@pytest.fixture
def ward(boxes) -> Ward:
    return Ward(boxes[0])


async def settle(box: Process, write) -> None:
    await box.store.commit(box.settled(write, "written", None, time.time()))


async def test_two_processes_write_one_result_of_a_patient_at_a_time_and_in_their_order(boxes, ward):
    for n, who in itertools.product(range(6), "abcd"):
        await ward.conclude(who, f"{who}{n}")
    written: list[str] = []
    for turn in itertools.count():
        claims = await asyncio.gather(*(box.claim(f"c{turn}.{n}", 2000.0, 60, 16) for n, box in enumerate(boxes * 3)))
        writes = [write for claim in claims for write in claim]
        if not writes:
            break
        patients = [write.assessment_id[0] for write in writes]
        assert len(patients) == len(set(patients)), turn
        for write in writes:
            written.append(write.assessment_id)
            await settle(boxes[0], write)
    for who in "abcd":
        assert [w for w in written if w[0] == who] == [f"{who}{n}.1" for n in range(6)]


async def test_a_write_that_failed_and_waits_holds_up_its_own_revisions_and_no_other_result(boxes, ward):
    await ward.conclude("p", "old")
    await ward.conclude("p", "new")
    (old,) = await boxes[0].claim("c1", 2000.0, 60, 16)
    assert await boxes[1].claim("c2", 2000.0, 60, 16) == []
    await boxes[0].release(old, 3000.0, failed=True)
    await ward.conclude("p", "old", revision=2)
    (new,) = await boxes[1].claim("c3", 2000.0, 60, 16)
    assert new.assessment_id == "new.1"
    await settle(boxes[1], new)
    assert await boxes[1].claim("c4", 2000.0, 60, 16) == []
    (again,) = await boxes[1].claim("c5", 3000.0, 60, 16)
    assert (again.assessment_id, again.attempts, again.failures) == ("old.1", 2, 1)


async def test_what_a_dead_process_was_writing_is_written_again_before_the_patients_next_result(boxes, ward):
    await ward.conclude("p", "first")
    await ward.conclude("p", "second")
    await boxes[0].claim("dead", 2000.0, 60, 16)
    assert await boxes[1].claim("c2", 2059.0, 60, 16) == []
    (write,) = await boxes[1].claim("c3", 2060.0, 60, 16)
    assert (write.assessment_id, write.attempts) == ("first.1", 2)


async def test_a_process_whose_claim_ran_out_must_not_write_any_more(boxes, ward):
    await ward.conclude("p", "x")
    (write,) = await boxes[0].claim("c1", 2000.0, 60, 16)
    await boxes[0].must_hold(write, 2059.0)
    with pytest.raises(ClaimLost):
        await boxes[0].must_hold(write, 2060.0)
    await boxes[1].claim("c2", 2060.0, 60, 16)
    with pytest.raises(ClaimLost):
        await boxes[0].must_hold(write, 2061.0)


async def test_a_models_device_is_made_by_one_process_at_a_time(boxes):
    await boxes[0].begin_device("digest", 1000.0)
    if boxes[0].store is boxes[1].store:
        await boxes[1].begin_device("digest", 1000.0)
        return
    with pytest.raises(Retryable):
        await boxes[1].begin_device("digest", 1001.0)
    await boxes[1].begin_device("digest", 1100.0)
