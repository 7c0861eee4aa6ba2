"""The generated parts of the documents; ``python -m tests.docs`` writes them.

A generated part stands between ``<!-- generated: NAME -->`` and ``<!-- end -->``. ``docs/status.schema.json`` is
generated as a whole. The same command corrects the path of a named test (``tests/….py::test_name``) when the test was
moved to another file.
"""

from __future__ import annotations

import ast
import functools
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import NoneType
from typing import Any, Literal, NamedTuple, get_args, get_origin

import msgspec

from consumer.dead_letters.cause import Cause
from consumer.metrics.definitions import METRICS
from consumer.routes.handler import MAX_RECORDS, MAX_SECONDS
from consumer.settings.example import field_of
from consumer.settings.meanings import MEANINGS
from consumer.settings.sections import RouteRetry
from tests.status_schema import SCHEMA, status_schema

ROOT = Path(__file__).parent.parent
DOCUMENTS = [
    *(ROOT / name for name in ("README.md", "DESIGN.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]
GENERATED = re.compile(r"(<!-- generated: ([^\n]+?) -->\n).*?(<!-- end -->)", re.DOTALL)
NAMED_TEST = re.compile(r"(tests/[\w/]+\.py)::(test_\w+)")
SECURITY = ROOT / "docs" / "security-matrix.json"
"""What ``python -m tests.kafka.security_matrix`` has noted."""
COMMAND = "run python -m tests.docs"

NOT_SET = {
    "routes.timeout_seconds": "no limit",
    "routes.max_records": f"{MAX_RECORDS}",
    "routes.max_seconds": f"{MAX_SECONDS}",
    "routes.flush_seconds": "a flush before each commit",
}
"""What a setting without a value means."""

TYPES = {bool: "boolean", str: "string", dict: "table", list: "list of strings", RouteRetry: "table"}
UNITS = {"_seconds": "seconds", "_bytes": "bytes"}

WHEN = {
    "brokers_reachable": "A broker answers again.",
    "brokers_unreachable": "No broker answers; `why` names what happened at each. The daemon waits.",
    "call_failed": "A handler's call failed and is repeated after `seconds`.",
    "calls_abandoned": "Calls did not end within `delivery.drain_seconds`; they are cancelled and not committed.",
    "commit_delayed": "A commit got no answer; it is sent again with what is owned still. Group protocol consumer.",
    "commit_failed": "The brokers did not accept a commit. It is repeated with the next interval.",
    "commit_fenced": "The commit came too late: the group has moved on. The new owner handles its records again.",
    "commit_given_up": "A commit did not end in time at a revoke or stop. It is cancelled.",
    "commit_slow": "A commit takes long; no other is sent until it ends. `flushing` names the route it waits for.",
    "compression_failed": "A full file could not be compressed; it stays as it is until the next start.",
    "daemon_draining": "The stop began: started calls may end within `seconds`.",
    "daemon_stalled": "Work waits and nothing moves (`why`). `stacks` holds the stacks of all threads and tasks.",
    "daemon_started": "The daemon serves HTTP at this address and joins the group.",
    "daemon_stopped": "The daemon left the group cleanly.",
    "database_away": "A handler's database is out of reach at start; the first batch waits for it.",
    "dead_letter_write_failed": "Kafka did not take a dead letter. The partition holds; the write is repeated.",
    "dead_letter_write_slow": "A dead letter is not acknowledged yet. The partition holds.",
    "dead_letter_topic_missing": "There is no dead-letter topic; the first dead letter halts its partition. Create it.",
    "event_unmatched": "No route matches an event; it is skipped. At most one line a minute.",
    "exit_forced": "A handler's call does not end, even when cancelled. The process exits with 70.",
    "file_reopened": "A handler's file was moved away or deleted, and is begun again at its path.",
    "file_truncated": "Another program made a handler's file shorter. Lines of it may be lost.",
    "flush_failed": "A handler's flush failed. Nothing is committed until a flush succeeds.",
    "group_not_described": "The coordinator did not describe the group; the page shows its last description.",
    "half_line_cut": "A handler's file ended in half a line, which a kill left; it was cut off before the first write.",
    "heartbeat_failed": "A heartbeat got no answer; the next one says everything again. Group protocol consumer.",
    "heartbeat_refused": "The coordinator refused a heartbeat with `code`; `reaction` says what follows.",
    "heartbeats_answered": "The group answers heartbeats again; the partitions go on.",
    "heartbeats_unanswered": "No heartbeat was answered for a session timeout. All partitions are paused.",
    "kafka_client_lost": "The Kafka client cannot go on (`reason`) and is replaced.",
    "leaving_failed": "A handler failed at the end, after an earlier failure, which decides the exit code.",
    "listen_failed": "A new client could not be asked whether the brokers answer it. Each kind is logged once.",
    "log_lines_dropped": "Lines of the watchdog and HTTP were dropped because nobody read stderr.",
    "loop_failed": "A background loop of the daemon ended with an error. The daemon drains and exits.",
    "offset_resolved": "A partition had no usable offset (`why`); it starts at `offset` as the setting `rule` says.",
    "offset_unresolved": "The start offset of a partition could not be found out. It is tried again.",
    "partition_halted": "A partition drained, committed and waits for a person. `remedy` says what ends the halt, and "
    "names records without an outcome that its command would pass.",
    "partition_task_failed": "A partition's task failed unexpectedly: a defect. The daemon drains and exits.",
    "offsets_delayed": "The offsets of new partitions are not known yet; they are asked for again.",
    "partitions_assigned": "The group assigned partitions.",
    "partitions_lost": "The group gave the partitions to others without asking. Nothing is committed.",
    "partitions_revoked": "The group takes partitions back; they are drained and committed.",
    "raw_fetch_unsupported": "This aiokafka is not the pinned one; records are fetched the slower way (three times).",
    "record_dead_lettered": "A record became a dead letter; Kafka has acknowledged it.",
    "reopen_failed": "A handler could not reopen its files at a SIGHUP.",
    "rotation_failed": "A full file could not be renamed, or no new one begun. It is tried again.",
    "rows_already_stored": "Records came again whose rows a folder of Parquet files has; they were skipped.",
    "stacks_requested": "SIGUSR1 asked for the stacks of all threads and tasks.",
    "stall_ended": "What was stalled moves again.",
    "stall_given_up": "A stall lasted for `watchdog.window_seconds`. The process exits with 70.",
    "watchdog_failed": "The watchdog itself failed once: a defect. It goes on watching.",
    "rebalance_slow": "Partitions drained for `seconds` at a rebalance; their next owners waited.",
    "topics_delayed": "The names of new topics are not known yet; they are asked for again.",
    "worker_ended": "A worker process ended by itself; it is started again after `restart_in` seconds, unless that is "
    "null.",
    "worker_not_started": "The system refused to start a worker process. It is tried again.",
    "worker_silent": "A worker's supervising thread has not reported for 30 s. The worker is killed and started again.",
    "worker_started": "A worker process serves HTTP and has opened its handlers.",
    "workers_draining": "The stop of all workers began; those that run after `seconds` are killed.",
    "workers_started": "The parent of the workers serves HTTP at this address and starts them.",
    "workers_stopped": "All workers have ended cleanly.",
}
"""When each log event is written; a test holds its names to the code."""

WHERE = ("topic", "partition", "offset")
UNPACKED = {
    "self._where(raw.offset)": WHERE,
    "self._where(writing.hold.offset)": WHERE,
    "cause._asdict()": Cause._fields,
}
"""Keys of log calls that are given as ``**expression``."""

NAMED_BY_THE_EVENT = "consumer/handlers/log.py"
"""The handler that logs events names its lines by the event's type."""


class LogCall(NamedTuple):
    """One call of a logger; ``event`` is None when it is not a literal."""

    event: str | None
    level: str
    keys: tuple[str, ...]
    place: str


@functools.cache
def generated_parts() -> dict[str, str]:
    """Return every generated part by its name."""
    sections = dict.fromkeys(name.rpartition(".")[0] for name in MEANINGS)
    return {
        **{f"settings {section}".rstrip(): settings_table(section) for section in sections},
        "metrics": metrics_table(),
        "log events": log_events_table(log_calls()),
        "security matrix": security_table(json.loads(SECURITY.read_text(encoding="utf-8"))),
    }


def settings_table(section: str) -> str:
    """Return the table of one section's settings; the empty section holds those outside of any."""
    rows = ["| setting | type | default | meaning |", "|---|---|---|---|"]
    for name, meaning in MEANINGS.items():
        above, _, own = name.rpartition(".")
        if above == section:
            field = field_of(name)
            rows.append(f"| `{own}` | {_type(field)} | {_default(name, field)} | {_cell(meaning)} |")
    return "\n".join(rows)


def _type(field: msgspec.structs.FieldInfo) -> str:
    kinds = [kind for kind in get_args(field.type) if kind is not NoneType]
    kind = kinds[0] if NoneType in get_args(field.type) else field.type
    if get_origin(kind) is Literal:
        *first, last = (f'`"{value}"`' for value in get_args(kind))
        return f"{', '.join(first)} or {last}"
    if kind in (int, float):
        unit = next((unit for suffix, unit in UNITS.items() if field.name.endswith(suffix)), "")
        return ", ".join(filter(None, (kind.__name__, unit)))
    return TYPES[get_origin(kind) or kind]


def _default(name: str, field: msgspec.structs.FieldInfo) -> str:
    if field.required:
        return "required"
    value = field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory()
    if value is None:
        return f"not set: {NOT_SET[name]}"
    if isinstance(value, int) and not isinstance(value, bool) and value >= 10_000:
        return f"`{value:_}`"
    return f"`{msgspec.json.encode(value).decode()}`"


def metrics_table() -> str:
    """Return the table of all metrics."""
    rows = ["| metric | type | labels | meaning |", "|---|---|---|---|"]
    rows += [f"| `{each.name}` | {each.kind} | {', '.join(each.labels)} | {_cell(each.help)} |" for each in METRICS]
    return "\n".join(rows)


def log_events_table(calls: list[LogCall]) -> str:
    """Return the table of all log events, by name."""
    rows = ["| event | level | keys | when |", "|---|---|---|---|"]
    for event in sorted({call.event for call in calls if call.event is not None}):
        same = [call for call in calls if call.event == event]
        levels = ", ".join(sorted({call.level for call in same}))
        keys = ", ".join(f"`{key}`" for key in dict.fromkeys(key for call in same for key in call.keys))
        rows.append(f"| `{event}` | {levels} | {keys} | {_cell(WHEN.get(event, ''))} |")
    return "\n".join(rows)


def security_table(notes: Mapping[str, Any]) -> str:
    """Return the table of what ``check`` and ``run`` did with each set-up of ``[kafka.security]``."""
    rows = [
        f"From {notes['date']}, with Apache Kafka {notes['kafka']}. Most of the seconds are the start of Python.",
        "",
        "| set-up | `check` | `run` | connections | seconds | message |",
        "|---|---|---|---|---|---|",
    ]
    for name, cell in notes["cells"].items():
        check, run = cell["check"], cell["run"]
        ends = f"{check['code']} | {run['code']} | {cell['connections']} | {check['seconds']} and {run['seconds']}"
        rows.append(f"| {name} | {ends} | {_cell(cell['message'])} |")
    return "\n".join(rows)


def log_calls(root: Path = ROOT) -> list[LogCall]:
    """Find every call of a logger (``log`` or ``self._log``) in ``consumer/``."""
    found = []
    for path in sorted((root / "consumer").rglob("*.py")):
        place = str(path.relative_to(root))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args:
                logger, level = ast.unparse(node.func.value), node.func.attr
                if logger in ("log", "sparing", "self._log") and level in (
                    "debug",
                    "info",
                    "warning",
                    "error",
                    "exception",
                ):
                    first = node.args[0]
                    event = first.value if isinstance(first, ast.Constant) and isinstance(first.value, str) else None
                    found.append(LogCall(event, level, tuple(_keys(node)), f"{place}:{node.lineno}"))
    return found


def _keys(call: ast.Call) -> Iterator[str]:
    for keyword in call.keywords:
        yield from UNPACKED[ast.unparse(keyword.value)] if keyword.arg is None else (keyword.arg,)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


@functools.cache
def files_of_tests() -> dict[str, list[str]]:
    """Return the files that hold a test function of each name, relative to the project."""
    found: dict[str, list[str]] = {}
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
                found.setdefault(node.name, []).append(str(path.relative_to(ROOT)))
    return found


def regenerated(text: str) -> str:
    """Return a document with its generated parts, and the paths of its named tests, as the code has them."""
    parts, files = generated_parts(), files_of_tests()

    def moved(named: re.Match[str]) -> str:
        path, name = named.groups()
        holding = files.get(name, [])
        return f"{holding[0]}::{name}" if len(holding) == 1 else f"{path}::{name}"

    text = GENERATED.sub(lambda part: f"{part[1]}{parts[part[2]]}\n{part[3]}", text)
    return NAMED_TEST.sub(moved, text)


def write() -> None:
    """Bring every document up to date."""
    for document in DOCUMENTS:
        before = document.read_text(encoding="utf-8")
        after = regenerated(before)
        if after != before:
            document.write_text(after, encoding="utf-8")
    SCHEMA.write_text(status_schema(), encoding="utf-8")


if __name__ == "__main__":
    write()
