"""One key ring a database: another is refused at the start, and an older one buries nothing."""

import base64
import re
import secrets
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sidecar.app import Sidecar
from sidecar.errors import Misconfigured, NotStored
from sidecar.inbox import EventBox, ModelWait, WorkBox
from sidecar.records import Event, PatientId, Reference
from sidecar.settings import load
from sidecar.store import Cipher, Statement, Step, Store, check_ring, load_keys, new_keys
from sidecar.store.keyfile import fresh_key, read_keys, replace_keys
from sidecar.store.ring import VOUCHED_S, look_at_ring
from tests.harness import ENGINES, cipher_in, open_store, write_site

A = ModelWait("a", 0.0, 0.0)
STATES = Statement("states", "SELECT state, reason FROM event")


@pytest.fixture(params=ENGINES)
def store(tmp_path, request) -> Iterator[Store]:
    with open_store(tmp_path, request.param) as opened:
        yield opened


def key() -> str:
    return base64.b64encode(secrets.token_bytes(32)).decode()


def grown(folder: Path) -> Cipher:
    """The ring of `folder` with one key more, which is the active one."""
    cipher_in(folder)
    text = (folder / "keys.toml").read_text().replace("active = 1", "active = 2") + f'2 = "{key()}"\n'
    path = folder / "grown.toml"
    path.write_text(text)
    path.chmod(0o600)
    return load_keys(path)


async def test_another_ring_is_refused_and_leaves_nothing_behind(store, tmp_path):
    ours = cipher_in(tmp_path)
    new_keys(tmp_path / "other.toml")
    await check_ring(store, ours)
    for _ in range(2):
        with pytest.raises(Misconfigured, match="another key 1 and lookup was used"):
            await check_ring(store, load_keys(tmp_path / "other.toml"))
    await check_ring(store, ours)


async def test_a_ring_may_grow_and_an_older_copy_is_refused_with_what_to_do_about_it(store, tmp_path):
    for ring in (cipher_in(tmp_path), grown(tmp_path), load_keys(tmp_path / "grown.toml")):
        await check_ring(store, ring)
    with pytest.raises(Misconfigured, match="lacks key 2, the newest of this database; put the newest copy"):
        await check_ring(store, cipher_in(tmp_path))
    await store.commit(Step(Statement("retire", "UPDATE ring SET retired_at = 1.0 WHERE name = 'key 2'")))
    await check_ring(store, cipher_in(tmp_path))


async def test_a_server_is_not_started_with_an_older_copy_of_its_ring(tmp_path):
    config = write_site(tmp_path, "http://127.0.0.1:1/fhir")
    older = (tmp_path / "keys.toml").read_text()
    replace_keys(tmp_path / "keys.toml", read_keys(tmp_path / "keys.toml").grown(2, fresh_key()).turned(2))
    first = Sidecar(load(config))
    await first.start()
    await first.close()
    (tmp_path / "keys.toml").write_text(older)
    second = Sidecar(load(config))
    with pytest.raises(Misconfigured, match="lacks key 2, the newest of this database"):
        await second.start()
    await second.close()


async def test_a_running_server_goes_on_with_its_ring_when_an_older_copy_is_put_in_its_place(store, tmp_path):
    server, path = cipher_in(tmp_path), tmp_path / "keys.toml"
    older = path.read_text()
    await check_ring(store, server)
    replace_keys(path, read_keys(path).grown(2, fresh_key()).turned(2))
    await look_at_ring(store, server)
    path.write_text(older)
    for _ in range(2):
        await look_at_ring(store, server)
        assert server.seal("a.b", b"row", b"x")[0] == 2


async def test_a_running_server_takes_a_copy_that_is_newer_than_its_own_and_not_the_newest(store, tmp_path):
    server, path = cipher_in(tmp_path), tmp_path / "keys.toml"
    await check_ring(store, server)
    await store.commit(
        Step(Statement("three", "INSERT INTO ring (name, fingerprint) VALUES ('key 3', :f)"), [{"f": b"x"}])
    )
    replace_keys(path, read_keys(path).grown(2, fresh_key()).turned(2))
    await look_at_ring(store, server)
    assert server.seal("a.b", b"row", b"x")[0] == 2


async def test_a_key_that_was_changed_under_its_number_is_refused(store, tmp_path):
    await check_ring(store, cipher_in(tmp_path))
    path = tmp_path / "keys.toml"
    path.write_text(re.sub(r'\n1 = "[^"]*"', f'\n1 = "{key()}"', path.read_text()))
    with pytest.raises(Misconfigured, match="another key 1 was used"):
        await check_ring(store, load_keys(path))


async def test_a_server_is_not_started_with_the_ring_of_another_database(tmp_path):
    config = write_site(tmp_path, "http://127.0.0.1:1/fhir")
    first = Sidecar(load(config))
    await first.start()
    await first.close()
    shutil.move(tmp_path / "keys.toml", tmp_path / "moved.toml")
    new_keys(tmp_path / "keys.toml")
    second = Sidecar(load(config))
    with pytest.raises(Misconfigured, match=r"store\.key_file"):
        await second.start()
    await second.close()


async def test_what_a_newer_ring_sealed_is_left_by_an_older_one_and_never_buried(store, tmp_path):
    newer, older = (EventBox(store, ring) for ring in (grown(tmp_path), cipher_in(tmp_path)))
    await newer.record(Event("observation", 0.0, Reference("Observation", "o1", "1"), "t"))
    now = time.time()
    for n in range(100):
        assert await older.claim(f"old{n}", now + n * 60, 60) == []
    assert [dict(r) for r in await store.read(STATES)] == [{"state": "pending", "reason": None}]
    (event,) = await newer.claim("new", now + 6000, 60)
    assert (event.focus.id, event.attempts) == ("o1", 1)

    works = [WorkBox(store, ring) for ring in (grown(tmp_path), cipher_in(tmp_path))]
    await store.commit(*newer.routed(event, [(PatientId("p1"), A)], now))
    for n in range(100):
        assert await works[1].claim(f"old{n}", now + 6000 + n * 60, 60, 16) == []
    assert [r["state"] for r in await store.read(STATES)] == ["routed"]


async def test_a_server_that_was_away_while_its_key_was_retired_seals_nothing_more(store, tmp_path):
    ours = cipher_in(tmp_path)
    await check_ring(store, ours)
    await look_at_ring(store, ours)
    assert ours.seal("a.b", b"row", b"x")
    await check_ring(store, grown(tmp_path))
    await store.commit(Step(Statement("retire", "UPDATE ring SET retired_at = 1.0 WHERE name = 'key 1'")))
    await look_at_ring(store, ours)
    with pytest.raises(NotStored, match="key_retired"):
        ours.seal("a.b", b"row", b"x")
    with pytest.raises(NotStored, match="key_retired"):
        await EventBox(store, ours).record(Event("observation", 1.0, Reference("Observation", "o1")))


class Clock:
    """Seconds that pass only when a test says so."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


async def test_a_server_that_was_cut_off_looks_at_the_ring_before_it_seals_again(tmp_path):
    with open_store(tmp_path, "postgres") as shared:
        cipher_in(tmp_path)
        clock = Clock()
        ours = Cipher(read_keys(tmp_path / "keys.toml"), tmp_path / "keys.toml", clock)
        await check_ring(shared, ours)
        clock.now += VOUCHED_S
        assert ours.seal("a.b", b"row", b"x")
        clock.now += 0.1
        await shared.commit(Step(Statement("retire", "UPDATE ring SET retired_at = 1.0 WHERE name = 'key 1'")))
        with pytest.raises(NotStored, match="ring_not_seen"):
            ours.seal("a.b", b"row", b"x")
        with pytest.raises(NotStored, match="ring_not_seen"):
            await EventBox(shared, ours).record(Event("observation", 1.0, Reference("Observation", "o1")))
        await look_at_ring(shared, ours)
        with pytest.raises(NotStored, match="key_retired"):
            ours.seal("a.b", b"row", b"x")


async def test_a_server_that_was_cut_off_seals_on_when_its_key_is_still_good(tmp_path):
    with open_store(tmp_path, "postgres") as shared:
        cipher_in(tmp_path)
        clock = Clock()
        ours = Cipher(read_keys(tmp_path / "keys.toml"), tmp_path / "keys.toml", clock)
        await check_ring(shared, ours)
        clock.now += 3_600.0
        await look_at_ring(shared, ours)
        assert ours.seal("a.b", b"row", b"x")


async def test_alone_with_a_file_nobody_else_can_have_retired_a_key(tmp_path):
    with open_store(tmp_path, "sqlite") as own:
        cipher_in(tmp_path)
        clock = Clock()
        ours = Cipher(read_keys(tmp_path / "keys.toml"), tmp_path / "keys.toml", clock)
        await check_ring(own, ours)
        clock.now += 3_600.0
        assert ours.seal("a.b", b"row", b"x")
