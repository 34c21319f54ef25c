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
from sidecar.store.ring import look_at_ring
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


async def test_a_ring_may_grow_and_the_older_one_is_good_for_a_restart(store, tmp_path):
    for ring in (cipher_in(tmp_path), grown(tmp_path), cipher_in(tmp_path)):
        await check_ring(store, ring)


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
