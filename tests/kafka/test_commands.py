"""The commands as a person types them: their output and their exit codes."""

from __future__ import annotations

import asyncio
import json
import shlex
import signal
import socket
import sys
from pathlib import Path

import pytest

from tests.cluster import Cluster, a_route, eventually
from tests.process import command, started

SAMPLES = Path(__file__).parent.parent / "samples"
HANDLERS = Path(__file__).parent.parent / "handlers"


def reach(cluster: Cluster) -> list[str]:
    """Return the arguments that point a command at the test's broker."""
    return ["--set", f"kafka.bootstrap_servers={cluster.bootstrap_servers}", "--set", f"kafka.topics={cluster.topic}"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--set", "kafka.fetch_bytes=many"], "kafka.fetch_bytes (--set): expected int, got 'many'"),
        (["--set", "kafka.fetch_bytes=0"], "kafka.fetch_bytes = 0 must be from 1 to 2_147_483_647"),
        (
            ["--set", "kafka.fetch_byte=1"],
            "unknown setting 'kafka.fetch_byte' (--set); did you mean 'kafka.fetch_bytes'?",
        ),
        (["-c", "missing.toml"], "settings file missing.toml: No such file or directory"),
        (
            ["--set", 'routes=[{name="a", handler="nowhere.at.all:f"}]'],
            "routes[0] (a).handler: nowhere.at.all:f: there is no module 'nowhere'; put its folder in",
        ),
        (
            ["--set", 'routes=[{name="a", handler="consumer.handlers.log:Lug"}]'],
            "routes[0] (a).handler: consumer.handlers.log:Lug: consumer.handlers.log has no 'Lug'; did you mean 'Log'?",
        ),
    ],
)
@pytest.mark.parametrize("name", ["run", "check"])
async def test_wrong_settings(name: str, arguments: list[str], says: str) -> None:
    """Wrong settings give one line that names them and exit code 2, before any connection."""
    code, out, err = await command(name, *arguments, COLUMNS="300")
    assert code == 2
    if name == "run":
        assert (out, len(err.splitlines())) == ("", 1)
        assert err.startswith(f"session-consumer: {says}")
    else:
        assert says in out
    assert "Traceback" not in err


async def test_unreachable_broker() -> None:
    """A broker that does not answer within ``start_timeout_seconds`` gives one line with its name and exit code 69."""
    for name in ("run", "check"):
        with socket.socket() as closed:
            closed.bind(("127.0.0.1", 0))
            server = f"127.0.0.1:{closed.getsockname()[1]}"
            sets = [
                f"kafka.bootstrap_servers={server}",
                "kafka.start_timeout_seconds=2",
                "http.port=0",
                "log.level=error",
            ]
            code, out, err = await command(name, *(part for each in sets for part in ("--set", each)))
        assert code == 69
        assert server in out + err
        assert "Traceback" not in err
        assert len(err.splitlines()) == (1 if name == "run" else 0), err


async def test_missing_topic(cluster: Cluster) -> None:
    """A missing topic gives one line with its name, and is not created."""
    for _ in range(2):
        code, _, err = await command("run", *reach(cluster), "--set", "http.port=0", "--set", "log.level=error")
        assert code == 1
        assert err == (f"session-consumer: kafka.topics: no topic '{cluster.topic}'; create it, or correct the name\n")
    assert (await command("check", *reach(cluster), "--set", "http.port=0"))[0] == 1


async def test_taken_port(cluster: Cluster) -> None:
    """A taken HTTP port is reported before anything is consumed."""
    await cluster.create()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, _, err = await command("run", *reach(cluster), "--set", f"http.port={port}", "--set", "log.level=error")
    assert code == 1
    assert err.startswith(f"session-consumer: http.host, http.port: cannot listen on 127.0.0.1:{port}")
    assert await cluster.committed() == {0: None}


async def test_check_passes_when_the_daemon_would_run(cluster: Cluster) -> None:
    """``check`` exits 0 and lists its findings when the daemon would run."""
    await cluster.create(partitions=3, dead_letters=2)
    code, out, _ = await command("check", *reach(cluster), "--set", "http.port=0", COLUMNS="300")
    assert code == 0
    for text in (
        "settings",
        "log → consumer.handlers.log:Log",
        f"{cluster.topic} (3 partitions)",
        f"{cluster.topic}.dlq (2 partitions)",
        "no committed offsets",
    ):
        assert text in out


async def test_check_misses_the_topic_for_dead_letters(cluster: Cluster) -> None:
    """``check`` reports a missing dead-letter topic, unless the settings have none."""
    await cluster.create()
    code, out, _ = await command("check", *reach(cluster), "--set", "http.port=0", COLUMNS="300")
    assert (code, f"dead_letter.topic: no topic '{cluster.topic}.dlq'" in out) == (1, True)
    none = ("--set", "dead_letter.topic=")
    code, out, _ = await command("check", *reach(cluster), "--set", "http.port=0", *none, COLUMNS="300")
    assert (code, "no topic: the first dead letter halts its partition" in out) == (0, True)


async def test_a_printed_line_reaches_file_and_metrics(cluster: Cluster, tmp_path: Path) -> None:
    """A line through ``produce -`` is found in the jsonl handler's file and in /metrics."""
    await cluster.create()
    out = tmp_path / "sessions.jsonl"
    line = (SAMPLES / "valid.jsonl").read_bytes().split(b"\n")[0] + b"\n"
    code, _, err = await command("produce", "-", *reach(cluster), stdin=line)
    assert (code, err) == (0, f"produced 1 record to topic {cluster.topic}\n")
    async with cluster.run(routes=a_route("consumer.handlers.jsonl:JsonLines", path=out)) as daemon:
        found = json.loads(await eventually(lambda: out.exists() and out.read_bytes()))
        assert (found["session_id"], found["channel_manager_type"]) == ("824", "voice_sip_v1")
        assert await daemon.metric("records_consumed_total", topic=cluster.topic) == 1
        assert await daemon.metric("bytes_consumed_total", topic=cluster.topic) > len(line)
        assert await daemon.metric("outcomes_total", route="all", outcome="handled") == 1
        status, text = await daemon.get("/metrics", Accept="application/openmetrics-text; version=1.0.0")
        assert (status, text.endswith("# EOF\n")) == (200, True)
        assert (await daemon.get("/readyz"))[0] == (await daemon.get("/healthz"))[0] == 200
        assert (await daemon.get("/nothing"))[0] == 404
        assert await daemon.stop() == 0


async def test_produce_generates_and_creates(cluster: Cluster) -> None:
    """``produce --generate`` makes the given number of sessions, and creates the topic when allowed."""
    code, _, err = await command("produce", "--generate", "250", "--create-topic", "2", *reach(cluster))
    assert (code, err) == (0, f"produced 250 records to topic {cluster.topic}\n")
    assert await cluster.lag() == 250
    code, _, err = await command("produce", *reach(cluster))
    assert (code, "name a FILE (- for standard input) or --generate N" in err) == (2, True)


async def test_default_route_logs(cluster: Cluster) -> None:
    """Without routes the daemon logs records by position, without any field of an event unless allowed."""
    await cluster.create()
    await cluster.produce([b'{"timestamp":"2024-10-21T14:05:00Z","source":"+18042221111"}'])
    async with cluster.run() as daemon:
        line = json.loads(await daemon.said('"session"'))
        assert (line["topic"], line["partition"], line["offset"]) == (cluster.topic, 0, 0)
        assert await daemon.stop() == 0
        assert "+18042221111" not in "".join(daemon.lines)
    await cluster.produce([b'{"timestamp":"2024-10-21T14:05:00Z","source":"+18042221111"}'])
    async with cluster.run("log.payloads=true") as daemon:
        assert json.loads(await daemon.said('"session"'))["payload"]["source"] == "+18042221111"
        assert await daemon.stop() == 0


async def test_demo_accounts_for_every_event() -> None:
    """The demo runs the daemon on its own Kafka and prints one JSON object in which nothing is missing."""
    code, out, err = await command("demo", "--events", "5000", "--json", "--no-stay")
    summary = json.loads(out)
    assert (code, summary["events"], summary["lost"], summary["lag"]) == (0, 5000, 0, 0), err
    assert set(summary) == {"events", "lost", "lag", "seconds", "events_per_second", "routes"}
    routes = summary["routes"]
    assert routes["count"] == {"handled": 5000, "dead_lettered": 0}
    assert 0 < routes["chat"]["handled"] < routes["voice"]["handled"] < 5000


@pytest.mark.parametrize(
    ("number", "moment"),
    [(signal.SIGTERM, "starting Kafka"), (signal.SIGINT, "Producing:"), (signal.SIGTERM, "Consuming:")],
)
async def test_a_signal_ends_the_demo_cleanly(number: signal.Signals, moment: str, tmp_path: Path) -> None:
    """A first signal ends the demo at any moment with 0, and leaves no file behind."""
    async with started("demo", "--events", "100000", "--no-stay", TMPDIR=str(tmp_path)) as demo:
        assert demo.stderr is not None
        async with asyncio.timeout(60):
            while moment not in (line := (await demo.stderr.readline()).decode()):
                assert line, "ended too early"
        demo.send_signal(number)
        async with asyncio.timeout(30):
            rest = await demo.stderr.read()
            assert (await demo.wait(), b"Traceback" in rest) == (0, False)
    await eventually(lambda: list(tmp_path.iterdir()) == [])


async def test_a_signal_before_anything_is_begun() -> None:
    """A signal while the program still loads ends it without a traceback."""
    async with started("run") as early:
        # A shell that starts its jobs in the background has them ignore SIGINT, and so does whatever they start.
        ignored = signal.getsignal(signal.SIGINT) is signal.SIG_IGN
        early.send_signal(signal.SIGTERM if ignored else signal.SIGINT)
        async with asyncio.timeout(20):
            _, err = await early.communicate()
        assert b"Traceback" not in err


async def test_produce_names_what_is_missing(cluster: Cluster, tmp_path: Path) -> None:
    """A missing file is reported before the topic is created, a missing topic at once, a bad name as refused."""
    missing = str(tmp_path / "nothing.jsonl")
    code, _, err = await command("produce", missing, "--create-topic", "1", *reach(cluster))
    assert (code, err) == (2, f"session-consumer: {missing}: No such file or directory\n")
    code, _, err = await command("produce", "-", *reach(cluster))
    assert code == 1
    assert f"no topic '{cluster.topic}'" in err
    assert "--create-topic" in err
    code, _, err = await command("produce", "-", *reach(cluster), "--topic", "bad topic!", "--create-topic", "1")
    assert (code, "'bad topic!' cannot be created: InvalidTopicError" in err) == (1, True), err


async def test_a_fetch_size_over_the_limit_is_refused(cluster: Cluster) -> None:
    """A fetch size that would end the client's fetch task is refused at start, with its limit."""
    await cluster.create()
    await cluster.produce([b"{}"])
    async with cluster.run("kafka.fetch_bytes=99999999999") as daemon:
        assert await daemon.exit_code() == 2
        assert "kafka.fetch_bytes = 99999999999 must be from 1 to" in daemon.errors[0]


async def test_closed_streams(cluster: Cluster) -> None:
    """A command with closed input or output, or with an ASCII output, still works."""
    await cluster.create(dead_letters=1)
    check = shlex.join([sys.executable, "-P", "-m", "consumer", "check", *reach(cluster), "--set", "http.port=0"])
    for redirected in ("<&-", ">&-", "2>&-", "| head -1"):
        shell = await asyncio.create_subprocess_shell(f"{check} {redirected}", stdout=asyncio.subprocess.PIPE)
        async with asyncio.timeout(60):
            await shell.communicate()
        assert shell.returncode == 0, redirected
    code, out, err = await command("check", *reach(cluster), "--set", "http.port=0", PYTHONIOENCODING="ascii")
    assert (code, err) == (0, "")
    assert "handlers" in out
