"""Tokens of AWS: signed beside the event loop, and which errors of the signer last."""

from __future__ import annotations

import base64
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from consumer.errors import SettingsError
from consumer.kafka import tokens
from consumer.kafka.tokens import AwsTokens, TokenError, tokens_of
from consumer.settings.sections import Security

SECRET = "s3cret/&="


async def test_the_token_of_aws(monkeypatch: pytest.MonkeyPatch) -> None:
    """The token is a signed URL for the region, made from the credentials of the environment, kept while it holds."""
    for name, value in (("ACCESS_KEY_ID", "AKIDEXAMPLE"), ("SECRET_ACCESS_KEY", SECRET), ("SESSION_TOKEN", "st")):
        monkeypatch.setenv(f"AWS_{name}", value)
    kept = tokens_of(Security(protocol="SASL_SSL", mechanism="AWS_MSK_IAM", aws_region="eu-central-1"))
    token = await kept.token()
    url = urlsplit(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)).decode())
    asked = parse_qs(url.query)
    assert url.hostname == "kafka.eu-central-1.amazonaws.com"
    assert asked["Action"] == ["kafka-cluster:Connect"]
    assert asked["X-Amz-Credential"][0].startswith("AKIDEXAMPLE/")
    assert asked["X-Amz-Credential"][0].endswith("/eu-central-1/kafka-cluster/aws4_request")
    assert asked["X-Amz-Expires"] == ["900"]
    assert len(asked["X-Amz-Signature"][0]) == 64
    assert await kept.token() == token
    assert SECRET not in token


async def test_no_credentials_of_aws(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "SESSION_TOKEN", "PROFILE"):
        monkeypatch.delenv(f"AWS_{name}", raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("SHARED_CREDENTIALS_FILE", "CONFIG_FILE"):
        monkeypatch.setenv(f"AWS_{name}", str(tmp_path / "none"))
    kept = tokens_of(Security(protocol="SASL_SSL", mechanism="AWS_MSK_IAM", aws_region="eu-central-1"))
    with pytest.raises(TokenError, match="AWS gave no credentials") as failed:
        await kept.token()
    assert failed.value.lasts


class ASigner:
    """A stand-in for AWS's module."""

    def __init__(self, sign: Callable[[], Any]) -> None:
        self._sign = sign

    def generate_auth_token(self, _region: str) -> Any:
        """Return or raise what the test says."""
        return self._sign()


class NoCredentialsError(Exception):
    """As botocore's."""


class ConnectTimeoutError(Exception):
    """As botocore's."""


class ClientError(Exception):
    """As botocore's: AWS's answer has a code."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.response = {"Error": {"Code": code}}


@pytest.mark.parametrize(
    ("error", "lasts"),
    [
        (NoCredentialsError(), True),
        (ImportError(), True),
        (PermissionError(), True),
        (ClientError("AccessDenied"), True),
        (ClientError("Throttling"), False),
        (ConnectTimeoutError(), False),
        (OSError(), False),
    ],
)
async def test_errors_of_aws(error: Exception, lasts: bool) -> None:
    """Only missing credentials and permissions last; a service that is away comes back."""

    def sign() -> None:
        raise error

    with pytest.raises(TokenError, match=type(error).__name__) as failed:
        await AwsTokens(Security(aws_region="x"), ASigner(sign)).token()
    assert failed.value.lasts is lasts


async def test_a_silent_signer(monkeypatch: pytest.MonkeyPatch) -> None:
    """A signer that is silent takes one thread for all attempts, none of the event loop's, and does not last."""
    monkeypatch.setattr(tokens, "ENDPOINT_SECONDS", 0.01)
    monkeypatch.setattr(tokens, "RETRY_SECONDS", 0.0)
    released, threads = threading.Event(), []

    def sign() -> Any:
        threads.append(threading.current_thread())
        released.wait(30)
        return "late", 0

    kept = AwsTokens(Security(aws_region="x"), ASigner(sign))
    try:
        for _attempt in range(3):
            with pytest.raises(TokenError, match="in time") as failed:
                await kept.token()
            assert not failed.value.lasts
        (thread,) = threads
        assert thread.daemon
        assert thread.name == "session-consumer-signer"
    finally:
        released.set()


def test_the_extra_of_aws(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the signer the message names the extra."""
    monkeypatch.setitem(sys.modules, "aws_msk_iam_sasl_signer.MSKAuthTokenProvider", None)
    with pytest.raises(SettingsError, match="install session-consumer with the extra `aws`"):
        tokens_of(Security(mechanism="AWS_MSK_IAM"))
