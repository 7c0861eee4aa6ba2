"""Every setting has a meaning for the documents."""

from __future__ import annotations

from consumer.settings.meanings import HIDDEN, MEANINGS
from tests.unit.settings.loading import leaves


def test_every_setting_has_one_meaning() -> None:
    """Each setting that can be set has a meaning, and nothing else has."""
    assert list(MEANINGS) == [name for name in leaves() if name not in HIDDEN]
