"""Counters are read by another thread while they grow."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from consumer.http import reader
from consumer.http.reader import StatusReader
from consumer.metrics import collector
from consumer.metrics.collector import DaemonCollector
from consumer.observe import counters as counting
from consumer.observe.counters import Counters
from consumer.settings.sections import Settings
from tests.fakes.observed import FakeObserved

READERS = {collector.__file__, reader.__file__, counting.__file__}


@contextmanager
def new_topics(counters: Counters) -> Iterator[list[str]]:
    """Let a topic be found at each line of a reader, as another thread may; twice at each, so also inside a loop."""
    seen: Counter[tuple[str, int]] = Counter()
    found: list[str] = []

    def trace(frame: FrameType, event: str, _value: Any) -> Any:
        code = frame.f_code
        if code.co_filename not in READERS or code is Counters.know.__code__:
            return None
        place = code.co_filename, frame.f_lineno
        seen[place] += event == "line"
        if event == "line" and seen[place] <= 2:
            found.append(f"t{len(found)}")
            counters.know(found[-1:])
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        yield found
    finally:
        sys.settrace(before)


def test_a_scrape_while_topics_are_found() -> None:
    """A scrape has every topic that was known before it, whenever further ones are found."""
    counters = Counters(["a", "b"], ["r"])
    with new_topics(counters) as found:
        body, _ = DaemonCollector(counters, FakeObserved(), 10).scrape("")
    assert len(found) > 20
    for name in ("records_consumed", "decode_errors", "dead_letters", "offset_resets", "record_age_seconds"):
        lines = [line for line in body.decode().splitlines() if line.startswith(f"session_consumer_{name}_")]
        assert all(any(f'topic="{topic}"' in line for line in lines) for topic in "ab"), name


def test_a_status_while_topics_are_found() -> None:
    """A status is read, and a sample taken, whenever further topics are found."""
    counters = Counters(["a", "b"], ["r"])
    status = StatusReader(Settings(), counters, FakeObserved(), {}, lambda: (time.time(), time.monotonic()))
    counters.records_consumed["a"] = 5
    with new_topics(counters) as found:
        status.sample()
        read = status.read()
        assert counters.consumed == 5
    assert len(found) > 20
    assert read.records_consumed == 5
