"""Values in the environment and in ``--set``, in the spellings that shells, env files and templates make of them."""

from __future__ import annotations

import pytest

from consumer.settings.sources import Loaded, load_settings
from tests.unit.settings.loading import SECRET, loaded, refusal, variable_of

LISTS = [
    ("a:1,b:2", ["a:1", "b:2"]),
    ('["a:1","b:2"]', ["a:1", "b:2"]),
    (' [ "a:1", "b:2", ] ', ["a:1", "b:2"]),
    ("['a:1', 'b:2']", ["a:1", "b:2"]),
    ('"a:1,b:2"', ["a:1", "b:2"]),
    ("'a:1', \"b:2\"", ["a:1", "b:2"]),
    ("a:1, b:2 ,,\r\n", ["a:1", "b:2"]),
    ("[::1]:9092", ["[::1]:9092"]),
    ("[::1]:9092,[::2]:9092", ["[::1]:9092", "[::2]:9092"]),
]


def from_both(name: str, text: str) -> list[Loaded]:
    return [loaded(f"{name}={text}"), load_settings(None, {variable_of(name): text})]


@pytest.mark.parametrize(("text", "expected"), LISTS, ids=repr)
def test_a_list_in_any_spelling(text: str, expected: list[str]) -> None:
    """A list is read as JSON, as TOML or separated by commas, with quotes, spaces and a comma at its end."""
    for found in from_both("kafka.bootstrap_servers", text):
        assert found.settings.kafka.bootstrap_servers == expected


@pytest.mark.parametrize(
    "text", ["[a:1,b:2]", '["a:1"', '"a:1', "a:1,'b:2", "[1, 2]", '[["a"]]', '["a" "b"]'], ids=repr
)
def test_a_list_that_cannot_be_read_is_named(text: str) -> None:
    """A list in another spelling is refused with its name and the spellings that work, or as no address."""
    message = refusal(f"kafka.bootstrap_servers={text}")
    assert "kafka.bootstrap_servers" in message
    assert 'expected a list of strings, such as a,b or ["a", "b"]' in message or "is not host:port" in message


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("kafka.group_id", '"mine"', "mine"),
        ("kafka.group_id", " 'mine' ", "mine"),
        ("kafka.group_id", "mine\r", "mine"),
        ("kafka.group_id", "it's", "it's"),
        ("kafka.group_id", '"a" and "b"', '"a" and "b"'),
        ("http.port", '"8080"', 8080),
        ("http.port", " 8080 ", 8080),
        ("log.level", '"debug"', "debug"),
        ("log.payloads", "'true'", True),
        ("delivery.drain_seconds", '"2.5"', 2.5),
    ],
)
def test_quotes_and_spaces_around_a_value_are_dropped(name: str, text: str, expected: object) -> None:
    """Quotes around a whole value, spaces and a carriage return are no part of it."""
    for found in from_both(name, text):
        section, field = name.split(".")
        assert getattr(getattr(found.settings, section), field) == expected


def test_a_password_keeps_its_quotes_and_spaces() -> None:
    """Of a password in a variable only the end of its line is dropped."""
    found = loaded(KAFKA__SECURITY__PASSWORD=f" '{SECRET}' \n")
    assert found.settings.kafka.security.password == f" '{SECRET}' "
