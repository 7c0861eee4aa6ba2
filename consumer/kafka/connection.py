"""Connections to the brokers: options of all clients, credentials of each connection, and a wait after a refusal."""

from __future__ import annotations

import asyncio
import socket
import time
from functools import lru_cache, partial
from typing import Any, NamedTuple

import aiokafka.client
from aiokafka import errors
from aiokafka.abc import AbstractTokenProvider
from aiokafka.conn import AIOKafkaConnection, OAuthAuthenticator

from consumer.kafka.connection_failures import ConnectionFailedError, Failure, failure_of
from consumer.kafka.credentials import State, secret, state_of_files, tls_context
from consumer.kafka.own_thread import in_own_thread
from consumer.kafka.tokens import TokenError, tokens_of
from consumer.settings.sections import Kafka, Security, address_of
from consumer.settings.security import sends_plain_text

CONNECT_SECONDS = 10.0
"""Time for one connection: TCP, TLS, the first answer and authentication. Java's clients allow as much."""
CLOSE_SECONDS = 0.5
KEPT_SECONDS = 60.0
FIRST_WAIT_SECONDS, LONGEST_WAIT_SECONDS = 1.0, 30.0
"""Wait after a refusal; each further refusal doubles it."""


def connection_options(kafka: Kafka) -> dict[str, Any]:
    """Return the options that consumer, producer and admin client share: brokers, client id, security.

    Raises SettingsError for files that cannot be used now; they are read again for each connection.
    """
    security = kafka.security
    connector = connector_of(security)
    return {
        "bootstrap_servers": list(kafka.bootstrap_servers),
        "client_id": kafka.client_id,
        "security_protocol": security.protocol,
        "sasl_mechanism": "OAUTHBEARER" if security.mechanism == "AWS_MSK_IAM" else security.mechanism,
        "sasl_plain_username": security.username or None,
        "sasl_oauth_token_provider": connector,  # aiokafka passes it on to `connect`
        "request_timeout_ms": int(kafka.request_timeout_seconds * 1000),
        **connector.read(state_of_files(security)),
    }


async def connect(host: str, port: int, *, seconds: float | None = None, **options: Any) -> AIOKafkaConnection:
    """Connect to one broker as aiokafka does, but within CONNECT_SECONDS, and with credentials as they are now.

    aiokafka allows the whole request timeout and begins no other connection during that time. A broker that
    accepts and never answers would stop a client for more than a minute. Raises ConnectionFailedError.
    """
    options.setdefault("security_protocol", "PLAINTEXT")
    connector: Connector = options.get("sasl_oauth_token_provider") or connector_of(Security())
    made = await connector.connect((host, port), seconds or CONNECT_SECONDS, options)
    _bootstrapping.get(asyncio.current_task(), []).append(made)
    return made


async def bootstrap(client: Any) -> None:
    """Ask the first brokers as aiokafka does; when cancelled, close the connection that nothing else knows yet.

    A stop, or a time limit, in the moment between its beginning and its answer left a socket and a task behind.
    """
    task, made = asyncio.current_task(), list[AIOKafkaConnection]()
    _bootstrapping[task] = made
    try:
        await _plain_bootstrap(client)
    except BaseException:
        for each in made:
            each.close()
        raise
    finally:
        del _bootstrapping[task]


_bootstrapping: dict[asyncio.Task[Any] | None, list[AIOKafkaConnection]] = {}
_plain_bootstrap = aiokafka.client.AIOKafkaClient.bootstrap
aiokafka.client.create_conn = connect  # type: ignore[attr-defined]
aiokafka.client.AIOKafkaClient.bootstrap = bootstrap  # type: ignore[method-assign]


def refusals(kafka: Kafka) -> str:
    """Return which brokers have refused these credentials last, and why; empty when none has."""
    return "; ".join(str(each) for each in connector_of(kafka.security).refused())


@lru_cache(maxsize=8)
def connector_of(security: Security) -> Connector:
    """Return the one connector of these settings: clients that are replaced must not forget who refused them."""
    return Connector(security)


class _Refusal(NamedTuple):
    """A broker has refused what it was given; it is asked again at ``until``, or when the files have changed."""

    failure: Failure
    until: float
    wait: float
    files: State


class Connector(AbstractTokenProvider):
    """Makes the connections of all clients with the same ``[kafka.security]``; lives as long as the process.

    aiokafka connects again every 100 ms. A broker that refuses credentials would log each attempt, and might lock the
    account, so it is asked again only after a wait.
    """

    def __init__(self, security: Security) -> None:
        self._security = security
        self._tokens = tokens_of(security)
        self._refusals: dict[str, _Refusal] = {}
        self._made: dict[str, Any] = {}
        self._made_of: State | None = None
        self._made_until = 0.0

    async def token(self) -> str:
        """Return the token for OAUTHBEARER; aiokafka calls it for each connection."""
        return await self._tokens.token()

    def refused(self) -> list[Failure]:
        """Return the last failure of each broker that has refused, and not accepted since."""
        return [each.failure for each in self._refusals.values()]

    async def connect(self, address: tuple[str, int], seconds: float, options: dict[str, Any]) -> AIOKafkaConnection:
        """Connect to one broker within some seconds. Raises ConnectionFailedError, at once while a refusal holds."""
        server = address_of(*address)
        files = state_of_files(self._security)
        probe = options["security_protocol"] != self._security.protocol  # asks what the port speaks, and proves nothing
        refusal = self._refusals.get(server)
        if not probe and refusal is not None and refusal.files == files and time.monotonic() < refusal.until:
            raise ConnectionFailedError(refusal.failure)
        made: Any = None
        try:
            self._require_secrecy(server, address[0])
            made = _Connection(*address, **{**options, **self.read(files)})
            async with asyncio.timeout(seconds):
                await resolved(*address)
                await made.connect()
        except BaseException as error:
            connected = made is not None and made._protocol is not None  # set once TCP and TLS have succeeded, and kept
            if connected:
                await closed(made)
            if not isinstance(error, Exception):
                raise
            failure = failure_of(server, error, self._security, seconds, connected=connected)
            if not probe:
                self._refusals.pop(server, None)
                if failure.lasting or isinstance(error, TokenError):
                    # without a token the wait does not grow: the token is waited for, not the broker
                    self._note(server, failure, None if isinstance(error, TokenError) else refusal, files)
                if isinstance(error, errors.SaslAuthenticationFailed):
                    self._tokens.forget()
            raise ConnectionFailedError(failure) from error
        if not probe:
            self._refusals.pop(server, None)
        return made  # type: ignore[no-any-return]

    def read(self, files: State) -> dict[str, Any]:
        """Return the options that come from files, with the last TLS context while nothing has changed.

        ``files`` is the state of the files now. Raises UnusableFileError.

        To read the system's authorities takes 40 ms, and aiokafka tries to connect ten times a second.
        """
        now = time.monotonic()
        if self._made_of != files or now > self._made_until:
            self._made, self._made_of, self._made_until = _read_now(self._security), files, now + KEPT_SECONDS
        return self._made

    def _note(self, server: str, failure: Failure, before: _Refusal | None, files: State) -> None:
        again = before is not None and before.files == files
        wait = min(2 * before.wait, LONGEST_WAIT_SECONDS) if before is not None and again else FIRST_WAIT_SECONDS
        self._refusals[server] = _Refusal(failure, time.monotonic() + wait, wait, files)

    def _require_secrecy(self, server: str, host: str) -> None:
        """Raise for an address that the cluster advertises, where the credentials could be read on the way."""
        if sends_plain_text(self._security, host):
            what = f"would get the {self._security.mechanism} credentials in plain text"
            remedy = "set kafka.security.protocol to SASL_SSL, or allow_plain_text_credentials = true"
            raise ConnectionFailedError(Failure(server, what, remedy))


class _Connection(AIOKafkaConnection):
    """A connection that notices a refused token: aiokafka goes on, and the broker then closes the connection."""

    def authenticator_oauth(self) -> OAuthAuthenticator:
        """Return what sends the token, and reads the broker's answer."""
        return _OAuth(sasl_oauth_token_provider=self._sasl_oauth_token_provider)


class _OAuth(OAuthAuthenticator):
    async def step(self, payload: bytes | None) -> Any:
        """Send the token; an answer that is not empty says why it was refused (RFC 7628)."""
        if payload:
            raise errors.SaslAuthenticationFailed("the token was refused")
        return await super().step(payload)


async def resolved(host: str, port: int) -> None:
    """Wait until a name is resolved, in a new thread. Raises socket.gaierror.

    The event loop would take one of the threads that handlers share, and a name server may be silent for half a minute.
    """
    look = partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
    await in_own_thread(f"resolve-{host}", look)


async def closed(made: Any) -> None:
    """Close a connection and wait a moment for its end."""
    await asyncio.wait([made.close()], timeout=CLOSE_SECONDS)


def _read_now(security: Security) -> dict[str, Any]:
    """Return the options that come from files. Raises UnusableFileError."""
    return {
        "ssl_context": tls_context(security) if security.uses_tls else None,
        "sasl_plain_password": (secret(security, "password") or None) if security.uses_sasl else None,
    }
