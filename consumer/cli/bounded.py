"""What ``dlq redrive`` and ``replay`` have in common: handlers are opened, progress is shown, a signal drains."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from functools import partial

from consumer.cli.progress import Progress
from consumer.errors import SettingsError
from consumer.kafka.record_writer import RecordWriter
from consumer.process.signals import Signals
from consumer.redrive.bounded_run import BoundedRun
from consumer.routes.route import Route, enter_handlers
from consumer.settings.sections import Settings

WATCH_SECONDS = 0.2
WAITING_SECONDS = 5.0


async def run_bounded(
    settings: Settings,
    running: BoundedRun,
    routes: Sequence[Route],
    progress: Progress,
    name: str,
    total: int,
    summarize: Callable[[], None],
) -> None:
    """Run to the end, or until a signal; then ``summarize``. ``name`` is that of the run in texts."""
    async with contextlib.AsyncExitStack() as opened:
        opened.enter_context(Signals(running.stop, settings.delivery.drain_seconds))
        try:
            await enter_handlers(routes, opened, partial(RecordWriter, settings))
        except SettingsError as error:
            raise SettingsError(
                f"{error} (a {name} runs the handlers in its own process; stop the daemon if it is running)"
            ) from error
        work = asyncio.ensure_future(running.run())
        with progress.bar(name, total) as report:  # it ends before the summary is printed below it
            await asyncio.wait([work], timeout=WAITING_SECONDS)
            if not running.joined and not work.done():
                progress.say(
                    f"waiting for group {running.group}: a {name} that was killed stays a member for"
                    f" kafka.session_timeout_seconds = {settings.kafka.session_timeout_seconds:g}"
                )
            while not work.done():
                report(min(running.done, total - 1))
                await asyncio.wait([work], timeout=WATCH_SECONDS)
            report(total if running.complete and not running.shared else running.done)
        try:
            work.result()
        finally:
            summarize()
            _say_rest(running, progress)


def _say_rest(running: BoundedRun, progress: Progress) -> None:
    """Say who has what this run has not done."""
    if not running.complete:
        progress.say("stopped before the end; run the same command again to go on")
    elif running.shared:
        progress.say(
            f"other members of group {running.group} have the rest; when they have ended, the same command does what"
            " they have left"
        )
