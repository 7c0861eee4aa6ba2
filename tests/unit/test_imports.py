"""The direction of imports, and where third-party libraries may be used."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts): path
    for package in ("consumer", "schemas")
    for path in (ROOT / package).rglob("*.py")
}

# The folders of consumer/, bottom up; those in one line do not import one another.
FOLDERS = [
    {"values"},
    {"settings"},
    {"routes", "dead_letters", "partition", "logs"},
    {"observe"},
    {"delivery", "kafka", "metrics", "http", "handlers", "tracing"},
    {"process"},
    {"redrive"},
    {"cli", "testing"},
]
FLAT = {  # modules outside folders, and the folder they count as
    "__init__": "values",
    "errors": "values",
    "record": "values",
    "outcome": "values",
    "instructions": "values",
    "logs": "logs",
    "tracing": "tracing",
    "__main__": "cli",
}
LEVELS = {folder: level for level, folders in enumerate(FOLDERS) for folder in folders}
EDGES = {
    "aiokafka": ("consumer.kafka",),
    "prometheus_client": ("consumer.metrics",),
    "aiohttp": (  # the server, and two clients: one asks for OAuth tokens, one sends events
        "consumer.http",
        "consumer.kafka.tokens",
        "consumer.handlers.webhook",
    ),
    "opentelemetry": ("consumer.tracing",),
    "sqlalchemy": ("consumer.handlers.sql",),
    "pyarrow": ("consumer.handlers.parquet",),
}
PURE = {"values", "settings", "dead_letters", "partition"}


@cache
def imports_of(module: str) -> set[str]:
    """Return the modules that a module imports; ``from package import name`` counts as the module ``package.name``."""
    found = set()
    for node in ast.walk(ast.parse(MODULES[module].read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            modules = names & set(MODULES)
            found |= modules or {node.module}
    return found


def folder_of(module: str) -> str | None:
    """Return the folder that a module of ``consumer`` is in; None for a module of another package."""
    package, *parts = module.removesuffix(".__init__").split(".")
    if package != "consumer":
        return None
    first = parts[0] if parts else "__init__"
    return FLAT.get(first, first)


@pytest.mark.parametrize("module", sorted(MODULES))
def test_each_folder_imports_downwards_only(module: str) -> None:
    """A module imports only its own folder and folders below it; a module in no listed folder fails."""
    own = folder_of(module)
    if own is None:
        assert not any(name.split(".")[0] == "consumer" for name in imports_of(module)), "schemas/ stands alone"
        return
    assert own in LEVELS, f"{module} is in no folder of FOLDERS"
    for name in imports_of(module):
        other = folder_of(name)
        if other is not None and other != own:
            assert LEVELS[other] < LEVELS[own], f"{module} ({own}) imports {name} ({other})"


def test_no_import_cycle() -> None:
    """No module imports itself through others."""
    arrows = {each: {name for name in imports_of(each) if name in MODULES} for each in MODULES}
    while arrows:
        leaves = {each for each, targets in arrows.items() if not targets & set(arrows) - {each}}
        assert leaves, f"a cycle among {sorted(arrows)}"
        for each in leaves:
            del arrows[each]


def test_few_modules_outside_folders() -> None:
    """At most eight modules lie outside the folders of consumer/."""
    flat = {path.stem for path in (ROOT / "consumer").glob("*.py")}
    assert flat <= set(FLAT)
    assert len(flat) <= 8


@pytest.mark.parametrize(("library", "packages"), EDGES.items())
def test_a_library_is_used_in_one_package(library: str, packages: tuple[str, ...]) -> None:
    """Each edge library is imported in exactly one package; aiohttp in one for each of its three uses."""
    users = {name for name in MODULES if any(each.split(".")[0] == library for each in imports_of(name))}
    assert users
    assert all(user.startswith(packages) for user in users)


@pytest.mark.parametrize("module", sorted(name for name in MODULES if folder_of(name) in PURE))
def test_values_and_state_are_pure(module: str) -> None:
    """Values, settings, dead letters and partition state import no clock, client or server."""
    roots = {each.split(".")[0] for each in imports_of(module)}
    assert roots.isdisjoint({"aiokafka", "prometheus_client", "aiohttp", "asyncio", "time", "structlog", "click"})


def code_lines(source: str) -> int:
    """Count the lines of code, without blank lines, comments and docstrings."""
    texts = [
        range(node.lineno, (node.end_lineno or node.lineno) + 1)
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
    ]
    skipped = {line for lines in texts for line in lines}
    lines = enumerate(source.splitlines(), 1)
    return sum(1 for number, line in lines if line.strip() and line.strip()[0] != "#" and number not in skipped)


def test_the_core_is_small() -> None:
    """The code from bytes to commit stays within its bounds."""
    core = [name for name in MODULES if folder_of(name) in {"delivery", "partition"}]
    assert 500 < sum(code_lines(MODULES[name].read_text()) for name in core) < 2380
