"""The README and DESIGN are held to the code: their tables, blocks and paths are true."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import click
import pytest

from consumer.cli.main import cli
from consumer.metrics.definitions import METRICS
from consumer.routes.load import load_routes
from consumer.settings.meanings import MEANINGS
from consumer.settings.sources import load_settings
from tests.docs import metrics_table, settings_table

ROOT = Path(__file__).parent.parent.parent
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_settings_table() -> None:
    """The README lists every setting with its default and meaning, as the code has them."""
    assert settings_table() in README
    assert len(MEANINGS) == settings_table().count("\n") - 1


def test_metrics_table() -> None:
    """The README lists every metric with its type and labels, as the code has them."""
    assert metrics_table() in README
    assert len(METRICS) == metrics_table().count("\n") - 1


def test_first_screen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The handler and the settings of the first screen work as they stand there, and the handler is short."""
    (code,) = blocks("python")
    (settings,) = blocks("toml")
    assert len(code.strip().splitlines()) <= 15
    (tmp_path / "handlers").mkdir()
    (tmp_path / "handlers" / "calls.py").write_text(code)
    (tmp_path / "settings.toml").write_text(settings)
    monkeypatch.setattr(sys, "path", sys.path[:])
    loaded = load_settings(tmp_path / "settings.toml", {}).settings
    routes = load_routes(loaded, {})
    assert [(route.name, route.handler.is_async, route.handler.wants_record) for route in routes] == [
        ("talk", True, True),
        ("archive", False, False),
    ]
    sys.modules.pop("calls")


def test_commands_table() -> None:
    """The README's table of commands names the commands there are."""
    assert set(re.findall(r"^\| `session-consumer (\w+)`", README, re.MULTILINE)) == set(cli.commands)


def test_shell_blocks_name_real_targets() -> None:
    """Each `make` and `session-consumer` line of the README names a target, or a command with options, that exists."""
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for block in blocks("sh"):
        for line in block.splitlines():
            words = line.split("#")[0].split()
            if words[:1] == ["make"]:
                assert words[1] in targets
            if words[:1] == ["session-consumer"]:
                command = cli.commands[words[1]]
                if isinstance(command, click.Group):
                    command = command.commands[words[2]]
                known = {option for each in command.params for option in each.opts}
                assert {word for word in words if word.startswith("-")} <= known


@pytest.mark.parametrize("document", ["README.md", "DESIGN.md"])
def test_named_files_exist(document: str) -> None:
    """Every file of this project that a document names exists."""
    text = (ROOT / document).read_text()
    for name in re.findall(r"`((?:consumer|schemas|tests|deploy|examples|requirements)/[\w/.-]+)`", text):
        assert (ROOT / name).exists(), name


def test_changelog_names_the_version() -> None:
    """The version of the package has an entry in the changelog."""
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert f"\n## {version}" in (ROOT / "CHANGELOG.md").read_text()


def test_help_of_every_command() -> None:
    """Each command explains itself, and its first sentence stands in the list."""
    for name, command in cli.commands.items():
        assert command.help, name
        assert len(command.get_short_help_str(200)) > 20


def test_tree_has_no_index_address() -> None:
    """No package index is named in any file: each machine has its own."""
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    for name in tracked:
        if (ROOT / name).is_file():
            assert b"index-" + b"url" not in (ROOT / name).read_bytes().replace(b"--no-emit-index-url", b""), name


def test_modules_import_alone() -> None:
    """Importing the package's modules starts nothing and needs no settings."""
    for name in ("consumer", "consumer.process.parts", "consumer.cli", "schemas.session"):
        importlib.import_module(name)
