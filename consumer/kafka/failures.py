"""What went wrong with a broker or a request, in plain words: what happened and what to do."""

from __future__ import annotations

import asyncio
import errno
import os
import re
import socket
import ssl
from collections.abc import Iterator
from typing import NamedTuple

from aiokafka import errors

from consumer.errors import KafkaError, KafkaUnreachableError
from consumer.kafka.broker_errors import GroupMaxSizeReachedError
from consumer.settings.sections import Kafka

ClientError = errors.KafkaError
"""Base class of aiokafka's errors, which are translated in this folder."""

REQUEST_ERRORS = (ClientError, KafkaError, KafkaUnreachableError, OSError, TimeoutError)
"""What connecting, or a request to the brokers, may raise."""

PROTOCOL = "kafka.security.protocol"
PLAIN, TLS = "PLAINTEXT or SASL_PLAINTEXT", "SSL or SASL_SSL"


class Failure(NamedTuple):
    """Why one broker cannot be used."""

    server: str
    """Address as ``host:port``."""
    what: str
    """What happened, as the end of a sentence that begins with the address."""
    remedy: str
    lasting: bool = True
    """Whether to try again is of no use until somebody changes something."""

    def __str__(self) -> str:
        return f"{self.server} {self.what}; {self.remedy}"


def failure_of(server: str, error: BaseException, kafka: Kafka, seconds: float, *, connected: bool) -> Failure:
    """Name the failure of a connection that had ``seconds``; ``connected`` says that TCP, and TLS, had succeeded.

    aiokafka wraps what the network said, so the causes are looked at too.
    """
    for each in _chain(error):
        if isinstance(each, TimeoutError) and each.errno is None:
            return Failure(server, *_of_silence(seconds, connected=connected, kafka=kafka), lasting=False)
        named = _named(each, kafka, connected=connected)
        if named is not None:
            return Failure(server, *named)
    return Failure(server, f"failed ({described(error)})", "see the broker's log", lasting=False)


Named = tuple[str, str, bool]
"""What happened, what to do, and whether it lasts."""


def _named(error: BaseException, kafka: Kafka, *, connected: bool) -> Named | None:
    """Name an error; None for one that does not say what happened."""
    match error:
        case socket.gaierror():
            return "cannot be resolved (no such host name)", "correct the name, or this machine's DNS", False
        case ssl.SSLError():
            return _of_tls(error)
        case asyncio.IncompleteReadError():
            return _of_answer(error)
        case OSError():
            return _of_network(error, kafka, connected=connected)
        case errors.KafkaConnectionError():
            return "closed the connection", _closed_remedy(kafka), False
    return _of_broker(error, kafka)


def _of_silence(seconds: float, kafka: Kafka, *, connected: bool) -> tuple[str, str]:
    if connected:
        what = f"accepted the connection and did not answer within {seconds:g} s"
        return (
            what,
            f"see whether that broker hangs, and whether its port speaks {kafka.security.protocol}",
        )
    part = "the TLS handshake" if kafka.security.protocol.endswith("SSL") else "the connection"
    return (
        f"did not complete {part} within {seconds:g} s",
        "check the address, firewalls, and that broker",
    )


def _of_network(error: OSError, kafka: Kafka, *, connected: bool) -> Named:
    """Name an error of a socket; asyncio joins those of several addresses of one name into a text."""
    codes = {int(code) for code in re.findall(r"Errno (\d+)", str(error))} | ({error.errno} if error.errno else set())
    if codes <= {errno.ECONNREFUSED} and codes:
        return "refused the connection", "start Kafka there, or correct the address", False
    if codes & {errno.ECONNRESET, errno.EPIPE, errno.ECONNABORTED} or not codes:
        if kafka.security.protocol.endswith("SSL") and not connected:
            return _closed_in_handshake()
        return "closed the connection", _closed_remedy(kafka), False
    said = ", ".join(sorted(os.strerror(code) for code in codes))
    return f"cannot be reached ({said})", "check the address, the routes and the firewalls", False


def _of_tls(error: ssl.SSLError) -> Named:
    """Name a failure of TLS, by OpenSSL's reason."""
    reason = (error.reason or "").upper()
    if isinstance(error, ssl.SSLCertVerificationError):
        return _of_certificate(error)
    if "CERTIFICATE_REQUIRED" in reason:
        return "asks for a client certificate", "set kafka.security.certificate_file and key_file", True
    if "ALERT" in reason and any(word in reason for word in ("CERTIFICATE", "UNKNOWN_CA", "HANDSHAKE_FAILURE")):
        theirs = reason.split("ALERT_")[-1].lower().replace("_", " ")
        what = f"refused the TLS handshake ({theirs})"
        return what, "use a client certificate that the broker trusts (kafka.security.certificate_file)", True
    if "PROTOCOL_VERSION" in reason or "UNSUPPORTED_PROTOCOL" in reason:
        return "speaks no TLS version from 1.2 on", "enable TLS 1.2 or 1.3 on the broker", True
    return _closed_in_handshake()


def _of_certificate(error: ssl.SSLCertVerificationError) -> Named:
    theirs = error.verify_message
    match error.verify_code:
        case 10:
            return "has an expired certificate", "renew the broker's certificate", True
        case 9:
            return "has a certificate that is not valid yet", "set this machine's clock, or renew the certificate", True
        case 62 | 64:
            what = "has a certificate for another host name"
            return what, "name the broker as its certificate does, or add this name to the certificate", True
        case _:
            remedy = "set kafka.security.ca_file to the PEM file of the authority that signed it"
            return f"has a certificate that is not trusted ({theirs})", remedy, True


def _closed_in_handshake() -> Named:
    return "does not speak TLS", f"set {PROTOCOL} to {PLAIN}, or use the broker's TLS port", True


def _of_answer(error: asyncio.IncompleteReadError) -> Named | None:
    """Name an answer that is not Kafka's by its first bytes, which aiokafka has taken for a length."""
    first = (error.expected or 0).to_bytes(8)[-4:]
    if first[:2] == b"\x15\x03":
        return "speaks TLS", f"set {PROTOCOL} to {TLS}, or use the broker's plain port", True
    if first == b"HTTP":
        return "speaks HTTP, not Kafka", "name a broker's port in kafka.bootstrap_servers", True
    return None


def _closed_remedy(kafka: Kafka) -> str:
    if kafka.security.protocol == "PLAINTEXT":
        return f"check {PROTOCOL}: the port may expect TLS or SASL"
    return f"check {PROTOCOL}, and see the broker's log"


def _of_broker(error: BaseException, kafka: Kafka) -> Named | None:
    security = kafka.security
    match error:
        case errors.SaslAuthenticationFailed():
            remedy = "correct kafka.security.username and password"
            return f"refused the {security.mechanism} credentials", remedy, True
        case errors.UnsupportedSaslMechanismError():
            what = f"does not offer the SASL mechanism {security.mechanism}"
            return what, "set kafka.security.mechanism to one that the broker has enabled", True
        case errors.IllegalSaslStateError():
            what = "expects no SASL"
            return what, f"set {PROTOCOL} to {security.protocol.removeprefix('SASL_')}", True
        case errors.IncompatibleBrokerVersion() | errors.UnsupportedVersionError():
            return "does not support a request of this client", "use Apache Kafka 2.1 or later", True
    return None


ANSWERS: dict[type[BaseException], str] = {
    errors.TopicAuthorizationFailedError: "permission denied on a topic; grant READ and DESCRIBE on {topics}",
    errors.GroupAuthorizationFailedError: "permission denied on the group; grant READ on group {group!r}",
    errors.ClusterAuthorizationFailedError: "permission denied on the cluster; grant what the request needs",
    errors.InconsistentGroupProtocolError: (
        "the members of group {group!r} use another protocol or another assignor than `range`; stop them, or choose"
        " another kafka.group_id"
    ),
    errors.InvalidSessionTimeoutError: (
        "kafka.session_timeout_seconds = {session:g} is outside the broker's range (group.min.session.timeout.ms to"
        " group.max.session.timeout.ms); change one of them"
    ),
    GroupMaxSizeReachedError: "group {group!r} is full; raise group.max.size of the brokers",
    errors.InvalidGroupIdError: "kafka.group_id {group!r} is not a name that the broker accepts; choose another",
    errors.UnsupportedVersionError: "the broker does not support the request; use Apache Kafka 2.1 or later",
}
"""Sentence for each error of a request that waiting does not change."""


def explained(error: BaseException, kafka: Kafka) -> str:
    """Describe the error of a request in one line: our own sentence, or the class and text of the client's error."""
    if isinstance(error, KafkaError | KafkaUnreachableError):
        return str(error)
    if isinstance(error, TimeoutError):
        return "the brokers did not answer in time"
    for each in _chain(error):
        sentence = next((text for kind, text in ANSWERS.items() if isinstance(each, kind)), None)
        if sentence is not None:
            topics, session = ", ".join(kafka.topics), kafka.session_timeout_seconds
            return sentence.format(topics=topics, group=kafka.group_id, session=session)
    return described(error)


def described(error: BaseException) -> str:
    """Describe a client error in one line: its class and its text, which names only brokers and topics."""
    name = type(error).__name__
    text = str(error).strip().partition("\n")[0].removeprefix(f"{name}: ")
    return f"{name}: {text}" if text else name


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and its causes, innermost first: what the network said is below what aiokafka made of it."""
    chain: list[BaseException] = []
    each: BaseException | None = error
    while each is not None and each not in chain:
        chain.append(each)
        each = each.__cause__
    return reversed(chain)
