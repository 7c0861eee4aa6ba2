"""Any content of any source gives settings or a SettingsError."""

from __future__ import annotations

import contextlib
import json
import tempfile
import tomllib
from collections.abc import Mapping
from datetime import date, datetime, time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.errors import SettingsError
from consumer.settings.meanings import MEANINGS
from consumer.settings.sections import Kafka, Settings
from consumer.settings.sources import load_settings
from tests.unit.settings.loading import a_file, loaded, refusal, variable_of

any_text = st.text(max_size=20) | st.text("0a,\udcff", max_size=3)
"""Also surrogates: that is how Python reads bytes in the environment or on a command line that are not UTF-8."""
likely = st.sampled_from(
    ["", "0", "-1", "1_0", "nan", "inf", "1e400", "true", "[]", "{}", "[{}]", '""', "a:1", "x\ny=1"]
)


@given(st.sampled_from([*sorted(MEANINGS), "routes", "kafka", ""]), likely | any_text)
def test_any_text_is_read_or_refused(name: str, text: str) -> None:
    """Any text in --set or the environment gives settings or a SettingsError."""
    with contextlib.suppress(SettingsError):
        assert type(loaded(f"{name}={text}").settings) is Settings
    with contextlib.suppress(SettingsError):
        assert type(load_settings(None, {variable_of(name): text}).settings) is Settings


@given(any_text)
def test_any_override_is_read_or_refused(override: str) -> None:
    """Any --set, also without a known name, gives settings or a SettingsError."""
    with contextlib.suppress(SettingsError):
        assert type(loaded(override).settings) is Settings


def toml(value: Any) -> str:
    """Write a value as TOML on one line."""
    match value:
        case bool():
            return str(value).lower()
        case str():
            return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
        case datetime() | date() | time():
            return value.isoformat()
        case list():
            return f"[{', '.join(map(toml, value))}]"
        case dict():
            return f"{{{', '.join(f'{toml(name)} = {toml(each)}' for name, each in value.items())}}}"
        case _:
            return repr(value)


NAMES = sorted({part for name in MEANINGS for part in name.split(".")})
scalars = (
    st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=10)
    | st.datetimes()
    | st.dates()
    | st.times()
    | st.sampled_from(["a:1", "SSL", "halt", "debug", 10**30])
)
junk = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES) | st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)


def tree_of(values: Mapping[str, Any]) -> dict[str, Any]:
    """Nest values by their dotted names."""
    tree: dict[str, Any] = {}
    for name, value in values.items():
        *above, last = name.split(".")
        place = tree
        for part in above:
            place = place.setdefault(part, {})
        place[last] = value
    return {**tree, "routes": [tree["routes"]]} if "routes" in tree else tree


@given(
    st.dictionaries(st.sampled_from(sorted(MEANINGS)), junk, max_size=4).map(tree_of)
    | st.dictionaries(st.sampled_from(NAMES) | st.text(max_size=5), junk, max_size=3)
)
def test_any_file_is_read_or_refused(tree: dict[str, Any]) -> None:
    """Any tree of values in a file gives settings or a SettingsError."""
    text = "".join(f"{toml(name)} = {toml(value)}\n" for name, value in tree.items())
    assert list(tomllib.loads(text)) == list(tree)
    with tempfile.TemporaryDirectory() as folder:
        file = a_file(Path(folder), text)
        with contextlib.suppress(SettingsError):
            assert type(loaded(file=file).settings.kafka) is Kafka


@pytest.mark.parametrize("value", ["[" * 3000, "9" * 5000], ids=["deep", "long"])
def test_a_value_beyond_the_parser_is_refused(tmp_path: Path, value: str) -> None:
    """A value too deep or too long for Python's parser is an error of its setting."""
    assert "routes (--set)" in refusal(f"routes={value}")
    assert "settings.toml" in refusal(file=a_file(tmp_path, f"routes = {value}"))
