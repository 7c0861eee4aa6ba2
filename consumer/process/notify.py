"""Messages to the service manager, as ``sd_notify(3)`` defines them; nothing is sent where none listens."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import MutableMapping
from typing import Protocol

VARIABLES = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")
DRAINING = "draining"
EXTENSION_SECONDS = 30.0
"""How long systemd waits for the next report while the daemon starts."""
END_SECONDS = 5.0
"""How long the process may take to end after its last report."""


class Manager(Protocol):
    """Who starts and watches a daemon: a service manager, or the parent process of several workers."""

    def ready(self, port: int) -> None:
        """Say that the daemon runs: settings, handlers and the HTTP port are in use."""

    def alive(self, state: str) -> None:
        """Say that the supervisor's thread runs, and the daemon's state; called every second, from that thread."""


class Notify:
    """Sends to the socket that systemd names in the environment, from any thread, and never waits.

    The variables are removed, so that no process that a handler starts speaks for the daemon. A message that cannot be
    sent is dropped, and what it said beside the sign of life is sent with the next one.
    """

    def __init__(self, environment: MutableMapping[str, str], stop_seconds: float = 0.0) -> None:
        """``stop_seconds`` is how long a stop may take: systemd waits that long, whatever its unit says."""
        address, *_ = [environment.pop(name, "") for name in VARIABLES]
        self._address = f"\0{address[1:]}" if address.startswith("@") else address  # "@" is an abstract address
        self._stop_seconds = stop_seconds
        self._is_ready = False
        self._heard = ("", False)
        """State and readiness of the last message that was sent."""

    def ready(self, _port: int = 0) -> None:
        """Say that the daemon runs: settings, handlers and the HTTP port are in use."""
        self._is_ready = True
        if self._send("READY=1"):
            self._heard = self._heard[0], True

    def alive(self, state: str, *, watched: bool = True) -> None:
        """Say that the supervisor's thread runs, and the daemon's state; called every second.

        The daemon's own watchdog ends a daemon that stalls, also at its start, which may take as long as the handlers
        need to open: if it is ``watched``, systemd is asked for the time. This one ends a daemon whose watchdog stands
        still.
        """
        lines, now = ["WATCHDOG=1"], (state, self._is_ready)
        if not self._is_ready:
            lines += [_extend(EXTENSION_SECONDS)] if watched else []
        elif not self._heard[1]:
            lines.append("READY=1")
        if state != self._heard[0]:
            lines.append(f"STATUS={state}")
            if state == DRAINING:
                lines += ["STOPPING=1", _extend(self._stop_seconds + END_SECONDS)]
        if self._send("\n".join(lines)):
            self._heard = now

    def _send(self, lines: str) -> bool:
        if not self._address:
            return False
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.setblocking(False)
            sender.sendto(lines.encode(), self._address)
            return True
        return False


def _extend(seconds: float) -> str:
    return f"EXTEND_TIMEOUT_USEC={int(seconds * 1_000_000)}"
