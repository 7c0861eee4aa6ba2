"""``session-consumer top`` as a command: addresses, exit codes, plain output, and the live view in a real terminal."""

from __future__ import annotations

import asyncio
import fcntl
import os
import pty
import signal
import struct
import sys
import termios
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

import msgspec
import pytest

from consumer.cli.main import run_cli
from consumer.http.server import HttpServer
from consumer.http.status import Status, Verdict
from consumer.settings.sections import Http
from tests.fakes.observed import FakeMetrics, FakeObserved, FakeStatus
from tests.process import end
from tests.statuses import AT, a_status
from tests.unit.process.consumers import a_free_port

GOOD = Verdict("Running", "good", "All is well", "", "", "", AT)
WARN = Verdict("Holding", "warn", "A route waits", "Start its server", "", "", AT)
BAD = Verdict("Halted", "bad", "A partition is halted", "Move past it", "", "", AT)


def judged(verdict: Verdict) -> Status:
    return msgspec.structs.replace(a_status(), verdicts=[verdict])


@asynccontextmanager
async def daemons(*verdicts: Verdict) -> AsyncIterator[list[str]]:
    """Serve one status for each verdict; yield the addresses."""
    async with AsyncExitStack() as stack:
        servers = [
            await stack.enter_async_context(
                HttpServer(Http(port=0), FakeObserved(), FakeMetrics(), FakeStatus(partial(judged, each)))
            )
            for each in verdicts
        ]
        yield [f"127.0.0.1:{server.port}" for server in servers]


async def run(*arguments: str) -> int:
    return await asyncio.to_thread(run_cli, ["top", *arguments])


@pytest.mark.parametrize(
    ("verdicts", "code"), [([GOOD], 0), ([WARN], 0), ([BAD], 1), ([GOOD, BAD], 1), ([GOOD, WARN], 0)]
)
async def test_once(verdicts: list[Verdict], code: int, capsys: pytest.CaptureFixture[str]) -> None:
    """It prints plain text and exits with 0 unless a verdict is bad."""
    async with daemons(*verdicts) as addresses:
        assert await run("--once", *addresses) == code
    out, err = capsys.readouterr()
    assert "\x1b" not in out
    assert all(verdict.word in out for verdict in verdicts)
    assert err == ""


async def test_one_that_does_not_answer(capsys: pytest.CaptureFixture[str]) -> None:
    """A daemon that does not answer makes the exit code 1, and the others are shown."""
    async with daemons(GOOD) as addresses:
        assert await run(*addresses, f"127.0.0.1:{a_free_port()}") == 1
    out = capsys.readouterr().out
    assert "refused the connection: nothing listens there" in out
    assert "All is well." in out


async def test_the_daemon_of_the_settings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without a URL the daemon of the settings is asked."""
    async with daemons(WARN) as (address,):
        port = address.rpartition(":")[2]
        (tmp_path / "settings.toml").write_text(f'[http]\nhost = "0.0.0.0"\nport = {port}\n')
        assert await run("-c", str(tmp_path / "settings.toml")) == 0
        assert "A route waits." in capsys.readouterr().out
        assert await run("--set", f"http.port={port}") == 0


WRONG = {
    "ftp://a": "'ftp://a' is not the address of a daemon",
    "http://me:word@worker:1": "'worker:1' is not the address of a daemon",
    "-c x.toml a:1": "-c and --set name a daemon",
    "--interval nan": "--interval nan",
    "--interval 0": "--interval 0.0",
}


@pytest.mark.parametrize("arguments", WRONG)
def test_wrong_usage(arguments: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A wrong address or option is named, without a password, and exits with 2."""
    assert run_cli(["top", *arguments.split()]) == 2
    err = capsys.readouterr().err
    assert WRONG[arguments] in err
    assert "word@" not in err


class Terminal:
    """A terminal of 80 x 24 in which ``top`` runs."""

    def __init__(self, *arguments: str) -> None:
        self.output = b""
        self.ours, self.theirs = pty.openpty()
        self.resize(80, 24)
        self.before = termios.tcgetattr(self.theirs)
        self._arguments = arguments

    def resize(self, columns: int, lines: int) -> None:
        fcntl.ioctl(self.ours, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    async def start(self) -> asyncio.subprocess.Process:
        environment = {**os.environ, "TERM": "xterm-256color"}
        for name in ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR"):
            environment.pop(name, None)
        command = [sys.executable, "-P", "-m", "consumer", "top", *self._arguments]
        tty = self.theirs
        return await asyncio.create_subprocess_exec(*command, stdin=tty, stdout=tty, stderr=tty, env=environment)

    async def until(self, text: bytes) -> None:
        """Read until the output after the last call holds a text."""
        found = b""
        while text not in found:
            found += await asyncio.to_thread(os.read, self.ours, 65_536)
        self.output += found

    async def rest(self) -> None:
        """Read what was written before the process ended."""
        os.set_blocking(self.ours, False)
        try:
            while part := os.read(self.ours, 65_536):
                self.output += part
        except OSError:  # nothing is left
            return

    def close(self) -> None:
        os.close(self.ours)
        os.close(self.theirs)


@asynccontextmanager
async def a_terminal(*arguments: str) -> AsyncIterator[tuple[Terminal, asyncio.subprocess.Process]]:
    terminal = Terminal(*arguments)
    process = await terminal.start()
    try:
        async with asyncio.timeout(60):
            yield terminal, process
    finally:
        await end(process)
        terminal.close()


ENDS: dict[str, bytes | signal.Signals] = {"q": b"q", "SIGINT": signal.SIGINT, "SIGTERM": signal.SIGTERM}


@pytest.mark.parametrize("way", ENDS)
async def test_the_live_view_leaves_the_terminal_as_it_was(way: str) -> None:
    """The live view uses the alternate screen and no echo; its end restores both, and exits with 0."""
    async with daemons(GOOD) as addresses, a_terminal(*addresses) as (terminal, process):
        await terminal.until(b"All is well.")
        assert not termios.tcgetattr(terminal.theirs)[3] & termios.ECHO
        end_it = ENDS[way]
        if isinstance(end_it, bytes):
            os.write(terminal.ours, end_it)
        else:
            process.send_signal(end_it)
        assert await process.wait() == 0
        await terminal.rest()
        assert termios.tcgetattr(terminal.theirs) == terminal.before
    for begin, ending in ((b"\x1b[?1049h", b"\x1b[?1049l"), (b"\x1b[?25l", b"\x1b[?25h")):
        assert terminal.output.count(begin) == terminal.output.count(ending) == 1
        assert terminal.output.index(begin) < terminal.output.index(ending)


async def test_the_live_view_follows_keys_size_and_answers() -> None:
    """A digit selects a daemon, a new size is used, and a daemon that goes away is shown so."""
    async with daemons(GOOD) as (first,), AsyncExitStack() as others:
        (second,) = await others.enter_async_context(daemons(BAD))
        async with a_terminal("--interval", "0.5", first, second) as (terminal, process):
            await terminal.until(b"A partition is halted.")
            os.write(terminal.ours, b"1")
            await terminal.until(b"All is well.")
            terminal.resize(120, 30)
            process.send_signal(signal.SIGWINCH)
            await terminal.until(b" " * 100)
            os.write(terminal.ours, b"0")
            await others.aclose()
            await terminal.until(b"refused the connection")
            await terminal.until(b"from the last answer of this daemon")


async def test_once_on_a_terminal() -> None:
    """With --once a terminal keeps its screen and gets the text in colours."""
    async with daemons(BAD) as addresses, a_terminal("--once", *addresses) as (terminal, process):
        await terminal.until(b"A partition is halted.")
        assert await process.wait() == 1
        await terminal.rest()
    assert b"\x1b[?1049h" not in terminal.output
    assert b"\x1b[1;37;41m Halted " in terminal.output
