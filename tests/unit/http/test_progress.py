"""How far a topic is from being caught up, in words."""

from __future__ import annotations

from typing import Any

import pytest

from consumer.http.progress import catch_up
from consumer.http.wording import MISSING
from tests.statuses import AT, a_topic


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"lag_records": None, "lag_seconds": None, "catch_up_seconds": None}, MISSING),
        ({}, "caught up"),
        ({"lag_records": 50, "lag_seconds": 0.4, "catch_up_seconds": None}, "keeping up"),
        ({"lag_records": 50, "lag_seconds": 60.0, "catch_up_seconds": None}, "not shrinking"),
        ({"lag_records": 50, "lag_seconds": 60.0, "catch_up_seconds": 9.0}, "caught up in 9.0 s at this rate"),
        ({"lag_records": 50, "lag_seconds": 60.0, "catch_up_seconds": None, "growing_since": AT - 60}, "growing"),
    ],
)
def test_a_topic_in_words(values: dict[str, Any], text: str) -> None:
    """A lag that is not known is not kept up with; a short one is, whether or not it shrinks."""
    assert catch_up(a_topic(**values)) == text
