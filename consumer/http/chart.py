"""Line charts of the last minutes, as coordinates for an inline SVG. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple

from consumer.http.history import SAMPLES, Sample

WIDTH = SAMPLES
HEIGHT = 100
GAP_SECONDS = 5.0
"""Longest gap between samples within a line. A longer one breaks it: the process or the machine was stopped."""
TABLE_SECONDS = 15

Value = Callable[[Sample], float | None]


class Chart(NamedTuple):
    """One chart. x counts seconds, with the newest sample at ``WIDTH``; y is 0 at ``top`` and ``HEIGHT`` at zero."""

    lines: list[str]
    """Points of the polylines."""
    areas: list[str]
    """Points of the polygons below the lines."""
    top: float
    """The value at the upper edge."""
    peak: float
    last: float | None
    rows: list[tuple[float, float]]
    """Time and mean of each 15 seconds, newest first, for the table beside the chart."""


def make_chart(samples: Sequence[Sample], value: Value) -> Chart:
    """Make the chart of one value of the samples, which must be in order of time."""
    known = [(sample.at, number) for sample in samples if (number := value(sample)) is not None]
    peak = max([number for _, number in known], default=0.0)
    top = round_up(peak)
    scale = HEIGHT / top
    begin = known[-1][0] - WIDTH if known else 0.0
    lines, areas = [], []
    for run in _unbroken(known):
        points = [(x, HEIGHT - number * scale) for at, number in run if 0 <= (x := at - begin) <= WIDTH]
        if len(points) > 1:
            line = " ".join(["%.1f,%.1f" % point for point in points])  # noqa: UP031 - half the time of an f-string
            lines.append(line)
            areas.append(f"{points[0][0]:.1f},{HEIGHT} {line} {points[-1][0]:.1f},{HEIGHT}")
    return Chart(lines, areas, top, peak, known[-1][1] if known else None, _rows(known))


def round_up(number: float) -> float:
    """Return the next round number, at least 4, whose half is short as well."""
    if number <= 4:
        return 4.0
    power = 10.0 ** math.floor(math.log10(number))
    return next(power * step for step in (1, 1.5, 2, 3, 4, 5, 6, 8, 10) if number <= power * step)


def _unbroken(points: Sequence[tuple[float, float]]) -> list[Sequence[tuple[float, float]]]:
    breaks = [
        index for index in range(1, len(points)) if not 0 <= points[index][0] - points[index - 1][0] <= GAP_SECONDS
    ]
    return [points[begin:end] for begin, end in pairwise([0, *breaks, len(points)])]


def _rows(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    found: dict[float, list[float]] = {}
    for at, number in points:
        found.setdefault(at // TABLE_SECONDS, []).append(number)
    return sorted(
        [(slot * TABLE_SECONDS, sum(numbers) / len(numbers)) for slot, numbers in found.items()], reverse=True
    )
