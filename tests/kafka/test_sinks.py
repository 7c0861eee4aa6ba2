"""Sessions that are sent again as they fill up, through daemons into SQLite, PostgreSQL and Parquet files."""

from __future__ import annotations

from tests.cluster import Cluster
from tests.sinks import Plan, Row, Sinks, differences
from tests.unit.handlers.databases import postgres_server


async def test_sinks_equal_the_truth_after_kills(cluster: Cluster) -> None:
    """Both daemons are killed, then one, and PostgreSQL restarts: each row is what the records say, none is refused."""
    with postgres_server() as server:
        report = await Sinks(cluster, Plan(events=5_000, seed=7, kills=2, rate=1_500.0), server).go()
    assert report.rows > 500
    assert report.different == {"sqlite": 0, "postgresql": 0, "parquet": 0}
    assert report.dead_letters == 0


def test_each_row_that_differs_is_counted() -> None:
    """A row that is missing, one too many, one twice, and one with another value."""
    one, two, other = (_row(number, "a") for number in (1, 2, 3))
    assert differences([one, two], [two, one]) == 0
    assert differences([one], [one, two]) == 1
    assert differences([one, other], [one]) == 1
    assert differences([one, one], [one]) == 1
    assert differences([_row(1, "b")], [one]) == 1


def _row(offset: int, label: str) -> Row:
    return {"_topic": "t", "_partition": 0, "_offset": offset, "label": label}
