"""The handler that sends events to a URL, signed as Standard Webhooks defines."""

from __future__ import annotations

import asyncio
import inspect
import io
import math
import re
import time
from collections.abc import Mapping
from typing import Any, Self
from urllib.parse import urlsplit

import aiohttp

from consumer import Secret
from consumer.errors import SettingsError, SinkError
from consumer.handlers.answers import DeliveryError, failure_of
from consumer.handlers.bodies import BATCH_TYPES, BODIES, id_of, id_of_all
from consumer.handlers.signing import key_of, signed_headers
from consumer.instructions import Retry
from consumer.record import Record

ANSWER_BYTES = 65_536
"""How much of an answer is read. A connection whose answer is longer is closed, and not used again."""
LARGE_BYTES = 1_048_576
"""From this size on a body is written in pieces."""
FIELD_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
FIELD_VALUE = re.compile(r"[\t\x20-\x7e]*")
OWN_FIELDS = frozenset(
    {
        "connection",
        "content-encoding",
        "content-length",
        "content-type",
        "expect",
        "host",
        "transfer-encoding",
        "webhook-id",
        "webhook-signature",
        "webhook-timestamp",
    }
)
"""Headers that are set here, in lower case."""
DEFAULT_FIELDS = {"user-agent": "session-consumer", "accept-encoding": "identity"}


class Webhook:
    """Sends each event, or each batch, in one POST; opened and closed with the daemon.

    - A request is done when its answer has a status of 2xx. The status decides, whatever follows it.
    - Nothing of an event, an option or an answer's text is in an error.
    """

    def __init__(
        self,
        url: str,
        format: str = "json",  # noqa: A002 - the name of the option
        *,
        batch: bool = False,
        secret: Secret | None = None,
        timeout_seconds: float = 10.0,
        connections: int = 64,
        headers: dict[str, str] | None = None,
    ) -> None:
        """Take the route's options.

        ``format`` is ``json`` or ``cloudevents``. ``batch`` sends a JSON array. ``timeout_seconds`` limits one request,
        from its connection to the end of its answer. ``connections`` is the number of requests under way at once; more
        wait.
        """
        _require_url(url)
        if format not in BODIES:
            raise SettingsError(f"options.format must be one of {', '.join(BODIES)}")
        if not 0 < timeout_seconds < math.inf:
            raise SettingsError("options.timeout_seconds must be above 0")
        if connections < 1:
            raise SettingsError("options.connections must be 1 or above")
        self.longest_call_seconds = 2 * timeout_seconds
        """The watchdog's limit follows it: a call waits for a connection, then for its answer."""
        self._url = url
        self._body = BODIES[format]
        self._key = _key(secret)
        # A connection has half of the time: a server that cannot be reached is an outage, and one that is slow is not.
        self._timeout = aiohttp.ClientTimeout(total=timeout_seconds, connect=timeout_seconds / 2)
        self._connections = connections
        self._fields = _fields(headers or {})
        self._fields["content-type"] = BATCH_TYPES[format] if batch else self._body.content_type
        # A request waits here and not in the client, whose time limit would run.
        self._free = asyncio.Semaphore(connections)
        self._session: aiohttp.ClientSession | None = None
        self.__signature__ = inspect.signature(_takes_many if batch else _takes_one)

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=self._connections),
            timeout=self._timeout,
            headers=self._fields,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,  # an answer is not looked at, and bytes are counted as they arrive
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def __call__(self, event: Any, record: Any) -> None:
        """Send an event with its Record, or lists of both.

        Raises Reject, Retry, SinkError, and DeliveryError for what the route's ``retry`` decides.
        """
        if isinstance(record, Record):
            await self._send(id_of(record), self._body.of_one(event, record), alone=True)
        else:
            await self._send(id_of_all(record), self._body.of_many(event, record), alone=len(record) == 1)

    async def _send(self, name: str, body: bytes, *, alone: bool) -> None:
        await self._take_connection()
        try:
            now = time.time()
            status, retry_after = await self._answer_to(body, signed_headers(self._key, name, int(now), body))
        finally:
            self._free.release()
        failure = failure_of(status, retry_after, now, alone=alone)
        if failure is not None:
            raise failure

    async def _take_connection(self) -> None:
        """Wait until a request may begin. Raises Retry when the others take too long: a call must end in time."""
        if not self._free.locked():
            await self._free.acquire()
            return
        try:
            async with asyncio.timeout(self._timeout.total):
                await self._free.acquire()
        except TimeoutError:
            raise Retry("all connections are in use") from None

    async def _answer_to(self, body: bytes, headers: Mapping[str, str]) -> tuple[int, str]:
        """Send a request; return the status and the ``Retry-After`` of its answer."""
        if self._session is None:
            raise SinkError("the webhook is not open: the handler was not entered")
        data = body if len(body) < LARGE_BYTES else io.BytesIO(body)
        try:
            async with self._session.post(self._url, data=data, headers=headers, allow_redirects=False) as answer:
                await _read_away(answer)
                return answer.status, answer.headers.get("Retry-After", "")
        except aiohttp.ConnectionTimeoutError as error:
            raise SinkError(
                "options.url cannot be reached within half of options.timeout_seconds; check its address and firewalls"
            ) from error
        except TimeoutError as error:
            raise DeliveryError("options.url gave no answer within options.timeout_seconds") from error
        except (aiohttp.ClientError, OSError) as error:
            raise SinkError(f"options.url {_reason(error)}") from error


def _takes_one(event: Any, record: Record) -> None: ...


def _takes_many(events: list[Any], records: list[Record]) -> None: ...


async def _read_away(answer: aiohttp.ClientResponse) -> None:
    """Read a short body to its end, so that the connection is used again; what goes wrong then changes nothing."""
    read = 0
    try:
        while read <= ANSWER_BYTES and (part := await answer.content.readany()):
            read += len(part)
    except (aiohttp.ClientError, OSError):  # with TimeoutError
        answer.close()


def _reason(error: Exception) -> str:
    """Say which failure of a connection this was, without its text, which has the URL."""
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return "has a host name that is unknown here; correct it or the DNS"
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return "has a certificate that is not trusted here; correct it or the authorities of this machine"
    if isinstance(error, aiohttp.ClientSSLError):
        return "did not complete the TLS handshake; check its scheme and its port"
    if isinstance(error, aiohttp.ClientConnectorError):
        return "cannot be connected to; check that its server runs"
    if isinstance(error, aiohttp.ClientResponseError):
        return "answers, but not with HTTP; check its scheme and its port"
    return "closed the connection without an answer; check its server"


def _require_url(url: str) -> None:
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        usable = usable and url.isprintable() and " " not in url
    except ValueError:
        usable = False
    if not usable:
        raise SettingsError("options.url is not a URL; write https://host/path")
    if "@" in parts.netloc:
        raise SettingsError("options.url has a user name; write an Authorization header in options.headers instead")


def _key(secret: str | None) -> bytes | None:
    try:
        return None if secret is None else key_of(secret)
    except ValueError as error:
        raise SettingsError(f"options.secret {error}; write the base64 of a key after whsec_, or plain text") from None


def _fields(headers: Mapping[str, str]) -> dict[str, str]:
    """Return the headers of each request, with names in lower case."""
    for name, value in headers.items():
        if not FIELD_NAME.fullmatch(name):
            raise SettingsError("options.headers has a name that is no name of a header")
        if name.lower() in OWN_FIELDS:
            raise SettingsError(f"options.headers.{name} is set by the handler; remove it")
        if not FIELD_VALUE.fullmatch(value):
            raise SettingsError(f"options.headers.{name} has characters that no header may have; use printable ASCII")
    return DEFAULT_FIELDS | {name.lower(): value for name, value in headers.items()}
