"""The pump's own promises: an end within its time, and every owed claim given back once."""

import asyncio
import time

from sidecar.errors import NotStored
from sidecar.pump import CUT_S, Pump, Verbs
from tests.harness import until


class Desk:
    """What a pump works with: `todo` is claimed once, nothing can be stored, and releases wait for `open`."""

    def __init__(self, todo: list[int]) -> None:
        self.todo, self.released, self.begun = todo, list[int](), 0
        self.open = asyncio.Event()
        self.pump = Pump(
            "desk",
            4,
            60.0,
            self.ready,
            Verbs(self.claim, self.run, self.bury, self.release, self.extend, self.ready_to_claim),
        )

    async def ready(self) -> None:
        """Always."""

    async def claim(self, _: int) -> list[int]:
        claimed, self.todo = self.todo, []
        return claimed

    async def run(self, _: int) -> None:
        raise NotStored("store:away")

    async def bury(self, item: int, reason: str) -> None:
        raise AssertionError((item, reason))

    async def release(self, item: int) -> None:
        self.begun += 1
        await self.open.wait()
        await asyncio.sleep(0)
        self.released.append(item)

    async def extend(self, items: list[int]) -> None:
        """Nothing to extend."""

    async def ready_to_claim(self) -> bool:
        """As long as there is something."""
        return bool(self.todo)


async def test_a_stop_while_owed_claims_are_given_back_gives_each_back_once():
    for owed in ([1], [1, 2, 3]):
        desk = Desk(list(owed))
        running = asyncio.ensure_future(desk.pump.run())
        await until(lambda desk=desk: desk.begun == 1)
        stopping = asyncio.ensure_future(desk.pump.stop(5.0))
        await until(lambda desk=desk, owed=owed: desk.begun == min(2, len(owed)))
        desk.open.set()
        await asyncio.gather(stopping, running)
        assert sorted(desk.released) == owed


async def test_a_stop_ends_in_time_although_no_claim_can_be_given_back():
    desk = Desk([1, 2])
    running = asyncio.ensure_future(desk.pump.run())
    await until(lambda: desk.begun == 1)
    began = time.monotonic()
    await desk.pump.stop(0.2)
    assert time.monotonic() - began < 0.2 + CUT_S + 1.0
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert desk.released == []


async def test_a_stop_ends_in_time_although_a_claim_hangs():
    desk = Desk([])
    hangs, asked = asyncio.Event(), asyncio.Event()

    async def claim(_: int) -> list[int]:
        asked.set()
        await hangs.wait()
        return []

    async def always() -> bool:
        return True

    pump = Pump("desk", 4, 60.0, desk.ready, Verbs(claim, desk.run, desk.bury, desk.release, desk.extend, always))
    running = asyncio.ensure_future(pump.run())
    await asked.wait()
    began = time.monotonic()
    await pump.stop(0.2)
    assert time.monotonic() - began < 0.2 + CUT_S + 1.0
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_a_look_that_fails_in_a_way_nobody_expected_does_not_end_the_pump():
    desk = Desk([])
    claimed = asyncio.Event()

    async def broken() -> bool:
        raise KeyError("unexpected")

    async def claim(_: int) -> list[int]:
        claimed.set()
        return []

    pump = Pump("desk", 4, 60.0, desk.ready, Verbs(claim, desk.run, desk.bury, desk.release, desk.extend, broken))
    running = asyncio.ensure_future(pump.run())
    await asyncio.wait_for(claimed.wait(), 5.0)
    assert not running.done()
    await pump.stop(0.1)
    await running
