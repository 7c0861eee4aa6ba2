"""The image's health check finds the daemon at the address in its own settings."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from consumer.cli import healthcheck
from consumer.http.server import HttpServer
from consumer.settings.sections import Http
from tests.fakes.observed import FakeMetrics, FakeObserved, FakeStatus
from tests.statuses import a_status


@pytest.fixture
def command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The command line of the first process, which the test writes."""
    file = tmp_path / "cmdline"
    monkeypatch.setattr(healthcheck, "DAEMON", file)
    return file


def a_server(host: str = "127.0.0.1", unhealthy: str | None = None) -> HttpServer:
    return HttpServer(Http(host=host, port=0), FakeObserved(unhealthy=unhealthy), FakeMetrics(), FakeStatus(a_status))


def started_with(*words: str) -> bytes:
    return "".join(f"{word}\0" for word in words).encode()


@pytest.mark.parametrize("init", [[], ["/sbin/docker-init", "--"]], ids=["alone", "init"])
@pytest.mark.parametrize("source", ["file", "environment", "--set"])
async def test_the_daemons_own_port_is_asked(
    command_line: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, init: list[str], source: str
) -> None:
    """The port comes from the settings file, the environment or --set of the daemon, also under an init."""
    words = [*init, "/opt/bin/python", "/opt/bin/session-consumer", "--debug", "run", "--workers", "4"]
    async with a_server() as server:
        if source == "file":
            (tmp_path / "settings.toml").write_text(f"[http]\nport = {server.port}\n")
            words += ["-c", str(tmp_path / "settings.toml")]
        elif source == "environment":
            monkeypatch.setenv("SESSION_CONSUMER_HTTP__PORT", str(server.port))
        else:
            words.append(f"--set=http.port={server.port}")
        command_line.write_bytes(started_with(*words))
        assert await asyncio.to_thread(healthcheck.main) == 0


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "::1"])
async def test_a_daemon_on_any_address_is_asked(command_line: Path, host: str) -> None:
    """A daemon that listens on all addresses is asked on a loopback one."""
    async with a_server(host) as server:
        words = started_with(
            "session-consumer", "run", "--set", f"http.host={host}", "--set", f"http.port={server.port}"
        )
        command_line.write_bytes(words)
        assert await asyncio.to_thread(healthcheck.main) == 0


async def test_what_is_wrong_is_said(command_line: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A stalled daemon, one that does not answer, and wrong settings exit 1 with the reason."""
    async with a_server(unhealthy="stalled") as server:
        command_line.write_bytes(started_with("session-consumer", "run", "--set", f"http.port={server.port}"))
        assert await asyncio.to_thread(healthcheck.main) == 1
    assert "503" in capsys.readouterr().err
    assert await asyncio.to_thread(healthcheck.main) == 1
    assert "refused" in capsys.readouterr().err
    command_line.write_bytes(started_with("session-consumer", "run", "--set", "http.port=-1"))
    assert await asyncio.to_thread(healthcheck.main) == 1
    assert "http.port" in capsys.readouterr().err
