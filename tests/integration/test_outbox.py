"""Queued writes: a patient's results go out one at a time and in their order, whichever process delivers them."""

import asyncio
import contextlib
import itertools
import time
from collections.abc import Iterator

import pytest

from sidecar.errors import ClaimLost, TooEarly
from sidecar.store import Cipher, Leases, Statement, Step, Store, open_store
from sidecar.store.leases import LEASE_S
from sidecar.store.schema import assessment
from sidecar.writeback import Outbox
from tests.harness import ENGINES, cipher_in, new_database, until

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


@pytest.mark.parametrize("how", ["left", "too early"])
async def test_a_write_that_waits_without_having_failed_is_not_overtaken(boxes, ward, how):
    await ward.conclude("p", "old")
    await ward.conclude("p", "new")
    (old,) = await boxes[0].claim("c1", 2000.0, 60, 16)
    if how == "left":
        await boxes[0].leave(old, 2002.0)
    else:
        await boxes[0].release(old, 2002.0, failed=False)
    assert await boxes[1].claim("c2", 2001.0, 60, 16) == []
    assert [w.assessment_id for w in await boxes[1].claim("c3", 2002.0, 60, 16)] == ["old.1"]


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


async def test_a_result_that_falls_due_again_is_not_written_beside_a_newer_one_of_its_patient(boxes, ward):
    """Whoever claims the newer one a moment before the older falls due is seen by whoever claims a moment after."""
    people = [f"p{n}" for n in range(8)]
    for who in people:
        await ward.conclude(who, f"{who}.old")
        await ward.conclude(who, f"{who}.new")
    for old in await boxes[0].claim("first", 2000.0, 60, 16):
        await boxes[0].release(old, 3000.0, failed=True)
    for turn in range(30):
        claims = await asyncio.gather(
            boxes[0].claim(f"a{turn}", 3000.0, 60, 16), boxes[1].claim(f"b{turn}", 2999.0, 60, 16)
        )
        writes = [write for claim in claims for write in claim]
        assert sorted(write.assessment_id.partition(".")[0] for write in writes) == people, turn
        for write in writes:
            due_at = 3000.0 if "old" in write.assessment_id else 2000.0
            await boxes[0].release(write, due_at, failed=True)


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


async def test_while_a_create_may_be_under_way_nobody_is_handed_a_write_of_its_identity(boxes, ward):
    await ward.conclude("p", "x")
    (write,) = await boxes[0].claim("c1", 2000.0, 60, 16)
    await boxes[0].sending(write, 2000.0, 2025.0)
    await boxes[0].release(write, 2000.0, failed=True)
    await ward.conclude("p", "x", revision=2)
    assert await boxes[1].claim("c2", 2024.9, 60, 16) == []
    (again,) = await boxes[1].claim("c3", 2025.0, 60, 16)
    assert (again.assessment_id, again.attempts) == ("x.1", 2)


async def test_a_create_outlasts_the_process_that_sent_it(boxes, ward):
    await ward.conclude("p", "x")
    start = time.time()
    (write,) = await boxes[0].claim(boxes[0].store.fresh_claim(), start, 60, 16)
    await boxes[0].sending(write, start, start + 4 * LEASE_S)
    clock = [start]
    survivor = Leases(boxes[1].store, (), lambda: clock[0])
    await Leases(boxes[0].store, (), lambda: start).beat()
    while clock[0] < start + 3 * LEASE_S:  # long enough to take the other for dead, and to free what it had claimed
        await survivor.beat()
        await survivor.free()
        clock[0] += 2
    assert await boxes[1].store.read(Statement("claims", "SELECT 1 AS yes FROM delivery WHERE claim IS NOT NULL")) == []
    assert await boxes[1].claim("c2", start + 4 * LEASE_S - 1, 60, 16) == []
    assert [w.assessment_id for w in await boxes[1].claim("c3", start + 4 * LEASE_S, 60, 16)] == ["x.1"]


async def test_a_write_that_ended_with_a_create_under_way_holds_up_the_next_revision(boxes, ward):
    await ward.conclude("p", "x")
    (write,) = await boxes[0].claim("c1", 2000.0, 60, 16)
    await boxes[0].sending(write, 2000.0, 2025.0)
    await boxes[0].store.commit(boxes[0].settled(write, "buried", "ehr_unreachable:TimeoutError", 2010.0))
    await ward.conclude("p", "x", revision=2)
    assert await boxes[1].claim("c2", 2024.9, 60, 16) == []
    assert [w.assessment_id for w in await boxes[1].claim("c3", 2025.0, 60, 16)] == ["x.2"]


async def test_a_create_under_way_holds_up_no_other_result_of_its_patient(boxes, ward):
    await ward.conclude("p", "first")
    await ward.conclude("p", "second")
    (first,) = await boxes[0].claim("c1", 2000.0, 60, 16)
    await boxes[0].sending(first, 2000.0, 2025.0)
    await boxes[0].release(first, 2000.0, failed=True)
    assert [w.assessment_id for w in await boxes[1].claim("c2", 2001.0, 60, 16)] == ["second.1"]


async def test_after_an_answer_the_next_attempt_is_at_once(boxes, ward):
    await ward.conclude("p", "x")
    (write,) = await boxes[0].claim("c1", 2000.0, 60, 16)
    await boxes[0].sending(write, 2000.0, 2025.0)
    await boxes[0].sent(write)
    await boxes[0].release(write, 2000.0, failed=True)
    assert [w.assessment_id for w in await boxes[1].claim("c2", 2001.0, 60, 16)] == ["x.1"]


async def test_nothing_is_sent_under_a_claim_that_ran_out(boxes, ward):
    await ward.conclude("p", "x")
    (write,) = await boxes[0].claim("c1", 2000.0, 60, 16)
    with pytest.raises(ClaimLost):
        await boxes[0].sending(write, 2060.0, 2085.0)


async def test_a_models_device_is_made_by_one_process_at_a_time(boxes):
    first, second = (box.devices.making("digest", 60.0) for box in boxes)
    await first.take()
    if not boxes[0].store.alone:
        with pytest.raises(TooEarly):
            await second.take()
    await first.leave()
    await second.take()


async def test_a_device_that_may_be_under_way_is_looked_for_only_when_its_create_has_ended(boxes):
    """Also by the same process, and by the one that opens its file after it."""
    first = boxes[0].devices.making("digest", 1.0)
    await first.take()
    await first.begin()
    began = time.monotonic()
    await first.leave()
    for box in boxes:
        with pytest.raises(TooEarly):
            await box.devices.making("digest", 1.0).take()

    async def taken() -> bool:
        with contextlib.suppress(TooEarly):
            await boxes[1].devices.making("digest", 1.0).take()
            return True
        return False

    await until(taken)
    assert time.monotonic() - began >= 0.9


async def test_a_device_is_not_created_by_who_looked_before_another_began(boxes):
    slow, other = (box.devices.making("digest", 0.05) for box in boxes)
    await slow.take()

    async def taken() -> bool:
        with contextlib.suppress(TooEarly):
            await other.take()
            return True
        return False

    await until(taken)
    await other.leave()
    with pytest.raises(TooEarly):
        await slow.begin()
