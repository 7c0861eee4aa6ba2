"""The waits of one partition: for data or room, for a retry's delay, for the end of a pause, for a slot.

``concurrency`` is the number of slots. A record that waits for a retry occupies none, and needs one to be called again.
A slot that becomes free goes to such a record first, then to new records.
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
    """Where everything of a partition waits; owned by its lanes and as long-lived.

    ``runners`` counts the slots that are taken, at most ``slots``. A slot that is handed over stays counted; otherwise
    another runner could take it before its new owner runs.
    """

    def __init__(self, partition: Partition, slots: int, on_free_slot: Callable[[], None]) -> None:
        """``on_free_slot`` is called when a slot becomes free and no record waits for it."""
        self.runners = 0
        self.slots = slots
        self.queue: deque[asyncio.Future[None]] = deque()
        """Records whose delay is over and that wait for a slot."""
        self._partition = partition
        self._on_free_slot = on_free_slot
        self._woken = asyncio.Event()
        self._end = asyncio.Event()
        self._doubt: Hold | None = None

    def wake(self) -> None:
        """Wake the waiters: there may be data or room, or the partition has ended."""
        self._woken.set()
        if self._partition.ended:
            self._end.set()
            for slot in self.queue:
                if not slot.done():
                    slot.set_result(None)

    async def woken(self) -> None:
        """Return after the next ``wake``, or at once if the partition has ended."""
        self._woken.clear()
        if not self._partition.ended:
            await self._woken.wait()

    async def wait(self, seconds: float, *, own_pause: bool, has_slot: bool) -> bool:
        """Wait ``seconds``, then until no other record pauses the partition; return False once the partition has ended.

        A caller that has a slot frees it during the wait, and has one again when this returns True.
        """
        if has_slot:
            self.free_slot()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._end.wait()
        return await self._reenter(own_pause=own_pause, needs_slot=has_slot)

    async def unpaused_before_end(self) -> bool:
        """Wait until the pauses end; return False if the partition ended first.

        The caller's slot is free during the wait: the record that raised Pause needs one to be called again.
        """
        self.free_slot()
        return await self._reenter(own_pause=False, needs_slot=True)

    async def _reenter(self, *, own_pause: bool, needs_slot: bool) -> bool:
        """Wait for the end of other records' pauses and for a slot; return False, without a slot, at the end."""
        partition = self._partition
        while not partition.ended:
            if partition.pausing and not own_pause:
                await self.woken()
            elif not needs_slot:
                return True
            elif self.runners < self.slots:
                self.runners += 1
                return True
            else:
                slot = asyncio.get_running_loop().create_future()
                self.queue.append(slot)
                await slot
                if own_pause or not partition.pausing:
                    return not partition.ended
                self.free_slot()  # a record raised Pause while the slot was handed over, and may need it to be called
        return False

    def free_slot(self) -> None:
        """Free the caller's slot: hand it to a record that waits to be called again, else call ``on_free_slot``."""
        while self.queue:
            slot = self.queue.popleft()
            if not slot.done():
                slot.set_result(None)
                return
        self.runners -= 1
        self._on_free_slot()

    async def ended_before(self, task: asyncio.Task[None]) -> bool:
        """Wait for a task or the end of the partition; return whether the partition ended first."""
        end = asyncio.ensure_future(self._end.wait())
        try:
            await asyncio.wait([task, end], return_when=asyncio.FIRST_COMPLETED)
        finally:
            end.cancel()
        return not task.done()

    def doubt(self, *, doubtful: bool) -> None:
        """Pause the partition while the group may have given it to another member."""
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
        """Resume after a pause."""
        for batch in self._partition.batches:
            batch.resume()
        self._woken.set()
