"""``docs/status.schema.json`` describes what ``/status.json`` returns."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from jsonschema import Draft202012Validator
from jsonschema.protocols import Validator

from consumer.http.status import Status
from tests.docs import COMMAND
from tests.status_schema import SCHEMA, status_schema
from tests.statuses import a_halt, a_stall, a_status, a_troubled_status, dead_lettering

STATUSES = {
    "running": a_status(),
    "troubled": a_troubled_status(),
    "dead-lettering": a_status(dead_lettering=[dead_lettering()]),
    "halted": a_status(halts=[a_halt(*range(9))]),
    "stalled": a_status(state="stalled", stall=a_stall()),
    "without partitions": a_status(partitions=[], topics=[], last_commit_at=None, history=[]),
}


@pytest.fixture(scope="module")
def validator() -> Validator:
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


def sent(status: Status) -> dict[str, Any]:
    """Return a status as a client of ``/status.json`` reads it."""
    decoded: dict[str, Any] = json.loads(msgspec.json.encode(status))
    return decoded


def test_the_schema_is_current() -> None:
    """The schema is what the classes of the status say."""
    assert SCHEMA.read_text(encoding="utf-8") == status_schema(), COMMAND


@pytest.mark.parametrize("name", STATUSES)
def test_every_status_is_valid(validator: Validator, name: str) -> None:
    """Every status, also one with trouble, is as the schema says."""
    assert list(validator.iter_errors(sent(STATUSES[name]))) == []


def test_a_field_may_be_added_and_none_may_be_missing(validator: Validator) -> None:
    """A field that the schema does not have is valid; a field that is missing or of another type is not."""
    assert validator.is_valid(sent(a_status()) | {"added": 1})
    renamed = sent(a_status())
    renamed["stage"] = renamed.pop("state")
    assert not validator.is_valid(renamed)
    assert not validator.is_valid(sent(a_status()) | {"at": "noon"})


def test_docstrings_are_descriptions() -> None:
    """The docstring of a class and of a field is its description."""
    definitions = json.loads(status_schema())["$defs"]
    assert definitions["StallStatus"]["description"] == "A stall: work waits and nothing moves."
    assert definitions["Verdict"]["properties"]["tone"] == {
        "description": "`good`, `busy`, `warn` or `bad`.",
        "type": "string",
    }
    assert definitions["Failure"]["properties"]["first_at"]["description"] == "Seconds since 1970, as `last_at`."
