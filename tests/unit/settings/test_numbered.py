"""The settings of one worker of several."""

from __future__ import annotations

import pytest

from consumer.errors import SettingsError
from consumer.settings.numbered import numbered, require_numbers
from tests.unit.settings.loading import loaded


def test_a_worker_has_a_port_and_an_id_of_its_number() -> None:
    """A port is counted up; a static id, with or without the host's name, ends in the number; the rest stays."""
    settings = loaded("http.port=9000", "kafka.group_instance_id={hostname}").settings
    worker = numbered(settings, 3)
    assert (worker.http.port, worker.kafka.group_instance_id) == (9003, "{hostname}-3")
    assert numbered(worker, 0).kafka.client_id == settings.kafka.client_id
    assert (worker.routes, worker.delivery, worker.kafka.group_id) == (
        settings.routes,
        settings.delivery,
        settings.kafka.group_id,
    )


def test_a_free_port_and_a_dynamic_member_stay() -> None:
    settings = loaded("http.port=0").settings
    assert numbered(settings, 2) == settings


@pytest.mark.parametrize(
    ("setting", "most", "why"),
    [
        ("http.port=65534", 1, "http.port = 65536 must be from 0 to 65535"),
        (f"kafka.group_instance_id={'x' * 247}", 9, "kafka.group_instance_id may hold"),
    ],
)
def test_numbers_without_room_are_refused(setting: str, most: int, why: str) -> None:
    """A port or an id that has no room for the number of the last worker is refused with its name."""
    settings = loaded(setting).settings
    require_numbers(settings, most)
    with pytest.raises(SettingsError, match=f"--workers {most + 1}: of worker {most + 1}, {why}"):
        require_numbers(settings, most + 1)
