"""The waits of one partition: for data or room, for a retry's time, for the end of a pause, for a runner's place.

What waits for a retry has no runner's place meanwhile, and needs one to be called again. A place that becomes free goes
to those first.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable

from consumer.partition.hold import Hold
from consumer.partition.state import Partition


class Gate:
    """Owned by the lanes of a partition, as long-lived.

    ``runners`` counts the places that are taken, at most ``places``; one that is handed over stays counted, else
    somebody else could take it before its new owner runs.
    """

    def __init__(self, partition: Partition, places: int, freed: Callable[[], None]) -> None:
        """``freed`` is told of a place that nobody waited for."""
        self.runners = 0
        self.places = places
        self.queue: deque[asyncio.Future[None]] = deque()
        """Those whose wait is over and that need a place."""
        self._partition = partition
        self._freed = freed
        self._woken = asyncio.Event()
        self._end = asyncio.Event()
        self._doubt: Hold | None = None

    def wake(self) -> None:
        """Say that there may be data, or room, or an end."""
        self._woken.set()
        if self._partition.ended:
            self._end.set()
            for place in self.queue:
                if not place.done():
                    place.set_result(None)

    async def woken(self) -> None:
        """Return when there may be something new."""
        self._woken.clear()
        if not self._partition.ended:
            await self._woken.wait()

    # -- of what failed ------------------------------------------------------------------------------------------

    async def wait(self, seconds: float, *, own_pause: bool, place: bool) -> bool:
        """Wait, and then until no other record pauses the partition; False at once when the partition has ended.

        With ``place`` the caller has a runner's place, which is free meanwhile.
        """
        if place:
            self.leave()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._end.wait()
        return await self._come_back(own_pause=own_pause, place=place)

    async def unpaused_before_end(self) -> bool:
        """Wait for pauses to end, without the caller's place: the record that says Pause needs one to get through."""
        self.leave()
        return await self._come_back(own_pause=False, place=True)

    async def _come_back(self, *, own_pause: bool, place: bool) -> bool:
        """Wait for the pauses of others to end, and for a runner's place; False at the end, and then without one."""
        partition = self._partition
        while not partition.ended:
            if partition.pausing and not own_pause:
                await self.woken()
            elif not place:
                return True
            elif self.runners < self.places:
                self.runners += 1
                return True
            else:
                mine = asyncio.get_running_loop().create_future()
                self.queue.append(mine)
                await mine
                if own_pause or not partition.pausing:
                    return not partition.ended
                self.leave()  # somebody said Pause while the place was on its way, and may need it to get through
        return False

    def leave(self) -> None:
        """Give a runner's place to whoever needs it: first to a record that waits to be called again."""
        while self.queue:
            place = self.queue.popleft()
            if not place.done():
                place.set_result(None)
                return
        self.runners -= 1
        self._freed()

    async def ended_before(self, task: asyncio.Task[None]) -> bool:
        """Wait for a task or the partition's end; whether that came first."""
        end = asyncio.ensure_future(self._end.wait())
        try:
            await asyncio.wait([task, end], return_when=asyncio.FIRST_COMPLETED)
        finally:
            end.cancel()
        return not task.done()

    # -- pauses --------------------------------------------------------------------------------------------------

    def doubt(self, *, doubtful: bool) -> None:
        """Pause everything while the group may have given the partition away."""
        partition = self._partition
        if doubtful:
            self._doubt = Hold("group", "", max(0, partition.done), time.time())
            partition.holds.add(self._doubt)
            partition.pausing += 1
        elif self._doubt is not None:
            partition.holds.discard(self._doubt)
            partition.pausing -= 1
            self.unpaused()

    def unpaused(self) -> None:
        """Go on after a pause."""
        for batch in self._partition.batches:
            batch.resume()
        self._woken.set()
