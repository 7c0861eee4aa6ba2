"""The listening sockets of the HTTP server; ``check`` opens the same ones."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from typing import Any

from consumer.errors import ConsumerError
from consumer.settings.sections import Http

NO_SUCH_FAMILY = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
"""Errors of an address family that this machine does not use, though its names have such addresses."""


def listen(http: Http) -> list[socket.socket]:
    """Return a listening socket for each address of ``http.host``, all on one port; ``::`` answers IPv4 too.

    Raises ConsumerError that names the address.
    """
    opened: list[socket.socket] = []
    missing: OSError | None = None
    with contextlib.ExitStack() as until_all:
        try:
            for family, address in _addresses(http):
                try:
                    port = opened[0].getsockname()[1] if opened else http.port
                    opened.append(until_all.enter_context(_bound(family, (address[0], port, *address[2:]))))
                except OSError as error:
                    if error.errno not in NO_SUCH_FAMILY:
                        raise
                    missing = error
            if missing is not None and not opened:
                raise missing
        except (OSError, UnicodeError, ValueError) as error:
            number = error.errno if isinstance(error, OSError) else None
            why = os.strerror(number) if number and number > 0 else getattr(error, "strerror", None) or error
            raise ConsumerError(
                f"http.host, http.port: cannot listen on {http.address()} ({why}); choose another port, or 0 for a free"
                " one"
            ) from error
        until_all.pop_all()
    return opened


def _addresses(http: Http) -> list[tuple[socket.AddressFamily, Any]]:
    """Return the addresses of the host, each once. Raises OSError for a name that has none."""
    found = socket.getaddrinfo(http.host, http.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    return list(dict.fromkeys((family, address) for family, _, _, _, address in found))


def _bound(family: socket.AddressFamily, address: Any) -> socket.socket:
    both = family == socket.AF_INET6 and address[0] == "::" and socket.has_dualstack_ipv6()
    return socket.create_server(address, family=family, dualstack_ipv6=both)
