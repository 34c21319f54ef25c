"""Claims of which nobody knows whether they were made: the database went away between the claim and its answer.

They are given back before the next claim, so that the work does not wait for the end of a lease that nobody uses.
"""

import contextlib
from collections.abc import AsyncIterator

from sidecar.errors import NotStored
from sidecar.store.engine import Statement, Step, Store


class Unsure:
    """The unsure claims of one kind; `unclaim` is fenced by the claim's token, so it cannot take from anybody else."""

    def __init__(self, store: Store, unclaim: Statement) -> None:
        self._store, self._unclaim = store, unclaim
        self._tokens: set[str] = set()

    @contextlib.asynccontextmanager
    async def claiming(self, token: str) -> AsyncIterator[None]:
        """Around everything between claiming with `token` and handing out what was claimed.

        Raises:
            NotStored: as what is inside, or because an earlier claim could not be given back yet.
        """
        if before := set(self._tokens):
            await self._store.commit(Step(self._unclaim, [{"claim": one} for one in sorted(before)]))
            self._tokens -= before
        try:
            yield
        except NotStored:
            self._tokens.add(token)
            raise
