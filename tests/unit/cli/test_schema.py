"""``session-consumer schema``: the JSON Schema of each topic accepts what its reader accepts."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from jsonschema import Draft202012Validator

from consumer import testing
from consumer.cli.main import cli
from schemas.samples import encoded, sessions

TYPES = """
from dataclasses import dataclass
from typing import ClassVar
import msgspec

class Order(msgspec.Struct, forbid_unknown_fields=True):
    \"\"\"An order.\"\"\"
    both_spellings: ClassVar[bool] = True
    order_id: int
    total: float = 0.0

@dataclass
class Parcel:
    weight: float

class Paid(msgspec.Struct, tag=True):
    order_id: int

class Sent(msgspec.Struct, tag=True):
    order_id: int

Event = Paid | Sent

class Odd(msgspec.Struct):
    other: complex
"""
SETTINGS = """
path = ["."]
[kafka]
topics = ["session-events", "orders", "parcels", "events", "wrapped", "packed", "framed", "plain", "raw"]
""" + "".join(
    f'[[schemas]]\ntopic = "{topic}"\ntype = "{kind}"\n{others}'
    for topic, kind, others in (
        ("orders", "schema_types_for_test:Order", ""),
        ("parcels", "schema_types_for_test:Parcel", ""),
        ("events", "schema_types_for_test:Event", ""),
        ("wrapped", "schema_types_for_test:Order", 'format = "cloudevents"\n'),
        ("packed", "schema_types_for_test:Parcel", 'format = "msgpack"\n'),
        ("framed", "schema_types_for_test:Parcel", 'framing = "confluent"\n'),
        ("plain", "dict", ""),
        ("raw", "bytes", ""),
    )
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "schema_types_for_test.py").write_text(TYPES)
    (tmp_path / "settings.toml").write_text(SETTINGS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path[:])
    monkeypatch.delitem(sys.modules, "schema_types_for_test", raising=False)
    return tmp_path


def schema(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["schema", *arguments])


def printed(*arguments: str) -> dict[str, Any]:
    result = schema("-c", "settings.toml", *arguments)
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


@pytest.mark.usefixtures("folder")
def test_every_topic_has_a_valid_schema() -> None:
    """The object has one entry for each topic, and each is a JSON Schema; --topic prints one of them."""
    found = printed()
    assert list(found) == [
        "session-events",
        "orders",
        "parcels",
        "events",
        "wrapped",
        "packed",
        "framed",
        "plain",
        "raw",
    ]
    for each in found.values():
        Draft202012Validator.check_schema(each)
    assert printed("--topic", "orders") == found["orders"]


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("topic", "accepted", "refused"),
    [
        ("orders", [{"order_id": 1}, {"orderId": 1, "new": 2}], [{}, {"order_id": "1"}, {"orderId": "1"}]),
        ("parcels", [{"weight": 1.5}], [{}, {"weight": None}]),
        ("events", [{"type": "Paid", "order_id": 1}], [{"type": "Gift", "order_id": 1}]),
        (
            "wrapped",
            [
                {"specversion": "1.0", "data": {"orderId": 1}},
                {"specversion": "1.0", "data": {"orderId": 1}, "data_base64": None},
                {"specversion": "1.0", "data": None, "data_base64": "eyJvcmRlcklkIjoxfQ=="},
            ],
            [
                {"specversion": "1.0"},
                {"data": {"order_id": 1}},
                {"specversion": "1.0", "data": {}},
                [],
                {"order_id": 1},
            ],
        ),
        ("plain", [{}, {"a": 1}], [[], 1]),
        ("raw", [{}, 1, None, "x"], []),
    ],
)
def test_what_a_schema_accepts(topic: str, accepted: list[Any], refused: list[Any]) -> None:
    """A schema accepts the documents that are handled, and refuses those that are undecodable."""
    values = [json.dumps(each).encode() for each in (*accepted, *refused)]
    app = testing.run(None, *values, topic=topic, settings="settings.toml")
    expected = ["handled"] * len(accepted) + ["dead_lettered"] * len(refused)
    assert [outcome for _, outcome in app.outcomes] == expected
    validator = Draft202012Validator(printed("--topic", topic))
    assert [validator.is_valid(each) for each in accepted] == [True] * len(accepted)
    assert [validator.is_valid(each) for each in refused] == [False] * len(refused)


def test_sessions_in_both_spellings() -> None:
    """Without settings the schema is that of sessions; it accepts both spellings."""
    found = json.loads(schema().stdout)
    assert list(found) == ["session-events"]
    validator = Draft202012Validator(found["session-events"])
    for session, _ in zip(sessions(), range(50), strict=False):
        for camel in (False, True):
            validator.validate(json.loads(encoded(session, camel=camel)))


@pytest.mark.usefixtures("folder")
def test_how_values_differ_from_json() -> None:
    """The description says how a document is wrapped, framed, packed or spelled."""
    found = printed()
    assert found["packed"]["description"] == "encoded as MessagePack"
    assert found["orders"]["description"] == "names may be in camelCase too"
    assert "magic byte" in found["framed"]["description"]
    assert "CloudEvent" in found["wrapped"]["description"]
    assert "bytes" in found["raw"]["description"]
    assert "description" not in found["parcels"]


@pytest.mark.usefixtures("folder")
def test_topics_of_a_pattern() -> None:
    """With a pattern the entries are those of the schemas, and any topic may be asked for."""
    pattern = ("--set", "kafka.topic_pattern=.*", "--set", 'schemas=[{topic = "o*", type = "dict"}]')
    found = json.loads(schema(*pattern).stdout)
    assert list(found) == ["o*", "*"]
    assert json.loads(schema(*pattern, "--topic", "orders").stdout) == found["o*"]


def test_a_type_without_a_schema(folder: Path) -> None:
    """A type that JSON Schema cannot describe, or that cannot be imported, is a settings error."""
    for reference, message in (("Odd", "JSON Schema cannot describe it"), ("Nothing", "has no 'Nothing'")):
        text = f'path = ["."]\n[[schemas]]\ntopic = "session-events"\ntype = "schema_types_for_test:{reference}"\n'
        (folder / "settings.toml").write_text(text)
        assert message in str(schema("-c", "settings.toml").exception)
