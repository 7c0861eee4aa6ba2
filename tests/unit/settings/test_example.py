"""The settings file to start from."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec

from consumer.settings.example import SET, example
from consumer.settings.meanings import MEANINGS
from consumer.settings.ranges import RANGES
from consumer.settings.sections import LOG_EVERYTHING, Settings
from consumer.settings.sources import ENTRIES
from tests.unit.settings.loading import a_file, loaded


def test_the_example_can_be_loaded_as_it_is(tmp_path: Path) -> None:
    """The example is a settings file: the defaults, with the route that they stand for."""
    found = loaded(file=a_file(tmp_path, example()))
    assert found.settings == msgspec.structs.replace(Settings(), routes=[LOG_EVERYTHING])
    assert set(found.origins) == {name for name in SET if not name.startswith("routes.")} | {"routes"}


def test_every_line_of_the_example_can_be_used(tmp_path: Path) -> None:
    """With no setting in a comment the example can be loaded too, and names every setting once."""
    text = re.sub(r"^#(?=\S)", "", example(), flags=re.MULTILINE)
    found = loaded(file=a_file(tmp_path, text))
    entries = tuple(f"{each}." for each in ENTRIES)
    assert set(found.origins) == {name for name in MEANINGS if not name.startswith(entries)} | set(ENTRIES)
    for each in ENTRIES:
        names = re.findall(r"^(\w+) =", text.partition(f"[[{each}]]")[2].partition("[[")[0], re.MULTILINE)
        assert {f"{each}.{name}" for name in names} == {name for name in MEANINGS if name.startswith(f"{each}.")}


def test_the_example_explains_every_setting() -> None:
    """Every meaning and every range stands in the example, in lines that fit a screen."""
    text = example()
    words = " ".join(text.replace("\n# ", " ").split())
    assert [name for name, meaning in MEANINGS.items() if " ".join(meaning.split()) not in words] == []
    assert [name for name, allowed in RANGES.items() if f"A number {allowed}." not in words] == []
    assert max(map(len, text.splitlines())) <= 120
