"""Tokens for OAUTHBEARER and AWS_MSK_IAM: from a file, an OAuth endpoint or AWS, renewed before they expire."""

from __future__ import annotations

import abc
import asyncio
import base64
import math
import ssl
import time
from typing import Any, NamedTuple
from urllib.parse import quote_plus

import aiohttp
import msgspec

from consumer.kafka.aws import aws_signer, lasts
from consumer.kafka.credentials import UnusableFileError, read_file, secret
from consumer.kafka.own_thread import in_own_thread
from consumer.settings.sections import Security

RENEW_AT = 0.8
"""Share of a token's life after which it is renewed."""
ENDPOINT_SECONDS = 8.0
"""Time for one request or signature; less than a connection has."""
RETRY_SECONDS = 2.0
"""Wait after a failed attempt, whichever broker's connection made it."""
LIFE_SECONDS = 60.0
"""Life of a token whose endpoint names none."""
ANSWER_BYTES = 65_536
OAUTH_ERRORS = frozenset(
    {
        "invalid_request",
        "invalid_client",
        "invalid_grant",
        "unauthorized_client",
        "unsupported_grant_type",
        "invalid_scope",
    }
)
"""Codes that RFC 6749 defines; no other text of an answer is shown."""
PASSING = (408, 425, 429)
"""Statuses of the client's errors that pass by themselves: too slow, too early, too often."""


class TokenError(Exception):
    """There is no token. ``what`` and ``remedy`` say why and what to do; it ``lasts`` until somebody acts."""

    def __init__(self, what: str, remedy: str, *, lasts: bool) -> None:
        super().__init__(f"{what}; {remedy}")
        self.what = what
        self.remedy = remedy
        self.lasts = lasts


class Token(NamedTuple):
    """A token, and the seconds for which it may be used."""

    text: str
    seconds: float


class Tokens(abc.ABC):
    """The token of all connections with the same settings; lives as long as the process."""

    def __init__(self, security: Security) -> None:
        self._security = security
        self._text = ""
        self._renewed_from = self._expires = float("-inf")
        self._renewal: asyncio.Task[None] | None = None
        self._failure: TokenError | UnusableFileError | None = None
        self._tried_from = float("-inf")

    async def token(self) -> str:
        """Return a token that has not expired. Raises TokenError and UnusableFileError.

        All callers share one renewal. While the old token holds, they do not wait for it.
        """
        now = time.monotonic()
        under_way = self._renewal is not None and not self._renewal.done()
        if not under_way and now >= max(self._renewed_from, self._tried_from):
            self._renewal = asyncio.create_task(self._renew())
        if now < self._expires:
            return self._text
        if self._renewal is not None:
            await asyncio.shield(self._renewal)
        if self._failure is not None:
            raise self._failure
        return self._text

    def forget(self) -> None:
        """Fetch another token next time: a broker has refused this one."""
        self._renewed_from = self._expires = float("-inf")

    @abc.abstractmethod
    async def _fetch(self) -> Token: ...

    async def _renew(self) -> None:
        asked = time.monotonic()
        try:
            self._text, seconds = await self._fetch()
        except (TokenError, UnusableFileError) as error:
            self._failure, now = error, time.monotonic()
            if isinstance(error, TokenError) or now < self._expires:  # else only a file is read again
                self._tried_from = now + RETRY_SECONDS
        else:
            self._failure = None
            self._renewed_from, self._expires = asked + RENEW_AT * seconds, asked + seconds


def tokens_of(security: Security) -> Tokens:
    """Return the tokens that the settings name; one that needs none is never asked. Raises SettingsError."""
    if security.mechanism == "AWS_MSK_IAM":
        return AwsTokens(security, aws_signer())
    return FileTokens(security) if security.token_file else EndpointTokens(security)


class FileTokens(Tokens):
    """The token in ``token_file``, which is read again for each connection."""

    async def _fetch(self) -> Token:
        return Token(read_file("token_file", self._security.token_file).strip(), seconds=0.0)


class EndpointTokens(Tokens):
    """Tokens of ``token_endpoint``, for the client's id and secret."""

    async def _fetch(self) -> Token:
        """Ask as RFC 6749 says: the client's id and secret in the header, a form in the body."""
        security = self._security
        login = ":".join(map(quote_plus, (security.oauth_client_id, secret(security, "oauth_client_secret"))))
        headers = {"Authorization": f"Basic {base64.b64encode(login.encode()).decode()}"}
        form = {"grant_type": "client_credentials"} | ({"scope": security.scope} if security.scope else {})
        context = _endpoint_context(security)
        try:
            async with (
                aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(ENDPOINT_SECONDS)) as client,
                client.post(
                    security.token_endpoint, data=form, headers=headers, ssl=context, allow_redirects=False
                ) as answer,
            ):
                return _read(answer.status, await _body(answer))
        except (aiohttp.ClientError, TimeoutError) as error:
            what = f"cannot be asked: kafka.security.token_endpoint does not answer ({_reason(error)})"
            raise TokenError(what, "check that URL and its server", lasts=False) from error


def _endpoint_context(security: Security) -> ssl.SSLContext:
    """Trust the system's authorities and that of ``ca_file``."""
    context = ssl.create_default_context()
    if security.ca_file:
        try:
            context.load_verify_locations(security.ca_file)
        except OSError as error:
            why = error.strerror or str(error)
            raise UnusableFileError(f"kafka.security.ca_file: cannot use the file that it names: {why}") from None
    return context


async def _body(answer: aiohttp.ClientResponse) -> bytes:
    """Return the whole body, or as much as a token may need of it."""
    body = b""
    async for part in answer.content.iter_any():
        body += part
        if len(body) >= ANSWER_BYTES:
            break
    return body


class _Answer(msgspec.Struct):
    access_token: str = ""
    expires_in: float | str | None = None
    error: str | None = None


def _read(status: int, body: bytes) -> Token:
    try:
        answer = msgspec.json.decode(body, type=_Answer)
        seconds = LIFE_SECONDS if answer.expires_in is None else float(answer.expires_in)
    except (msgspec.MsgspecError, ValueError):
        answer, seconds = _Answer(), 0.0
    if status == 200 and answer.access_token and math.isfinite(seconds) and seconds > 0:
        return Token(answer.access_token, seconds)
    code = f", {answer.error}" if answer.error in OAUTH_ERRORS else ""
    what = f"cannot be asked: kafka.security.token_endpoint gave no token (status {status}{code})"
    if 400 <= status < 500 and status not in PASSING:
        remedy = "correct kafka.security.oauth_client_id, oauth_client_secret, scope or token_endpoint"
        raise TokenError(what, remedy, lasts=True)
    raise TokenError(what, "check that URL and its server", lasts=300 <= status < 400)


def _reason(error: BaseException) -> str:
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return "its certificate is not trusted"
    return "no answer in time" if isinstance(error, TimeoutError) else type(error).__name__


class AwsTokens(Tokens):
    """Tokens signed here, with the credentials that AWS's own chain finds: variables, profile, role of the machine."""

    def __init__(self, security: Security, signer: Any) -> None:
        super().__init__(security)
        self._signer = signer
        self._signing: asyncio.Task[Any] | None = None

    async def _fetch(self) -> Token:
        """Sign in one thread at most: AWS's libraries ask the machine or a service, which may be silent."""
        if self._signing is None or self._signing.done():
            region = self._security.aws_region
            work = in_own_thread("signer", lambda: self._signer.generate_auth_token(region))
            self._signing = asyncio.create_task(work)
            self._signing.add_done_callback(lambda task: task.cancelled() or task.exception())  # it may come too late
        try:
            async with asyncio.timeout(ENDPOINT_SECONDS):
                text, expires_ms = await asyncio.shield(self._signing)
        except TimeoutError as error:
            what = "cannot be asked: AWS gave no credentials to sign a token with in time"
            raise TokenError(what, "check that AWS's services can be reached", lasts=False) from error
        except Exception as error:
            what = f"cannot be asked: AWS gave no credentials to sign a token with ({type(error).__name__})"
            remedy = "give this process AWS credentials, as variables, a profile or a role"
            raise TokenError(what, remedy, lasts=lasts(error)) from error
        return Token(text, expires_ms / 1000 - time.time())
