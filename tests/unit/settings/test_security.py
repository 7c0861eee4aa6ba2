"""The settings of ``[kafka.security]``: which go together, and what may be sent without TLS."""

from __future__ import annotations

import pytest

from consumer.settings.security import is_loopback
from tests.unit.settings.loading import SECRET, loaded, refusal

PASSWORD = {"KAFKA__SECURITY__PASSWORD": SECRET}
CLIENT_SECRET = {"KAFKA__SECURITY__OAUTH_CLIENT_SECRET": SECRET}
USER = ("mechanism=SCRAM-SHA-512", "protocol=SASL_SSL", "username=u")
PLAIN = ("protocol=SASL_PLAINTEXT", "username=u")
OAUTH = ("mechanism=OAUTHBEARER", "protocol=SASL_SSL")
ENDPOINT = (*OAUTH, "token_endpoint=https://login.example/token", "oauth_client_id=c")
AWS = ("mechanism=AWS_MSK_IAM", "protocol=SASL_SSL")

BROKEN = [
    ((*USER,), {}, "password is empty; a SASL protocol needs one, in the environment or in a file (password_file)"),
    ((*USER, "password_file=p"), PASSWORD, "password and password_file are both set; remove one"),
    ((*USER, "token_file=t"), PASSWORD, "token_file is set, but the mechanism SCRAM-SHA-512 does not use it"),
    ((*USER, "aws_region=r"), PASSWORD, "aws_region is set, but the mechanism SCRAM-SHA-512 does not use it"),
    ((*OAUTH,), {}, "OAUTHBEARER needs a token_endpoint or a token_file; set one of them"),
    ((*OAUTH, "token_file=t", "token_endpoint=https://a/"), {}, "OAUTHBEARER needs a token_endpoint or a token_file"),
    ((*OAUTH, "token_file=t", "scope=s"), {}, "scope is set, but a token_file needs none"),
    ((*OAUTH, "token_file=t", "username=u"), {}, "username is set, but the mechanism OAUTHBEARER does not use it"),
    ((*OAUTH, "token_file=t"), PASSWORD, "password is set, but the mechanism OAUTHBEARER does not use it"),
    ((*OAUTH, "token_endpoint=https://a/"), CLIENT_SECRET, "oauth_client_id is empty; a token_endpoint needs one"),
    ((*ENDPOINT,), {}, "oauth_client_secret is empty; a token_endpoint needs one"),
    ((*ENDPOINT, "oauth_client_secret_file=f"), CLIENT_SECRET, "oauth_client_secret and oauth_client_secret_file are"),
    ((*ENDPOINT, "token_endpoint=login.example"), CLIENT_SECRET, "token_endpoint is not a URL; write https://"),
    ((*ENDPOINT, f"token_endpoint=https://u:{SECRET}@h/"), CLIENT_SECRET, "token_endpoint is not a URL"),
    *(
        ((*ENDPOINT, f"token_endpoint={url}"), CLIENT_SECRET, "token_endpoint is not a URL")
        for url in ("https://[bad/token", "https://h:99999/", "https://h:abc/")
    ),
    ((*ENDPOINT, f"token_endpoint=https://h/?key={SECRET}"), CLIENT_SECRET, "token_endpoint has a query"),
    ((*ENDPOINT, f"token_endpoint=https://h/#{SECRET}"), CLIENT_SECRET, "token_endpoint has a query"),
    (
        (*ENDPOINT, "token_endpoint=http://login.example/"),
        CLIENT_SECRET,
        "token_endpoint would get the client's secret",
    ),
    ((*AWS,), {}, "aws_region is empty; name the cluster's region"),
    ((*AWS, "aws_region=r", "protocol=SASL_PLAINTEXT"), {}, "AWS_MSK_IAM needs TLS"),
    (("mechanism=SCRAM-SHA-256",), {}, "mechanism is set, but the protocol PLAINTEXT uses no SASL"),
    (
        (*PLAIN, "kafka.bootstrap_servers=localhost:1,b:2"),
        PASSWORD,
        "PLAIN without TLS would send the credentials to b:2",
    ),
    (
        ("mechanism=OAUTHBEARER", "protocol=SASL_PLAINTEXT", "token_file=t", "kafka.bootstrap_servers=b:2"),
        {},
        "OAUTHBEARER without TLS would send the credentials to b:2 in plain text",
    ),
]

WORKING = [
    ((*USER,), PASSWORD),
    ((*USER, "password_file=p"), {}),
    ((*USER, "protocol=SASL_PLAINTEXT", "kafka.bootstrap_servers=b:2"), PASSWORD),  # SCRAM shows no password
    ((*PLAIN, "kafka.bootstrap_servers=127.0.0.1:1,[::1]:1,localhost:1"), PASSWORD),
    ((*PLAIN, "kafka.bootstrap_servers=b:2", "allow_plain_text_credentials=true"), PASSWORD),
    ((*OAUTH, "token_file=t"), {}),
    ((*ENDPOINT, "scope=s"), CLIENT_SECRET),
    ((*ENDPOINT, "oauth_client_secret_file=f"), {}),
    ((*ENDPOINT, "token_endpoint=http://localhost:8080/token"), CLIENT_SECRET),
    ((*ENDPOINT, "token_endpoint=http://login.example/", "allow_plain_text_credentials=true"), CLIENT_SECRET),
    ((*ENDPOINT, "protocol=SASL_PLAINTEXT", "ca_file=c"), CLIENT_SECRET),
    ((*AWS, "aws_region=eu-central-1"), {}),
]


def sets(settings: tuple[str, ...]) -> list[str]:
    return [each if each.startswith("kafka.") else f"kafka.security.{each}" for each in settings]


@pytest.mark.parametrize(("settings", "environment", "message"), BROKEN, ids=str)
def test_what_does_not_go_together(settings: tuple[str, ...], environment: dict[str, str], message: str) -> None:
    """A setting that is missing, or that the mechanism does not use, is named, before any connection."""
    said = refusal(*sets(settings), file=None, **environment)
    assert said.startswith(("kafka.security.", "kafka.security: "))
    assert message in said
    assert SECRET not in said


@pytest.mark.parametrize(("settings", "environment"), WORKING, ids=str)
def test_what_goes_together(settings: tuple[str, ...], environment: dict[str, str]) -> None:
    """Each mechanism works with what it needs."""
    assert loaded(*sets(settings), file=None, **environment).settings.kafka.security.uses_sasl


@pytest.mark.parametrize(
    ("host", "is_it"),
    [
        ("localhost", True),
        ("LOCALHOST", True),
        ("kafka.localhost", True),
        ("127.8.9.1", True),
        ("::1", True),
        ("[::1]", True),
        ("0.0.0.0", False),
        ("10.0.0.1", False),
        ("localhost.example", False),
        ("127.0.0.1.example", False),
        ("fe80::1%eth0", False),
    ],
)
def test_what_is_this_machine(host: str, is_it: bool) -> None:
    assert is_loopback(host) is is_it
