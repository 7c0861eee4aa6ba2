"""The systemd unit: systemd accepts it, and it fits the daemon's times and exit codes."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from consumer.cli.main import cli
from consumer.errors import SettingsError, StalledError
from consumer.process.supervisor import LOOK_SECONDS
from consumer.settings.sections import Settings
from tests.docs import ROOT

FILE = ROOT / "deploy/systemd/session-consumer@.service"
UNIT = FILE.read_text(encoding="utf-8")


def value(name: str) -> str:
    (found,) = re.findall(rf"^{name}=(.*)$", UNIT, re.MULTILINE)
    return str(found)


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze, of Debian's systemd, is not here")
def test_systemd_accepts_the_unit(tmp_path: Path) -> None:
    """systemd-analyze finds no fault, and little that the daemon could do outside."""
    path = tmp_path / "session-consumer@orders.service"
    path.write_text(re.sub(r"/opt/session-consumer/bin/\S+", "/bin/true", UNIT))
    for command in (["verify"], ["security", "--offline=yes", "--threshold=20"]):
        ended = subprocess.run(
            ["systemd-analyze", *command, str(path)], capture_output=True, text=True, timeout=60, check=False
        )
        assert ended.returncode == 0, ended.stdout[-500:] + ended.stderr
        assert not ended.stderr


def test_the_command_is_one_that_exists() -> None:
    program, command, option, file = value("ExecStart").split()
    assert Path(program).name == "session-consumer"
    assert command in cli.commands
    assert option in {each for parameter in cli.commands[command].params for each in parameter.opts}
    assert file.endswith("%i.toml")


def test_the_daemon_may_finish_its_drain() -> None:
    assert int(value("TimeoutStopSec")) >= Settings().delivery.drain_seconds + 10


def test_the_watchdog_is_fed_in_time() -> None:
    """The supervisor reports each second, and may wait for a slow machine."""
    assert int(value("WatchdogSec")) >= 10 * LOOK_SECONDS


def test_what_is_started_again() -> None:
    """A daemon that stalled is started again, and one whose settings are refused is not."""
    kept_down = {int(each) for each in value("RestartPreventExitStatus").split()}
    assert SettingsError.exit_code in kept_down
    assert StalledError.exit_code not in kept_down
    assert value("Restart") == "on-failure"
