"""Messages to the service manager, as ``sd_notify(3)`` defines them; nothing is sent where none listens."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import MutableMapping
from typing import Protocol

VARIABLES = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")
DRAINING = "draining"


class Manager(Protocol):
    """Who starts and watches a daemon: a service manager, or the parent process of several workers."""

    def ready(self, port: int) -> None:
        """Say that the daemon runs: settings, handlers and the HTTP port are in use."""

    def alive(self, state: str) -> None:
        """Say that the supervisor's thread runs, and the daemon's state; called every second, from that thread."""


class Notify:
    """Sends to the socket that systemd names in the environment, from any thread, and never waits.

    The variables are removed, so that no process that a handler starts speaks for the daemon. A message that cannot be
    sent is dropped: systemd then acts as if the daemon had not sent it.
    """

    def __init__(self, environment: MutableMapping[str, str]) -> None:
        address, *_ = [environment.pop(name, "") for name in VARIABLES]
        self._address = f"\0{address[1:]}" if address.startswith("@") else address  # "@" is an abstract address
        self._state = ""

    def ready(self, _port: int = 0) -> None:
        """Say that the daemon runs: settings, handlers and the HTTP port are in use."""
        self._send("READY=1")

    def alive(self, state: str) -> None:
        """Say that the supervisor's thread runs, and the daemon's state; called every second.

        The daemon's own watchdog ends a daemon that stalls. This one ends a daemon whose watchdog stands still.
        """
        lines = ["WATCHDOG=1"]
        if state != self._state:
            lines += [f"STATUS={state}", *(["STOPPING=1"] if state == DRAINING else [])]
        self._state = state
        self._send("\n".join(lines))

    def _send(self, lines: str) -> None:
        if not self._address:
            return
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.setblocking(False)
            sender.sendto(lines.encode(), self._address)
