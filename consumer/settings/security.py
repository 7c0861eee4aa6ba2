"""Relations between the settings of ``[kafka.security]``: which go together, and what may be sent without TLS."""

from __future__ import annotations

import ipaddress
from urllib.parse import SplitResult, urlsplit

from consumer.errors import SettingsError
from consumer.settings.sections import Kafka, Security

USERS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")
MECHANISMS_OF = {
    "username": USERS,
    "password": USERS,
    "password_file": USERS,
    "token_endpoint": ("OAUTHBEARER",),
    "oauth_client_id": ("OAUTHBEARER",),
    "oauth_client_secret": ("OAUTHBEARER",),
    "oauth_client_secret_file": ("OAUTHBEARER",),
    "scope": ("OAUTHBEARER",),
    "token_file": ("OAUTHBEARER",),
    "aws_region": ("AWS_MSK_IAM",),
}
"""Mechanisms that use each setting."""
READABLE = ("PLAIN", "OAUTHBEARER")
"""Mechanisms that send what lets anybody who reads it log in."""


def check_security(kafka: Kafka) -> None:
    """Raise SettingsError for settings that do not go together, or that would send credentials in plain text."""
    security = kafka.security
    _check_files(security)
    if not security.uses_sasl:
        _require(security.mechanism == "PLAIN", f"mechanism is set, but the protocol {security.protocol} uses no SASL")
        return
    for name, mechanisms in MECHANISMS_OF.items():
        unused = getattr(security, name) and security.mechanism not in mechanisms
        _require(not unused, f"{name} is set, but the mechanism {security.mechanism} does not use it; remove it")
    match security.mechanism:
        case "OAUTHBEARER":
            _check_tokens(security)
        case "AWS_MSK_IAM":
            _require(bool(security.aws_region), "aws_region is empty; name the cluster's region")
            _require(security.uses_tls, 'AWS_MSK_IAM needs TLS; set kafka.security.protocol to "SASL_SSL"')
        case _:
            _require(bool(security.username), "username is empty; a SASL protocol needs one")
            _require_one(security, "password", "a SASL protocol needs one")
    for server in kafka.bootstrap_servers:
        if sends_plain_text(security, server.rpartition(":")[0]):
            _require(holds=False, otherwise=plain_text_refused(security, server))


def sends_plain_text(security: Security, host: str) -> bool:
    """Whether a connection to this host would send a password or a token that others can read, and must not."""
    readable = security.protocol == "SASL_PLAINTEXT" and security.mechanism in READABLE
    return readable and not (security.allow_plain_text_credentials or is_loopback(host))


def plain_text_refused(security: Security, server: str) -> str:
    """Return why ``sends_plain_text`` is an error, and the way out."""
    return (
        f"{security.mechanism} without TLS would send the credentials to {server} in plain text; set"
        " kafka.security.protocol to SASL_SSL, or allow_plain_text_credentials = true if that network is trusted"
    )


def is_loopback(host: str) -> bool:
    """Whether a host is this machine, by its name or address; a name is not looked up."""
    name = host.strip("[]").lower()
    try:
        return ipaddress.ip_address(name.partition("%")[0]).is_loopback
    except ValueError:
        return name == "localhost" or name.endswith(".localhost")


def _check_files(security: Security) -> None:
    _require(
        bool(security.certificate_file) == bool(security.key_file),
        "certificate_file and key_file go together; set both or neither",
    )
    for name in ("password", "oauth_client_secret"):
        both = getattr(security, name) and getattr(security, f"{name}_file")
        _require(not both, f"{name} and {name}_file are both set; remove one of them")
    for name in ("ca_file", "certificate_file", "key_file"):
        used = security.uses_tls or (name == "ca_file" and security.token_endpoint.startswith("https:"))
        _require(
            not getattr(security, name) or used,
            f"{name} is set, but the protocol {security.protocol} does not use TLS",
        )


def _check_tokens(security: Security) -> None:
    endpoint, file = security.token_endpoint, security.token_file
    _require(bool(endpoint) != bool(file), "OAUTHBEARER needs a token_endpoint or a token_file; set one of them")
    if file:
        for name in ("oauth_client_id", "oauth_client_secret", "oauth_client_secret_file", "scope"):
            _require(not getattr(security, name), f"{name} is set, but a token_file needs none; remove it")
        return
    url = _url(endpoint)
    known = url.scheme in ("https", "http") and bool(url.hostname) and "@" not in url.netloc
    _require(known, "token_endpoint is not a URL; write https://host/path, without a user name")
    _require(
        "?" not in endpoint and "#" not in endpoint,
        "token_endpoint has a query or a fragment, which may hold a secret; write https://host/path",
    )
    _require(
        url.scheme == "https" or security.allow_plain_text_credentials or is_loopback(url.hostname or ""),
        "token_endpoint would get the client's secret in plain text; write https://, or set"
        " allow_plain_text_credentials = true if that network is trusted",
    )
    _require(bool(security.oauth_client_id), "oauth_client_id is empty; a token_endpoint needs one")
    _require_one(security, "oauth_client_secret", "a token_endpoint needs one")


def _url(text: str) -> SplitResult:
    """Return the parts of a URL; no parts for a text that is none."""
    try:
        url = urlsplit(text)
        url.port  # noqa: B018 - it is checked when it is read
    except ValueError:
        return urlsplit("")
    return url


def _require_one(security: Security, name: str, why: str) -> None:
    """Require a secret, or the file of it."""
    given = getattr(security, name) or getattr(security, f"{name}_file")
    _require(bool(given), f"{name} is empty; {why}, in the environment or in a file ({name}_file)")


def _require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise SettingsError(f"kafka.security.{otherwise}" if otherwise[0].islower() else f"kafka.security: {otherwise}")
