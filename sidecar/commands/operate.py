"""`sidecar status`, `dead-letters` and `replay`: through a serving process's admin door, else from the database."""

import sys
from pathlib import Path
from typing import Any

import httpx
import orjson
from rich.console import Console
from rich.table import Table

from sidecar import settings
from sidecar.commands.door import door
from sidecar.errors import Misconfigured
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
    if found["writes_stopped"]:
        overview.add_row("writing", "stopped everywhere: sidecar models history")
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
    with door(found) as ask:
        return ask(method, path, None)


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
