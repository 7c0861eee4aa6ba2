"""``session-consumer settings``, and what ``check`` says of settings and of the HTTP port."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from click.testing import CliRunner

from consumer.cli import check as check_command
from consumer.cli.main import cli
from consumer.cli.run import loaded_routes
from consumer.errors import ConsumerError, SettingsError
from consumer.http.listen import listen
from consumer.settings.example import example
from consumer.settings.sections import Http, Settings
from consumer.settings.sources import load_settings

SECRET = "hunter2-s3cret"


def printed(*arguments: str, **environment: str) -> list[str]:
    result = CliRunner().invoke(cli, arguments, env=environment, catch_exceptions=False)
    assert result.exit_code == 0
    return result.output.splitlines()


def test_settings_are_printed_with_their_origins(tmp_path: Path) -> None:
    """Each setting is one line with its value and the source that won, in the order file, environment, --set."""
    file = tmp_path / "settings.toml"
    file.write_text('[kafka]\ngroup_id = "f"\nclient_id = "f"\ntopics = ["f"]\n')
    found = printed(
        "settings",
        "-c",
        str(file),
        "--set",
        "kafka.topics=s",
        SESSION_CONSUMER_KAFKA__TOPICS="e",
        SESSION_CONSUMER_KAFKA__CLIENT_ID="e",
        SESSION_CONSUMER_KAFKA__SECURITY__PASSWORD=SECRET,
    )
    for line in (
        f'kafka.group_id = "f"  # {file}',
        'kafka.client_id = "e"  # environment variable SESSION_CONSUMER_KAFKA__CLIENT_ID',
        'kafka.topics = ["s"]  # --set',
        "http.port = 8000  # default",
    ):
        assert line in found
    assert SECRET not in "\n".join(found)


def test_the_example_is_printed() -> None:
    """``settings --example`` prints the file to start from, whatever the settings are."""
    assert printed("settings", "--example", SESSION_CONSUMER_NONSENSE="1") == example().splitlines()


def test_wrong_settings_are_not_printed() -> None:
    """``settings`` ends as ``run`` does when the settings are wrong."""
    with pytest.raises(SettingsError, match=r"http\.port"):
        CliRunner().invoke(cli, ["settings", "--set", "http.port=-1"], catch_exceptions=False)


def test_check_names_the_origin_of_each_value() -> None:
    """The first row of ``check`` lists what is set, each with its source."""
    environment = {"SESSION_CONSUMER_KAFKA__GROUP_ID": "mine"}
    assert check_command._origins(load_settings(None, environment, ["http.port=0"])) == (
        "2 set: http.port (--set), kafka.group_id (environment variable SESSION_CONSUMER_KAFKA__GROUP_ID)"
    )
    assert check_command._origins(load_settings(None, {})) == "all defaults"


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "::"])
def test_check_tries_the_port_as_the_daemon_does(host: str) -> None:
    """``check`` says that a port is free, or names the one in use; of port 0 it says that a free one is taken."""
    (taken,) = listen(Http(host=host, port=0))
    http = Http(host=host, port=taken.getsockname()[1])
    with taken, pytest.raises(ConsumerError, match="cannot listen on") as refused:
        asyncio.run(check_command._ports(Settings(http=http), 0))
    assert http.address() in str(refused.value)
    assert asyncio.run(check_command._ports(Settings(http=http), 0)) == f"{http.address()} is free"
    assert "is free" not in asyncio.run(check_command._ports(Settings(http=Http(host=host, port=0)), 0))


def test_check_tries_the_ports_of_all_workers() -> None:
    """``check --workers`` names the port of a worker that is in use, and numbers that have no room."""
    (taken,) = listen(Http(port=0))
    http = Http(port=taken.getsockname()[1] - 2)
    with taken, pytest.raises(ConsumerError, match="cannot listen on") as refused:
        asyncio.run(check_command._ports(Settings(http=http), 2))
    assert http.address(http.port + 2) in str(refused.value)
    assert asyncio.run(check_command._ports(Settings(http=Http(port=0)), 3)).startswith("4 free ports of 127.0.0.1")
    result = CliRunner().invoke(cli, ["check", "--workers", "2", "--set", "http.port=65534"])
    assert (result.exit_code, "of worker 2" in result.output) == (2, True)


def test_a_secret_option_on_the_command_line_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An option that a handler marks as a secret is refused in --set, and taken from the environment."""
    (tmp_path / "marks_a_secret.py").write_text(
        "from consumer import Secret\nclass Sink:\n    def __init__(self, token: Secret): pass\n"
        "    def __call__(self, event): pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    routes = f'[{{name = "r", handler = "marks_a_secret:Sink", options = {{token = "{SECRET}"}}}}]'
    with pytest.raises(SettingsError, match=r"options\.token: a secret on the command line") as refused:
        loaded_routes(load_settings(None, {}, [f"routes={routes}"]))
    assert SECRET not in str(refused.value)
    assert len(loaded_routes(load_settings(None, {"SESSION_CONSUMER_ROUTES": routes}))) == 1
