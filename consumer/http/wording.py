"""Numbers, sizes and times as text for people. A missing value is a dash. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from consumer.http.status import WaitStatus

MISSING = "\N{EN DASH}"


def number(value: float | None) -> str:
    """Format a whole number with separators for thousands."""
    return MISSING if value is None else f"{value:,.0f}"


def rate(value: float) -> str:
    """Format a rate, with one decimal if it is small."""
    return f"{value:.1f}" if 0.05 <= value < 9.95 else f"{value:,.0f}"


def short(value: float) -> str:
    """Format a number shortly, for the axis of a chart."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value:g}"


def duration(seconds: float | None) -> str:
    """Format the duration of a call, to two or three digits, from microseconds up."""
    if seconds is None:
        return MISSING
    if seconds >= 9.95:
        return span(seconds)
    for unit, length in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= 0.995 * length:
            return f"{seconds / length:.3g} {unit}"
    return f"{seconds * 1e6:.0f} µs"


def size(value: float) -> str:
    """Format a number of bytes."""
    for unit, bytes_each in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if value >= bytes_each:
            return f"{value / bytes_each:.1f} {unit}"
    return f"{value:.0f} B"


def span(seconds: float | None) -> str:
    """Format a duration in its two largest units."""
    if seconds is None:
        return MISSING
    if 0 < seconds < 10:
        return f"{seconds:.1f} s"
    left = max(0, round(seconds))
    if left < 60:
        return f"{left} s"
    found: list[str] = []
    for unit, length in (("d", 86_400), ("h", 3600), ("min", 60), ("s", 1)):
        count, left = divmod(left, length)
        if count or found:
            found.append(f"{count} {unit}")
        if len(found) == 2:
            break
    return " ".join(each for each in found if not each.startswith("0 "))


def wait(what: WaitStatus, at: float) -> str:
    """Say what a partition waits for, since when and until when."""
    text = f"{what.kind.replace('_', ' ')}, {span(max(0.0, at - what.since))}"
    return text if what.until is None else f"{text} of {span(max(0.0, what.until - what.since))}"


def clock(at: float) -> str:
    """Format the time of day, in UTC."""
    return f"{datetime.fromtimestamp(at, UTC):%H:%M:%S}"


def day(at: float) -> str:
    """Format the date and time, in UTC."""
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M:%S}"


def when(at: float, now: float) -> str:
    """Format a time before ``now``, in UTC, with the date if it is more than 20 hours ago."""
    return clock(at) if now - at < 72_000 else day(at)


def moment(at: float) -> str:
    """Format the date and time, in UTC, by ISO 8601."""
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%dT%H:%M:%SZ}"


def sentence(text: str) -> str:
    """Make a sentence: capitalise the first letter and add a full stop."""
    return f"{text[:1].upper()}{text[1:]}{'' if text.endswith('.') else '.'}" if text else ""


def setting(value: Any) -> str:
    """Format the value of a setting, about as in a settings file."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return ", ".join(map(str, value)) or MISSING
    if isinstance(value, int) and value >= 10_000:
        return f"{value:_}"
    if isinstance(value, float):
        return f"{value:g}"
    return str(value) or MISSING


def percent(part: float, whole: float) -> str:
    """Format a share, with one decimal below 10 %."""
    share = 100 * part / whole if whole else 0.0
    if 0 < share < 0.05:
        return "under 0.1 %"
    return f"{share:.1f} %" if 0 < share < 9.95 else f"{share:.0f} %"


def own_place(places: Sequence[str]) -> str:
    """Return the innermost place that is neither of Python's library nor of a package, if there is one."""
    outside = [each for each in places if "/lib/python" not in each]
    packages = [each for each in places if "-packages/" in each]
    return [*outside, *packages, *places][0]


def some(names: Sequence[str], most: int = 3) -> str:
    """Join names, at most ``most`` of them; the others are counted."""
    rest = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(names[:most]) + rest
