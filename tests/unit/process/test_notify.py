"""Messages to the service manager: what arrives at its socket, and what a child inherits."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from consumer.process.notify import Notify


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as found:
        found.bind(str(tmp_path / "notify"))
        found.setblocking(False)
        yield found


def received(manager: socket.socket) -> list[str]:
    lines = []
    while True:
        try:
            lines.append(manager.recv(4096).decode())
        except BlockingIOError:
            return lines


def test_what_the_manager_hears(manager: socket.socket) -> None:
    """Ready once, alive at each look, each state once, stopping with the drain and the time that it may take."""
    notify = Notify({"NOTIFY_SOCKET": manager.getsockname()}, 35.0)
    notify.ready()
    for state in ("running", "running", "draining", "draining"):
        notify.alive(state)
    assert received(manager) == [
        "READY=1",
        "WATCHDOG=1\nSTATUS=running",
        "WATCHDOG=1",
        "WATCHDOG=1\nSTATUS=draining\nSTOPPING=1\nEXTEND_TIMEOUT_USEC=40000000",
        "WATCHDOG=1",
    ]


def test_handlers_that_take_long_to_open(manager: socket.socket) -> None:
    """Until it is ready the daemon asks for more time at each look, and then no more."""
    notify = Notify({"NOTIFY_SOCKET": manager.getsockname()})
    notify.alive("starting")
    notify.alive("starting")
    notify.ready()
    notify.alive("starting")
    extension = "EXTEND_TIMEOUT_USEC=30000000"
    first, *others = received(manager)
    assert first.splitlines() == ["WATCHDOG=1", extension, "STATUS=starting"]
    assert others == [f"WATCHDOG=1\n{extension}", "READY=1", "WATCHDOG=1"]


def test_what_was_dropped_is_sent_again(tmp_path: Path) -> None:
    """A manager that did not read for a moment still hears that the daemon is ready, its state, and that it stops."""
    path = tmp_path / "notify"
    notify = Notify({"NOTIFY_SOCKET": str(path)})
    notify.ready()
    notify.alive("running")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(path))
        manager.setblocking(False)
        notify.alive("running")
        assert received(manager) == ["WATCHDOG=1\nREADY=1\nSTATUS=running"]
    path.unlink()
    notify.alive("draining")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(path))
        manager.setblocking(False)
        notify.alive("draining")
        assert "STOPPING=1" in received(manager)[0].splitlines()


def test_an_abstract_address() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind("\0session-consumer-test-notify")
        manager.setblocking(False)
        Notify({"NOTIFY_SOCKET": "@session-consumer-test-notify"}).ready()
        assert received(manager) == ["READY=1"]


def test_no_child_speaks_for_the_daemon(tmp_path: Path) -> None:
    """The variables are gone from the environment, and all others are kept."""
    environment = {"NOTIFY_SOCKET": str(tmp_path / "x"), "WATCHDOG_USEC": "1", "WATCHDOG_PID": "2", "PATH": "/bin"}
    Notify(environment)
    assert environment == {"PATH": "/bin"}


def test_a_manager_that_is_away_or_does_not_read(tmp_path: Path, manager: socket.socket) -> None:
    """A message that cannot be sent is dropped, and nothing waits."""
    Notify({"NOTIFY_SOCKET": str(tmp_path / "nobody")}).ready()
    full = Notify({"NOTIFY_SOCKET": manager.getsockname()})
    for _ in range(10_000):
        full.alive("running")
    assert 0 < len(received(manager)) < 10_000
    Notify({}).ready()
