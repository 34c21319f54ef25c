"""A create that only a search guards: announced before it leaves, and over only when its outcome is known."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from sidecar.errors import ClaimLost, SidecarError
from sidecar.fhir import capability
from sidecar.fhir.auth import NoCredentials
from sidecar.fhir.client import EhrClient
from sidecar.sandbox.ehr import Capabilities, PracticeEhr
from sidecar.writeback import LadderWriter
from tests.harness import patient, until

RISK: dict[str, Any] = {
    "resourceType": "RiskAssessment",
    "id": "not-used",
    "identifier": [{"system": "urn:tests:sending", "value": "one"}],
    "status": "final",
    "subject": {"reference": "Patient/p"},
}
POST = ("POST", "RiskAssessment")


class Noted:
    """Notes what it was told, and how many creates the EHR had heard of when it was."""

    def __init__(self, ehr: PracticeEhr) -> None:
        self._ehr = ehr
        self.told: list[tuple[str, int]] = []

    async def begin(self) -> None:
        self.told.append(("begin", self._ehr.requests[POST]))

    async def end(self) -> None:
        self.told.append(("end", self._ehr.requests[POST]))


@contextlib.asynccontextmanager
async def chart(timeout_s: float = 5.0) -> AsyncIterator[tuple[PracticeEhr, LadderWriter]]:
    ehr = PracticeEhr(capabilities=Capabilities(update_create=False, conditional_create=False))
    await ehr.start()
    client = EhrClient(ehr.base_url, NoCredentials(), timeout_s=timeout_s, connections=2)
    try:
        await ehr.write(patient("p"))
        yield ehr, LadderWriter(client, await capability.read(client))
    finally:
        await client.close()
        await ehr.stop()


async def test_a_create_is_announced_before_it_is_sent_and_over_when_it_is_answered():
    async with chart() as (ehr, writer):
        noted = Noted(ehr)
        await writer.write(RISK, None, noted, look_first=False)
        assert noted.told == [("begin", 0), ("end", 1)]
        await writer.write(RISK, None, noted, look_first=True)
        assert len(noted.told) == 2


@pytest.mark.parametrize(("status", "known"), [(422, True), (409, True), (500, False), (503, False), (429, False)])
async def test_a_refusal_is_known_and_a_failure_is_not(status, known):
    async with chart() as (ehr, writer):
        ehr.faults.fail_next(1, status, only="POST RiskAssessment")
        noted = Noted(ehr)
        with pytest.raises(SidecarError):
            await writer.write(RISK, None, noted, look_first=False)
        assert [what for what, _ in noted.told] == ["begin", "end"][: 1 + known]


async def test_a_create_whose_answer_is_lost_is_not_over():
    async with chart() as (ehr, writer):
        ehr.faults.drop_reply_next(1, only="POST RiskAssessment")
        noted = Noted(ehr)
        with pytest.raises(SidecarError):
            await writer.write(RISK, None, noted, look_first=False)
        assert (len(ehr.all("RiskAssessment")), noted.told) == (1, [("begin", 0)])


async def test_nothing_is_sent_by_who_must_not_and_by_who_was_held_up_for_too_long():
    async with chart(timeout_s=0.5) as (ehr, writer):

        class Lost(Noted):
            async def begin(self) -> None:
                raise ClaimLost("claim_lost:write")

        class Slow(Noted):
            async def begin(self) -> None:
                began = asyncio.get_running_loop().time()
                await until(lambda: asyncio.get_running_loop().time() > began + 0.5)

        for sending, reason in ((Lost(ehr), "claim_lost:write"), (Slow(ehr), "too_late:create")):
            with pytest.raises(SidecarError, match=reason):
                await writer.write(RISK, None, sending, look_first=False)
        assert ehr.requests[POST] == 0
