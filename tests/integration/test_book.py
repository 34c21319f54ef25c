"""The log of transitions in a real database: appended to, never changed, the same for everybody who reads it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from zoneinfo import ZoneInfo

import pytest

from sidecar.decisions import Decisions
from sidecar.errors import Misconfigured, NotStored
from sidecar.evidence import Archive
from sidecar.fleet import Fleet
from sidecar.registry import Registry
from sidecar.rollout import UNSURE, Ask, Book, Changed, Version, What, stand
from sidecar.settings import load
from sidecar.store import Statement, Step, Store, open_store
from tests import harness
from tests.harness import ENGINES, cipher_in, until, write_site
from tests.postgres import Line, cluster, fetch, new_database, skip_when_missing, wait_for

V1, V2 = Version("1.0.0", "1" * 64), Version("2.0.0", "2" * 64)


@pytest.fixture(params=ENGINES)
def store(tmp_path, request) -> Iterator[Store]:
    with harness.open_store(tmp_path, request.param) as opened:
        yield opened


@pytest.fixture
def book(store, tmp_path) -> Book:
    return Book(store, cipher_in(tmp_path))


def saying(what: What, version: Version | None = None, **more):
    async def decide(_):
        return Ask(what, "news2", "Dr A", "because", version, **more)

    return decide


async def test_what_was_appended_is_read_back_by_another_process_as_it_was_said(store, book, tmp_path):
    await book.append(saying(What.CANARY, V1, percent=2.5, by="unit", evidence="minutes", override="a trial"))
    await book.append(saying(What.STOP_WRITES))
    other = Book(store, cipher_in(tmp_path))
    entries = await other.read()
    assert entries == book.entries
    assert entries[0].ask == Ask(What.CANARY, "news2", "Dr A", "because", V1, 2.5, "unit", "minutes", "a trial")
    assert [e.number for e in entries] == [1, 2]
    assert await other.read() == []


async def test_of_many_who_append_at_once_each_sees_what_the_others_did(store, tmp_path):
    books = [Book(store, cipher_in(tmp_path)) for _ in range(6)]
    seen: list[int] = []

    async def append(book: Book) -> None:
        async def decide(_):
            seen.append(len(book.entries))
            return Ask(What.STOP_WRITES, "", "Dr A", "because")

        await book.append(decide)

    await asyncio.gather(*(append(book) for book in books))
    entries = await books[0].from_the_first()
    assert [e.number for e in entries] == [1, 2, 3, 4, 5, 6]
    assert set(range(6)) <= set(seen)


async def test_looks_side_by_side_take_each_entry_once(store, tmp_path):
    writer, reader = Book(store, cipher_in(tmp_path)), Book(store, cipher_in(tmp_path))
    for _ in range(5):
        await writer.append(saying(What.STOP_WRITES))
        await asyncio.gather(*(reader.read() for _ in range(8)))
    assert reader.entries == writer.entries


@pytest.mark.parametrize(
    "tampering",
    [
        "UPDATE transition SET why = 'another' WHERE number = 2",
        "UPDATE transition SET who = 'Dr B' WHERE number = 1",
        "UPDATE transition SET at = at - 60 WHERE number = 3",
        "UPDATE transition SET model_digest = model_digest || '0' WHERE number = 2",
        "UPDATE transition SET percent = 50 WHERE number = 2",
        "DELETE FROM transition WHERE number = 2",
        "DELETE FROM transition WHERE number = 1",
        "DELETE FROM transition WHERE number = 3",
        "UPDATE transition SET number = number + 10 WHERE number = 3",
    ],
)
async def test_an_entry_that_was_changed_removed_or_moved_is_found_out(store, book, tampering):
    for version in (V1, V2, V1):
        await book.append(saying(What.SHADOW, version))
    await store.commit(Step(Statement("tamper", tampering)))
    with pytest.raises(Changed):
        await book.from_the_first()


async def test_an_entry_made_without_the_key_is_not_believed(store, book, tmp_path):
    await book.append(saying(What.SHADOW, V1))
    stranger = tmp_path / "stranger"
    stranger.mkdir()
    forger = Book(store, cipher_in(stranger))
    with pytest.raises(Changed):
        await forger.read()
    columns = "at, what, model, version, model_digest, percent, by_what, who, why, evidence, override_reason"
    forged = f"INSERT INTO transition (number, {columns}, previous, digest) SELECT 2, {columns}, digest, digest FROM transition"
    await store.commit(Step(Statement("forge", forged)))
    with pytest.raises(Changed):
        await book.read()


async def test_a_version_keeps_the_digest_that_it_was_first_seen_with(book):
    await book.seen("news2", V1)
    await book.seen("news2", V1)
    await book.seen("news2", V2)
    with pytest.raises(Misconfigured, match="a changed model needs a new version"):
        await book.seen("news2", Version("1.0.0", "f" * 64))
    await book.seen("other", Version("1.0.0", "f" * 64))


async def test_one_who_decides_nothing_appends_nothing(book):
    async def nothing(_):
        return None

    assert await book.append(nothing) is None
    assert stand(await book.from_the_first()).models == {}


async def test_an_entry_whose_answer_was_lost_is_found_in_the_log_and_not_made_again(tmp_path):
    async with losing_answers() as (store, line, url):
        book = Book(store, cipher_in(tmp_path))
        await book.append(saying(What.PROMOTE, V1))
        asked = asyncio.create_task(book.append(muting(line)))
        await until(lambda: entries_in(url) == 2)
        line.mute = False
        entry = await asked
        assert (entry.number, entry.ask.what) == (2, What.ROLLBACK)
        assert len(await book.from_the_first()) == 2


async def test_who_cannot_learn_whether_a_decision_was_recorded_is_told_to_look_before_repeating_it(tmp_path):
    async with losing_answers() as (store, line, url):
        book = Book(store, cipher_in(tmp_path))
        await book.append(saying(What.PROMOTE, V1))
        with pytest.raises(NotStored) as told:
            await book.append(muting(line))
        assert told.value.reason == UNSURE
        assert entries_in(url) == 2
        line.mute = False
        assert [e.ask.what for e in await book.from_the_first()] == [What.PROMOTE, What.ROLLBACK]


async def test_the_door_says_to_look_before_a_decision_is_repeated_that_may_be_recorded(tmp_path):
    class Muting(Book):
        async def append(self, decide):
            async def decided(now):
                line.mute = True
                return await decide(now)

            return await super().append(decided)

    site = load(write_site(tmp_path, "http://127.0.0.1:1/fhir"))
    cipher = cipher_in(tmp_path)
    async with losing_answers() as (store, line, _):
        await Book(store, cipher).append(saying(What.SHADOW, V1))
        registry = Registry(Muting(store, cipher), Fleet(site, warm=False))
        people = Decisions(registry, Archive(store, cipher), ZoneInfo("Europe/London"))
        with pytest.raises(Misconfigured, match="before you repeat it, look at what stands"):
            await people.transition({"what": "stop-writes", "who": "Dr A", "why": "because"})


def muting(line: Line):
    """A decision after which the database is heard no more."""

    async def decide(_):
        line.mute = True
        return Ask(What.ROLLBACK, "news2", "Dr A", "because")

    return decide


def entries_in(url: str) -> int:
    return wait_for(fetch(url, "SELECT count(*) FROM transition"))[0][0]


@contextlib.asynccontextmanager
async def losing_answers() -> AsyncIterator[tuple[Store, Line, str]]:
    """A database, the line to it, and its own URL."""
    skip_when_missing()
    line = Line()
    with new_database() as url:
        store = await asyncio.to_thread(open_store, await line.open(url, cluster().port))
        try:
            yield store, line, url
        finally:
            await asyncio.to_thread(store.close)
            await line.close()
