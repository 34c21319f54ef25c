"""A sidecar in which everything raises now and then, with a planted value in whatever an exception can carry.

`python -m tests.campaigns.raising serve --config FILE`, in place of `python -m sidecar`. Every place raises in some of its
calls, from the first notification on; the file that RAISED names says which have.
"""

import functools
import importlib
import os
import sqlite3
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any

import aiohttp

from sidecar import cli
from sidecar.records import Event
from sidecar.web import notifications
from tests.campaigns.leaks import Canary
from tests.campaigns.planted import Planter

PLACES = (
    "aiohttp:ClientSession.request", "sidecar.fhir.client:EhrClient.send", "sidecar.fhir.client:EhrClient.read",
    "sidecar.fhir.client:EhrClient.search", "sidecar.fhir.gate:Gate.capability", "sidecar.store.sqlite:SqliteStore.commit",
    "sidecar.store.sqlite:SqliteStore.read", "sidecar.store.cipher:Cipher.seal", "sidecar.store.cipher:Cipher.open",
    "sidecar.store.cipher:Cipher.token", "sidecar.scoring.model:LoadedModel.score", "sidecar.features.extract:Extractor.run",
    "sidecar.pipeline:deidentify", "sidecar.pipeline:explain", "sidecar.evidence.archive:Archive.store",
    "sidecar.evidence.archive:Archive.find", "sidecar.evidence.archive:Archive.in_force",
    "sidecar.evidence.archive:Archive.content", "sidecar.evidence.archive:Archive.owners",
    "sidecar.context.reader:ContextReader.read", "sidecar.writeback.deliver:Deliverer.deliver",
    "sidecar.writeback.deliver:risk_assessment", "sidecar.writeback.outbox:Outbox.claim",
    "sidecar.writeback.outbox:Outbox.waits", "sidecar.inbox.events:EventBox.claim", "sidecar.inbox.events:EventBox.recorded",
    "sidecar.inbox.work:WorkBox.claim", "sidecar.inbox.inflow:Inflow.full", "sidecar.inbox.inflow:Inflow.look",
    "sidecar.web.notifications:read_put", "sidecar.web.notifications:read_bundle", "sidecar.web.notifications:refusal",
    "sidecar.web.door:Guest.data_received", "sidecar.intake.hook_secrets:HookSecrets.allows",
    "sidecar.intake.catch_up:CatchUp.run", "sidecar.intake.follower:Follower.follow", "sidecar.duties:review",
    "sidecar.operations:refresh_gauges", "sidecar.operations:status", "sidecar.store.leases:Leases.beat",
    "sidecar.store.sqlite:rows_of", "sidecar.store.group:rows_of",
)  # fmt: skip
EVERY, FIRST, TIMES = 7, 3, 3
"""A place raises in its third call, in every seventh after that, and three times in all: others are behind it."""
_armed: list[bool] = []


class Telling(Exception):
    """Whatever is asked of it, it says what it holds."""

    def __init__(self, said: str) -> None:
        super().__init__(said)
        self.said = self.detail = self.filename = said

    def __repr__(self) -> str:
        return self.said

    __str__ = __repr__


def _caused(said: str) -> Exception:
    error = RuntimeError(said)
    error.add_note(said)
    error.__cause__ = KeyError(said)
    return error


KINDS: tuple[Callable[[str], Exception], ...] = (
    ValueError, KeyError, Telling, _caused, sqlite3.OperationalError, aiohttp.ClientError,
    lambda said: OSError(2, said, said), lambda said: UnicodeDecodeError("utf-8", said.encode(), 0, 1, said),
    lambda said: ExceptionGroup(said, [ValueError(said)]), AssertionError,
)  # fmt: skip


DRIVERS: Mapping[str, tuple[Callable[[str], Exception], ...]] = {
    "aiohttp:ClientSession.request": (aiohttp.ClientError, lambda said: OSError(2, said, said), TimeoutError),
    "sidecar.store.sqlite:rows_of": (sqlite3.OperationalError, sqlite3.DatabaseError),
    "sidecar.store.group:rows_of": (sqlite3.OperationalError, sqlite3.IntegrityError),
}
"""What a driver raises by itself, and what is caught by its kind."""


def planted() -> list[Canary]:
    """What the exceptions carry, one for each place."""
    planter = Planter(Random("raising"))
    for place in PLACES:
        planter.id(place)
    return planter.canaries


def raised(file: Path) -> set[str]:
    """The places that have raised."""
    return set(file.read_text().splitlines()) if file.exists() else set()


def arm(place: str, said: str, kinds: Sequence[Callable[[str], Exception]]) -> None:
    """Let `place` raise in some of its calls, a kind after the other."""
    module, _, path = place.partition(":")
    *outer, name = path.split(".")
    owner = functools.reduce(getattr, outer, importlib.import_module(module))
    original, calls = getattr(owner, name), [0]

    @functools.wraps(original)
    def raising(*args: Any, **kwargs: Any) -> Any:
        calls[0] += bool(_armed)
        if calls[0] % EVERY == FIRST and calls[0] < EVERY * TIMES:
            calls[0] += 1
            with Path(os.environ["RAISED"]).open("a") as file:
                file.write(f"{place}\n")
            raise kinds[calls[0] // EVERY % len(kinds)](said)
        return original(*args, **kwargs)

    setattr(owner, name, raising)


def main() -> None:
    """Everything raises from the first notification on: the EHR has made its Subscriptions then."""
    read_put = notifications.read_put

    def heard(*given: Any) -> Event:
        _armed.append(True)
        return read_put(*given)

    notifications.read_put = heard
    for number, canary in enumerate(planted()):
        arm(canary.path, canary.value, DRIVERS.get(canary.path, KINDS[number % len(KINDS) :] + KINDS))
    cli.main()


if __name__ == "__main__":
    sys.exit(main())
