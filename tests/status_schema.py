"""The JSON Schema of ``/status.json``; ``python -m tests.docs`` writes it to ``docs/status.schema.json``."""

from __future__ import annotations

import ast
import importlib
import inspect
import json
from pathlib import Path
from typing import Any

import msgspec

from consumer.http.conditions import HoldStatus
from consumer.http.history import Sample
from consumer.http.status import Status
from consumer.observe.event_counts import EventCounts
from consumer.observe.recent_failures import Failure

SCHEMA = Path(__file__).parent.parent / "docs" / "status.schema.json"
MODULES = [each.__module__ for each in (Status, HoldStatus, Failure, Sample, EventCounts)]
"""The modules whose classes the status is made of."""


def status_schema() -> str:
    """Return the schema as text, with the docstrings of classes and fields as descriptions."""
    (_, definitions) = msgspec.json.schema_components([Status], ref_template="#/$defs/{name}")
    notes = {name: fields for module in MODULES for name, fields in _notes_of(module).items()}
    for name, definition in definitions.items():
        for field, note in notes[name].items():
            definition["properties"][field] = {"description": note, **definition["properties"][field]}
    schema: dict[str, Any] = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "session-consumer/status.schema.json",
        "title": "Status of session-consumer",
        "description": "What GET /status.json returns. Times are seconds since 1970. Fields may be added.",
        "$ref": "#/$defs/Status",
        "$defs": definitions,
    }
    return json.dumps(schema, indent=2, ensure_ascii=False).replace("``", "`") + "\n"


def _notes_of(module: str) -> dict[str, dict[str, str]]:
    """Return the docstring of each field, by class and field: the text that follows the field's annotation."""
    tree = ast.parse(inspect.getsource(importlib.import_module(module)))
    return {node.name: _fields_of(node) for node in tree.body if isinstance(node, ast.ClassDef)}


def _fields_of(node: ast.ClassDef) -> dict[str, str]:
    found = {}
    for field, text in zip(node.body, node.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant):
            found[ast.unparse(field.target)] = inspect.cleandoc(str(text.value.value)).replace("\n", " ")
    return found
