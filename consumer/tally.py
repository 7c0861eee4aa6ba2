"""What happened so far, as plain integers: counted on the hot path, read by metrics at scrape."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import product

from consumer.outcome import Outcome


class Tally:
    """Counters of one daemon, for as long as it lives; written by the engine and the source, read by anyone.

    Each is a dict from label values to a count. All label sets that can occur are there at 0 from the start, so that
    a rate can be computed from the first event on.
    """

    def __init__(self, topics: Iterable[str], routes: Iterable[str]) -> None:
        topics, routes = list(topics), list(routes)
        self.records_consumed = dict.fromkeys(topics, 0)
        self.bytes_consumed = dict.fromkeys(topics, 0)
        self.outcomes = dict.fromkeys(product(routes, [Outcome.HANDLED]), 0) | {("none", Outcome.SKIPPED): 0}
        self.decode_errors = dict.fromkeys(product(topics, ["undecodable", "too_large"]), 0)
        self.handler_errors = dict.fromkeys(product(routes, ["error"]), 0)
        self.abandoned = dict.fromkeys([*routes, "none"], 0)
        self.commits = dict.fromkeys(["ok", "failed", "fenced"], 0)
        self.rebalances = dict.fromkeys(["assigned", "revoked", "lost"], 0)
        self.offset_resets = dict.fromkeys(product(topics, ["no_offset", "out_of_range"]), 0)
        self.last_poll_timestamp = 0.0
        self.last_commit_timestamp = 0.0
