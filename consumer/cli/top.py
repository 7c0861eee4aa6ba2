"""``session-consumer top``: what daemons say of themselves, in a terminal."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import termios
import time
import tty
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import click
from rich.console import Console

from consumer.cli.options import loaded, settings_options
from consumer.cli.top_notes import Seen
from consumer.cli.top_view import live, whole
from consumer.http.ask import NoStatusError, StatusClient, status_url

PLAIN_WIDTH = 160
"""Columns of the output that does not go to a terminal."""
REDRAW_SECONDS = 1.0
SETTLE_SECONDS = 0.1
"""Answers that arrive within this time are drawn at once."""
SHORTEST, LONGEST = 0.5, 3600.0


class Watch:
    """What is known of one daemon; owned by the command and as long-lived."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.seen = Seen(url.partition("://")[2].removesuffix("/status.json"))

    async def ask(self, client: StatusClient) -> None:
        """Ask once. An answer replaces the last one; without an answer the last one stays, and is marked as old."""
        try:
            status = await client.ask(self._url)
        except NoStatusError as failure:
            since = self.seen.failing_since if self.seen.failure is not None else time.time()
            self.seen = self.seen._replace(failure=failure, failing_since=since)
        else:
            self.seen = Seen(self.seen.address, status, time.time())

    async def follow(self, client: StatusClient, interval: float, changed: asyncio.Event) -> None:
        """Ask every ``interval`` seconds, until cancelled."""
        while True:
            await self.ask(client)
            changed.set()
            await asyncio.sleep(interval)


class Screen:
    """The live view; owned by the command and as long-lived as the terminal shows it."""

    def __init__(self, console: Console, watches: Sequence[Watch]) -> None:
        self._console = console
        self._watches = watches
        self._selected: int | None = None
        self._ended = False
        self._changed = asyncio.Event()

    async def run(self, interval: float) -> None:
        """Show all daemons until ``q``, SIGINT or SIGTERM; then the terminal is as it was before."""
        async with StatusClient() as client, asyncio.TaskGroup() as tasks:
            with _signals(self._end, self._changed.set), _keys(self._press), self._console.screen() as screen:
                following = [tasks.create_task(each.follow(client, interval, self._changed)) for each in self._watches]
                while not self._ended:
                    screen.update(live(_seen(self._watches), time.time(), self._console, self._selected))
                    await self._until_changed()
            for each in following:
                each.cancel()

    async def _until_changed(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(REDRAW_SECONDS):
                await self._changed.wait()
                await asyncio.sleep(SETTLE_SECONDS)
        self._changed.clear()

    def _press(self, keys: str) -> None:
        if not keys or "q" in keys:
            self._end()
        elif keys.isdecimal() and int(keys[-1]) <= len(self._watches):
            self._selected = int(keys[-1]) - 1 if int(keys[-1]) else None
            self._changed.set()

    def _end(self) -> None:
        self._ended = True
        self._changed.set()


@click.command()
@click.argument("urls", metavar="[URL]...", nargs=-1)
@click.option("--once", is_flag=True, help="Ask once, print everything and exit.")
@click.option("--interval", type=float, default=2.0, show_default=True, help="Seconds between two questions.")
@settings_options
def top(urls: tuple[str, ...], *, once: bool, interval: float, config: Path | None, overrides: tuple[str, ...]) -> int:
    """Show the status of daemons in the terminal, the worst first.

    A URL is host:port, http://host:port or the full address of /status.json. Without one, the daemon at http.host and
    http.port of the settings is asked.

    Without a terminal the output is as with --once: plain text. It then exits with 0 if every daemon answers and no
    worst verdict is bad, else with 1. The live view ends with q, Ctrl-C or SIGTERM, and exits with 0.
    """
    if not SHORTEST <= interval <= LONGEST:
        raise click.UsageError(f"--interval {interval} is not between {SHORTEST} and {LONGEST:g} s")
    watches = [Watch(url) for url in _addresses(urls, config, overrides)]
    console = _console()
    if once or not console.is_terminal or console.is_dumb_terminal:
        asyncio.run(_ask_once(watches))
        seen = _seen(watches)
        console.print(whole(seen, time.time(), console.width), crop=False)
        return int(any(each.bad for each in seen))
    asyncio.run(Screen(console, watches).run(interval))
    return 0


def _addresses(urls: Sequence[str], config: Path | None, overrides: tuple[str, ...]) -> list[str]:
    """Return the addresses to ask, each once."""
    if not urls:
        return [status_url(loaded(config, overrides).settings.http.own_address())]
    if config is not None or overrides:
        raise click.UsageError("-c and --set name a daemon; they cannot be given beside a URL")
    found = []
    for text in urls:
        try:
            found.append(status_url(text))
        except ValueError as error:
            named = text.rpartition("@")[2]
            raise click.UsageError(
                f"{named!r} is not the address of a daemon, such as 127.0.0.1:8000; a user name is not supported"
            ) from error
    return list(dict.fromkeys(found))


def _console() -> Console:
    terminal = Console(highlight=False, markup=False, emoji=False)
    if terminal.is_terminal:
        return terminal
    return Console(highlight=False, markup=False, emoji=False, width=PLAIN_WIDTH)


async def _ask_once(watches: Sequence[Watch]) -> None:
    async with StatusClient() as client:
        await asyncio.gather(*(each.ask(client) for each in watches))


def _seen(watches: Sequence[Watch]) -> list[Seen]:
    return [each.seen for each in watches]


@contextmanager
def _signals(end: Callable[[], None], resized: Callable[[], None]) -> Iterator[None]:
    """Follow signals: SIGINT and SIGTERM end the live view, a new size redraws it. Ctrl-Z does nothing."""
    loop = asyncio.get_running_loop()
    followed = {signal.SIGINT: end, signal.SIGTERM: end, signal.SIGWINCH: resized}
    for number, follow in followed.items():
        loop.add_signal_handler(number, follow)
    before = signal.signal(signal.SIGTSTP, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGTSTP, before)
        for number in followed:
            loop.remove_signal_handler(number)


@contextmanager
def _keys(pressed: Callable[[str], None]) -> Iterator[None]:
    """Pass the keys that are pressed, without an echo; an empty text stands for a terminal that was closed."""
    if not sys.stdin.isatty():
        yield
        return
    loop, keyboard = asyncio.get_running_loop(), sys.stdin.fileno()

    def read() -> None:
        try:
            keys = os.read(keyboard, 64)
        except OSError:
            keys = b""
        pressed(keys.decode(errors="replace"))

    before = termios.tcgetattr(keyboard)
    tty.setcbreak(keyboard)
    loop.add_reader(keyboard, read)
    try:
        yield
    finally:
        loop.remove_reader(keyboard)
        termios.tcsetattr(keyboard, termios.TCSADRAIN, before)
