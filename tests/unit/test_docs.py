"""The documents are held to the code: generated tables, examples, links, named files and tests, and their language."""

from __future__ import annotations

import ast
import asyncio
import importlib
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any

import click
import pytest

from consumer.cli.main import cli
from consumer.metrics.definitions import METRICS
from consumer.routes.handler import bind_handler
from consumer.routes.load import load_routes
from consumer.settings.meanings import MEANINGS
from consumer.settings.sources import load_settings
from tests.docs import (
    COMMAND,
    DOCUMENTS,
    GENERATED,
    NAMED_BY_THE_EVENT,
    NAMED_TEST,
    ROOT,
    WHEN,
    files_of_tests,
    generated_parts,
    log_calls,
    metrics_table,
    regenerated,
    settings_table,
)

README = (ROOT / "README.md").read_text(encoding="utf-8")
FORBIDDEN = ("anew", "told", "said", "home", "meanwhile", "of its own", "so many", "in the making")

each_document = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def blocks_of_all(language: str) -> list[Any]:
    """Every fenced block of a language in every document, named by its document and number."""
    return [
        pytest.param(block, id=f"{path.relative_to(ROOT)}-{number}")
        for path in DOCUMENTS
        for number, block in enumerate(blocks(path.read_text(encoding="utf-8"), language))
    ]


def without_code(text: str) -> str:
    """Blank out fenced blocks and inline code."""
    return re.sub(r"`[^`\n]+`", "", re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE))


def anchors_of(path: Path) -> set[str]:
    """Return the anchors of a document's headings, as GitHub makes them."""
    found: set[str] = set()
    text = re.sub(r"^```.*?^```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    for heading in re.findall(r"^#+ (.+)$", text, re.MULTILINE):
        plain = re.sub(r"\[([^\]]+)\]\([^)]*\)", r"\1", heading).lower().strip()
        slug = re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")
        number = 0
        while (anchor := f"{slug}-{number}" if number else slug) in found:
            number += 1
        found.add(anchor)
    return found


@each_document
def test_generated_parts_are_current(document: Path) -> None:
    """Every generated table, and every path of a named test, is what the code says."""
    text = document.read_text(encoding="utf-8")
    assert regenerated(text) == text, COMMAND


def test_every_generated_part_is_shown_once() -> None:
    """Every table of settings, the metrics and the log events stand in exactly one place in the documents."""
    shown = [part[1] for path in DOCUMENTS for part in GENERATED.findall(path.read_text(encoding="utf-8"))]
    assert sorted(shown) == sorted(generated_parts())


def test_settings_tables_hold_every_setting() -> None:
    """The tables of all sections together have one row for each setting."""
    tables = [part for name, part in generated_parts().items() if name.startswith("settings")]
    assert sum(table.count("\n") - 1 for table in tables) == len(MEANINGS)


@pytest.mark.parametrize(
    ("section", "row"),
    [
        ("", "| `path` | list of strings | `[]` |"),
        ("kafka", '| `offset_reset` | `"earliest"`, `"latest"` or `"none"` | `"earliest"` |'),
        ("kafka", "| `fetch_bytes` | int, bytes | `1_048_576` |"),
        ("delivery", "| `drain_seconds` | float, seconds | `25.0` |"),
        ("dead_letter", "| `limit_ratio` | float | `0.5` |"),
        ("log", "| `payloads` | boolean | `false` |"),
        ("routes", "| `name` | string | required |"),
        ("routes", "| `match` | table | `{}` |"),
        ("routes", "| `threaded` | boolean | `false` |"),
        ("routes", "| `timeout_seconds` | float, seconds | not set: no limit |"),
        ("routes", "| `max_records` | int | not set: 500 |"),
        ("routes", "| `max_seconds` | float, seconds | not set: 1.0 |"),
    ],
)
def test_a_setting_has_its_type_and_true_default(section: str, row: str) -> None:
    """A row says the type of the annotation, and the default or what a missing value means."""
    assert row in settings_table(section)


def test_metrics_table_holds_every_metric() -> None:
    """The table of metrics has one row for each metric."""
    assert metrics_table().count("\n") - 1 == len(METRICS)


def test_log_events_are_identifiers() -> None:
    """The first argument of every log call is a literal name in snake_case; only the `log` handler names events."""
    for call in log_calls():
        if call.event is None:
            assert call.place.startswith(f"{NAMED_BY_THE_EVENT}:"), call.place
        else:
            assert re.fullmatch(r"[a-z]+(_[a-z]+)+", call.event), f"{call.place}: {call.event!r} is not snake_case"


def test_log_events_are_listed() -> None:
    """The list of log events names exactly those of the code, each with when it is written."""
    assert set(WHEN) == {call.event for call in log_calls() if call.event is not None}, COMMAND
    assert all(WHEN.values())


@each_document
def test_named_log_events_exist(document: Path) -> None:
    """Every log event that a document names is one of the code."""
    named = re.findall(r"log event\s+`(\w+)`", document.read_text(encoding="utf-8"), re.IGNORECASE)
    assert set(named) <= set(WHEN)


def test_first_screen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The handler and the settings of the README work as they are shown, and the handler is short."""
    (code,) = blocks(README, "python")
    (settings,) = blocks(README, "toml")
    assert len(code.strip().splitlines()) <= 20
    (tmp_path / "handlers").mkdir()
    (tmp_path / "handlers" / "shop.py").write_text(code)
    (tmp_path / "settings.toml").write_text(settings)
    monkeypatch.setattr(sys, "path", sys.path[:])
    loaded = load_settings(tmp_path / "settings.toml", {}).settings
    routes = load_routes(loaded, {})
    assert [(route.name, route.handler.is_async, route.handler.wants_record) for route in routes] == [
        ("talk", True, False),
        ("bill", True, False),
    ]
    sys.modules.pop("shop")


@pytest.mark.parametrize("code", blocks_of_all("python"))
def test_python_blocks_run(code: str) -> None:
    """Every Python block of the documents runs by itself; its tests pass, and other public functions are handlers."""
    module = ModuleType("block")
    exec(compile(code, "block", "exec"), module.__dict__)
    for node in ast.parse(code).body:
        if isinstance(node, ast.AsyncFunctionDef) and node.name.startswith("test_"):
            asyncio.run(getattr(module, node.name)())
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not node.name.startswith("_"):
            bind_handler(getattr(module, node.name), node.name)


@pytest.mark.parametrize("text", blocks_of_all("toml"))
def test_toml_blocks_are_settings(text: str, tmp_path: Path) -> None:
    """Every TOML block of the documents is a settings file that can be loaded."""
    (tmp_path / "settings.toml").write_text(text)
    load_settings(tmp_path / "settings.toml", {})


@pytest.mark.parametrize("block", blocks_of_all("sh"))
def test_shell_blocks_name_real_targets(block: str) -> None:
    """Each `make` and `session-consumer` line names a target, or a command with options, that exists."""
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
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


@each_document
def test_named_make_targets_exist(document: Path) -> None:
    """Every `make` target that a document names in its text exists."""
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"`make ([a-z-]+)", document.read_text(encoding="utf-8"))) <= targets


def test_commands_table() -> None:
    """The README's table of commands names the commands there are."""
    assert set(re.findall(r"^\| `session-consumer ([\w-]+)`", README, re.MULTILINE)) == set(cli.commands)


def test_redrive_options() -> None:
    """The table of redrive's options names the options there are."""
    dlq = cli.commands["dlq"]
    assert isinstance(dlq, click.Group)
    known = {option for each in dlq.commands["redrive"].params for option in each.opts}
    _, _, section = (ROOT / "docs/failures.md").read_text(encoding="utf-8").partition("\n## Redrive\n")
    named = {option for row in re.findall(r"^\| (`--.*?) \|", section, re.MULTILINE) for option in row.split(", ")}
    assert {option.strip("`") for option in named} == known - {"-c", "--config", "--set"}


@each_document
def test_links_resolve(document: Path) -> None:
    """Every relative link of a document leads to a file, and its anchor to a heading there."""
    for target in re.findall(r"\]\(([^)\s]+)\)", document.read_text(encoding="utf-8")):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        path = (document.parent / name).resolve() if name else document
        assert path.exists(), target
        if anchor:
            assert anchor in anchors_of(path), target


def test_every_page_is_in_an_index() -> None:
    """Every page of the manual, and every decision, is linked from the index of its folder."""
    for index in (ROOT / "docs/README.md", ROOT / "docs/decisions/README.md"):
        linked = set(re.findall(r"\]\(([^)#]+)\)", index.read_text(encoding="utf-8")))
        assert {path.name for path in index.parent.glob("*.md")} - {"README.md"} <= linked


@each_document
def test_named_files_exist(document: Path) -> None:
    """Every file of this project that a document names exists."""
    text = document.read_text(encoding="utf-8")
    folders = "consumer|schemas|tests|deploy|docs|bench|examples|requirements"
    for name in re.findall(rf"`((?:{folders})/[\w/.-]*)(?:::\w+)?`", text):
        assert (ROOT / name).exists(), name


@each_document
def test_named_tests_exist(document: Path) -> None:
    """Every test that a document names is in the file that it names."""
    known = files_of_tests()
    for path, name in NAMED_TEST.findall(document.read_text(encoding="utf-8")):
        assert path in known.get(name, []), f"{path}::{name}"


def test_every_folder_has_a_row_in_the_design() -> None:
    """The folder map of DESIGN.md has a row for each folder of the package."""
    design = (ROOT / "DESIGN.md").read_text(encoding="utf-8")
    folders = {path.parent.relative_to(ROOT) for path in (ROOT / "consumer").rglob("__init__.py")}
    assert {f"{folder}/" for folder in folders} <= set(re.findall(r"^\| `([\w/]+/)`", design, re.MULTILINE))


def test_readme_is_short() -> None:
    """The README can be read aloud in two minutes."""
    assert len(README.splitlines()) <= 120


@pytest.mark.parametrize("page", sorted((ROOT / "docs/decisions").glob("0*.md")), ids=lambda path: path.stem)
def test_a_decision_is_short(page: Path) -> None:
    """A decision says its context, the decision and its consequence in at most 25 lines."""
    text = page.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 25
    assert re.findall(r"^\*\*(\w+)\.\*\*", text, re.MULTILINE) == ["Context", "Decision", "Consequence"]


@each_document
def test_plain_words(document: Path) -> None:
    """No document uses a word that the language rule forbids, outside of code."""
    text = " ".join(without_code(document.read_text(encoding="utf-8")).split())
    found = [word for word in FORBIDDEN if re.search(rf"\b{word}\b", text, re.IGNORECASE)]
    assert not found


def test_changelog_names_the_version() -> None:
    """The version of the package has an entry in the changelog, under headings of Keep a Changelog."""
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"\n## {version}" in text
    headings = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
    assert set(re.findall(r"^### (.+)$", text, re.MULTILINE)) <= headings


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
            assert b"index-" + b"url" not in (ROOT / name).read_bytes(), name


def test_modules_import_alone() -> None:
    """Importing the package's modules starts nothing and needs no settings."""
    for name in ("consumer", "consumer.process.parts", "consumer.cli", "schemas.session"):
        importlib.import_module(name)
