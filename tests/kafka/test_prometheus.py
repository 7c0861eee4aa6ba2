"""A real Prometheus beside the daemon: its counts are exact, its alerts fire, and every panel has data."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest

from tests.cluster import Cluster, a_route, a_session, eventually
from tests.monitoring import PANELS, VARIABLES, RunningPrometheus, program, promtool, rules
from tests.promql import filled_in

RECORDER = "recording:Recorder"
JOB = "session-consumer"
NOT_AN_EVENT = b'{"timestamp":"never"}'
EMPTY_WITHOUT_HALT = {"Halts and holds by partition"}
EMPTY_BY_CLASSIC = {"Moves of partitions"}
"""Panels of the consumer group protocol."""
FIRING = 'count by (alertname) (ALERTS{alertstate="firing"})'


@pytest.fixture(autouse=True)
def _prometheus() -> None:
    """Look for the program before the test starts anything."""
    program("prometheus")


async def test_it_counts_what_was_produced(cluster: Cluster, tmp_path: Path) -> None:
    """Prometheus has exactly the produced records and outcomes: handled, skipped and dead-lettered."""
    await cluster.create(partitions=3, dead_letters=1)
    routes = a_route(RECORDER, path=tmp_path / "handled")
    async with cluster.run(routes=routes) as daemon, RunningPrometheus(tmp_path, await daemon.url()) as prometheus:
        for partition in range(3):
            await cluster.produce(map(a_session, range(1000)), partition)
        await cluster.produce([None, None, NOT_AN_EVENT, a_session(0), NOT_AN_EVENT, None, NOT_AN_EVENT, None])
        records = "sum by (topic) (session_consumer_records_consumed_total)"
        await prometheus.settles(records, "topic", {cluster.topic: 3008})
        outcomes = "sum by (outcome) (session_consumer_outcomes_total)"
        await prometheus.settles(outcomes, "outcome", {"handled": 3001, "skipped": 4, "dead_lettered": 3})
        letters = 'sum by (reason) (session_consumer_dead_letters_total{reason="undecodable"})'
        await prometheus.settles(letters, "reason", {"undecodable": 3})
        await prometheus.settles("session_consumer_lag_records", "partition", {"0": 0, "1": 0, "2": 0})
        assert await daemon.stop() == 0
        # What has left owns nothing, and so says nothing: no lag is left behind.
        await prometheus.settles("session_consumer_lag_records", "partition", {})


async def test_a_halt_fires_its_alert(cluster: Cluster, tmp_path: Path) -> None:
    """A halted partition fires its alert and no other; Prometheus finds no error in any rule."""
    await cluster.create()
    await cluster.produce([a_session(0), NOT_AN_EVENT])
    routes = a_route(RECORDER, path=tmp_path / "handled")
    async with cluster.run(routes=routes) as daemon, RunningPrometheus(tmp_path, await daemon.url()) as prometheus:
        await daemon.said("partition_halted")
        await prometheus.settles(FIRING, "alertname", {"SessionConsumerHalted": 1})
        (alert,) = (await prometheus.get("alerts"))["alerts"]
        assert (alert["labels"]["topic"], alert["labels"]["reason"]) == (cluster.topic, "no_dead_letter")
        assert alert["annotations"]["summary"] == f"{cluster.topic} has halted: no_dead_letter"
        for panel in PANELS:
            if panel["title"] in EMPTY_WITHOUT_HALT:
                assert await prometheus.query(filled_in(panel["targets"][0]["expr"]))
        (group,) = (await prometheus.get("rules"))["groups"]
        assert [rule["name"] for rule in group["rules"]] == [rule.get("alert") or rule["record"] for rule in rules()]
        assert {(rule["health"], rule.get("lastError", "")) for rule in group["rules"]} == {("ok", "")}


async def test_a_blocked_loop_fires_no_alert_on_brokers(cluster: Cluster, tmp_path: Path) -> None:
    """A blocked event loop fires its alert alone, though no end offset is heard and records wait."""
    await cluster.create()
    shorter = {
        "session_consumer_last_poll_timestamp_seconds[2m]": "session_consumer_last_poll_timestamp_seconds[4s]",
        "session_consumer_end_offset_age_seconds > 60": "session_consumer_end_offset_age_seconds > 6",
    }
    touched = tmp_path / "touched"
    routes = a_route("recording:Blocking", path=touched, seconds=3600)
    async with (
        cluster.run(routes=routes) as daemon,
        RunningPrometheus(tmp_path, await daemon.url(), shorter) as prometheus,
    ):
        await prometheus.settles("session_consumer_lag_records", "topic", {cluster.topic: 0})
        await cluster.produce([a_session(0), a_session(1)])
        await eventually(touched.exists)
        await prometheus.settles("session_consumer_end_offset_age_seconds > bool 10", "topic", {cluster.topic: 1})
        await prometheus.settles(FIRING, "alertname", {"SessionConsumerLoopBlocked": 1})


@pytest.mark.parametrize(
    ("handler", "options", "ordering"),
    [
        ("recording:Recorder", "", "key"),
        ("recording:Recorder", "", "unordered"),
        ("recording:Batches", "max_records = 20\nmax_seconds = 0.1\n", "partition"),
    ],
    ids=["key", "unordered", "batch"],
)
async def test_calls_that_hang_fire_the_alert_on_room(
    cluster: Cluster, tmp_path: Path, handler: str, options: str, ordering: str
) -> None:
    """Calls that do not end fill the room of a partition, and the alert says how far."""
    await cluster.create()
    await cluster.produce(map(a_session, range(30)))
    routes = a_route(handler, path=tmp_path / "handled", delay=3600) + options
    settings = [f"delivery.ordering={ordering}", "delivery.max_in_flight_records=20"]
    async with (
        cluster.run(*settings, routes=routes) as daemon,
        RunningPrometheus(tmp_path, await daemon.url()) as prometheus,
    ):
        firing = 'ALERTS{alertname="SessionConsumerNearInFlightLimit",alertstate="firing"}'
        await prometheus.settles(firing, "topic", {cluster.topic: 1})
        (described,) = (
            alert["annotations"]["description"]
            for alert in (await prometheus.get("alerts"))["alerts"]
            if alert["labels"]["alertname"] == "SessionConsumerNearInFlightLimit"
        )
        assert " has 100% of delivery.max_in_flight_records in flight" in described


async def test_the_dashboard_has_data(cluster: Cluster, tmp_path: Path) -> None:
    """With a dead letter every panel but one shows numbers, with every label of its legend; so does every variable."""
    await cluster.create(dead_letters=1)
    routes = a_route(RECORDER, path=tmp_path / "handled", delay=0.001)
    routes += a_route("recording:Batches", "batch", path=tmp_path / "batches", delay=0.001)
    async with cluster.run(routes=routes) as daemon, RunningPrometheus(tmp_path, await daemon.url()) as prometheus:
        # What was counted before the first scrape is in no rate.
        await prometheus.settles("sum by (job) (session_consumer_assigned_partitions)", "job", {JOB: 1})
        await cluster.produce([*map(a_session, range(500)), NOT_AN_EVENT])
        await prometheus.settles(FIRING, "alertname", {"SessionConsumerDeadLetters": 1})
        empty = set()
        for panel in PANELS:
            found = [await prometheus.query(filled_in(target["expr"])) for target in panel["targets"]]
            if all(math.isnan(value) for series in found for _, value in series):
                empty.add(panel["title"])
            for target, series in zip(panel["targets"], found, strict=True):
                legend = set(re.findall(r"{{(\w+)}}", target.get("legendFormat", "")))
                assert all(legend <= labels.keys() for labels, _ in series), target
        assert empty == EMPTY_WITHOUT_HALT | EMPTY_BY_CLASSIC
        for label, expression in VARIABLES.items():
            found_values = {labels[label] for labels, _ in await prometheus.query(filled_in(expression))}
            assert len(found_values) == 1, label
        assert await daemon.stop() == 0


async def test_promtool_finds_no_fault_with_a_scrape(cluster: Cluster, tmp_path: Path) -> None:
    """promtool accepts the daemon's metrics and their names."""
    await cluster.create()
    async with cluster.run(routes=a_route(RECORDER, path=tmp_path / "handled")) as daemon:
        await daemon.said("partitions_assigned")
        code, said = promtool("check", "metrics", stdin=(await daemon.get("/metrics"))[1])
        assert (code, said) == (0, "")
