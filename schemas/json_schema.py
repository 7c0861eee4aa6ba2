"""JSON Schema of the values of a topic, for the people who produce them."""

from __future__ import annotations

import inspect
from typing import Any

import msgspec

from schemas.types import BYTES, EventType
from schemas.wire import camel_case

DIALECT = "https://json-schema.org/draft/2020-12/schema"
DEFINITION = "#/$defs/{name}"
BOTH_SPELLINGS = "names may be in camelCase too"
NOTES = {
    "msgpack": "encoded as MessagePack",
    "cloudevents": "a CloudEvent in structured mode",
    "confluent": "a schema registry's magic byte and id may stand before the document",
}


def json_schema(kind: EventType, form: str, framing: str) -> dict[str, Any]:
    """Return the JSON Schema of values that are decoded; ``form`` and ``framing`` are those of ``[[schemas]]``.

    Values that are not decoded have the empty schema. Raises TypeError for a type that JSON Schema cannot describe.
    """
    if kind is BYTES:
        return {"$schema": DIALECT, "description": "bytes as they are; nothing is decoded"}
    (found,), definitions = msgspec.json.schema_components([kind.of], ref_template=DEFINITION)
    for each in definitions.values():
        if "description" in each:
            each["description"] = inspect.cleandoc(each["description"])
    notes = [NOTES[each] for each in (form, framing) if each in NOTES]
    if kind.both_spellings:
        name = found["$ref"].rpartition("/")[2]
        definitions[name] = _in_both_spellings(definitions[name])
        notes.append(BOTH_SPELLINGS)
    schema = _envelope(found) if form == "cloudevents" else found
    described = {"description": "; ".join(notes)} if notes else {}
    return {"$schema": DIALECT, **described, **schema, **({"$defs": definitions} if definitions else {})}


def _in_both_spellings(struct: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of a Struct with the camelCase names beside its own; unknown fields are ignored then."""
    properties = {
        each: field for name, field in struct["properties"].items() for each in dict.fromkeys((name, camel_case(name)))
    }
    required = [name for name in struct["required"] if camel_case(name) == name]
    either = [
        {"anyOf": [{"required": [name]}, {"required": [camel_case(name)]}]}
        for name in struct["required"]
        if name not in required
    ]
    kept = {name: value for name, value in struct.items() if name != "additionalProperties"}
    return {**kept, "properties": properties, "required": required, **({"allOf": either} if either else {})}


def _envelope(data: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of a CloudEvent in structured mode with such data."""
    text, none = {"type": "string"}, {"type": "null"}
    encoded = {**text, "contentEncoding": "base64", "contentSchema": data}
    return {
        "title": "CloudEvent",
        "type": "object",
        "properties": {
            "specversion": text,
            "id": text,
            "source": text,
            "type": text,
            "datacontenttype": {"type": ["string", "null"]},
        },
        "required": ["specversion"],
        "oneOf": [
            {"required": ["data"], "properties": {"data": data, "data_base64": none}},
            {"required": ["data_base64"], "properties": {"data": none, "data_base64": encoded}},
        ],
    }
