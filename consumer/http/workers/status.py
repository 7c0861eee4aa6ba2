"""The status of all workers as one plain value, which their page shows and ``/status.json`` of the parent returns.

Times are seconds since 1970. Privacy: as in ``consumer/http/status.py``.
"""

from __future__ import annotations

import msgspec

from consumer.errors import counted
from consumer.http.status import Status, Verdict
from consumer.http.wording import span
from consumer.http.workers.facts import WorkerFacts

TONES = ("good", "busy", "warn", "bad")
"""From the best to the worst."""


class WorkerStatus(msgspec.Struct, frozen=True):
    """One worker. None means that a value is not known, because the worker does not answer."""

    worker: WorkerFacts
    verdict: Verdict
    """The worst verdict of its status, or what the parent knows of a worker that does not answer."""
    records_per_second: float | None = None
    lag_records: int | None = None
    lag_seconds: float | None = None
    partitions: int | None = None
    in_flight_records: int | None = None
    dead_letters: int | None = None


class WorkersStatus(msgspec.Struct, frozen=True):
    """The parent and all workers at one time."""

    at: float
    verdict: Verdict
    """On all of them."""
    host: str
    pid: int
    version: str
    started_at: float
    client_id: str
    group_id: str
    stopping: bool
    workers: list[WorkerStatus]
    """By number."""


def status_of(facts: WorkerFacts, answer: Status | str, at: float) -> WorkerStatus:
    """Return the status of one worker from its own status, or from why it gave none."""
    if isinstance(answer, str):
        return WorkerStatus(facts, absent(facts, answer, at))
    lags = [each.lag_records for each in answer.partitions if each.lag_records is not None]
    return WorkerStatus(
        worker=facts,
        verdict=_shown(answer.verdicts[0]),
        records_per_second=answer.records_per_second,
        lag_records=sum(lags) if lags or not answer.partitions else None,
        lag_seconds=max((each.lag_seconds for each in answer.partitions if each.lag_seconds is not None), default=None),
        partitions=len(answer.partitions),
        in_flight_records=sum(each.in_flight_records for each in answer.partitions),
        dead_letters=sum(each.dead_lettered for each in answer.routes),
    )


def absent(facts: WorkerFacts, why: str, at: float) -> Verdict:
    """Return the verdict on a worker that gives no status: it has no process, it starts, or it does not answer."""
    if facts.state == "ended":
        again = "" if facts.starts_at is None else f" It starts again in {span(max(0.0, facts.starts_at - at))}."
        sentence = f"It exited with {facts.exit_code}, and others take its partitions over.{again}"
        todo = "If this repeats, read its last lines in the log."
        return Verdict("Restarting", "bad", sentence, todo, "", "", facts.since)
    if not facts.serving:
        return Verdict("Starting", "busy", "It imports and opens its handlers.", "", "", "", facts.since)
    return Verdict("No answer", "warn", f"Its HTTP server {why}.", "Look at its last lines in the log.", "", "", at)


def judged(workers: list[WorkerStatus], since: float, *, stopping: bool) -> Verdict:
    """Return one verdict on all workers: that of the worst, or that they run."""
    if stopping:
        return Verdict("Draining", "busy", "All workers finish what they started, and end.", "", "", "", since)
    worst = max(workers, key=lambda each: TONES.index(each.verdict.tone))
    if worst.verdict.tone == "good":
        return Verdict("Running", "good", f"{counted(len(workers), 'worker')}, none in trouble.", "", "", "", since)
    alike = sum(each.verdict.word == worst.verdict.word for each in workers)
    several = f" (and {alike - 1} more)" if alike > 1 else ""
    sentence = f"Worker {worst.worker.number}{several}: {worst.verdict.sentence}"
    return msgspec.structs.replace(worst.verdict, sentence=sentence)


def _shown(verdict: Verdict) -> Verdict:
    """Return a worker's verdict, as a warning if its tone is none of ours: another version may answer."""
    return verdict if verdict.tone in TONES else msgspec.structs.replace(verdict, tone="warn")
