"""The ``Host`` headers that are answered. Without a check a page of another site could read ours (DNS rebinding)."""

from __future__ import annotations

import ipaddress
import re

from consumer.settings.sections import Http

HOST = re.compile(r"\[([0-9a-f:.]+)\](?::[0-9]*)?|([^:]*)(?::[0-9]*)?")
"""An address of IPv6 in brackets or a name, each with or without a port."""


class Hosts:
    """Names under which the HTTP server answers, from its settings.

    The names of this machine and those of ``http.allowed_hosts`` are answered. Without the latter a server on another
    address than a loopback one answers to every name.
    """

    def __init__(self, http: Http) -> None:
        self._every = not (http.allowed_hosts or _is_loopback(http.host.lower()))
        self._names = frozenset(map(host_of, (http.host, *http.allowed_hosts)))

    def answers(self, header: str | None) -> bool:
        """Whether a request with this ``Host`` header is answered; browsers always send one."""
        if self._every or header is None:
            return True
        host = host_of(header)
        return host in self._names or _is_loopback(host)


def host_of(header: str) -> str:
    """Return the host of a header, without port, brackets and the dot at its end; what is no host is left as it is."""
    host = header.strip().lower()
    found = HOST.fullmatch(host)
    return (found[1] or found[2] if found else host).rstrip(".")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
