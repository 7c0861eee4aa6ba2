"""Matches: which events a route wants, and which matches are refused at start."""

from __future__ import annotations

import sys
from collections.abc import Callable
from datetime import UTC, datetime
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Annotated, Any, Literal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.errors import SettingsError
from consumer.routes.match import compile_match, fused
from schemas.session import Session
from schemas.types import event_type

WHEN = datetime(2026, 8, 21, 14, 8, tzinfo=UTC)


def a_session(**fields: Any) -> Session:
    return Session(timestamp=WHEN, **fields)


def compiled(kind: Any, match: dict[str, Any], where: str) -> Callable[[Any], bool] | None:
    """Compile a match, and return its test of an event whose record is of no concern."""
    predicate = compile_match(event_type(kind), match, where).predicate
    return None if predicate is None else lambda event: predicate(event, None)


def wants(match: dict[str, Any], **fields: Any) -> bool:
    """Tell whether a route with this match wants a session with these fields."""
    matches = compiled(Session, match, "routes.r")
    assert matches is not None
    wanted = matches(a_session(**fields))
    assert type(wanted) is bool
    return wanted


@pytest.mark.parametrize(
    ("match", "wanted", "unwanted"),
    [
        ({"session_id": "831"}, {"session_id": "831"}, {"session_id": "83"}),
        ({"session_id": "831"}, {"session_id": "831"}, {"session_id": None}),
        ({"agent_name": ""}, {"agent_name": ""}, {}),
        ({"prompt_version_number": 4}, {"prompt_version_number": 4}, {"prompt_version_number": 5}),
        ({"prompt_version_number": 0}, {"prompt_version_number": 0}, {}),
        ({"duration": 93.5}, {"duration": 93.5}, {"duration": 93.0}),
        ({"duration": 93}, {"duration": 93.0}, {"duration": 93.5}),
        ({"duration": 0}, {"duration": 0.0}, {}),
        ({"is_test": True}, {"is_test": True}, {"is_test": False}),
        ({"is_test": True}, {"is_test": True}, {"is_test": None}),
        ({"is_test": True}, {"is_test": True}, {}),
        ({"is_test": False}, {"is_test": False}, {"is_test": True}),
        ({"is_test": False}, {"is_test": None}, {"is_test": True}),
        ({"is_test": False}, {}, {"is_test": True}),
        ({"source": {"is": "null"}}, {}, {"source": ""}),
        ({"source": {"is": "present"}}, {"source": ""}, {"source": None}),
        ({"is_test": {"is": "null"}}, {"is_test": None}, {"is_test": False}),
        ({"is_test": {"is": "present"}}, {"is_test": False}, {}),
        ({"agent_type": ["a", "b*"]}, {"agent_type": "bc"}, {"agent_type": "ac"}),
        ({"agent_type": ["a", {"is": "null"}]}, {}, {"agent_type": "b"}),
        ({"is_test": [True, {"is": "null"}]}, {}, {"is_test": False}),
        ({"agent_type": [["a"], ["b"]]}, {"agent_type": "b"}, {"agent_type": "c"}),
    ],
    ids=str,
)
def test_one_field(match: dict[str, Any], wanted: dict[str, Any], unwanted: dict[str, Any]) -> None:
    """A value, a list or a question about null decides by its field alone; false also matches a missing field."""
    assert wants(match, **wanted)
    assert not wants(match, **unwanted)


class Status(StrEnum):
    OPEN = "open"


class Mixed(msgspec.Struct):
    """Fields whose values may be text and something else, or missing."""

    ref: int | str = 0
    tags: str | list[str] = ""
    note: str | msgspec.UnsetType = msgspec.UNSET
    word: Literal["a", "b"] = "a"
    described: Annotated[str | None, msgspec.Meta(description="text")] = None
    anything: Any | None = None
    status: Status = Status.OPEN


@pytest.mark.parametrize(
    ("match", "wanted", "unwanted"),
    [
        ({"ref": "a*"}, {"ref": "ab"}, {"ref": 5}),
        ({"tags": "a*"}, {"tags": "ab"}, {"tags": ["ab"]}),
        ({"note": "a*"}, {"note": "ab"}, {}),
        ({"note": {"is": "null"}}, {}, {"note": "a"}),
        ({"note": {"is": "present"}}, {"note": "a"}, {}),
        ({"word": "a"}, {"word": "a"}, {"word": "b"}),
        ({"described": "a*"}, {"described": "ab"}, {}),
        ({"anything": "a*"}, {"anything": "ab"}, {"anything": ["ab"]}),
        ({"anything": {"is": "null"}}, {}, {"anything": []}),
        ({"status": "o*"}, {"status": Status.OPEN}, {"status": "closed"}),
    ],
    ids=str,
)
def test_fields_of_any_type(match: dict[str, Any], wanted: dict[str, Any], unwanted: dict[str, Any]) -> None:
    """A field that may hold other things than text is matched too, and a field that is not set counts as null."""
    matches = compiled(Mixed, match, "routes.r")
    assert matches is not None
    assert matches(Mixed(**wanted))
    assert not matches(Mixed(**unwanted))


def test_a_datetime_is_compared_as_an_instant() -> None:
    """A timestamp in the settings matches the same instant in any offset."""
    assert wants({"timestamp": datetime.fromisoformat("2026-08-21T16:08:00+02:00")})
    assert not wants({"timestamp": datetime.fromisoformat("2026-08-21T14:08:00+02:00")})


@pytest.mark.parametrize(
    ("glob", "wanted", "unwanted"),
    [
        ("voice_*", "voice_sip_v1", "Voice_sip_v1"),
        ("voice_*", "voice_", "a voice_sip"),
        ("*_v?", "web_chat_v1", "web_chat_v10"),
        ("web_[cs]*", "web_chat", "web_xhat"),
        ("web_[!c]*", "web_sms", "web_chat"),
        ("*", "", None),
        ("a?c", "a\nc", "ac"),
    ],
)
def test_glob(glob: str, wanted: str, unwanted: str | None) -> None:
    """Globs match the whole text, case-sensitively; a missing text matches none."""
    assert wants({"channel_manager_type": glob}, channel_manager_type=wanted)
    assert not wants({"channel_manager_type": glob}, channel_manager_type=unwanted)


@given(st.text("ab[]!*?-.\n", max_size=8), st.lists(st.text("ab[]!*?-.\n", max_size=8) | st.text(max_size=8)))
def test_globs_are_fnmatch(glob: str, values: list[str]) -> None:
    """A pattern matches exactly what fnmatchcase matches, also when asked twice."""
    glob += "*" if not set(glob) & set("*?[") else ""
    for value in values * 2:
        assert wants({"source": glob}, source=value) == fnmatchcase(value, glob)


@given(st.text().filter(lambda text: not set(text) & set("*?[")), st.text())
def test_text_without_wildcards_is_itself(wanted: str, value: str) -> None:
    """A text without wildcards matches only itself."""
    assert wants({"source": wanted}, source=wanted)
    assert wants({"source": wanted}, source=value) == (value == wanted)


def test_all_fields_must_hold() -> None:
    """An event matches only when all fields match."""
    match = {"channel_manager_type": "voice_*", "is_test": False, "agent_id": ["1", "2"]}
    fields = {"channel_manager_type": "voice_sip_v1", "is_test": None, "agent_id": "2"}
    assert wants(match, **fields)
    for name, other in {"channel_manager_type": "web", "is_test": True, "agent_id": "3"}.items():
        assert not wants(match, **{**fields, name: other})


def test_an_empty_match_is_no_test() -> None:
    """A route without a match wants every event, and nothing is called to find out."""
    assert compiled(Session, {}, "routes.r") is None


@pytest.mark.parametrize(
    ("match", "message"),
    [
        ({"sesion_id": "1"}, "routes.r.match: Session has no field 'sesion_id'; did you mean 'session_id'?"),
        ({"isTest": True}, "did you mean 'is_test'?"),
        ({"session_id": 831}, "routes.r.match.session_id: expected text, got int"),
        ({"session_id": None}, "routes.r.match.session_id: expected text, got NoneType"),
        ({"session_id": True}, "routes.r.match.session_id: expected text, got bool"),
        ({"is_test": "false"}, "routes.r.match.is_test: expected true or false, got str"),
        ({"is_test": 0}, "routes.r.match.is_test: expected true or false, got int"),
        ({"prompt_version_number": True}, "routes.r.match.prompt_version_number: expected a whole number, got bool"),
        ({"prompt_version_number": 4.0}, "routes.r.match.prompt_version_number: expected a whole number, got float"),
        ({"duration": False}, "routes.r.match.duration: expected a number, got bool"),
        ({"duration": "5*"}, "routes.r.match.duration: expected a number, got str"),
        ({"agent_id": []}, "routes.r.match.agent_id: an empty list matches nothing"),
        ({"agent_id": ["1", []]}, "routes.r.match.agent_id: an empty list matches nothing"),
        ({"agent_id": ["1", 2]}, "routes.r.match.agent_id: expected text, got int"),
    ],
    ids=str,
)
def test_a_match_that_cannot_hold_is_refused(match: dict[str, Any], message: str) -> None:
    """A match on a field or a type that the event does not have is refused at start, with its route."""
    with pytest.raises(SettingsError) as refused:
        compiled(Session, match, "routes.r")
    assert message in str(refused.value)


@pytest.mark.parametrize(
    "table",
    [{}, {"is": "nul"}, {"is": "null", "or": "present"}, {"not": "null"}, {"is": None}, {"is": ["null"]}, {"is": {}}],
    ids=str,
)
def test_a_table_that_is_no_question_is_refused(table: dict[str, Any]) -> None:
    """A table in a match asks for null or present; any other is refused with both forms."""
    with pytest.raises(SettingsError) as refused:
        compiled(Session, {"agent_id": table}, "routes.r")
    assert 'routes.r.match.agent_id: a table must be { is = "null" } or { is = "present" }' in str(refused.value)


@pytest.mark.parametrize(
    ("predicates", "event", "refused"),
    [
        ([], 1, ()),
        ([None], 1, (False,)),
        ([lambda event, _raw: event, None, lambda event, _raw: not event], 1, (False, False, True)),
        ([lambda event, _raw: event, None, lambda event, _raw: not event], 0, (True, False, False)),
    ],
    ids=["no route", "no match", "the first", "the last"],
)
def test_all_matches_are_one_expression(predicates: list[Any], event: int, refused: tuple[bool, ...]) -> None:
    """What is found for an event depends on which predicates do not match it; a route without one takes every event."""
    assert fused(predicates, {refused: "found"})(event, None) == "found"


def test_a_match_that_raises_is_not_hidden() -> None:
    """An exception of one predicate comes out of the expression of all."""
    with pytest.raises(ZeroDivisionError):
        fused([None, lambda event, _raw: 1 // event], {})(0, None)


def test_a_glob_keeps_no_long_value() -> None:
    """A glob remembers results for short values only, so that its cache is bounded in bytes."""
    matches = compiled(Session, {"session_id": "a*"}, "routes.r")
    assert matches is not None
    long = ["a" * 10_000 + str(number) for number in range(50)]
    before = [sys.getrefcount(each) for each in long]
    assert all(matches(a_session(session_id=each)) for each in long)
    assert [sys.getrefcount(each) for each in long] == before
