"""The matrix of ``[kafka.security]``: what may be right or wrong with it, and what ``check`` and ``run`` then say."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote_plus

from aiohttp import web

from tests.chaos.proxy import Proxy
from tests.cluster import Cluster, a_session, eventually
from tests.kafka.secure import (
    DESCRIBE,
    GROUP,
    LIMITED_PASSWORD,
    PASSWORD,
    READ,
    TOPIC,
    WRITE,
    Grant,
    Secure,
    a_token,
    grant,
)
from tests.process import RunningConsumer, command

WRONG = "wr0ng-Secret"
CLIENT_SECRET = "client-S3cret&"
AWS_KEY = "aws-S3cret-key"
SECRET_TEXTS = (PASSWORD, LIMITED_PASSWORD, WRONG, CLIENT_SECRET, AWS_KEY)

TLS = {"protocol": "SSL", "ca_file": "{ca}"}
CLIENT = {"certificate_file": "{client}", "key_file": "{client}"}
USER = {"username": "consumer"}
SASL = {"protocol": "SASL_PLAINTEXT"}
SASL_TLS = {"protocol": "SASL_SSL", "ca_file": "{ca}"}
SECRET_FILE = {"password_file": "{password}"}
WRONG_FILE = {"password_file": "{wrong}"}
PLAIN = {"mechanism": "PLAIN", **USER}
SCRAM = {"mechanism": "SCRAM-SHA-256", **USER}
OAUTH = {"mechanism": "OAUTHBEARER"}
ENDPOINT = {
    **OAUTH,
    "token_endpoint": "{endpoint}",
    "oauth_client_id": "the client",
    "oauth_client_secret_file": "{client_secret}",
}
AWS = {"mechanism": "AWS_MSK_IAM", "aws_region": "eu-central-1"}
AWS_LOGIN = {"AWS_ACCESS_KEY_ID": "AKIDEXAMPLE", "AWS_SECRET_ACCESS_KEY": AWS_KEY}
NO_AWS = {"AWS_EC2_METADATA_DISABLED": "true", "AWS_SHARED_CREDENTIALS_FILE": "/dev/null"}
LIMITED = {**SASL, "mechanism": "PLAIN", "username": "limited", "password_file": "{limited}"}

READ_TOPIC, JOIN, WRITE_LETTERS = (TOPIC, "{topic}", READ), (GROUP, "{group}", READ), (TOPIC, "{topic}.dlq", WRITE)


class Cell(NamedTuple):
    """One set-up: a listener, settings of ``[kafka.security]``, and how ``check`` and ``run`` end."""

    listener: str
    security: Mapping[str, str]
    code: int = 0
    """Exit code; 0 says that the daemon consumes and commits."""
    says: str = ""
    run_code: int | None = None
    """Exit code of ``run``, when it is another than that of ``check``."""
    grants: tuple[tuple[int, str, int], ...] = ()
    environment: Mapping[str, str] = {}


CELLS = {
    "TLS": Cell("TLS", TLS),
    "TLS with a client certificate": Cell("MTLS", TLS | CLIENT),
    "PLAIN": Cell("SASL", SASL | PLAIN | SECRET_FILE),
    "PLAIN over TLS": Cell("SASLTLS", SASL_TLS | PLAIN | SECRET_FILE),
    "SCRAM-SHA-256 over TLS": Cell("SASLTLS", SASL_TLS | SCRAM | SECRET_FILE),
    "SCRAM-SHA-512 over TLS": Cell("SASLTLS", SASL_TLS | SCRAM | SECRET_FILE | {"mechanism": "SCRAM-SHA-512"}),
    "OAUTHBEARER with a token file": Cell("SASLTLS", SASL_TLS | OAUTH | {"token_file": "{token}"}),
    "OAUTHBEARER with a token endpoint": Cell("SASLTLS", SASL_TLS | ENDPOINT),
    "another authority": Cell("TLS", TLS | {"ca_file": "{other_ca}"}, 1, "has a certificate that is not trusted"),
    "the system's authorities": Cell("TLS", {"protocol": "SSL"}, 1, "set kafka.security.ca_file"),
    "another host name": Cell("STRANGER", TLS, 1, "has a certificate for another host name"),
    "expired certificate": Cell("EXPIRED", TLS, 1, "has an expired certificate; renew the broker's"),
    "no client certificate": Cell("MTLS", TLS, 1, "client certificate"),
    "unknown client certificate": Cell(
        "MTLS", TLS | {"certificate_file": "{unknown}", "key_file": "{unknown}"}, 1, "client certificate"
    ),
    "no such CA file": Cell("TLS", TLS | {"ca_file": "/no/such.pem"}, 2, "the file of ca_file: No such file"),
    "PLAIN, wrong password": Cell(
        "SASL", SASL | PLAIN | WRONG_FILE, 1, "refused the PLAIN credentials; correct kafka.security.username and"
    ),
    "PLAIN over TLS, wrong password": Cell(
        "SASLTLS", SASL_TLS | PLAIN | WRONG_FILE, 1, "refused the PLAIN credentials"
    ),
    "SCRAM-SHA-256, wrong password": Cell(
        "SASL", SASL | SCRAM | WRONG_FILE, 1, "refused the SCRAM-SHA-256 credentials; correct kafka.security.username"
    ),
    "SCRAM-SHA-512, wrong password": Cell(
        "SASLTLS",
        SASL_TLS | SCRAM | WRONG_FILE | {"mechanism": "SCRAM-SHA-512"},
        1,
        "refused the SCRAM-SHA-512 credentials",
    ),
    "SCRAM-SHA-256, unknown user": Cell(
        "SASL", SASL | SCRAM | SECRET_FILE | {"username": "nobody"}, 1, "refused the SCRAM-SHA-256 credentials"
    ),
    "OAUTHBEARER, expired token": Cell(
        "SASLTLS", SASL_TLS | OAUTH | {"token_file": "{expired_token}"}, 1, "refused the OAUTHBEARER credentials; see"
    ),
    "OAUTHBEARER, no token": Cell(
        "SASLTLS", SASL_TLS | OAUTH | {"token_file": "{wrong}"}, 1, "refused the OAUTHBEARER credentials"
    ),
    "OAUTHBEARER, wrong client secret": Cell(
        "SASLTLS",
        SASL_TLS | ENDPOINT | {"oauth_client_secret_file": "{wrong}"},
        1,
        "kafka.security.token_endpoint gave no token (status 401, invalid_client); correct kafka.security.oauth_client",
    ),
    "OAUTHBEARER, no token endpoint": Cell(
        "SASLTLS",
        SASL_TLS | ENDPOINT | {"token_endpoint": "http://localhost:1/token"},
        69,
        "kafka.security.token_endpoint does not answer (ClientConnectorError); check that URL",
    ),
    "AWS_MSK_IAM, refused": Cell(
        "SASLTLS",
        SASL_TLS | AWS,
        1,
        "refused the AWS_MSK_IAM credentials; grant kafka-cluster:Connect",
        environment=AWS_LOGIN,
    ),
    "AWS_MSK_IAM, no AWS credentials": Cell(
        "SASLTLS", SASL_TLS | AWS, 1, "AWS gave no credentials to sign a token with", environment=NO_AWS
    ),
    "mechanism not offered": Cell(
        "SCRAM", SASL | PLAIN | SECRET_FILE, 1, "does not offer the SASL mechanism PLAIN; set kafka.security.mechanism"
    ),
    "PLAINTEXT against TLS": Cell("TLS", {}, 1, "speaks TLS; set kafka.security.protocol to SSL or SASL_SSL"),
    "TLS against PLAINTEXT": Cell("PLAINTEXT", TLS, 1, "does not speak TLS; set kafka.security.protocol to PLAINTEXT"),
    "PLAINTEXT against SASL": Cell("SASL", {}, 1, "expects SASL; set kafka.security.protocol to SASL_PLAINTEXT"),
    "SASL against PLAINTEXT": Cell(
        "PLAINTEXT",
        SASL | PLAIN | SECRET_FILE,
        1,
        "expects no SASL; set kafka.security.protocol to PLAINTEXT",
    ),
    "TLS against SASL over TLS": Cell("SASLTLS", TLS, 1, "expects SASL; set kafka.security.protocol to SASL_SSL"),
    "SASL over TLS against TLS": Cell(
        "TLS", SASL_TLS | PLAIN | SECRET_FILE, 1, "expects no SASL; set kafka.security.protocol to SSL"
    ),
    "SASL against SASL over TLS": Cell("SASLTLS", SASL | PLAIN | SECRET_FILE, 1, "speaks TLS; set"),
    "SASL over TLS against SASL": Cell("SASL", SASL_TLS | PLAIN | SECRET_FILE, 1, "does not speak TLS; set"),
    "no permission on the topic": Cell(
        "SASL", LIMITED, 1, "permission denied on topic '{topic}'; grant READ", grants=(JOIN, WRITE_LETTERS)
    ),
    "no permission to read the topic": Cell(
        "SASL",
        LIMITED,
        1,
        "permission denied on topic '{topic}'; grant READ and DESCRIBE",
        grants=((TOPIC, "{topic}", DESCRIBE), JOIN, WRITE_LETTERS),
    ),
    "no permission on the group": Cell(
        "SASL",
        LIMITED,
        1,
        "permission denied on the group; grant READ on group '{group}'",
        grants=(READ_TOPIC, WRITE_LETTERS),
    ),
    "no permission on the dead letters": Cell(
        "SASL",
        LIMITED,
        1,
        "dead_letter.topic: permission denied on topic '{topic}.dlq'; grant WRITE",
        run_code=0,
        grants=(READ_TOPIC, JOIN),
    ),
    "no IDEMPOTENT_WRITE": Cell("SASL", LIMITED, grants=(READ_TOPIC, JOIN, WRITE_LETTERS)),
    "no password": Cell("SASL", SASL | PLAIN, 2, "kafka.security.password is empty"),
    "no such password file": Cell(
        "SASL",
        SASL | PLAIN | {"password_file": "/no/such"},
        2,
        "kafka.security.password_file: cannot read the file that it names: No such file",
    ),
}


class CountingProxy(Proxy):
    """A proxy that counts the connections."""

    connections = 0

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        await super()._serve(reader, writer)

    @property
    def address(self) -> str:
        """Where it listens."""
        assert self._server is not None
        return f"localhost:{self._server.sockets[0].getsockname()[1]}"


@asynccontextmanager
async def token_endpoint(seconds: float = 3600.0) -> AsyncIterator[tuple[str, list[Any]]]:
    """Serve tokens to the one client that it knows; yield its URL and the forms that it was sent."""
    forms: list[Any] = []

    async def answer(request: web.Request) -> web.Response:
        forms.append(dict(await request.post()))
        kind, _, encoded = request.headers["Authorization"].partition(" ")
        client, _, secret = base64.b64decode(encoded).decode().partition(":")
        if (kind, unquote_plus(client), unquote_plus(secret)) != ("Basic", "the client", CLIENT_SECRET):
            said = {"error": "invalid_client", "error_description": f"{secret} is wrong"}
            return web.json_response(said, status=401)
        return web.json_response({"access_token": a_token(seconds=seconds), "expires_in": seconds})

    application = web.Application()
    application.router.add_post("/token", answer)
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "localhost", 0)
    await site.start()
    try:
        port = runner.addresses[0][1]
        yield f"http://127.0.0.1:{port}/token", forms
    finally:
        await runner.cleanup()


def files(secure: Secure, folder: Path) -> dict[str, str]:
    """Write the secrets of a cell to files, and return where each file is."""
    texts = {
        "password": PASSWORD,
        "limited": LIMITED_PASSWORD,
        "wrong": WRONG,
        "client_secret": CLIENT_SECRET,
        "token": a_token(),
        "expired_token": a_token(seconds=-60),
    }
    for name, text in texts.items():
        (folder / name).write_text(f"{text}\n")
    certificates = {name.replace("-", "_"): secure.file(name) for name in ("ca", "other-ca", "client", "unknown")}
    return {**{name: str(folder / name) for name in texts}, **certificates}


class Look(NamedTuple):
    """How one command ended in one cell; its topic and group are written as ``{topic}`` and ``{group}``."""

    code: int
    text: str
    seconds: float
    connections: int


async def look(secure: Secure, cell: Cell, folder: Path) -> tuple[Look, Look]:
    """Run ``check`` and ``run`` in a cell; a ``run`` that consumes and commits is ended then."""
    cluster = Cluster(secure.servers, folder.name, folder)
    await cluster.create(1, dead_letters=1)
    await cluster.produce(map(a_session, range(3)))
    names = {"topic": cluster.topic, "group": cluster.kafka.group_id}
    if cell.grants:
        await grant(secure.servers, *(Grant(kind, name.format(**names), how) for kind, name, how in cell.grants))
    port = int(secure.servers.rpartition(":")[2]) if cell.listener == "PLAINTEXT" else secure.ports[cell.listener]
    async with token_endpoint() as (endpoint, _), CountingProxy(0, port) as proxy, CountingProxy(0, port) as other:
        known = files(secure, folder) | {"endpoint": endpoint}
        sets = [f"kafka.security.{name}={value.format(**known)}" for name, value in cell.security.items()]
        if cell.code == 69:
            sets.append("kafka.start_timeout_seconds=3")
        return await asyncio.gather(
            _checked(cluster, cell, [*sets, f"kafka.bootstrap_servers={proxy.address}"], proxy),
            _ran(cluster, cell, [*sets, f"kafka.bootstrap_servers={other.address}"], other),
        )


async def _checked(cluster: Cluster, cell: Cell, sets: list[str], proxy: CountingProxy) -> Look:
    begun = time.monotonic()
    given = [part for each in [*cluster.overrides, *sets] for part in ("--set", each)]
    code, out, err = await command("check", *given, **{"COLUMNS": "1000", **cell.environment})  # type: ignore[arg-type]
    return Look(code, _without_names(cluster, out + err), time.monotonic() - begun, proxy.connections)


async def _ran(cluster: Cluster, cell: Cell, sets: list[str], proxy: CountingProxy) -> Look:
    begun = time.monotonic()
    settings = cluster.folder / "settings.toml"
    settings.write_text('[[routes]]\nname = "log"\nhandler = "consumer.handlers.log:Log"\n')
    running = RunningConsumer(settings, [*cluster.overrides, *sets, "log.level=debug"], cell.environment)
    pages = []
    async with running:
        if (cell.code if cell.run_code is None else cell.run_code) == 0:

            async def committed() -> bool:
                return await cluster.committed() == {0: 3}

            await eventually(committed)
            pages = [(await running.get(path))[1] for path in ("/status.json", "/metrics", "/")]
            code = await running.stop()
        else:
            code = await running.exit_code()
        seconds = time.monotonic() - begun
    return Look(code, _without_names(cluster, "\n".join([*running.lines, *pages])), seconds, proxy.connections)


def _without_names(cluster: Cluster, text: str) -> str:
    return text.replace(cluster.kafka.group_id, "{group}").replace(cluster.topic, "{topic}")


def leaked(text: str) -> list[str]:
    """Return which secrets a text holds, also as PLAIN and tokens encode them."""
    encoded = [base64.b64encode(each.encode()).decode().rstrip("=") for each in SECRET_TEXTS]
    token = a_token().partition(".")[0]
    return [each for each in (*SECRET_TEXTS, *encoded, token, json.dumps(CLIENT_SECRET)) if each in text]
