"""Asks a daemon for its status over HTTP, within bounds of time and size.

The answer is foreign data: another program may listen there. Nothing of an answer that is no status is kept, and the
text of a status is freed from control characters, which a terminal would follow.
"""

from __future__ import annotations

from typing import Any, Self
from urllib.parse import urlsplit, urlunsplit

import aiohttp
import msgspec

from consumer.errors import ConsumerError
from consumer.http.status import Status
from consumer.settings.sections import Http, address_of

SECONDS = 3.0
"""Limit of one question, from the connection to the last byte of the answer."""
MAX_BYTES = 16 * 2**20
MAX_REASON_BYTES = 4096
LEAST, MOST = -1e9, 1e11
"""Bounds of times and rates; a time beyond them has no date."""

RUNS = "Check that the daemon runs, and that its `http.host` and `http.port` are these."
ROUTES = "Check the address, routes and firewalls."
FAILURES: list[tuple[type[Exception], tuple[str, str, str]]] = [
    (TimeoutError, ("Timed out", f"did not answer within {SECONDS:g} s", ROUTES)),
    (
        aiohttp.ClientConnectorDNSError,
        ("Unknown name", "has a host name that is unknown here", "Correct the name or the DNS."),
    ),
    (
        aiohttp.ClientSSLError,
        ("TLS failed", "did not complete the TLS handshake", "Check the scheme of the address, and the certificate."),
    ),
    (ConnectionRefusedError, ("Refused", "refused the connection: nothing listens there", RUNS)),
    (ConnectionResetError, ("Closed", "closed the connection without an answer", RUNS)),
    (aiohttp.ServerConnectionError, ("Closed", "closed the connection without an answer", RUNS)),
    (aiohttp.ClientPayloadError, ("Closed", "closed the connection within its answer", RUNS)),
    (aiohttp.InvalidURL, ("No address", "has an address that cannot be used", "Correct the address.")),
    (OSError, ("Unreachable", "cannot be reached from here", ROUTES)),
    (Exception, ("No HTTP", "answers, but not with HTTP", RUNS)),
]
"""What each failure means and what to do, by the first class that fits."""


class NoStatusError(ConsumerError):
    """A daemon gave no status. ``word`` is short, for a table; the message completes a sentence about the daemon."""

    def __init__(self, word: str, message: str, todo: str) -> None:
        super().__init__(message)
        self.word = word
        self.todo = todo


def status_url(text: str) -> str:
    """Return the address of ``/status.json`` of a daemon; scheme, port and path may lack. Raises ValueError."""
    parts = urlsplit(text if "://" in text else f"//{text}")
    if parts.scheme not in ("", "http", "https") or not parts.hostname or "@" in parts.netloc or parts.query:
        raise ValueError(text)
    port = Http().port if not parts.scheme and parts.port is None else parts.port
    address = parts.netloc.rstrip(":") if port is None else address_of(parts.hostname, port)
    path = parts.path.rstrip("/").removesuffix("/status.json")
    return urlunsplit((parts.scheme or "http", address, f"{path}/status.json", "", ""))


class StatusClient:
    """Asks daemons for their status while it is entered: without cookies, proxies, redirects and kept connections."""

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=SECONDS),
            connector=aiohttp.TCPConnector(limit=0, force_close=True),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"Accept-Encoding": "identity"},
            auto_decompress=False,  # bytes are counted as they arrive
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    async def ask(self, url: str) -> Status:
        """Return the status of the daemon at an address that ``status_url`` made. Raises NoStatusError."""
        try:
            async with self._session.get(url, allow_redirects=False) as answer:
                _require_ok(answer.status)
                return read_status(await _body_of(answer))
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise _described(error) from error

    async def probe(self, url: str) -> str | None:
        """Return the reason for which a probe of a daemon fails; None if it does not. Raises NoStatusError."""
        try:
            async with self._session.get(url, allow_redirects=False) as answer:
                if answer.status == 200:
                    return None
                if answer.status != 503:
                    _require_ok(answer.status)
                text = (await answer.content.read(MAX_REASON_BYTES)).decode("utf-8", "replace").strip()
                return "".join(filter(str.isprintable, text)) or "failed"
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise _described(error) from error


def read_status(body: bytes) -> Status:
    """Decode a status without its settings and history, and without control characters. Raises NoStatusError."""
    try:
        found = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise _not_a_daemon() from error
    if isinstance(found, dict) and "workers" in found:
        raise NoStatusError(
            "Workers",
            "is the parent of several workers",
            "Ask the workers, whose ports follow that of the parent.",
        )
    if not isinstance(found, dict) or "versions" not in found:
        raise _not_a_daemon()
    try:
        # Converted first, because only then is it known which numbers are times.
        status = msgspec.convert(found | {"settings": {}, "history": []}, Status)
        status = msgspec.convert(_printable(msgspec.to_builtins(status)), Status)
        _ = status.verdicts[0]
    except (msgspec.ValidationError, ValueError, IndexError) as error:
        raise NoStatusError(
            "Other version",
            "has the status of another version of session-consumer",
            "Use the `top` of the daemon's version.",
        ) from error
    return status


def _printable(value: Any) -> Any:
    """Copy a value without control characters. Raises ValueError for a number that cannot be shown."""
    match value:
        case str():
            return value if value.isprintable() else "".join(filter(str.isprintable, value))
        case list():
            return [_printable(each) for each in value]
        case dict():
            return {_printable(name): _printable(each) for name, each in value.items()}
        case float() if not LEAST < value < MOST:
            raise ValueError("a time or rate is out of range")
        case int() if abs(value) >= 2**63:
            raise ValueError("a number is out of range")
    return value


def _require_ok(status: int) -> None:
    if status == 403:
        raise NoStatusError(
            "Forbidden",
            "does not answer to this name",
            "Add the name to `http.allowed_hosts` of the daemon, or ask it by a name of its machine.",
        )
    if status in (404, 405):
        raise _not_a_daemon()
    if status != 200:
        raise NoStatusError(
            f"HTTP {status}", f"answered with HTTP status {status}", "Look at what answers there, such as a proxy."
        )


async def _body_of(answer: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    async for chunk in answer.content.iter_chunked(2**16):
        body += chunk
        if len(body) > MAX_BYTES:
            raise _not_a_daemon()
    return bytes(body)


def _not_a_daemon() -> NoStatusError:
    return NoStatusError(
        "No daemon", "answers, but not as a session-consumer", "Ask the address of `http.host` and `http.port`."
    )


def _described(error: Exception) -> NoStatusError:
    """Say what happened in our own words; a library's words may quote the answer."""
    cause = error.os_error if type(error) is aiohttp.ClientConnectorError else error
    word, message, todo = next(meaning for kind, meaning in FAILURES if isinstance(cause, kind))
    return NoStatusError(word, message, todo)
