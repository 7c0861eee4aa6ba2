"""A Kafka with a listener for each way to secure a connection, with users, certificates and permissions of its own.

The first test that needs it starts it, as ``tests/shared_kafka.py`` does. ``User:ANONYMOUS`` of the plain listener and
``User:consumer`` may do everything; ``User:limited`` may do what a test grants.
"""

from __future__ import annotations

import asyncio
import base64
import datetime as dt
import hashlib
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import trustme
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.protocol.admin import CreateAclsRequest_v1
from aiokafka.protocol.api import RequestStruct, Response
from aiokafka.protocol.types import (
    CompactArray,
    CompactBytes,
    CompactString,
    Int8,
    Int16,
    Int32,
    Schema,
    TaggedFields,
)
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from consumer.kafka.local.cluster import LocalKafka
from consumer.kafka.local.ports import held_ports
from tests.shared_kafka import serve

PASSWORD = "right-Pa55word"
LIMITED_PASSWORD = "limited-Pa55word"
ITERATIONS = 4096
SCRAM = {"SCRAM-SHA-256": (1, "sha256"), "SCRAM-SHA-512": (2, "sha512")}
REAUTHENTICATE_MS = 3000
MECHANISMS = "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512,OAUTHBEARER"

LISTENERS = {
    "TLS": "SSL",
    "MTLS": "SSL",
    "PROXIED": "SSL",
    "EXPIRED": "SSL",
    "STRANGER": "SSL",
    "SASL": "SASL_PLAINTEXT",
    "SCRAM": "SASL_PLAINTEXT",
    "REFUSING": "SASL_PLAINTEXT",
    "EXPIRING": "SASL_PLAINTEXT",
    "SASLTLS": "SASL_SSL",
}
"""Protocol of each listener. PROXIED and REFUSING are advertised at another port, where a test's proxy listens.

Sessions end after 3 s on REFUSING and EXPIRING.
"""
SERVER_CERTIFICATES = {"EXPIRED": "expired", "STRANGER": "stranger"}
OFFERED = {"SCRAM": "SCRAM-SHA-512", "REFUSING": "SCRAM-SHA-256", "EXPIRING": "OAUTHBEARER"}
ADVERTISED = ("PROXIED", "REFUSING")

MODULES = "org.apache.kafka.common.security."
JAAS = {
    "plain": f'{MODULES}plain.PlainLoginModule required user_consumer="{PASSWORD}" user_limited="{LIMITED_PASSWORD}";',
    "scram-sha-256": f"{MODULES}scram.ScramLoginModule required;",
    "scram-sha-512": f"{MODULES}scram.ScramLoginModule required;",
    "oauthbearer": (f'{MODULES}oauthbearer.OAuthBearerLoginModule required unsecuredLoginStringClaim_sub="broker";'),
}
VALIDATOR = f"{MODULES}oauthbearer.internals.unsecured.OAuthBearerUnsecuredValidatorCallbackHandler"


class Secure(msgspec.Struct):
    """Where the cluster is: its plain servers, the port of each listener, and the folder of its certificates."""

    servers: str
    ports: dict[str, int]
    advertised: dict[str, int]
    folder: str

    def file(self, name: str) -> str:
        """Return the path of a PEM file."""
        return f"{self.folder}/{name}.pem"

    def server(self, listener: str) -> str:
        """Return the address of a listener."""
        return f"localhost:{self.ports[listener]}"


@asynccontextmanager
async def secure_kafka(folder: Path) -> AsyncIterator[str]:
    """Run the cluster for the block, and yield a Secure as JSON."""
    write_certificates(folder)
    with held_ports(0, len(LISTENERS) + len(ADVERTISED)) as free:
        ports = dict(zip(LISTENERS, free, strict=False))
        advertised = dict(zip(ADVERTISED, free[len(LISTENERS) :], strict=True))
    async with LocalKafka(properties=lambda _, given: properties(folder, ports, advertised, given)) as kafka:
        for mechanism in SCRAM:
            await set_password(kafka.bootstrap_servers, "consumer", mechanism, PASSWORD)
        told = Secure(kafka.bootstrap_servers, ports, advertised, str(folder))
        yield msgspec.json.encode(told).decode()


def properties(
    folder: Path, ports: Mapping[str, int], advertised: Mapping[str, int], given: Mapping[str, str]
) -> dict[str, str]:
    """Return the lines of ``server.properties`` that make the listeners, their users and the authorizer."""
    lines = {
        "listeners": ",".join([given["listeners"], *(f"{name}://localhost:{port}" for name, port in ports.items())]),
        "advertised.listeners": ",".join(
            [
                given["advertised.listeners"],
                *(f"{name}://localhost:{advertised.get(name, port)}" for name, port in ports.items()),
            ]
        ),
        "listener.security.protocol.map": ",".join(
            [given["listener.security.protocol.map"], *(f"{name}:{each}" for name, each in LISTENERS.items())]
        ),
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users": "User:ANONYMOUS;User:consumer",
        "ssl.principal.mapping.rules": "RULE:^.*CN=([^,]+).*$/$1/,DEFAULT",
        "ssl.keystore.type": "PEM",
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": str(folder / "trusted.pem"),
        "ssl.keystore.location": str(folder / "server.pem"),
    }
    for name, protocol in LISTENERS.items():
        prefix = f"listener.name.{name.lower()}."
        if name in SERVER_CERTIFICATES:
            lines[f"{prefix}ssl.keystore.location"] = str(folder / f"{SERVER_CERTIFICATES[name]}.pem")
        if name in ("MTLS", "PROXIED"):
            lines[f"{prefix}ssl.client.auth"] = "required"
        if protocol.startswith("SASL"):
            offered = OFFERED.get(name, MECHANISMS)
            lines[f"{prefix}sasl.enabled.mechanisms"] = offered
            for mechanism in offered.lower().split(","):
                lines[f"{prefix}{mechanism}.sasl.jaas.config"] = JAAS[mechanism]
                if name in ("REFUSING", "EXPIRING"):
                    lines[f"{prefix}{mechanism}.connections.max.reauth.ms"] = str(REAUTHENTICATE_MS)
            if "OAUTHBEARER" in offered:
                lines[f"{prefix}oauthbearer.sasl.server.callback.handler.class"] = VALIDATOR
    return lines


def write_certificates(folder: Path) -> None:
    """Write the certificates as PEM files: of each server and client with its key, and of the authorities."""
    authority, other = trustme.CA(), trustme.CA()
    expired = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
    servers = {
        "server": authority.issue_cert("localhost", "127.0.0.1"),
        "stranger": authority.issue_cert("kafka.example"),
        "expired": authority.issue_cert("localhost", not_before=expired, not_after=expired + dt.timedelta(days=1)),
    }
    clients = {"client": authority, "renewed": other, "unknown": trustme.CA()}
    issued = servers | {name: ca.issue_cert(f"{name}.example", common_name="consumer") for name, ca in clients.items()}
    for name, each in issued.items():
        parts = [_as_pkcs8(each.private_key_pem.bytes()), *(blob.bytes() for blob in each.cert_chain_pems)]
        if name in servers:
            parts.append(authority.cert_pem.bytes())
        (folder / f"{name}.pem").write_bytes(b"".join(parts))
    (folder / "ca.pem").write_bytes(authority.cert_pem.bytes())
    (folder / "other-ca.pem").write_bytes(other.cert_pem.bytes())
    (folder / "trusted.pem").write_bytes(authority.cert_pem.bytes() + other.cert_pem.bytes())


def _as_pkcs8(pem: bytes) -> bytes:
    """Return a private key in the only form that Java reads."""
    key = load_pem_private_key(pem, None)
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def a_token(subject: str = "consumer", seconds: float = 3600.0) -> str:
    """Make a token that the brokers take without a signature."""
    now = time.time()
    parts = ({"alg": "none"}, {"sub": subject, "iat": now + min(0, seconds) - 1, "exp": now + seconds})
    return ".".join(base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts) + "."


class Grant(NamedTuple):
    """One permission of ``User:limited``: operation on a resource, both as Kafka's numbers."""

    kind: int
    name: str
    operation: int


TOPIC, GROUP, CLUSTER = 2, 3, 4
READ, WRITE, DESCRIBE = 3, 4, 8


async def grant(servers: str, *grants: Grant) -> None:
    """Grant permissions to ``User:limited``."""
    admin = AIOKafkaAdminClient(bootstrap_servers=servers)
    await admin.start()
    try:
        allowed, literal = 3, 3
        wanted = [(each.kind, each.name, literal, "User:limited", "*", each.operation, allowed) for each in grants]
        answer: Any = await admin._client.send(admin._client.get_random_node(), _Ready(CreateAclsRequest_v1(wanted)))
        assert all(code == 0 for code, _ in answer.creation_responses), answer
    finally:
        await admin.close()


async def set_password(servers: str, user: str, mechanism: str, password: str) -> None:
    """Set a user's password for SCRAM."""
    number, name = SCRAM[mechanism]
    salt = os.urandom(16)
    salted = hashlib.pbkdf2_hmac(name, password.encode(), salt, ITERATIONS)
    admin = AIOKafkaAdminClient(bootstrap_servers=servers)
    await admin.start()
    try:
        wanted = _AlterScramRequest([], [(user, number, ITERATIONS, salt, salted, {})], {})
        answer: Any = await admin._client.send(admin._client.get_random_node(), _Ready(wanted))
        assert all(code == 0 for _, code, _, _ in answer.results), answer
    finally:
        await admin.close()


class _AlterScramResponse(Response):
    API_KEY = 51
    API_VERSION = 0
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "results",
            CompactArray(
                ("user", CompactString("utf-8")),
                ("error_code", Int16),
                ("error_message", CompactString("utf-8")),
                ("tags", TaggedFields),
            ),
        ),
        ("tags", TaggedFields),
    )


class _AlterScramRequest(RequestStruct):
    API_KEY = 51
    API_VERSION = 0
    FLEXIBLE_VERSION = True
    RESPONSE_TYPE = _AlterScramResponse
    SCHEMA = Schema(
        (
            "deletions",
            CompactArray(("name", CompactString("utf-8")), ("mechanism", Int8), ("tags", TaggedFields)),
        ),
        (
            "upsertions",
            CompactArray(
                ("name", CompactString("utf-8")),
                ("mechanism", Int8),
                ("iterations", Int32),
                ("salt", CompactBytes),
                ("salted_password", CompactBytes),
                ("tags", TaggedFields),
            ),
        ),
        ("tags", TaggedFields),
    )


class _Ready:
    """A request of one version, which aiokafka sends as it is."""

    def __init__(self, made: Any) -> None:
        self._made = made

    def prepare(self, _versions: Any) -> Any:
        return self._made


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1]), secure_kafka(Path(sys.argv[1]))))
