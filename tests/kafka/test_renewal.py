"""Certificates, passwords and tokens are renewed while the daemon runs, and a refusal meanwhile is no storm."""

from __future__ import annotations

import shutil
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

from tests.cluster import Cluster, a_session, eventually
from tests.kafka.secure import (
    GROUP,
    PASSWORD,
    READ,
    TOPIC,
    Grant,
    Secure,
    a_token,
    grant,
    set_password,
)
from tests.kafka.security_cells import CLIENT_SECRET, CountingProxy, leaked, token_endpoint
from tests.process import RunningConsumer

LOG = '[[routes]]\nname = "log"\nhandler = "consumer.handlers.log:Log"\n'
FEW = 12
"""Connections while credentials are refused for some ten seconds; aiokafka would make a hundred."""


def a_daemon(cluster: Cluster, server: str, *sets: str) -> RunningConsumer:
    return cluster.run(f"kafka.bootstrap_servers={server}", "log.level=debug", *sets, routes=LOG)


def has_committed(cluster: Cluster, offset: int) -> Callable[[], Awaitable[bool]]:
    async def committed() -> bool:
        return await cluster.committed() == {0: offset}

    return committed


def has_more(forms: list[Any], count: int) -> bool:
    return len(forms) > count


async def test_certificates_are_renewed(secure: Secure, tmp_path: Path) -> None:
    """The next connections use the new files; a certificate that is refused costs few attempts and no record."""
    cluster = Cluster(secure.servers, "renewed", tmp_path)
    await cluster.create(dead_letters=1)
    mine = tmp_path / "client.pem"
    shutil.copy(secure.file("client"), mine)
    security = (f"ca_file={secure.file('ca')}", f"certificate_file={mine}", f"key_file={mine}", "protocol=SSL")
    async with (
        CountingProxy(secure.advertised["PROXIED"], secure.ports["PROXIED"]) as proxy,
        a_daemon(cluster, proxy.address, *(f"kafka.security.{each}" for each in security)) as consumer,
    ):
        await cluster.produce(map(a_session, range(3)))
        await eventually(has_committed(cluster, 3))
        shutil.copy(secure.file("unknown"), mine)
        before = proxy.connections
        proxy.reset()
        await cluster.produce(map(a_session, range(3, 6)))
        why = await consumer.said("brokers_unreachable")
        refused = proxy.connections - before
        shutil.copy(secure.file("renewed"), mine)
        await eventually(has_committed(cluster, 6), 60)
        assert await consumer.stop() == 0
    assert 0 < refused <= FEW
    assert "refused the TLS handshake" in why


async def test_a_password_is_renewed(secure: Secure, tmp_path: Path) -> None:
    """The broker takes another password, sessions end, and the daemon goes on with what is in the file then."""
    cluster = Cluster(secure.servers, "password", tmp_path)
    await cluster.create(dead_letters=1)
    await grant(secure.servers, Grant(TOPIC, cluster.topic, READ), Grant(GROUP, cluster.kafka.group_id, READ))
    file = tmp_path / "password"
    file.write_text(PASSWORD)
    await set_password(secure.servers, "limited", "SCRAM-SHA-256", PASSWORD)
    security = ("protocol=SASL_PLAINTEXT", "mechanism=SCRAM-SHA-256", "username=limited", f"password_file={file}")
    async with (
        CountingProxy(secure.advertised["REFUSING"], secure.ports["REFUSING"]) as proxy,
        a_daemon(cluster, proxy.address, *(f"kafka.security.{each}" for each in security)) as consumer,
    ):
        await cluster.produce(map(a_session, range(3)))
        await eventually(has_committed(cluster, 3))
        await set_password(secure.servers, "limited", "SCRAM-SHA-256", f"{PASSWORD}-2")
        before = proxy.connections
        why = await consumer.said("brokers_unreachable")
        refused = proxy.connections - before
        await cluster.produce(map(a_session, range(3, 6)))
        file.write_text(f"{PASSWORD}-2")
        await eventually(has_committed(cluster, 6), 60)
        assert await consumer.stop() == 0
    assert 0 < refused <= FEW
    assert "refused the SCRAM-SHA-256 credentials; correct kafka.security.username and password" in why
    assert leaked("\n".join(consumer.lines)) == []


async def test_tokens_are_renewed(secure: Secure, tmp_path: Path) -> None:
    """Sessions end with their tokens, again and again; the next connection has the next token, and nothing is lost."""
    cluster = Cluster(secure.servers, "tokens", tmp_path)
    await cluster.create(dead_letters=1)
    secret = tmp_path / "secret"
    secret.write_text(CLIENT_SECRET)
    async with token_endpoint(seconds=4.0) as (endpoint, forms):
        security = (
            "protocol=SASL_PLAINTEXT",
            "mechanism=OAUTHBEARER",
            f"token_endpoint={endpoint}",
            "oauth_client_id=the client",
            f"oauth_client_secret_file={secret}",
            "scope=kafka",
        )
        sets = [f"kafka.security.{each}" for each in security]
        async with a_daemon(cluster, secure.server("EXPIRING"), *sets) as consumer:
            for number in range(3):
                await cluster.produce(map(a_session, range(3)))
                await eventually(has_committed(cluster, 3 * (number + 1)), 60)
                asked = len(forms)
                await eventually(partial(has_more, forms, asked), 60)
            assert await consumer.stop() == 0
    assert forms[0] == {"grant_type": "client_credentials", "scope": "kafka"}
    assert not any("kafka_client_lost" in line for line in consumer.lines)
    assert leaked("\n".join(consumer.lines)) == []
    assert a_token().partition(".")[0] not in "\n".join(consumer.lines)
