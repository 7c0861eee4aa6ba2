"""A worker's connection to its parent process: it reports there, and ends with it."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from consumer.process.children import keep_socket_from_children

EXIT_CODE = 0
"""Of a worker that is stopped before it has begun anything."""


class Lifeline:
    """Implements ``Manager`` for a worker; made before its handlers are imported, as long-lived as the process.

    The parent closes its end to stop the worker, and the system closes it when the parent is killed: no worker outlives
    its parent for longer than a drain takes. A thread waits for that, because a handler may block the event loop.
    Reports never wait; one that cannot be sent is dropped.
    """

    def __init__(self, descriptor: int) -> None:
        """Take over the worker's end of the connection, which no child has."""
        os.set_inheritable(descriptor, False)
        self._socket = socket.socket(fileno=descriptor)
        keep_socket_from_children(self._socket)
        self._stop: Callable[[], object] = _leave
        threading.Thread(target=self._wait, name="session-consumer-parent", daemon=True).start()

    @contextmanager
    def stopping(self, stop: Callable[[], object]) -> Iterator[None]:
        """Call ``stop`` when the parent has ended or wants the worker to stop; without it the process exits at once."""
        self._stop = stop
        try:
            yield
        finally:
            self._stop = lambda: None

    def ready(self, port: int) -> None:
        """Report that HTTP is served on a port, and that the handlers are open."""
        self._send(f"ready {port}\n")

    def alive(self, state: str) -> None:
        """Report that the supervisor's thread runs, and the daemon's state."""
        self._send(f"alive {state}\n")

    def _send(self, line: str) -> None:
        with contextlib.suppress(OSError):
            self._socket.send(line.encode(), socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)

    def _wait(self) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())  # they must reach the main thread
        with contextlib.suppress(OSError):
            while self._socket.recv(1):
                pass
        self._stop()


def _leave() -> None:
    os._exit(EXIT_CODE)
