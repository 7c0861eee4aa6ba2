"""Tokens: asked for as OAuth says, kept while they hold, renewed before they expire, and shown nowhere."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiohttp import web

from consumer.kafka import tokens
from consumer.kafka.credentials import UnusableFileError
from consumer.kafka.tokens import TokenError, Tokens, tokens_of
from consumer.settings.sections import Security
from tests.endpoint import an_endpoint

SECRET = "s3cret/&="
Answer = Callable[[web.Request], Any]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time of tokens; a test moves it."""
    now = [1000.0]
    monkeypatch.setattr("consumer.kafka.tokens.time.monotonic", lambda: now[0])
    return now


@asynccontextmanager
async def a_token_endpoint(answer: Answer) -> AsyncIterator[Security]:
    """Serve an endpoint, and yield settings for it."""

    async def answered(request: web.Request) -> web.Response:
        found = answer(request)
        return found if isinstance(found, web.Response) else web.json_response(found)

    async with an_endpoint("/token", answered) as address:
        yield Security(
            protocol="SASL_SSL",
            mechanism="OAUTHBEARER",
            token_endpoint=f"{address}/token",
            oauth_client_id="the client",
            oauth_client_secret=SECRET,
            scope="kafka read",
        )


async def test_the_request() -> None:
    """The id and the secret are in the header, each encoded, and the grant and the scope in the body."""
    asked: list[Any] = []

    async def answered(request: web.Request) -> web.Response:
        asked.append((request.headers["Authorization"], await request.post()))
        return web.json_response({"access_token": "abc", "expires_in": 60})

    application = web.Application()
    application.router.add_post("/", answered)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        url = f"http://127.0.0.1:{runner.addresses[0][1]}/"
        security = Security(token_endpoint=url, oauth_client_id="a b", oauth_client_secret=SECRET, scope="x y")
        assert await tokens_of(security).token() == "abc"
    finally:
        await runner.cleanup()
    ((header, form),) = asked
    assert base64.b64decode(header.removeprefix("Basic ")) == b"a+b:s3cret%2F%26%3D"
    assert dict(form) == {"grant_type": "client_credentials", "scope": "x y"}


def numbered(life: float | str) -> tuple[list[int], Answer]:
    """Answer with token-1, token-2 and so on."""
    asked: list[int] = []

    def answer(_request: web.Request) -> dict[str, Any]:
        asked.append(len(asked) + 1)
        return {"access_token": f"token-{len(asked)}", "expires_in": life}

    return asked, answer


@pytest.mark.parametrize("life", [100, 100.0, "100"])
async def test_a_token_is_renewed_before_it_expires(clock: list[float], life: float | str) -> None:
    """A token serves all connections for 80 % of its life; the next one gets another."""
    asked, answer = numbered(life)
    async with a_token_endpoint(answer) as security:
        kept = tokens_of(security)
        assert [await kept.token() for _ in range(3)] == ["token-1"] * 3
        clock[0] += 79
        assert await kept.token() == "token-1"
        clock[0] += 2
        assert [await kept.token() for _ in range(3)] == ["token-1"] * 3
        await renewed(kept)
        assert await kept.token() == "token-2"
    assert asked == [1, 2]


async def renewed(kept: Tokens) -> None:
    """Wait for the end of the renewal that is under way."""
    assert kept._renewal is not None
    await kept._renewal


async def test_callers_share_a_renewal_and_do_not_wait_for_it(clock: list[float]) -> None:
    """While an endpoint is silent the old token serves all at once, and one request is under way."""
    asked: list[str] = []
    silent, released = False, asyncio.Event()

    async def answered(_request: web.Request) -> web.Response:
        asked.append("asked")
        if silent:
            await released.wait()
        return web.json_response({"access_token": f"token-{len(asked)}", "expires_in": 100})

    async with an_endpoint("/", answered) as url:
        kept = tokens_of(Security(token_endpoint=url, oauth_client_id="a", oauth_client_secret=SECRET))
        await kept.token()
        silent = True
        clock[0] += 81
        try:
            assert [await kept.token() for _ in range(4)] == ["token-1"] * 4
        finally:
            released.set()
        await renewed(kept)
        assert await kept.token() == "token-2"
        assert len(asked) == 2


async def test_the_old_token_serves_while_the_secret_is_away(clock: list[float], tmp_path: Path) -> None:
    """A file that is missing at the renewal does no harm, and is read again after a wait."""
    file = tmp_path / "secret"
    file.write_text(SECRET)
    asked, answer = numbered(100)
    async with a_token_endpoint(answer) as security:
        settings = msgspec.structs.replace(security, oauth_client_secret="", oauth_client_secret_file=str(file))
        kept = tokens_of(settings)
        await kept.token()
        file.unlink()
        clock[0] += 81
        assert await kept.token() == "token-1"
        await renewed(kept)
        file.write_text(SECRET)
        assert await kept.token() == "token-1"
        await renewed(kept)
        assert asked == [1]
        clock[0] += tokens.RETRY_SECONDS
        await kept.token()
        await renewed(kept)
        assert await kept.token() == "token-2"


async def test_a_failure_serves_all_for_a_short_wait(clock: list[float]) -> None:
    """An endpoint that is down is asked once in a wait that does not grow, for all brokers together."""
    asked: list[str] = []

    def answer(_request: web.Request) -> Any:
        asked.append("asked")
        return web.Response(status=503)

    async with a_token_endpoint(answer) as security:
        kept = tokens_of(security)
        for attempt in range(1, 8):
            for _broker in range(3):
                with pytest.raises(TokenError):
                    await kept.token()
                kept.forget()
            assert len(asked) == attempt
            clock[0] += tokens.RETRY_SECONDS


async def test_an_answer_in_pieces() -> None:
    """An answer is read to its end, however it arrives."""
    body = json.dumps({"access_token": "x" * 3000, "expires_in": 300}).encode()

    async def answered(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": str(len(body))})
        await response.prepare(request)
        for start in range(0, len(body), 500):
            await response.write(body[start : start + 500])
            await asyncio.sleep(0.01)  # so that they are sent one by one
        return response

    async with an_endpoint("/", answered) as url:
        kept = tokens_of(Security(token_endpoint=url, oauth_client_id="a", oauth_client_secret=SECRET))
        assert await kept.token() == "x" * 3000


async def test_null_is_no_value() -> None:
    """Some servers write null for what they leave out."""
    async with a_token_endpoint(lambda _: {"access_token": "abc", "expires_in": None, "error": None}) as security:
        assert await tokens_of(security).token() == "abc"


async def test_the_old_token_serves_while_the_endpoint_is_down(clock: list[float]) -> None:
    """An endpoint that fails at the renewal does no harm until the old token has expired."""
    works = True

    def answer(_request: web.Request) -> Any:
        return {"access_token": "old", "expires_in": 100} if works else web.Response(status=503)

    async with a_token_endpoint(answer) as security:
        kept = tokens_of(security)
        await kept.token()
        works = False
        clock[0] += 90
        assert await kept.token() == "old"
        clock[0] += 11
        with pytest.raises(TokenError):
            await kept.token()


async def test_a_refused_token_is_replaced() -> None:
    asked, answer = numbered(1000)
    async with a_token_endpoint(answer) as security:
        kept = tokens_of(security)
        await kept.token()
        kept.forget()
        assert await kept.token() == "token-2"
    assert len(asked) == 2


@pytest.mark.parametrize(
    ("answer", "says", "lasts"),
    [
        (
            web.json_response({"error": "invalid_client"}, status=401),
            "gave no token (status 401, invalid_client)",
            True,
        ),
        (web.json_response({"error": f"x {SECRET}"}, status=400), "gave no token (status 400); correct", True),
        (web.Response(status=404, text=SECRET), "gave no token (status 404); correct", True),
        (
            web.Response(status=302, headers={"Location": "http://elsewhere.invalid/"}),
            "gave no token (status 302)",
            True,
        ),
        (web.Response(status=200, text="<html>"), "gave no token (status 200)", False),
        (web.json_response({"access_token": "x", "expires_in": "soon"}), "gave no token (status 200)", False),
        *(
            (web.json_response({"access_token": "x", "expires_in": life}), "gave no token (status 200)", False)
            for life in ("nan", "inf", "-1", 0)
        ),
        (web.Response(status=503), "gave no token (status 503); check that URL and its server", False),
        *(
            (web.Response(status=status), f"gave no token (status {status}); check that URL and its server", False)
            for status in (408, 425, 429)
        ),
    ],
)
async def test_no_token(answer: web.Response, says: str, lasts: bool) -> None:
    """An answer without a token is named by its status and OAuth's own code; none of its text is shown."""
    async with a_token_endpoint(lambda _: answer) as security:
        with pytest.raises(TokenError) as failed:
            await tokens_of(security).token()
    assert says in str(failed.value)
    assert failed.value.lasts is lasts
    assert SECRET not in str(failed.value)


async def test_no_endpoint() -> None:
    security = Security(token_endpoint="http://127.0.0.1:1/", oauth_client_id="c", oauth_client_secret=SECRET)
    with pytest.raises(TokenError, match=r"token_endpoint does not answer \(ClientConnectorError\)") as failed:
        await tokens_of(security).token()
    assert not failed.value.lasts


async def test_files_are_read_again(tmp_path: Path) -> None:
    """A token file is read for each connection, a client's secret for each token."""
    file = tmp_path / "token"
    kept = tokens_of(Security(mechanism="OAUTHBEARER", token_file=str(file)))
    with pytest.raises(UnusableFileError, match=r"token_file: cannot read the file that it names: No such file"):
        await kept.token()
    for text in ("one\n", "two\n"):
        file.write_text(text)
        assert await kept.token() == text.strip()
    file.write_text("\n")
    with pytest.raises(UnusableFileError, match="is empty"):
        await kept.token()


def test_a_request_is_shorter_than_a_connection() -> None:
    from consumer.kafka.connection import CONNECT_SECONDS  # noqa: PLC0415 - only here

    assert tokens.ENDPOINT_SECONDS < CONNECT_SECONDS
