"""Finding a broker that answers, and the name of everything that can go wrong on the way."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
from aiokafka import errors

from consumer.errors import KafkaError, KafkaUnreachableError, SettingsError
from consumer.kafka import connection
from consumer.kafka.client import open_admin, open_reader
from consumer.kafka.connection_failures import failure_of
from consumer.kafka.dial import dial, unreached_brokers
from consumer.kafka.failures import explained
from consumer.settings.sections import Kafka, Security
from tests.fakes.broker import API_VERSIONS, METADATA, Answer, FakeBroker

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
NO_ANSWER = "accepted the connection and did not answer within 0.3 s"


def settings(*servers: str, **options: object) -> Kafka:
    return msgspec.structs.replace(Kafka(bootstrap_servers=list(servers)), **options)


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "CONNECT_SECONDS", 0.3)


@pytest.fixture
def refusing() -> str:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{closed.getsockname()[1]}"


@asynccontextmanager
async def a_server(serve: Serve, host: str = "127.0.0.1") -> AsyncIterator[str]:
    async def closing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await serve(reader, writer)
        except ConnectionError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(closing, host, 0)
    try:
        yield f"{host}:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


async def hangs(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    await reader.read()


def says(answer: bytes) -> Serve:
    async def answers(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(answer)
        await writer.drain()

    return answers


async def test_one_healthy_server_is_enough(refusing: str) -> None:
    """The server that answers is found beside others that hang, refuse or do not exist, wherever it stands."""
    async with FakeBroker() as broker, a_server(hangs) as hung:
        others = [hung, refusing, "no-such-host.invalid:9092"]
        for place in range(len(others) + 1):
            servers = [*others[:place], broker.bootstrap_servers, *others[place:]]
            assert (await dial(settings(*servers))).bootstrap_servers == [broker.bootstrap_servers]


async def test_every_client_uses_the_server_that_answers() -> None:
    async with FakeBroker() as broker, a_server(hangs) as hung:
        kafka = settings(hung, broker.bootstrap_servers)
        async with open_admin(kafka) as admin, open_reader(kafka) as reader:
            assert await admin.describe_topics()
            assert await reader.topics()


async def test_attempts_leave_no_connection_and_no_task() -> None:
    async with FakeBroker() as broker, a_server(hangs) as hung:
        before = asyncio.all_tasks()
        await dial(settings(hung, broker.bootstrap_servers))
        with pytest.raises(KafkaUnreachableError):
            await dial(settings(hung))
        await asyncio.sleep(0.05)
        left = [
            each for each in asyncio.all_tasks() - before if "_serve" not in str(each) and "closing" not in str(each)
        ]
        assert (left, broker.connections) == ([], 0)


@pytest.mark.parametrize(
    ("serve", "protocol", "what"),
    [
        (hangs, "PLAINTEXT", NO_ANSWER),
        (hangs, "SSL", "did not complete the TLS handshake within 0.3 s"),
        (
            says(b"\x15\x03\x03\x00\x02\x02\x50"),
            "PLAINTEXT",
            "speaks TLS; set kafka.security.protocol to SSL or SASL",
        ),
        (says(b"HTTP/1.1 400 Bad Request\r\n\r\n"), "PLAINTEXT", "speaks HTTP, not Kafka; name a broker's port"),
        (says(b""), "PLAINTEXT", "closed the connection; check kafka.security.protocol: the port may expect TLS or"),
        (says(b""), "SSL", "closed the connection in the TLS handshake; see whether that broker is starting"),
        (says(b"\x00\x00\x00\x08plain"), "SSL", "does not speak TLS; set kafka.security.protocol"),
    ],
)
async def test_a_server_that_is_not_a_broker(serve: Serve, protocol: str, what: str) -> None:
    """The message says what the port does, and what to do."""
    async with a_server(serve) as server:
        security = Security(protocol=protocol)  # type: ignore[arg-type]
        with pytest.raises((KafkaError, KafkaUnreachableError)) as failed:
            await dial(settings(server, security=security))
        assert f"kafka.bootstrap_servers: {server} {what}" in str(failed.value)


async def test_a_server_that_cannot_be_connected_to(refusing: str) -> None:
    """Every server is named, each with what happened there; trying again may help, so it is unreachable."""
    with pytest.raises(KafkaUnreachableError) as failed:
        await dial(settings(refusing, "no-such-host.invalid:9092", "localhost:1"))
    text = str(failed.value)
    assert f"{refusing} refused the connection; start Kafka there, or correct the address" in text
    assert "no-such-host.invalid:9092 cannot be resolved (no such host name); correct the name" in text
    assert "localhost:1 refused the connection" in text  # also where the name has several addresses


async def test_what_never_works_is_no_outage() -> None:
    """A port that speaks something else is an error at once; beside a server that may come back it is waited for."""
    async with a_server(says(b"HTTP/1.1 400 Bad Request\r\n\r\n")) as web:
        with pytest.raises(KafkaError):
            await dial(settings(web))
        with pytest.raises(KafkaUnreachableError):
            await dial(settings(web, "no-such-host.invalid:9092"))


def advertising(*brokers: tuple[str, int]) -> Answer:
    """Answer requests for metadata with these addresses."""

    def answer(_version: int, response: Any, _request: Any) -> Any:
        named = [(number, host, port, None) for number, (host, port) in enumerate(brokers, 1)]
        return response(throttle_time_ms=0, brokers=named, cluster_id="c", controller_id=1, topics=[])

    return answer


async def test_advertised_address_that_cannot_be_used() -> None:
    """A broker that sends clients to an address that they cannot reach is named with that address."""
    async with FakeBroker() as broker:
        broker.answers[METADATA] = advertising(("kafka-7.invalid", 9092))
        with pytest.raises(KafkaUnreachableError) as failed:
            await dial(settings(broker.bootstrap_servers))
        assert (
            f"{broker.bootstrap_servers} answers, but its cluster advertises kafka-7.invalid:9092, which cannot be"
            " resolved (no such host name); correct advertised.listeners"
        ) in str(failed.value)


async def test_advertised_address_of_another_name_is_tried() -> None:
    async with FakeBroker() as broker:
        broker.answers[METADATA] = advertising(("localhost", broker.port))
        kafka = settings(broker.bootstrap_servers)
        assert (await dial(kafka)).bootstrap_servers == [broker.bootstrap_servers]
        assert await unreached_brokers(kafka) == []


async def test_brokers_that_cannot_be_used_are_listed() -> None:
    """One reachable broker is enough to begin; the others are named for ``check``."""
    async with FakeBroker() as broker:
        broker.answers[METADATA] = advertising(("127.0.0.1", broker.port), ("kafka-2.invalid", 9092))
        kafka = settings(broker.bootstrap_servers)
        assert (await dial(kafka)).bootstrap_servers == [broker.bootstrap_servers]
        assert [each.server for each in await unreached_brokers(kafka)] == ["kafka-2.invalid:9092"]


async def test_a_cluster_that_has_just_started_names_no_brokers() -> None:
    async with FakeBroker() as broker:
        broker.answers[METADATA] = advertising()
        assert await dial(settings(broker.bootstrap_servers))


async def test_a_broker_that_stops_answering() -> None:
    for api in (API_VERSIONS, METADATA):
        async with FakeBroker() as broker:
            broker.silent = {api}
            with pytest.raises(KafkaUnreachableError, match=NO_ANSWER):
                await dial(settings(broker.bootstrap_servers))


async def test_a_plain_port_behind_a_reset_is_told_from_a_broker_that_starts() -> None:
    """A listener that answers without TLS will never speak it; one that only hangs up may be starting."""
    async with FakeBroker() as broker:

        async def hangs_up_on_tls(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            first = await reader.readexactly(1)
            if first != b"\x16":  # a TLS handshake, for whose length Kafka hangs up
                behind, onward = await asyncio.open_connection("127.0.0.1", broker.port)
                onward.write(first + await reader.read(1000))
                writer.write(await behind.read(1000))
                onward.close()

        async with a_server(hangs_up_on_tls) as server:
            with pytest.raises(KafkaError, match=r"does not speak TLS; set kafka\.security\.protocol to PLAINTEXT"):
                await dial(settings(server, security=Security(protocol="SSL")))
    async with a_server(says(b"")) as starting:
        with pytest.raises(KafkaUnreachableError, match="closed the connection in the TLS handshake"):
            await dial(settings(starting, security=Security(protocol="SSL")))


async def test_names_that_a_server_never_resolves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Names that hang hold up no other name, and none of the threads that handlers use."""
    silent, look = threading.Event(), socket.getaddrinfo

    def slow(host: Any, *arguments: Any, **options: Any) -> Any:
        if str(host).endswith(".invalid"):
            silent.wait(10)
        return look(host, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    async with FakeBroker() as broker:
        hanging = [f"kafka-{number}.invalid:9092" for number in range(40)]
        found = await dial(settings(*hanging, broker.bootstrap_servers))
        assert found.bootstrap_servers == [broker.bootstrap_servers]
        assert await asyncio.to_thread(lambda: not silent.is_set())
        silent.set()


async def test_ipv6() -> None:
    """An IPv6 address is written in brackets, as a bootstrap server and in messages."""
    async with a_server(hangs, "::1") as server:
        bracketed = "[::1]:" + server.rpartition(":")[2]
        with pytest.raises(KafkaUnreachableError) as failed:
            await dial(settings(bracketed))
        assert f"{bracketed} {NO_ANSWER}" in str(failed.value)


async def test_wait_is_no_longer_than_the_start_may_take() -> None:
    async with a_server(hangs) as server:
        with pytest.raises(KafkaUnreachableError, match=r"did not answer within 0\.2 s"):
            await dial(settings(server, start_timeout_seconds=0.5))


async def test_unusable_tls_file_is_a_settings_error() -> None:
    with pytest.raises(SettingsError, match="the file of ca_file"):
        await dial(settings("localhost:1", "localhost:2", security=Security(protocol="SSL", ca_file="missing.pem")))


async def test_one_connection_is_bounded() -> None:
    """A broker that accepts and never answers holds up a client for CONNECT_SECONDS, not a request's timeout."""
    async with FakeBroker() as broker, a_server(hangs) as hung:
        kafka = settings(broker.bootstrap_servers)
        async with open_admin(kafka) as admin:
            port = int(hung.rpartition(":")[2])
            broker.answers[METADATA] = advertising(("127.0.0.1", port), ("127.0.0.1", broker.port))
            await admin._client.force_metadata_update()
            assert not await admin._client.ready(1)
            assert await admin._client.ready(2)


def certificate_error(code: int) -> ssl.SSLCertVerificationError:
    error = ssl.SSLCertVerificationError(1, "certificate verify failed")
    error.verify_code, error.verify_message = code, "self-signed certificate"
    error.reason = "CERTIFICATE_VERIFY_FAILED"
    return error


def tls_error(reason: str) -> ssl.SSLError:
    error = ssl.SSLError(1, reason)
    error.reason = reason
    return error


@pytest.mark.parametrize(
    ("error", "what"),
    [
        (certificate_error(10), "has an expired certificate; renew"),
        (certificate_error(9), "has a certificate that is not valid yet; set this machine's clock"),
        (certificate_error(62), "has a certificate for another host name; name the broker as"),
        (certificate_error(18), "has a certificate that is not trusted (self-signed certificate); set kafka.security"),
        (tls_error("TLSV13_ALERT_CERTIFICATE_REQUIRED"), "asks for a client certificate; set kafka.security.cert"),
        (tls_error("TLSV1_ALERT_UNKNOWN_CA"), "refused the TLS handshake (unknown ca); use a client certificate"),
        (tls_error("SSLV3_ALERT_CERTIFICATE_EXPIRED"), "refused the TLS handshake (certificate expired); use a client"),
        (tls_error("TLSV1_ALERT_PROTOCOL_VERSION"), "speaks no TLS version from 1.2 on; enable TLS 1.2"),
        (tls_error("WRONG_VERSION_NUMBER"), "does not speak TLS; set kafka.security.protocol to PLAINTEXT"),
        (tls_error("TLSV1_ALERT_INTERNAL_ERROR"), "refused the TLS handshake (internal error); see the broker's log"),
        (tls_error("TLSV1_UNRECOGNIZED_NAME"), "closed the connection in the TLS handshake; see whether that broker"),
        (errors.SaslAuthenticationFailed("x"), "refused the PLAIN credentials; correct kafka.security.username"),
        (errors.UnsupportedSaslMechanismError(), "does not offer the SASL mechanism PLAIN; set kafka.security.mech"),
        (errors.IllegalSaslStateError(), "expects no SASL; set kafka.security.protocol to SSL"),
        (errors.IncompatibleBrokerVersion("x"), "does not support a request of this client; use Apache Kafka 2.1"),
        (OSError(113, "No route to host"), "cannot be reached (No route to host); check the address"),
        (ConnectionResetError(104, "reset"), "closed the connection; check kafka.security.protocol"),
    ],
)
def test_names_of_failures(error: Exception, what: str) -> None:
    """What the network said is found below what aiokafka made of it; nothing of it holds a secret."""
    security = Security(protocol="SASL_SSL", username="user", password="pass-word")
    for wrapped in (False, True):
        told: BaseException = error
        if wrapped:
            told = errors.KafkaConnectionError("Connection at x closed")
            told.__cause__ = error
        failure = failure_of("b:9092", told, security, 1.0, connected=True)
        assert str(failure).startswith(f"b:9092 {what}")
        assert "pass-word" not in str(failure)


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (errors.TopicAuthorizationFailedError("t"), "permission denied on a topic; grant READ and DESCRIBE on t, u"),
        (errors.GroupAuthorizationFailedError("g"), "permission denied on the group; grant READ on group 'g'"),
        (errors.InconsistentGroupProtocolError(), "the members of group 'g' use another protocol or another assignor"),
        (errors.InvalidSessionTimeoutError(), "kafka.session_timeout_seconds = 45 is outside the broker's range"),
        (TimeoutError(), "the brokers did not answer in time"),
        (KafkaError("ours"), "ours"),
        (errors.UnknownError("x"), "UnknownError"),
    ],
)
def test_explanations_of_refused_requests(error: Exception, says: str) -> None:
    """A request that is refused names the setting, topic or group, and the way out; also below a generic error."""
    kafka = Kafka(topics=["t", "u"], group_id="g")
    assert says in explained(error, kafka)
    wrapped = errors.KafkaError("Unexpected error during coordination")
    wrapped.__cause__ = error
    if not isinstance(error, TimeoutError | KafkaError | errors.UnknownError):
        assert says in explained(wrapped, kafka)
