"""Why a broker cannot be used, in plain words: what happened and what to do."""

from __future__ import annotations

import asyncio
import errno
import os
import re
import socket
import ssl
from typing import NamedTuple

from aiokafka import errors

from consumer.kafka.credentials import UnusableFileError
from consumer.kafka.failures import chain_of, described
from consumer.kafka.tokens import TokenError
from consumer.settings.sections import Security

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


class ConnectionFailedError(errors.KafkaConnectionError):
    """One broker cannot be used; ``failure`` says why. aiokafka handles it like its own errors, and tries again."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(str(failure))
        self.failure = failure


def failure_of(server: str, error: BaseException, security: Security, seconds: float, *, connected: bool) -> Failure:
    """Name the failure of a connection that had ``seconds``; ``connected`` says that TCP, and TLS, had succeeded.

    aiokafka wraps what the network said, so the causes are looked at too; those of our own errors are no broker's.
    """
    match error:
        case ConnectionFailedError():
            return error.failure
        case TokenError():
            return Failure(server, error.what, error.remedy, error.lasts)
        case UnusableFileError():
            return Failure(server, "cannot be asked", str(error), lasting=False)
    for each in chain_of(error):
        if isinstance(each, TimeoutError) and each.errno is None:
            return Failure(server, *_of_silence(seconds, connected=connected, security=security), lasting=False)
        named = _named(each, security, connected=connected)
        if named is not None:
            return Failure(server, *named)
    return Failure(server, f"failed ({described(error)})", "see the broker's log", lasting=False)


CREDENTIALS = {
    **dict.fromkeys(("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"), "correct kafka.security.username and password"),
    "OAUTHBEARER": "see whether the token has expired, and whether the broker trusts its issuer, audience and scope",
    "AWS_MSK_IAM": (
        "grant kafka-cluster:Connect to this AWS identity, correct kafka.security.aws_region, or set this machine's"
        " clock"
    ),
}
"""What to do when a broker refuses the credentials of a mechanism."""

Named = tuple[str, str, bool]
"""What happened, what to do, and whether it lasts."""


NOT_TLS = ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "HTTPS_PROXY_REQUEST", "UNKNOWN_PROTOCOL", "PACKET_LENGTH_TOO_LONG")
"""OpenSSL's reasons for an answer that is not TLS at all."""
NO_TLS: Named = ("does not speak TLS", f"set {PROTOCOL} to {PLAIN}, or use the broker's TLS port", True)
IN_HANDSHAKE: Named = (
    "closed the connection in the TLS handshake",
    f"see whether that broker is starting, and whether its port speaks TLS ({PROTOCOL})",
    False,
)
"""A proxy does this too while the broker behind it is away, so it may pass."""


def _named(error: BaseException, security: Security, *, connected: bool) -> Named | None:
    """Name an error; None for one that does not say what happened."""
    match error:
        case socket.gaierror() | UnicodeError():
            return "cannot be resolved (no such host name)", "correct the name, or this machine's DNS", False
        case ssl.SSLError():
            return _of_tls(error)
        case asyncio.IncompleteReadError():
            return _of_answer(error)
        case OSError():
            return _of_network(error, security, connected=connected)
        case errors.KafkaConnectionError():
            return "closed the connection", _closed_remedy(security), False
    return _of_broker(error, security)


def _of_silence(seconds: float, security: Security, *, connected: bool) -> tuple[str, str]:
    if connected:
        what = f"accepted the connection and did not answer within {seconds:g} s"
        return (
            what,
            f"see whether that broker hangs, and whether its port speaks {security.protocol}",
        )
    part = "the TLS handshake" if security.uses_tls else "the connection"
    return (
        f"did not complete {part} within {seconds:g} s",
        "check the address, firewalls, and that broker",
    )


def _of_network(error: OSError, security: Security, *, connected: bool) -> Named:
    """Name an error of a socket; asyncio joins those of several addresses of one name into a text."""
    codes = {int(code) for code in re.findall(r"Errno (\d+)", str(error))} | ({error.errno} if error.errno else set())
    if codes <= {errno.ECONNREFUSED} and codes:
        return "refused the connection", "start Kafka there, or correct the address", False
    if codes & {errno.ECONNRESET, errno.EPIPE, errno.ECONNABORTED} or not codes:
        if security.uses_tls and not connected:
            return IN_HANDSHAKE
        return "closed the connection", _closed_remedy(security), False
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
    if "ALERT" in reason:
        theirs = reason.split("ALERT_")[-1].lower().replace("_", " ")
        return f"refused the TLS handshake ({theirs})", "see the broker's log, or that of a proxy before it", False
    return NO_TLS if any(each in reason for each in NOT_TLS) else IN_HANDSHAKE


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


def _of_answer(error: asyncio.IncompleteReadError) -> Named | None:
    """Name an answer that is not Kafka's by its first bytes, which aiokafka has taken for a length."""
    first = (error.expected or 0).to_bytes(8)[-4:]
    if first[:2] == b"\x15\x03":
        return "speaks TLS", f"set {PROTOCOL} to {TLS}, or use the broker's plain port", True
    if first == b"HTTP":
        return "speaks HTTP, not Kafka", "name a broker's port in kafka.bootstrap_servers", True
    return None


def expects_sasl(server: str, security: Security) -> Failure:
    """Return the failure of a connection without SASL to a listener with it, which answers and then hangs up."""
    return Failure(server, "expects SASL", f"set {PROTOCOL} to {'SASL_SSL' if security.uses_tls else 'SASL_PLAINTEXT'}")


def _closed_remedy(security: Security) -> str:
    if security.protocol == "PLAINTEXT":
        return f"check {PROTOCOL}: the port may expect TLS or SASL"
    return f"check {PROTOCOL}, and see the broker's log"


def _of_broker(error: BaseException, security: Security) -> Named | None:
    match error:
        case errors.SaslAuthenticationFailed():
            return f"refused the {security.mechanism} credentials", CREDENTIALS[security.mechanism], True
        case ValueError() if security.mechanism.startswith("SCRAM"):
            return "does not know the password that it asked for", "see whether it is the broker that you mean", True
        case errors.UnsupportedSaslMechanismError():
            what = f"does not offer the SASL mechanism {security.mechanism}"
            return what, "set kafka.security.mechanism to one that the broker has enabled", True
        case errors.IllegalSaslStateError():
            what = "expects no SASL"
            return what, f"set {PROTOCOL} to {security.protocol.removeprefix('SASL_')}", True
        case errors.IncompatibleBrokerVersion() | errors.UnsupportedVersionError():
            return "does not support a request of this client", "use Apache Kafka 2.1 or later", True
    return None
