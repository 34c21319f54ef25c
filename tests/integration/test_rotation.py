"""A ring turns while servers use it: no value is lost, none is read in vain, and no key goes that is needed."""

import asyncio
import time
from collections.abc import Callable, Iterator

import pytest

from sidecar.errors import Misconfigured, NotHere
from sidecar.store import Cipher, Leases, Rotation, Says, Statement, Step, Store, check_ring, load_keys, open_store
from sidecar.store.inventory import SEALED
from sidecar.store.keyfile import fresh_key, read_keys, replace_keys
from sidecar.store.leases import BEAT_S, GONE_S, LEASE_S
from sidecar.store.ring import look_at_ring
from sidecar.store.rotation import PORTION, QUIET_S
from tests.harness import ENGINES, cipher_in, new_database
from tests.sealed_rows import Reader, fill, keys_in_use, values

ROWS = 700


@pytest.fixture(params=ENGINES)
def stores(tmp_path, request) -> Iterator[list[Store]]:
    """Two servers' views of one database: two processes on PostgreSQL, one twice on SQLite."""
    with new_database(tmp_path, request.param) as url:
        opened = [open_store(url)]
        opened += [open_store(url)] if request.param == "postgres" else []
        yield (opened * 2)[:2]
        for store in opened:
            store.close()


def grow(folder, number: int = 2) -> None:
    """Another key in the file, which is to seal."""
    path = folder / "keys.toml"
    replace_keys(path, read_keys(path).grown(number, fresh_key()).turned(number))


async def pass_to_the_end(rotation: Rotation) -> dict:
    done = await rotation.reseal(begin=True)
    while not done["done"]:
        done = await rotation.reseal(begin=False)
    return done


# --- a running server takes what the file brings ---------------------------------------------------------------------


async def test_a_running_server_seals_with_a_new_key_only_after_the_database_has_heard_of_it(stores, tmp_path):
    server = cipher_in(tmp_path)
    await check_ring(stores[0], server)
    grow(tmp_path)
    server.look()
    assert server.seal("event.focus", b"r", b"v")[0] == 1
    await look_at_ring(stores[0], server)
    assert server.seal("event.focus", b"r", b"v")[0] == 2
    assert {r["name"] for r in await stores[1].read(Statement("names", "SELECT name FROM ring"))} == {
        "lookup", "key 1", "key 2",
    }  # fmt: skip


async def test_a_value_of_a_key_that_just_came_into_the_file_opens_at_the_first_look(stores, tmp_path):
    slow, quick = cipher_in(tmp_path), cipher_in(tmp_path)
    grow(tmp_path)
    await look_at_ring(stores[0], quick)
    sealed = quick.seal("event.focus", b"r", b"v")
    assert (sealed[0], slow.open("event.focus", b"r", sealed)) == (2, b"v")


@pytest.mark.parametrize("what", ["garbage", "open to everyone", "gone", "another lookup", "key 1 changed"])
async def test_a_file_that_cannot_be_used_changes_nothing_in_a_running_server(stores, tmp_path, what):
    server, path = cipher_in(tmp_path), tmp_path / "keys.toml"
    await check_ring(stores[0], server)
    before, keys = path.read_text(), read_keys(path)
    sealed = server.seal("event.focus", b"r", b"v")
    if what == "garbage":
        path.write_text(before[: len(before) // 2])
    elif what == "open to everyone":
        path.chmod(0o604)
    elif what == "gone":
        path.unlink()
    else:
        lines = [line for line in before.splitlines() if not line.startswith("lookup" if "lookup" in what else "1 =")]
        other = cipher_in(_made(tmp_path / "other"))
        assert other
        theirs = (tmp_path / "other" / "keys.toml").read_text().splitlines()
        wanted = next(line for line in theirs if line.startswith("lookup" if "lookup" in what else "1 ="))
        path.write_text("\n".join([wanted, *lines] if "lookup" in what else [*lines, wanted]) + "\n")
    await look_at_ring(stores[0], server)
    assert server.open("event.focus", b"r", sealed) == b"v"
    assert server.seal("event.focus", b"r", b"v")[0] == 1
    path.unlink(missing_ok=True)
    path.write_text(before)
    path.chmod(0o600)
    replace_keys(path, keys.grown(2, fresh_key()).turned(2))
    await look_at_ring(stores[0], server)
    assert server.seal("event.focus", b"r", b"v")[0] == 2


def _made(folder):
    folder.mkdir()
    return folder


async def test_of_two_rings_that_grew_apart_the_second_is_not_taken_and_buries_nothing(stores, tmp_path):
    ours, theirs = tmp_path, _made(tmp_path / "theirs")
    first = cipher_in(ours)
    (theirs / "keys.toml").write_text((ours / "keys.toml").read_text())
    (theirs / "keys.toml").chmod(0o600)
    second = cipher_in(theirs)
    for folder in (ours, theirs):
        grow(folder)
    await look_at_ring(stores[0], first)
    sealed = first.seal("event.focus", b"r", b"v")
    assert sealed[0] == 2
    second.look()
    with pytest.raises(NotHere):  # it may be the other key that is wrong: nobody knows yet
        second.open("event.focus", b"r", sealed)
    await look_at_ring(stores[1], second)
    with pytest.raises(NotHere):
        second.open("event.focus", b"r", sealed)
    assert second.seal("event.focus", b"r", b"v")[0] == 1


async def test_a_number_is_given_to_one_key_for_good(stores, tmp_path):
    rotations = [Rotation(store, cipher_in(tmp_path)) for store in stores]
    given = await asyncio.gather(rotations[0].leave("key 2", b"mine"), rotations[1].leave("key 2", b"theirs"))
    assert sorted(given) == [False, True]
    winner = b"mine" if given[0] else b"theirs"
    assert await rotations[1].leave("key 2", winner)
    assert not await rotations[0].leave("key 2", b"another")


# --- everything is sealed again --------------------------------------------------------------------------------------


async def test_everything_is_sealed_again_while_servers_read_and_no_read_fails(stores, tmp_path):
    cipher, other = cipher_in(tmp_path), cipher_in(tmp_path)
    count = await fill(stores[0], cipher, ROWS)
    await check_ring(stores[0], cipher)
    grow(tmp_path)
    reader, stop = Reader(stores[1], other, ROWS), asyncio.Event()
    reading = asyncio.create_task(reader.run(stop))
    done = await pass_to_the_end(Rotation(stores[0], cipher))
    stop.set()
    await reading
    assert reader.read > 0
    assert reader.failed == []
    assert (done["resealed"], done["unreadable"]) == (count, 0)
    assert await keys_in_use(stores[0], cipher) == {2: count}


async def test_a_pass_that_was_cut_short_is_gone_on_with_by_whoever_comes_next(stores, tmp_path):
    cipher = cipher_in(tmp_path)
    count = await fill(stores[0], cipher, ROWS)
    await check_ring(stores[0], cipher)
    grow(tmp_path)
    done = await Rotation(stores[0], cipher, turn_s=0.0).reseal(begin=True)
    assert (done["resealed"], done["done"]) == (PORTION, False)
    done = await pass_to_the_end(Rotation(stores[1], cipher))
    assert done["resealed"] == count - PORTION
    assert await keys_in_use(stores[0], cipher) == {2: count}


class Between:
    """A store in which somebody else changes a row just before what a pass has sealed again is stored."""

    def __init__(self, store: Store, change: Step) -> None:
        self._store, self._change = store, change
        self.alone, self.read = store.alone, store.read

    async def commit(self, *steps: Step):
        if steps[0].statement.name == "reseal_assessment_evidence":
            await self._store.commit(self._change)
        return await self._store.commit(*steps)


async def test_what_changes_between_the_look_and_the_storing_is_never_overwritten(stores, tmp_path):
    cipher = cipher_in(tmp_path)
    count = await fill(stores[0], cipher, 20)
    await check_ring(stores[0], cipher)
    evidence, row = next(s for s in SEALED if s.column == "evidence"), values(3)["assessment"]
    fresh = cipher.seal(evidence.place, evidence.row_key(row), b"changed")
    touch = Statement("touch", "UPDATE assessment SET evidence = :evidence WHERE id = :id")
    grow(tmp_path)
    await pass_to_the_end(Rotation(Between(stores[1], Step(touch, [{"id": row["id"], "evidence": fresh}])), cipher))
    look = Statement("look", "SELECT evidence FROM assessment WHERE id = :id")
    (there,) = await stores[0].read(look, id=row["id"])
    assert bytes(there["evidence"]) == fresh
    assert (await pass_to_the_end(Rotation(stores[0], cipher)))["resealed"] == 1
    (there,) = await stores[0].read(look, id=row["id"])
    assert cipher.open(evidence.place, evidence.row_key(row), bytes(there["evidence"])) == b"changed"
    assert (await Rotation(stores[0], cipher).state(count=True))["values"] == {"2": count}


async def test_what_does_not_open_is_left_as_it_is_and_counted(stores, tmp_path):
    cipher = cipher_in(tmp_path)
    await fill(stores[0], cipher, 20)
    await check_ring(stores[0], cipher)
    grow(tmp_path)
    broken = cipher.seal("effect.observation", b"elsewhere", b"x")
    harm = Statement("harm", "UPDATE effect SET observation = :value WHERE identity = :identity")
    await stores[0].commit(Step(harm, [{"value": broken, "identity": values(3)["effect"]["identity"]}]))
    done = await pass_to_the_end(Rotation(stores[0], cipher))
    assert (done["unreadable"], done["resealed"]) == (1, 20 * len(SEALED) - 1)
    look = Statement("look", "SELECT observation FROM effect WHERE identity = :identity")
    (row,) = await stores[0].read(look, identity=values(3)["effect"]["identity"])
    assert bytes(row["observation"]) == broken


# --- a key goes ------------------------------------------------------------------------------------------------------


async def refused(rotation: Rotation, number: int, now: float) -> str:
    with pytest.raises(Misconfigured) as refusal:
        await rotation.retire(number, now)
    return str(refusal.value)


async def turned(store: Store, folder) -> Cipher:
    """A database with values, whose ring has turned to key 2."""
    cipher = cipher_in(folder)
    await fill(store, cipher, 20)
    await check_ring(store, cipher)
    grow(folder)
    await look_at_ring(store, cipher)
    return cipher


async def test_a_key_is_not_retired_while_it_seals_or_is_needed_or_is_not_known(stores, tmp_path):
    cipher = await turned(stores[0], tmp_path)
    rotation, later = Rotation(stores[0], cipher), time.time() + 2 * QUIET_S
    assert "key 2 seals" in await refused(rotation, 2, later)
    assert "knows no key 7" in await refused(rotation, 7, later)
    assert f"needed for {20 * len(SEALED)} values" in await refused(rotation, 1, later)
    await pass_to_the_end(rotation)
    await rotation.retire(1, later)


async def test_a_server_is_not_started_and_not_turned_with_a_key_that_was_retired(stores, tmp_path):
    before = (_made(tmp_path / "before") / "keys.toml", cipher_in(tmp_path))[0]
    before.write_text((tmp_path / "keys.toml").read_text())
    before.chmod(0o600)
    cipher = await turned(stores[0], tmp_path)
    rotation = Rotation(stores[0], cipher)
    await pass_to_the_end(rotation)
    both = read_keys(tmp_path / "keys.toml").turned(1)
    await rotation.retire(1, time.time() + 2 * QUIET_S)
    with pytest.raises(Misconfigured, match="lacks key 2"):
        await check_ring(stores[1], load_keys(before))
    replace_keys(before, both)
    with pytest.raises(Misconfigured, match="key 1 was retired"):
        await check_ring(stores[1], load_keys(before))
    path = tmp_path / "keys.toml"
    path.write_text(path.read_text().replace("active = 2", "active = 1"))
    await look_at_ring(stores[0], cipher)
    assert cipher.seal("event.focus", b"r", b"v")[0] == 2


async def test_a_retired_key_that_left_the_file_opens_nothing_more_in_a_running_server(stores, tmp_path):
    cipher = cipher_in(tmp_path)
    old = cipher.seal("event.focus", b"r", b"in a backup")
    await check_ring(stores[0], cipher)
    grow(tmp_path)
    await look_at_ring(stores[0], cipher)
    await Rotation(stores[0], cipher).retire(1, time.time() + 2 * QUIET_S)
    path = tmp_path / "keys.toml"
    replace_keys(path, read_keys(path).without(1))
    for ring in (cipher, load_keys(path)):
        ring.look()
        with pytest.raises(NotHere):
            ring.open("event.focus", b"r", old)


async def test_a_key_is_not_retired_before_what_it_sealed_has_surely_been_stored(stores, tmp_path):
    cipher = await turned(stores[0], tmp_path)
    says = Says(sealing=lambda: (cipher.sealing, cipher.sealing_since))
    await Leases(stores[0], (), says=says).beat()
    rotation = Rotation(stores[0], cipher)
    await pass_to_the_end(rotation)
    assert "may still be on its way" in await refused(rotation, 1, time.time() + QUIET_S / 2)
    await rotation.retire(1, time.time() + QUIET_S + 1)


async def test_nothing_is_sealed_again_or_retired_while_another_server_seals_with_the_old_key(tmp_path):
    with new_database(tmp_path, "postgres") as url:
        stores = [open_store(url), open_store(url)]
        try:
            cipher = await turned(stores[0], tmp_path)
            await Leases(stores[1], (), says=Says(sealing=lambda: (1, 0.0))).beat()
            rotation = Rotation(stores[0], cipher)
            with pytest.raises(Misconfigured, match="1 servers do not seal with key 2 yet"):
                await rotation.reseal(begin=True)
            clear = Statement("clear", "UPDATE lease SET sealing = 2")
            await stores[0].commit(Step(clear))
            await pass_to_the_end(rotation)
            await stores[0].commit(Step(Statement("unsaid", "UPDATE lease SET sealing = NULL")))
            assert "does not say with which" in await refused(rotation, 1, time.time() + 2 * QUIET_S)
        finally:
            for store in stores:
                store.close()


@pytest.fixture
def several(tmp_path) -> Iterator[list[Store]]:
    """Some processes of one shared database."""
    with new_database(tmp_path, "postgres") as url:
        opened = [open_store(url) for _ in range(3)]
        yield opened
        for store in opened:
            store.close()


class Clock:
    """Some time ago; it goes on only when a test says so."""

    def __init__(self, ago_s: float) -> None:
        self.now = time.time() - ago_s

    def __call__(self) -> float:
        return self.now


def sealing(store: Store, number: int, clock: Callable[[], float] = time.time) -> Leases:
    return Leases(store, (), clock, Says(sealing=lambda: (number, 0.0)))


NAMES = Statement("names_of_leases", "SELECT name FROM lease ORDER BY name")


async def test_a_key_is_not_retired_while_a_server_that_vanished_sealed_with_it_unless_somebody_says_so(
    several, tmp_path
):
    rotation, later = Rotation(several[0], await turned(several[0], tmp_path)), time.time() + 2 * QUIET_S
    await pass_to_the_end(rotation)
    clock = Clock(ago_s=100.0)
    await sealing(several[1], 1, clock).beat()
    assert "1 servers vanished in the last 24 h while they sealed with key 1" in await refused(rotation, 1, later)
    living = sealing(several[0], 2, clock)
    for _ in range(int(LEASE_S)):
        clock.now += BEAT_S
        await living.beat()
        await living.free()
    assert [r["name"].partition(":")[0] for r in await several[0].read(NAMES)] == ["gone", "process"]
    assert "with --anyway, what they sealed and had not stored by now opens nowhere" in await refused(
        rotation, 1, later
    )
    await rotation.retire(1, later, anyway=True)


async def test_a_server_that_vanished_and_came_back_with_the_new_key_stands_in_nobodys_way(several, tmp_path):
    rotation, later = Rotation(several[0], await turned(several[0], tmp_path)), time.time() + 2 * QUIET_S
    await pass_to_the_end(rotation)
    clock = Clock(ago_s=100.0)
    cut_off, living = sealing(several[1], 1, clock), sealing(several[0], 2, clock)
    await cut_off.beat()
    for _ in range(int(LEASE_S)):
        clock.now += BEAT_S
        await living.beat()
        await living.free()
    await sealing(several[1], 1).beat()
    assert "a server seals with key 1" in await refused(rotation, 1, later)
    await sealing(several[1], 2).beat()
    await rotation.retire(1, later)


async def test_a_server_that_vanished_days_ago_or_said_goodbye_stands_in_nobodys_way(several, tmp_path):
    rotation, later = Rotation(several[0], await turned(several[0], tmp_path)), time.time() + 2 * QUIET_S
    await pass_to_the_end(rotation)
    clock = Clock(ago_s=GONE_S + 100.0)
    await sealing(several[1], 1, clock).beat()
    stopped = sealing(several[0], 1, Clock(ago_s=100.0))
    await stopped.beat()
    await stopped.give_back()
    await rotation.retire(1, later)


async def test_when_another_vanishes_one_that_vanished_more_than_a_day_ago_is_forgotten(several):
    clock = Clock(ago_s=2 * GONE_S)
    await sealing(several[1], 1, clock).beat()
    living = sealing(several[0], 2, clock)
    for _ in range(int(LEASE_S)):
        clock.now += BEAT_S
        await living.beat()
        await living.free()
    assert [r["name"].partition(":")[0] for r in await several[0].read(NAMES)] == ["gone", "process"]
    clock.now += GONE_S
    await sealing(several[2], 1, clock).beat()
    for _ in range(int(LEASE_S)):
        clock.now += BEAT_S
        await living.beat()
        await living.free()
    assert [r["name"] for r in await several[0].read(NAMES)] == [
        f"gone:{several[2].owner}", f"process:{several[0].owner}",
    ]  # fmt: skip


async def test_a_key_of_which_no_copy_is_left_is_given_up_only_when_somebody_says_so(stores, tmp_path):
    cipher = await turned(stores[0], tmp_path)
    await pass_to_the_end(Rotation(stores[0], cipher))
    lost = tmp_path / "keys.toml"
    replace_keys(lost, read_keys(lost).turned(1).without(2))
    for number in (None, 1):
        with pytest.raises(Misconfigured, match=r"sidecar keys retire 2 --anyway"):
            await check_ring(stores[1], load_keys(lost), number)
    left = load_keys(lost)
    await check_ring(stores[1], left, 2)
    rotation, later = Rotation(stores[1], left), time.time() + 2 * QUIET_S
    assert "is not in this ring; use the ring that has it" in await refused(rotation, 2, later)
    await rotation.retire(2, later, anyway=True)
    await check_ring(stores[1], load_keys(lost))


async def test_a_key_that_can_still_open_what_it_sealed_is_not_given_up_whatever_is_said(stores, tmp_path):
    rotation, later = Rotation(stores[0], await turned(stores[0], tmp_path)), time.time() + 2 * QUIET_S
    for number, said in ((1, "first: sidecar keys reseal"), (2, "key 2 seals"), (7, "knows no key 7")):
        with pytest.raises(Misconfigured, match=said):
            await rotation.retire(number, later, anyway=True)
