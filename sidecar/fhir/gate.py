"""Is the EHR there? While it is not, nothing is claimed; one probe asks until it answers."""

import asyncio
import contextlib
import time

import stamina

from sidecar import log, metrics
from sidecar.errors import Rejected, Retryable, SidecarError, Unavailable
from sidecar.fhir import capability
from sidecar.fhir.capability import Capability
from sidecar.fhir.client import EhrClient

ASK_AGAIN_S = 0.5
"""An answer this young settles for every failure of the same moment whether the EHR is away."""


class Gate:
    """Open while the EHR answers. Holds what its CapabilityStatement said."""

    def __init__(self, client: EhrClient) -> None:
        self._client = client
        self._open = asyncio.Event()
        self._open.set()
        self._probe: asyncio.Task[None] | None = None
        self._capability: Capability | None = None
        self._asking = asyncio.Lock()
        self._answered = -ASK_AGAIN_S
        metrics.EHR_AVAILABLE.set(1)

    @property
    def is_open(self) -> bool:
        """Whether the EHR answered last."""
        return self._open.is_set()

    async def ready(self) -> None:
        """Wait until the EHR is thought to be there."""
        await self._open.wait()

    async def capability(self) -> Capability:
        """What the EHR can do, asked once.

        Raises:
            Unavailable, Retryable: it did not answer.
        """
        if self._capability is None:
            self._capability = await capability.read(self._client)
        return self._capability

    async def is_away(self, why: Unavailable | Retryable) -> bool:
        """Whether the EHR is away or only `why` failed: it is asked. A Retry-After is obeyed either way."""
        if not self.is_open:
            return True
        async with self._asking:
            if not self.is_open:
                return True
            try:
                if time.monotonic() - self._answered > ASK_AGAIN_S:
                    await self._ask()
                    self._answered = time.monotonic()
            except SidecarError:
                self.shut(why)
                return True
        if why.reason.startswith("ehr_busy") and why.delay_s > 1.0:
            self.shut(why)
        return False

    async def _ask(self) -> None:
        """Ask what it can do, and whether its chart answers: some servers say the first from memory.

        Raises:
            Unavailable, Retryable: one of the two failed. A refusal is an answer.
        """
        self._capability = await capability.read(self._client)
        with contextlib.suppress(Rejected):
            await self._client.send("probe", "GET", "Patient?_count=1", ok={200, 401, 403})

    def shut(self, why: Unavailable | Retryable) -> None:
        """Stop claiming; open again when the EHR answers, not before `why.delay_s`."""
        if self._probe is not None and not self._probe.done():
            return
        self._open.clear()
        metrics.EHR_AVAILABLE.set(0)
        log.get().warning("ehr unavailable", reason=why.reason)
        self._probe = asyncio.create_task(self._until_it_answers(why.delay_s), name="ehr-probe")

    async def _until_it_answers(self, delay_s: float) -> None:
        await asyncio.sleep(delay_s)
        retries = stamina.retry_context(
            on=_wait, attempts=None, timeout=None, wait_initial=0.25, wait_max=10.0, wait_jitter=0.5
        )
        async for attempt in retries:
            with attempt:
                await self._ask()
        self._open.set()
        metrics.EHR_AVAILABLE.set(1)
        log.get().info("ehr available")

    async def close(self) -> None:
        """Stop probing."""
        if self._probe is not None:
            self._probe.cancel()


def _wait(error: Exception) -> bool | float:
    """Retry on everything that asking again may mend, honouring Retry-After."""
    if isinstance(error, Unavailable | Retryable):
        return max(error.delay_s, 0.25) if error.delay_s > 1.0 else True
    return isinstance(error, SidecarError)
