"""The direction of imports, and where foreign libraries may be used."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts): path
    for package in ("consumer", "schemas")
    for path in (ROOT / package).rglob("*.py")
}

# A stage imports nothing that stands after it.
STAGES = [
    "record",
    "outcome",
    "decoding",
    "routing",
    "handler",
    "partition",
    "tally",
    "engine",
    "kafka",
    "daemon",
    "cli",
]
EDGES = {
    "aiokafka": "consumer.kafka",
    "prometheus_client": "consumer.metrics",
    "aiohttp": "consumer.http",
    "opentelemetry": "consumer.tracing",
}
PURE = ["errors", "record", "outcome", "decoding", "routing", "tally", "partition", "watermark"]


def imports_of(module: str) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(MODULES[module].read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def stage_of(module: str) -> int | None:
    parts = module.split(".")
    return STAGES.index(parts[1]) if parts[0] == "consumer" and len(parts) > 1 and parts[1] in STAGES else None


@pytest.mark.parametrize("module", sorted(MODULES))
def test_no_stage_imports_a_later_one(module: str) -> None:
    """Source, decode, route, handle, outcome, commit: imports go one way."""
    own = stage_of(module)
    if own is not None:
        later = {name for name in imports_of(module) if (stage := stage_of(name)) is not None and stage > own}
        assert later == set()


@pytest.mark.parametrize(("library", "package"), EDGES.items())
def test_a_library_is_used_in_one_package(library: str, package: str) -> None:
    """Each foreign edge library is imported in exactly one package."""
    users = {name for name in MODULES if any(each.split(".")[0] == library for each in imports_of(name))}
    assert users
    assert all(user.startswith(package) for user in users)


@pytest.mark.parametrize("name", PURE)
def test_the_core_is_pure(name: str) -> None:
    """Values, decoding, routing and state know no clock, no client, no server."""
    roots = {each.split(".")[0] for each in imports_of(f"consumer.{name}")}
    assert roots.isdisjoint({"aiokafka", "prometheus_client", "aiohttp", "time", "structlog", "click"})


def test_the_event_knows_nothing_of_the_consumer() -> None:
    """The schemas can be used without the daemon."""
    for module in MODULES:
        if module.startswith("schemas"):
            assert not any(each.split(".")[0] == "consumer" for each in imports_of(module))


FLOW = "record outcome decoding routing retry settle watermark partition tally turns stretch dispatch batch waits lanes"


def code_lines(source: str) -> int:
    """Count the lines that hold code: no blank ones, comments or docstrings."""
    texts = [
        range(node.lineno, (node.end_lineno or node.lineno) + 1)
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
    ]
    skipped = {line for lines in texts for line in lines}
    lines = enumerate(source.splitlines(), 1)
    return sum(1 for number, line in lines if line.strip() and line.strip()[0] != "#" and number not in skipped)


def test_the_core_is_small() -> None:
    """The way of a record, from bytes to commit, fits an afternoon, with all that may befall it."""
    assert (
        500
        < sum(
            code_lines(MODULES[f"consumer.{name}"].read_text())
            for name in [*FLOW.split(), "committer", "engine", "clients", "daemon"]
        )
        < 2270
    )
