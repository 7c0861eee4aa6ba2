"""The comparison of ``python -m tests.foreign``: it finds each kind of difference."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from consumer import Record
from consumer.dead_letters.cause import Cause
from consumer.dead_letters.headers import write_context
from consumer.record import Position
from tests.foreign.plan import Planned, plan
from tests.foreign.verify import Seen, differences

PLANNED = plan("node", seed=1)


def a_run() -> tuple[dict[int, Position], Any]:
    """Make what a run leaves behind in which everything is as it must be."""
    sent: dict[int, Position] = {}
    seen: Any = Seen({}, {}, {})
    for each in PLANNED:
        place = Position(each.topic, each.order["partition"], each.order["number"])
        key = None if each.order["key"] is None else each.order["key"].encode()
        record = Record(*place, 0, key, b"the value", (("own", b"1"),))
        sent[each.order["number"]] = place
        seen.records[place] = record
        if each.outcome == "dead_lettered":
            seen.letters[place] = [a_letter(record, each.says)]
        elif each.outcome == "handled" or "-sessions-" in each.topic:
            seen.calls[place] = [a_call(each, key)]
    return sent, seen


def a_call(each: Planned, key: bytes | None) -> dict[str, Any]:
    return {
        "key": None if key is None else base64.b64encode(key).decode(),
        "type": type(each.event).__name__,
        "event": json.loads(msgspec.json.encode(each.event)),
        "attributes": dict(each.attributes),
    }


def a_letter(record: Any, message: str) -> Any:
    cause = Cause("undecodable", "none", 0, "DecodeError", message)
    headers = (*record.headers, *write_context("connect", record.origin, 0, "group", cause, 0))
    return msgspec.structs.replace(record, headers=headers)


def found_in(change: Callable[[Any, Position], Any], case: str, form: str = "structured") -> list[str]:
    """Change what one record of a case left behind, and return the differences that are found."""
    sent, seen = a_run()
    chosen = next(each for each in PLANNED if each.case == case and each.topic == f"node-sessions-{form}")
    change(seen, sent[chosen.order["number"]])
    found = list(differences(PLANNED, sent, seen))
    assert {each.order["number"] for each, _ in found} <= {chosen.order["number"]}
    return [what for _, what in found]


def test_nothing_is_wrong() -> None:
    """A run in which each record has its outcome has no difference."""
    assert found_in(lambda _seen, _place: None, "usual") == []


CHANGES: dict[str, tuple[str, Callable[[Any, Position], Any]]] = {
    "was not sent": ("usual", lambda seen, place: seen.records.pop(place)),
    "0 calls and 0 dead letters, instead of 1": ("usual", lambda seen, place: seen.calls.pop(place)),
    "2 calls": ("usual", lambda seen, place: seen.calls[place].append(seen.calls[place][0])),
    "the event is": ("camelCase", lambda seen, place: seen.calls[place][0]["event"].pop("agent_id")),
    "the key is": ("usual", lambda seen, place: seen.calls[place][0].update(key=None)),
    "attributes: ": ("base64", lambda seen, place: seen.calls[place][0]["attributes"].pop("tenant")),
    "0 calls and 0 dead letters, instead of 0 and 1": ("cut off", lambda seen, place: seen.letters.pop(place)),
    "the dead letter says": (
        "batch",
        lambda seen, place: seen.letters.update({place: [a_letter(seen.records[place], "another reason")]}),
    ),
    "the dead letter is not the record": (
        "empty",
        lambda seen, place: seen.records.update({place: msgspec.structs.replace(seen.records[place], value=b"")}),
    ),
}


@pytest.mark.parametrize("says", CHANGES)
def test_a_difference_is_found(says: str) -> None:
    """What is missing, repeated or changed is found, and nothing else is."""
    case, change = CHANGES[says]
    (found,) = found_in(change, case)
    assert found.startswith(says)
