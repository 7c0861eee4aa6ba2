"""The ports of a local Kafka, chosen or checked before anything is downloaded or started."""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import Iterator

from consumer.errors import LocalKafkaError


@contextlib.contextmanager
def held_ports(first: int, count: int) -> Iterator[list[int]]:
    """Hold ``count`` ports of 127.0.0.1 during the block: from ``first`` on, or free ones if ``first`` is 0.

    Raises LocalKafkaError for a port that is taken. Java binds the ports after the block, which may hold a download.
    """
    with contextlib.ExitStack() as stack:
        held = [stack.enter_context(_bound(first + i if first else 0)) for i in range(count)]
        yield [int(each.getsockname()[1]) for each in held]


def _bound(port: int) -> socket.socket:
    held = socket.socket()
    try:
        if port:  # as Java does, so that connections of a Kafka that has just ended do not block the port
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind(("127.0.0.1", port))
    except (OSError, OverflowError) as error:
        held.close()
        problem = "is taken" if getattr(error, "errno", 0) == errno.EADDRINUSE else f"cannot be used ({error})"
        raise LocalKafkaError(f"port {port} {problem} on 127.0.0.1: choose another, or 0 for a free one") from error
    return held
