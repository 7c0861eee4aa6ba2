"""Every number has a range, which the error names."""

from __future__ import annotations

from pathlib import Path

import pytest

from consumer.settings.example import field_of
from consumer.settings.meanings import MEANINGS
from consumer.settings.ranges import RANGES
from tests.unit.settings.loading import a_file, loaded, refusal

NUMBERS = [name for name in MEANINGS if field_of(name).type in (int, float, int | None, float | None)]
INSIDE = [name for name in NUMBERS if not name.startswith("routes.")]
ABSURD = ["inf", "-inf", "nan", "1e400", "-1", "1e18", "9" * 30]


def test_every_number_has_a_range() -> None:
    """Each setting that is a number has a range, and its default lies in it."""
    assert set(RANGES) == set(NUMBERS)
    for name in INSIDE:
        assert field_of(name).default in RANGES[name], name


@pytest.mark.parametrize("text", ABSURD)
@pytest.mark.parametrize("name", INSIDE)
def test_an_absurd_number_is_refused(name: str, text: str) -> None:
    """A number that is infinite, not a number or absurd is refused with its name and its range."""
    message = refusal(f"{name}={text}")
    assert name in message
    assert f"must be {RANGES[name]}" in message
    assert len(message) < 200


@pytest.mark.parametrize("text", ["inf", "nan", "-1", "0", "1e18"])
@pytest.mark.parametrize("name", sorted(set(NUMBERS) - set(INSIDE)))
def test_an_absurd_number_of_a_route_is_refused(tmp_path: Path, name: str, text: str) -> None:
    """The numbers of a route have ranges too."""
    field = name.partition(".")[2]
    message = refusal(file=a_file(tmp_path, f'[[routes]]\nname = "a"\nhandler = "m:f"\n{field} = {text}'))
    assert f"routes (a): {field} = " in message or f"routes[0].{field}" in message
    assert f"must be {RANGES[name]}" in message


@pytest.mark.parametrize("name", ["delivery.concurrency", "kafka.fetch_bytes", "retry.jitter", "http.port"])
def test_the_ends_of_a_range_are_allowed(name: str) -> None:
    """The smallest and the largest number of a range are accepted, those beyond are not."""
    allowed = RANGES[name]
    for end in (allowed.low, allowed.high):
        assert loaded(f"{name}={end}").origins == {name: "--set"}
    for beyond in (allowed.low - 1, allowed.high + 1):
        assert f"must be {allowed}" in refusal(f"{name}={beyond}")


def test_a_range_reads_well() -> None:
    """A range is written as settings are."""
    assert str(RANGES["kafka.fetch_bytes"]) == "from 1 to 2_147_483_647"
    assert str(RANGES["delivery.drain_seconds"]) == "from 0.001 to 2_147_483"
