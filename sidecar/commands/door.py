"""How a command reaches the database: through a serving process's admin door, else by opening it.

Its machinery is imported only when no server answers: through the door a command costs a tenth of it.
"""

import asyncio
import contextlib
import socket
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import orjson

from sidecar import settings
from sidecar.errors import Misconfigured, Unavailable
from sidecar.settings import Settings

if TYPE_CHECKING:
    from sidecar.store import Cipher, Store

Ask = Callable[[str, str, Mapping[str, Any] | None], Any]
"""Method, path with query, and body; what the answer says."""


@contextlib.contextmanager
def door(found: Settings) -> Iterator[Ask]:
    """Ask as often as wanted, of one and the same.

    Raises:
        Misconfigured: there is no database, or what was asked is refused.
        Unavailable: the server does not answer.
    """
    path = settings.admin_socket(found)
    if path is not None and _answers(path):
        transport = httpx.HTTPTransport(uds=str(path))
        with httpx.Client(transport=transport, base_url="http://sidecar", timeout=120) as client:
            yield lambda method, where, body: _through(client, method, where, body)
        return
    is_file = found.store.url.startswith("sqlite:///")
    if is_file and not Path(found.store.url.removeprefix("sqlite:///")).exists():
        raise Misconfigured([f"{found.store.url}: no such database; has the server run with this file yet?"])
    from sidecar import log
    from sidecar.store import open_store

    log.configure("warning")
    store = open_store(found.store.url, settings.store_password(found.store), migrate=False)
    try:
        with asyncio.Runner() as runner:
            alone = _Alone(found, store)
            yield lambda _, where, body: runner.run(alone.answer(where, body))
    finally:
        store.close()


def _answers(path: Path) -> bool:
    """Whether somebody listens: a killed server leaves its socket behind."""
    with socket.socket(socket.AF_UNIX) as line:
        try:
            line.connect(str(path))
        except OSError:
            return False
    return True


def _through(client: httpx.Client, method: str, where: str, body: Mapping[str, Any] | None) -> Any:
    try:
        answer = client.request(method, where, content=orjson.dumps(body) if body is not None else None)
    except httpx.TransportError as error:
        raise Unavailable(f"the running server did not answer ({type(error).__name__})") from None
    if answer.status_code == httpx.codes.CONFLICT:
        raise Misconfigured(list(orjson.loads(answer.content)["problems"]))
    if answer.status_code != httpx.codes.OK:
        raise Unavailable("the running server could not answer; its log says why")
    return orjson.loads(answer.content)


class _Alone:
    """The database without a server. What needs keys reads the ring first, and nothing else does."""

    def __init__(self, found: Settings, store: "Store") -> None:
        self._found, self._store = found, store
        self._verbs: Mapping[str, Any] = {}

    async def answer(self, where: str, body: Mapping[str, Any] | None) -> Any:
        """What a server's door would say."""
        from sidecar import operations
        from sidecar.store import check_ring, load_keys

        url = httpx.URL(where)
        if url.path == "/status":  # nobody is signed in, and nobody listens
            alone = {"sign_in": {"problem": None, "missing_scopes": []}, "intake": {"full": []}}
            return await operations.status(self._store) | alone
        if url.path == "/dead-letters":
            return await operations.dead_letters(self._store)
        if url.path == "/replay":
            return {"replayed": await operations.replay(self._store, url.params.get("id"))}
        if not self._verbs:
            cipher = load_keys(self._found.store.key_file)
            said = body or {}
            await check_ring(self._store, cipher, said.get("key") if said.get("anyway") is True else None)
            self._verbs = operations.sealed_verbs(self._store, cipher)
            if url.path.startswith("/models/"):
                self._verbs = {**self._verbs, **await self._decisions(cipher)}
        return await self._verbs[url.path](body or {})

    async def _decisions(self, cipher: "Cipher") -> Mapping[str, Any]:
        """What a server would be asked of the models. Its settings decide nothing here: that is a start's to do."""
        from zoneinfo import ZoneInfo

        from sidecar.decisions import Decisions
        from sidecar.evidence import Archive
        from sidecar.fleet import Fleet
        from sidecar.registry import Registry
        from sidecar.rollout import Book

        fleet = Fleet(self._found, warm=False)  # a stop must not wait for a folder that is broken
        fleet.sort_by(cipher)
        registry = Registry(Book(self._store, cipher), fleet)
        zone = ZoneInfo(self._found.facility.time_zone)
        return Decisions(registry, Archive(self._store, cipher), zone).verbs
