"""The records that each producer sends, and what the contract says about each.

A producer gets an Order for each record and encodes it with its own libraries. It is never given the expected outcome.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from itertools import count, islice
from random import Random
from typing import Any, Literal, NamedTuple
from zlib import crc32

import msgspec

from schemas.samples import sessions
from schemas.session import Session
from schemas.wire import camel_case
from tests.handlers.orders import Order as ShopOrder

CODECS = ("none", "gzip", "snappy", "lz4", "zstd")
PARTITIONS = 2
USUAL = 200
"""Usual records on each topic."""
OTHERS = 12
"""Records of each other case on each topic."""
SAME_CODEC = 25
"""Records in a row with the same codec."""
SCHEMA_IDS = (7, 123, 2_063_597_568)
"""Schema ids; the bytes of the last two contain ``{``."""

VENDOR = {"content_type": "application/vnd.shop.v1+json; charset=utf-8"}

Outcome = Literal["handled", "tombstone", "dead_lettered"]
FORMS = ("plain", "binary", "structured", "framed")
"""Forms of topics, one for each kind of events."""
EVENTS = ("binary", "structured")
"""Forms that are CloudEvents."""
TYPES = {"sessions": Session, "orders": ShopOrder}
JSON = "application/json"
BASE: Mapping[str, Any] = {"content": "event", "base64": False, "content_type": JSON}


class Case(NamedTuple):
    """One kind of record: what a producer does, and what the contract says about it."""

    name: str
    forms: tuple[str, ...]
    outcome: Outcome
    changes: Mapping[str, Any] = {}
    """What differs from a usual Order."""
    says: str = ""
    """What the dead letter's message says."""
    kinds: tuple[str, ...] = ("sessions", "orders")
    languages: tuple[str, ...] = ("go", "java", "node")


class Planned(NamedTuple):
    """One record that is to be sent, and what must become of it."""

    order: dict[str, Any]
    case: str
    outcome: Outcome
    event: Any
    """The event that the handler gets; None if it gets none."""
    attributes: dict[str, str]
    """The attributes of the record."""
    says: str

    @property
    def topic(self) -> str:
        return str(self.order["topic"])


def content(what: str) -> dict[str, str]:
    return {"content": what}


CASES = (
    Case("usual", FORMS, "handled"),
    Case("unicode", FORMS, "handled"),
    Case("nulls", FORMS, "handled", kinds=("sessions",)),
    Case("unknown fields", FORMS, "handled"),
    Case("camelCase", FORMS, "handled", kinds=("sessions",)),
    Case("both spellings", FORMS, "handled", kinds=("sessions",)),
    Case("no key", FORMS, "handled", {"key": None}),
    Case("empty key", ("plain", "framed"), "handled", {"key": ""}),
    Case("tombstone", FORMS, "tombstone", content("null")),
    Case("without data", ("binary",), "tombstone", content("none")),
    Case("without data", ("structured",), "dead_lettered", content("none"), "it is a CloudEvent without data"),
    Case("base64", EVENTS, "handled", {"base64": True}),
    Case("vendor's type", ("binary",), "handled", VENDOR),
    Case("vendor's type", ("structured",), "handled", VENDOR, languages=("java", "node")),
    Case("vendor's type", ("structured",), "dead_lettered", VENDOR, languages=("go",)),  # its SDK writes a string
    Case("no content type", EVENTS, "handled", {"content_type": None}),
    Case("unset subject", EVENTS, "handled"),
    Case("text", ("binary",), "dead_lettered", {"content_type": "text/plain", "data": "not JSON"}),
    Case(
        "text",
        ("structured",),
        "dead_lettered",
        {"content_type": "text/plain", "data": "not JSON"},
        "datacontenttype is not JSON",
    ),
    Case("JSON as text", ("binary",), "handled", {"content_type": "text/plain"}),
    Case(
        "JSON as text", ("structured",), "dead_lettered", {"content_type": "text/plain"}, "datacontenttype is not JSON"
    ),
    Case("JSON in a string", ("structured",), "dead_lettered"),
    Case("batch", ("plain", "binary"), "dead_lettered", content("batch")),
    Case(
        "batch",
        ("structured",),
        "dead_lettered",
        content("batch"),
        "it is a batch of CloudEvents; produce each as a record",
    ),
    Case("other mode", ("plain", "binary", "framed"), "dead_lettered", {"form": "structured"}),
    Case("other mode", ("structured",), "dead_lettered", {"form": "binary"}, "format = json reads binary mode"),
    Case("wrong type", FORMS, "dead_lettered"),
    Case("cut off", FORMS, "dead_lettered", content("cut")),
    Case("empty", FORMS, "dead_lettered", content("empty")),
    Case("only an id", ("framed",), "dead_lettered", content("head"), "no document behind it"),
    Case("id in a header", ("framed",), "handled", {"form": "named"}),
    Case("not framed", ("framed",), "handled", {"form": "plain"}),
)


def topics(language: str) -> list[str]:
    return [f"{language}-{kind}-{form}" for kind in TYPES for form in FORMS]


def plan(language: str, seed: int) -> list[Planned]:
    """Make the records of one producer; the same seed makes the same records."""
    numbers, found = count(), list[Planned]()
    for topic in topics(language):
        kind, form = topic.split("-")[1:]
        random = Random(f"{seed} {topic}")
        fitting = [each for each in CASES if form in each.forms and kind in each.kinds and language in each.languages]
        cases = [each for each in fitting for _ in range(USUAL if each.name == "usual" else OTHERS)]
        random.shuffle(cases)
        documents = session_documents(seed) if kind == "sessions" else order_documents(random)
        for index, (case, document) in enumerate(zip(cases, documents, strict=False)):
            codec = CODECS[index // SAME_CODEC % len(CODECS)]
            found.append(planned(next(numbers), topic, case, document, codec))
    return found


def session_documents(seed: int) -> Iterator[dict[str, Any]]:
    return (msgspec.to_builtins(each) for each in islice(sessions(seed), 1, None))


def order_documents(random: Random) -> Iterator[dict[str, Any]]:
    for number in count(1):
        total = random.choice([0, 10, 9.5, 1234567.25, 0.1])
        yield {"order_id": number * 1_000_003, "total": total, "country": random.choice(["de", "us", "br", ""])}


def planned(number: int, topic: str, case: Case, document: dict[str, Any], codec: str) -> Planned:
    _, kind, form = topic.split("-")
    if case.name == "unicode":
        field = "agent_name" if kind == "sessions" else "country"
        document |= {field: 'Zürich ☎ 東京 \U0001f600 "</>&\\ \u2028\n\u0001'}
    key = f"tenant-{number % 17}" + ("-Ä☃" if case.name == "unicode" else "")
    order = {
        "number": number,
        "topic": topic,
        "partition": crc32(key.encode()) % PARTITIONS,
        "form": form,
        "key": key,
        "codec": codec,
        "schema_id": SCHEMA_IDS[number % len(SCHEMA_IDS)],
        "data": spelled(case.name, kind, document),
        **BASE,
        **case.changes,
    }
    if case.name == "JSON as text":
        order["data"] = json.dumps(order["data"])
    order["attributes"] = attributes(order, kind)
    if case.name == "unset subject":
        order["attributes"]["subject"] = None
    event = msgspec.convert(document, TYPES[kind]) if case.outcome == "handled" else None
    return Planned(order, case.name, case.outcome, event, expected_attributes(order), case.says)


def spelled(case: str, kind: str, document: dict[str, Any]) -> Any:
    """Return the data of a record as a producer of some kind writes it."""
    is_session = kind == "sessions"
    changed = dict(document)
    if case == "wrong type":
        changed |= {"is_test": "yes"} if is_session else {"order_id": "7"}
    if case == "JSON in a string":
        return json.dumps(document)
    if case == "unknown fields":
        changed = {"region": "eu", **changed, "new_field": {"deep": [1, None, "x"]}}
    if case == "nulls":
        changed = dict.fromkeys(Session.__struct_fields__) | changed
    if case == "camelCase":
        return {camel_case(name): value for name, value in document.items()}
    if case == "both spellings":
        return {camel_case(name) if index % 2 else name: value for index, (name, value) in enumerate(document.items())}
    return changed


def attributes(order: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """Return the attributes of a CloudEvent, without those that the producer's library sets."""
    found = {
        "id": f"{order['topic']}-{order['number']}",
        "source": "/shops/berlin?desk=1",
        "type": f"shop.{kind}.changed",
        "subject": "Zürich/☎ 7",
        "time": "2026-01-02T03:04:05.678Z",
        "tenant": "acme-7",
        "note": "naïve ☃ 100%",
        "sequence": order["number"],
        "sampled": True,
    }
    return found | ({} if order["key"] is None else {"partitionkey": order["key"]})


def expected_attributes(order: Mapping[str, Any]) -> dict[str, str]:
    """Return what ``record.attributes`` must be: all as text."""
    if order["form"] not in EVENTS or order["content"] == "null":
        return {}
    given = {name: each for name, each in order["attributes"].items() if each is not None}
    given["specversion"] = "1.0"
    if order["content"] != "none" and order["content_type"] is not None:
        given["datacontenttype"] = order["content_type"]
    return {name: each if isinstance(each, str) else json.dumps(each) for name, each in given.items()}
