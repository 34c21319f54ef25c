"""Creates that nothing but a search guards: no two of one resource may be under way at once, whoever sends them.

A server may go on with a create after we have stopped waiting for it, and after the process that sent it has gone.
Before each of them it is therefore remembered in the database until when it may be under way. No finite time is proof;
what arrives later still is withdrawn when it is found (`sidecar.writeback.twins`).
"""

import time
from typing import Protocol

from sidecar.writeback.outbox import Outbox, QueuedWrite

MARGIN_S = 5.0


def longest_s(timeout_s: float) -> float:
    """How long a create may be under way: we wait for `timeout_s`, and give the server as long again and a margin."""
    return 2 * timeout_s + MARGIN_S


class Sending(Protocol):
    """What surrounds one such create."""

    async def begin(self) -> None:
        """Remember that it may be under way from now on, and go on only if it is ours to send.

        Raises:
            ClaimLost, TooEarly: it is not.
        """

    async def end(self) -> None:
        """What became of it is known: the next look may be at once."""


class SendingWrite:
    """The creates of a queued write."""

    def __init__(self, outbox: Outbox, write: QueuedWrite, timeout_s: float) -> None:
        self._outbox, self._write, self._longest_s = outbox, write, longest_s(timeout_s)

    async def begin(self) -> None:
        """Nobody is handed a write of this identity before the longest time has passed."""
        now = time.time()
        await self._outbox.sending(self._write, now, now + self._longest_s)

    async def end(self) -> None:
        """The identity is free again."""
        await self._outbox.sent(self._write)
