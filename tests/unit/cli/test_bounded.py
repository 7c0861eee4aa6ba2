"""What redrive and replay show on a terminal."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import cast

from consumer.cli.bounded import run_bounded
from consumer.cli.progress import Progress
from consumer.redrive.bounded_run import BoundedRun
from consumer.settings.sections import Settings


class Ten:
    """A run of ten records, done at once."""

    group = "group"
    joined = complete = True
    shared = False
    done = 10

    async def run(self) -> None:
        await asyncio.sleep(0)

    def stop(self) -> None: ...


class Noted(Progress):
    """Notes what is shown, in its order."""

    def __init__(self) -> None:
        super().__init__()
        self.shown: list[str] = []

    @contextmanager
    def bar(self, title: str, total: int) -> Iterator[Callable[[int], None]]:
        yield lambda count: self.shown.append(f"{title} {count}/{total}")
        self.shown.append("the bar ends")


async def test_the_summary_follows_the_bar() -> None:
    """A bar that is still drawn would overwrite lines of the summary and those before it."""
    progress = Noted()
    running = cast(BoundedRun, Ten())
    await run_bounded(Settings(), running, [], progress, "replay", 10, lambda: progress.shown.append("summary"))
    assert progress.shown[-3:] == ["replay 10/10", "the bar ends", "summary"]
