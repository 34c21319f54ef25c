"""`sidecar status`, `dead-letters` and `replay`: through a serving process's admin door, else from the database.

Its machinery is imported only when no server answers: through the door a command costs a tenth of it.
"""

import asyncio
import sys
from pathlib import Path
from typing import Any

import httpx
import orjson
from rich.console import Console
from rich.table import Table

from sidecar import settings
from sidecar.errors import Misconfigured, Unavailable
from sidecar.settings import Settings


def status(config: Path, *, as_json: bool) -> None:
    """Print how things stand."""
    found = _ask(settings.load(config), "GET", "/status")
    if as_json:
        _print(found)
        return
    console = Console()
    overview = Table(title="sidecar status", show_header=False)
    overview.add_row("events", _counts(found["events"]))
    overview.add_row("oldest event waiting", _seconds(found["oldest_event_s"]))
    overview.add_row("writes", _counts(found["writes"]))
    overview.add_row("oldest write waiting", _seconds(found["oldest_write_s"]))
    for row in found["assessments"]:
        overview.add_row(f"{row['model']}: {row['outcome']}", str(row["n"]))
    overview.add_row("to review", str(found["for_review"]))
    sign_in = found["sign_in"]
    if full := found["intake"]["full"]:
        overview.add_row("turning notifications away, full", ", ".join(full))
    if sign_in["problem"]:
        overview.add_row("no token", sign_in["problem"])
    console.print(overview)
    _print_rows(console, "Subscriptions", found["subscriptions"], ("source", "status", "reason", "watermark"))
    _print_rows(console, "Not granted by the EHR", sign_in["missing_scopes"], ("scope", "means"))
    why = [{"reason": reason, "count": count} for reason, count in found["not_scored"].items()]
    _print_rows(console, "Not scored, because", why, ("reason", "count"))


def dead_letters(config: Path, *, as_json: bool) -> None:
    """Print what was set aside."""
    found = _ask(settings.load(config), "GET", "/dead-letters")
    if as_json:
        _print(found)
    elif not found:
        sys.stdout.write("no dead letters\n")
    else:
        _print_rows(Console(), "Dead letters", found, ("kind", "id", "reason", "attempts"))


def replay(config: Path, letter: str | None) -> None:
    """Set one or all going again; say how many."""
    path = "/replay" if letter is None else f"/replay?{httpx.QueryParams({'id': letter})}"
    count = _ask(settings.load(config), "POST", path)["replayed"]
    if letter is not None and count == 0:
        raise Misconfigured([f"no dead letter has the id {letter}; see: sidecar dead-letters"])
    sys.stdout.write(f"{count} set going again\n")


def _ask(found: Settings, method: str, path: str) -> Any:
    """Through the admin socket when a server runs; otherwise open the database ourselves."""
    socket = settings.admin_socket(found)
    if socket is not None and socket.exists():
        try:
            transport = httpx.HTTPTransport(uds=str(socket))
            with httpx.Client(transport=transport, base_url="http://sidecar", timeout=30) as client:
                answer = client.request(method, path)
            if answer.status_code != httpx.codes.OK:
                raise Unavailable("the running server could not answer; its log says why")
            return orjson.loads(answer.content)
        except httpx.ConnectError:
            pass  # a socket left behind by a killed server: the database is free
        except httpx.TransportError as error:
            raise Unavailable(f"the running server did not answer ({type(error).__name__})") from None
    is_file = found.store.url.startswith("sqlite:///")
    if is_file and not Path(found.store.url.removeprefix("sqlite:///")).exists():
        raise Misconfigured([f"{found.store.url}: no such database; has the server run with this file yet?"])
    return asyncio.run(_alone(found, path))


async def _alone(found: Settings, path: str) -> Any:
    from sidecar import operations
    from sidecar.store import open_store

    store = open_store(found.store.url, settings.store_password(found.store), migrate=False)
    try:
        if path == "/status":  # nobody is signed in, and nobody listens
            alone = {"sign_in": {"problem": None, "missing_scopes": []}, "intake": {"full": []}}
            return await operations.status(store) | alone
        if path == "/dead-letters":
            return await operations.dead_letters(store)
        return {"replayed": await operations.replay(store, httpx.URL(path).params.get("id"))}
    finally:
        await asyncio.to_thread(store.close)


def _print(found: object) -> None:
    sys.stdout.write(orjson.dumps(found, option=orjson.OPT_INDENT_2).decode() + "\n")


def _print_rows(console: Console, title: str, rows: list[dict[str, Any]], columns: tuple[str, ...]) -> None:
    if not rows:
        return
    table = Table(*columns, title=title)
    for row in rows:
        table.add_row(*("" if row.get(c) is None else str(row[c]) for c in columns))
    console.print(table)


def _counts(states: dict[str, int]) -> str:
    return ", ".join(f"{n} {state}" for state, n in sorted(states.items())) or "none"


def _seconds(value: float | None) -> str:
    return "none" if value is None else f"{value:g} s"
