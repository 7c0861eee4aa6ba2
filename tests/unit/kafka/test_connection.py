"""Connections: credentials as they are in their files now, and a wait after a refusal."""

from __future__ import annotations

import asyncio
import ssl
import traceback
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trustme

from consumer.errors import KafkaError, KafkaUnreachableError, SettingsError
from consumer.kafka.client import open_admin
from consumer.kafka.connection import connect, connection_options, connector_of
from consumer.kafka.connection_failures import ConnectionFailedError
from consumer.kafka.credentials import UnusableFileError, secret, tls_context
from consumer.kafka.dial import dial
from consumer.kafka.tokens import TokenError
from consumer.settings.sections import Kafka, Security
from tests.fakes.broker import FakeBroker
from tests.fakes.daemon import tasks_of_aiokafka


@pytest.fixture(autouse=True)
def _forgotten() -> Iterator[None]:
    """Remember no refusal of another test."""
    connector_of.cache_clear()
    yield
    connector_of.cache_clear()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time of refusals; a test moves it."""
    now = [1000.0]
    monkeypatch.setattr("consumer.kafka.connection.time.monotonic", lambda: now[0])
    return now


class Server:
    """A TLS server that counts connections, and the authority of its certificate."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority = trustme.CA()
        self.connections = 0
        self.port = 0

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Kafka]:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self.authority.issue_cert("localhost").configure_cert(context)
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self._context = context
        try:
            yield Kafka(
                bootstrap_servers=[f"localhost:{self.port}"],
                security=Security(protocol="SSL", ca_file=str(self.folder / "ca.pem")),
            )
        finally:
            server.close()

    async def _serve(self, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            await writer.start_tls(self._context)
        except (OSError, ssl.SSLError):
            pass
        finally:
            writer.close()

    def trust(self, authority: trustme.CA) -> None:
        """Write another authority into the client's file."""
        (self.folder / "ca.pem").write_bytes(authority.cert_pem.bytes())


async def attempts(kafka: Kafka, server: Server) -> int:
    """Try once, which fails; return how many connections that made."""
    before = server.connections
    options = connection_options(kafka)
    del options["bootstrap_servers"]
    with pytest.raises(ConnectionFailedError, match="certificate that is not trusted"):
        await connect("localhost", server.port, **options)
    return server.connections - before


async def test_a_refusal_is_followed_by_a_wait(tmp_path: Path, clock: list[float]) -> None:
    """Each refusal doubles the wait, up to the longest; until then the same failure is raised at once."""
    server = Server(tmp_path)
    server.trust(trustme.CA())
    async with server.running() as kafka:
        for wait in (1, 2, 4, 8, 16, 30, 30):
            assert await attempts(kafka, server) == 1
            clock[0] += wait - 0.01
            assert [await attempts(kafka, server) for _ in range(3)] == [0, 0, 0]
            clock[0] += 0.02


async def test_the_wait_for_a_token_does_not_grow(monkeypatch: pytest.MonkeyPatch, clock: list[float]) -> None:
    """No broker has refused anything: once the token is there, it is sent soon."""
    tries: list[float] = []

    async def none_yet(_connection: Any) -> None:
        tries.append(clock[0])
        raise TokenError("cannot be asked", "wait", lasts=False)

    monkeypatch.setattr("consumer.kafka.connection._Connection.connect", none_yet)
    options = connection_options(Kafka())
    del options["bootstrap_servers"]
    for attempt in range(1, 8):
        for _ in range(2):
            with pytest.raises(ConnectionFailedError, match="cannot be asked"):
                await connect("127.0.0.1", 1, **options)
        assert len(tries) == attempt
        clock[0] += 1.01


async def test_a_new_file_ends_the_wait(tmp_path: Path, clock: list[float]) -> None:
    server = Server(tmp_path)
    server.trust(trustme.CA())
    async with server.running() as kafka:
        assert [await attempts(kafka, server) for _ in range(2)] == [1, 0]
        server.trust(trustme.CA())
        assert [await attempts(kafka, server) for _ in range(2)] == [1, 0]


async def test_all_clients_share_the_wait(tmp_path: Path, clock: list[float]) -> None:
    """What one client was refused, another with the same settings does not try."""
    server = Server(tmp_path)
    server.trust(trustme.CA())
    async with server.running() as kafka:
        for _ in range(3):
            with pytest.raises(KafkaError, match="certificate that is not trusted"):
                await dial(msgspec.structs.replace(kafka, client_id="another"))
        assert server.connections == 1


async def test_a_connected_client_does_not_storm(tmp_path: Path) -> None:
    """aiokafka's own attempts are held back too."""
    server = Server(tmp_path)
    server.trust(trustme.CA())
    async with FakeBroker() as broker, server.running() as kafka:
        plain = msgspec.structs.replace(kafka, bootstrap_servers=[broker.bootstrap_servers], security=Security())
        async with open_admin(plain) as admin:
            client: Any = admin._client
            client._security_protocol = "SSL"
            client._sasl_oauth_token_provider = connector_of(kafka.security)
            client._conns.clear()
            node = client.get_random_node()
            broker_metadata = client.cluster.broker_metadata(node)
            client.cluster._brokers[node] = broker_metadata._replace(host="localhost", port=server.port)
            assert [await client.ready(node) for _ in range(20)] == [False] * 20
        assert server.connections == 1


async def test_an_outage_is_tried_at_once() -> None:
    """Only a refusal is followed by a wait: a broker that restarts is found soon."""
    async with FakeBroker() as broker:
        port = broker.port
    options = connection_options(Kafka())
    del options["bootstrap_servers"]
    for _ in range(2):
        with pytest.raises(ConnectionFailedError, match="refused the connection"):
            await connect("127.0.0.1", port, **options)
    assert connector_of(Security())._refusals == {}


async def test_the_password_is_read_for_each_connection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next connection sends what is in the file then, whatever the client was made with."""
    file = tmp_path / "password"
    file.write_text("one\n")
    given: list[str] = []

    async def noted(self: Any) -> None:
        given.append(self._sasl_plain_password)

    monkeypatch.setattr("consumer.kafka.connection._Connection.connect", noted)
    security = Security(protocol="SASL_PLAINTEXT", username="u", password_file=str(file))
    options = connection_options(Kafka(security=security))
    del options["bootstrap_servers"]
    for text in ("one", "two"):
        file.write_text(f"{text}\n")
        await connect("localhost", 1, **options)
    assert given == ["one", "two"]
    file.unlink()
    with pytest.raises(ConnectionFailedError, match=r"cannot be asked; kafka\.security\.password_file: cannot read"):
        await connect("localhost", 1, **options)


async def test_an_advertised_address_gets_no_plain_text(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cluster reached on this machine may advertise another host, which is not sent the password."""
    security = Security(protocol="SASL_PLAINTEXT", username="u", password="p")
    options = connection_options(Kafka(security=security))
    del options["bootstrap_servers"]
    with pytest.raises(ConnectionFailedError, match=r"kafka\.example:1 would get the PLAIN credentials in plain text"):
        await connect("kafka.example", 1, **options)


def test_tls_is_new_and_checks_names() -> None:
    context = tls_context(Security(protocol="SSL"))
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2
    assert context.check_hostname
    assert context.verify_mode == ssl.CERT_REQUIRED


@pytest.mark.parametrize("name", ["ca_file", "certificate_file", "password_file"])
def test_a_file_that_cannot_be_used(name: str, tmp_path: Path) -> None:
    """It is a settings error at start, and an error like those of brokers later."""
    files: Any = {name: "/no/such", **({"key_file": "/no/such"} if name == "certificate_file" else {})}
    security = Security(protocol="SASL_SSL", username="u", **files)
    with pytest.raises(UnusableFileError, match="No such file") as failed:
        connection_options(Kafka(security=security))
    assert isinstance(failed.value, SettingsError)
    assert isinstance(failed.value, KafkaError)
    assert failed.value.exit_code == 2


@pytest.mark.parametrize("end", ["", "\0"])
def test_a_key_in_the_place_of_its_file_is_not_shown(tmp_path: Path, end: str) -> None:
    """By mistake ``key_file`` may hold the key itself; the error names the settings only."""
    issued = trustme.CA().issue_cert("client.example")
    file = tmp_path / "client.pem"
    issued.cert_chain_pems[0].write_to_path(str(file))
    key = issued.private_key_pem.bytes().decode()
    with pytest.raises(UnusableFileError, match="cannot use the file of certificate_file or key_file") as failed:
        tls_context(Security(protocol="SSL", certificate_file=str(file), key_file=key + end))
    assert not any(line in "".join(traceback.format_exception(failed.value)) for line in key.splitlines())


def test_an_encrypted_key_asks_nobody(tmp_path: Path) -> None:
    """OpenSSL would ask for the password of a key on the terminal."""
    from cryptography.hazmat.primitives import serialization as s  # noqa: PLC0415 - only here

    issued = trustme.CA().issue_cert("client.example")
    key = s.load_pem_private_key(issued.private_key_pem.bytes(), None)
    file = tmp_path / "client.pem"
    encrypted = key.private_bytes(s.Encoding.PEM, s.PrivateFormat.PKCS8, s.BestAvailableEncryption(b"pw"))
    file.write_bytes(encrypted + issued.cert_chain_pems[0].bytes())
    with pytest.raises(UnusableFileError, match=r"certificate_file or key_file"):
        tls_context(Security(protocol="SSL", certificate_file=str(file), key_file=str(file)))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_a_secret_in_any_unicode_encoding(tmp_path: Path, encoding: str) -> None:
    """A password file may have a byte order mark and Windows' end of line; spaces belong to the password."""
    file = tmp_path / "password"
    file.write_bytes(" pässword \r\n".encode(encoding))
    assert secret(Security(password_file=str(file)), "password") == " pässword "


@pytest.mark.parametrize(
    ("content", "why"),
    [(None, "No such file"), (b"s3cret\xe9", "line 1 is not UTF-8"), (b"\r\n", "is empty")],
    ids=["missing", "Latin-1", "empty"],
)
def test_a_secret_is_not_in_the_error_about_its_file(tmp_path: Path, content: bytes | None, why: str) -> None:
    """Neither the content is shown nor the path, which may be the secret itself, by mistake."""
    file = tmp_path / "s3cret"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(UnusableFileError, match=why) as failed:
        secret(Security(password_file=str(file)), "password")
    assert "kafka.security.password_file" in str(failed.value)
    assert "s3cret" not in str(failed.value)


async def test_a_look_at_what_a_port_speaks_is_no_refusal() -> None:
    """A TLS listener that hangs up while it starts, and answers plain bytes with an alert, may be asked again."""

    async def starting(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if (await reader.read(5))[:1] != b"\x16":
            writer.write(b"\x15\x03\x03\x00\x02\x02\x50")
        writer.close()

    server = await asyncio.start_server(starting, "127.0.0.1", 0)
    async with server:
        address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        kafka = Kafka(bootstrap_servers=[address], security=Security(protocol="SSL"))
        for _ in range(2):
            with pytest.raises(KafkaUnreachableError, match="closed the connection in the TLS handshake"):
                await dial(kafka)
        assert connector_of(kafka.security).refused() == []


async def test_only_a_refused_token_is_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A broker with a wrong certificate says nothing about the token that the others take."""
    server = Server(tmp_path)
    forgotten = []
    server.trust(trustme.CA())
    async with server.running() as kafka:
        connector = connector_of(kafka.security)
        monkeypatch.setattr(connector._tokens, "forget", lambda: forgotten.append(True))
        with pytest.raises(KafkaError, match="not trusted"):
            await dial(kafka)
    assert forgotten == []


async def test_a_context_is_made_once_for_the_same_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """To read the system's authorities takes 40 ms: no attempt reads them again while the files are the same."""
    server = Server(tmp_path)
    made = []
    server.trust(server.authority)
    async with server.running() as kafka:

        def counted(security: Security) -> ssl.SSLContext:
            made.append(True)
            return tls_context(security)

        monkeypatch.setattr("consumer.kafka.connection.tls_context", counted)
        before = len(made)
        for _ in range(5):
            with pytest.raises(KafkaUnreachableError):
                await dial(kafka)
        assert len(made) - before == 1


async def test_a_cancelled_start_leaves_no_connection() -> None:
    """At whichever step the first brokers are being asked: the connection is closed, and no task is left."""
    left = list[int]()
    async with FakeBroker() as broker:
        kafka = Kafka(topics=["t"], bootstrap_servers=[broker.bootstrap_servers])

        async def ask() -> None:
            async with open_admin(kafka):
                pass

        for steps in range(100):
            asking = asyncio.create_task(ask())
            for _ in range(steps):
                await asyncio.sleep(0)
            asking.cancel()
            await asyncio.wait([asking])
            for _ in range(100):
                if not broker.connections and tasks_of_aiokafka() == []:
                    break
                await asyncio.sleep(0.01)
            else:
                left.append(steps)
                break
    assert left == []
