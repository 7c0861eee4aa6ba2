"""``session-consumer new-handler``: what it writes runs, and what it refuses."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from consumer.cli.main import cli
from consumer.cli.new_handler import _literal
from tests.docs import ROOT
from tests.unit.testing.own_pytest import pytest_in

TYPES = """
import datetime, enum
from typing import Annotated, Literal

import msgspec


class Kind(enum.Enum):
    FIRST = "first"


class Line(msgspec.Struct):
    count: Annotated[int, msgspec.Meta(gt=3)]
    codes: Annotated[list[str], msgspec.Meta(min_length=1)]


class Order(msgspec.Struct, rename="camel"):
    order_id: int
    at: datetime.datetime
    kind: Kind
    mode: Literal["a", "b"]
    line: Line
    note: str | None
    total: float = 0.0


class Paid(msgspec.Struct, tag=True):
    order_id: int


class Sent(msgspec.Struct, tag=True):
    order_id: int


Event = Paid | Sent


class Odd(msgspec.Struct):
    code: Annotated[str, msgspec.Meta(pattern="^[0-9]{7}$")]
"""
SETTINGS = """
path = ["handlers"]

[kafka]
topics = ["orders", "packed", "events", "raw", "plain", "framed", "odd", "session-events", "more-sessions"]

[[schemas]]
topic = "orders"
type = "types_for_test:Order"

[[schemas]]
topic = "packed"
type = "types_for_test:Paid"
format = "msgpack"

[[schemas]]
topic = "events"
type = "types_for_test:Event"
format = "cloudevents"

[[schemas]]
topic = "raw"
type = "bytes"

[[schemas]]
topic = "plain"
type = "dict"

[[schemas]]
topic = "framed"
type = "types_for_test:Order"
framing = "confluent"

[[schemas]]
topic = "odd"
type = "types_for_test:Odd"
"""
TOPICS = ("orders", "packed", "events", "raw", "plain", "framed", "session-events", "more-sessions")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's folder with settings and types, the working directory."""
    (tmp_path / "handlers").mkdir()
    (tmp_path / "handlers" / "types_for_test.py").write_text(TYPES)
    (tmp_path / "settings.toml").write_text(SETTINGS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path[:])
    monkeypatch.delitem(sys.modules, "types_for_test", raising=False)
    return tmp_path


def new_handler(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["new-handler", *arguments])


def test_what_is_written_runs(folder: Path) -> None:
    """For every type and format the test passes at once, and the files pass ruff and mypy --strict."""
    route = ""
    for number, topic in enumerate(TOPICS):
        for name, batch in ((f"one{number}", ()), (f"many{number}", ("--batch",))):
            written = new_handler(name, "--topic", topic, "-c", "settings.toml", *batch)
            assert written.exit_code == 0, written.output
            route += written.stdout
    routes = tomllib.loads(route)["routes"]
    assert routes[0] == {"name": "one0", "handler": "one0:one0", "topics": ["orders"]}
    assert len(routes) == 2 * len(TOPICS)
    handlers = folder / "handlers"
    ended = pytest_in(folder, "handlers", "-q")
    assert ended.returncode == 0, ended.stdout
    assert f"{2 * len(TOPICS)} passed" in ended.stdout
    written_files = [str(path) for path in handlers.glob("*.py") if path.stem != "types_for_test"]
    for command in (
        ["ruff", "check", "--isolated", *written_files],
        ["ruff", "format", "--isolated", "--check", *written_files],
        ["mypy", "--strict", "--config-file=", "--follow-imports=silent", "--cache-dir=/dev/null", *written_files],
    ):
        checked = subprocess.run(
            [sys.executable, "-m", *command],
            cwd=handlers,
            env={"PATH": "", "MYPYPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert checked.returncode == 0, checked.stdout + checked.stderr


def test_the_route_is_one_of_the_daemon(folder: Path) -> None:
    """The settings with the printed route are valid: the handler fits the events of its topic."""
    route = new_handler("bill", "--topic", "orders", "-c", "settings.toml").stdout
    with (folder / "settings.toml").open("a") as file:
        file.write(route)
    (folder / "it_test.py").write_text(
        "from consumer import testing\n"
        "def test_it():\n"
        "    assert testing.run(None, b'{', topic='orders', settings='settings.toml').dead_letters\n"
    )
    assert pytest_in(folder, "it_test.py").returncode == 0


def test_nothing_is_overwritten(folder: Path) -> None:
    """A file that exists is left as it is, and no other is written."""
    taken = folder / "handlers" / "test_bill.py"
    taken.write_text("mine")
    refused = new_handler("bill", "-c", "settings.toml")
    assert (refused.exit_code, taken.read_text()) == (2, "mine")
    assert "test_bill.py exists already" in refused.output
    assert not (folder / "handlers" / "bill.py").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("1st",), "'1st' is no name of a Python module"),
        (("a-b",), "'a-b' is no name of a Python module"),
        (("class",), "'class' is no name of a Python module"),
        (("json",), "there is a module 'json' already"),
        (("consumer",), "there is a module 'consumer' already"),
        (("msgspec",), "there is a module 'msgspec' already"),
        (("bill", "--topic", "order"), "--topic order is none of kafka.topics"),
        (("bill", "--topic", "odd"), "no example of the events of topic 'odd' can be made"),
    ],
)
def test_what_is_refused(folder: Path, arguments: tuple[str, ...], message: str) -> None:
    """A name that cannot be used, or a topic, is named in the error, and nothing is written."""
    before = set(folder.rglob("*"))
    refused = new_handler(*arguments, "-c", "settings.toml")
    assert refused.exit_code != 0
    assert message in f"{refused.output}{refused.exception}"
    assert {path for path in folder.rglob("*") if path.suffix == ".py"} <= before


def test_a_folder_that_is_not_in_path(folder: Path) -> None:
    """With --directory the files go there, and the line for `path` is said."""
    written = new_handler("bill", "--directory", "other")
    assert written.exit_code == 0
    assert f'path = ["{folder / "other"}"]' in written.stderr
    assert written.stdout.startswith("\n[[routes]]\n")
    assert (folder / "other" / "bill.py").exists()


def test_a_pattern_needs_a_topic(folder: Path) -> None:
    """With kafka.topic_pattern the topic must be named, and match."""
    for arguments, message in (((), "name a topic"), (("--topic", "x"), "does not match")):
        refused = new_handler("bill", "--set", "kafka.topic_pattern=orders.*", *arguments)
        assert (refused.exit_code, message in refused.output) == (2, True)


@pytest.mark.parametrize("text", ["😀", "é", "\u2028", "'\"\\", "\n"])
def test_texts_are_written_as_they_are(text: str) -> None:
    """A text in an example is read by Python as it was, whatever its characters are."""
    assert ast.literal_eval(_literal({"kind": text})) == {"kind": text}
