"""The verdicts on a status: what is wrong, since when, and what to do. Pure."""

from __future__ import annotations

from consumer.http.status import Status, Verdict


def judge(status: Status) -> list[Verdict]:
    """Return the verdicts on a status, whose own ``verdicts`` are not read; at least one, the worst first."""
    return [Verdict("Running", "good", "", "", "", "", status.since)]
