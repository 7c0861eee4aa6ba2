"""Faults of form are counted, and their numbers only go down."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent

# How many there are of each. Lower a number when one is gone; never raise it.
COUNTS = {
    "functions over 45 lines": 1,
    "modules over 250 lines": 7,
    "test files over 400 lines": 0,
    "modules outside folders": 8,
    "constructors with more than 7 parameters": 0,
    "callables as constructor parameters": 11,
    "parameters raw: Any": 0,
    "assertions that something is not None": 3,
    "suppressed complexity rules": 3,
    "section banners": 0,
}

BANNER = re.compile(r"\s*#\s*(-{2,}|={2,}|─{2,}|#{2,})")
COMPLEXITY = re.compile(r"C901|PLR091[1235]")


@dataclass
class Source:
    """One Python file."""

    path: Path
    text: str

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text)

    def at(self, node: ast.AST) -> str:
        return f"{self.path.relative_to(ROOT)}:{getattr(node, 'lineno', 1)}"

    @property
    def lines(self) -> list[str]:
        return self.text.splitlines()

    @cached_property
    def functions(self) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
        """All functions, methods and closures."""
        return [node for node in ast.walk(self.tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]

    @property
    def constructors(self) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
        return [each for each in self.functions if each.name == "__init__"]


@cache
def python_files(folder: str) -> list[Path]:
    """Return the files of a folder, without what is installed there."""
    return [path for path in sorted((ROOT / folder).rglob("*.py")) if ".venvs" not in path.parts]


def sources(folder: str = "consumer") -> list[Source]:
    """Read all Python files of a folder and of those below it."""
    return [Source(path, path.read_text(encoding="utf-8")) for path in python_files(folder)]


def parameters_of(function: ast.FunctionDef | ast.AsyncFunctionDef) -> list[ast.arg]:
    """Return all parameters but ``self``."""
    found = function.args
    return [each for each in (*found.posonlyargs, *found.args, *found.kwonlyargs) if each.arg != "self"]


def names_in(annotation: ast.expr | None) -> set[str]:
    """Return the names at the top of an annotation: those of a union, not those in brackets."""
    if isinstance(annotation, ast.BinOp):
        return names_in(annotation.left) | names_in(annotation.right)
    if isinstance(annotation, ast.Subscript):
        return names_in(annotation.value)
    return {annotation.id} if isinstance(annotation, ast.Name) else set()


def callables_of_modules() -> dict[Path, set[str]]:
    """Return, for each module of consumer/, ``Callable`` and the names that stand for types of callables there.

    A name stands for one when the module assigns it so, or imports it from a module of consumer/ that does.
    """
    found = {source.path: {"Callable"} for source in sources()}
    while more := [(path, name) for source in sources() for path, name in new_names(source, found)]:
        for path, name in more:
            found[path].add(name)
    return found


def new_names(source: Source, found: dict[Path, set[str]]) -> Iterator[tuple[Path, str]]:
    for node in source.tree.body:
        names: set[str] = set()
        if isinstance(node, ast.Assign) and names_in(node.value) & found[source.path]:
            names = {target.id for target in node.targets if isinstance(target, ast.Name)}
        elif isinstance(node, ast.ImportFrom) and node.module:
            imported = found.get(ROOT / f"{node.module.replace('.', '/')}.py", set())
            names = {alias.asname or alias.name for alias in node.names if alias.name in imported}
        yield from ((source.path, name) for name in names - found[source.path])


def long_functions() -> Iterator[str]:
    """Functions of more than 45 lines, from ``def`` to the last line: with their docstrings, without decorators."""
    for source in sources():
        for function in source.functions:
            length = (function.end_lineno or 0) - function.lineno + 1
            if length > 45:
                yield f"{source.at(function)} {function.name}: {length} lines"


def long_files(folder: str, longest: int) -> Iterator[str]:
    """Files with more lines than that, blank ones and comments included."""
    for source in sources(folder):
        if len(source.lines) > longest:
            yield f"{source.path.relative_to(ROOT)}: {len(source.lines)} lines"


def flat_modules() -> Iterator[str]:
    """Modules that lie directly in consumer/, ``__init__`` and ``__main__`` included."""
    for path in sorted((ROOT / "consumer").glob("*.py")):
        yield str(path.relative_to(ROOT))


def wide_constructors() -> Iterator[str]:
    """``__init__`` methods with more than 7 parameters, keyword-only ones included, ``self`` not."""
    for source in sources():
        for constructor in source.constructors:
            count = len(parameters_of(constructor))
            if count > 7:
                yield f"{source.at(constructor)}: {count} parameters"


def callable_parameters() -> Iterator[str]:
    """Parameters of ``__init__`` that are annotated with ``Callable`` or an alias of it, alone or in a union."""
    callables = callables_of_modules()
    for source in sources():
        for constructor in source.constructors:
            for each in parameters_of(constructor):
                if names_in(each.annotation) & callables[source.path]:
                    yield f"{source.at(each)} {each.arg}"


def untyped_records() -> Iterator[str]:
    """Parameters of any function that are named ``raw`` and annotated ``Any``, alone or in a union."""
    for source in sources():
        for function in source.functions:
            for each in parameters_of(function):
                if each.arg == "raw" and "Any" in names_in(each.annotation):
                    yield f"{source.at(each)} {function.name}"


def assertions_of_presence() -> Iterator[str]:
    """Statements ``assert … is not None``."""
    for source in sources():
        for node in ast.walk(source.tree):
            if isinstance(node, ast.Assert) and ast.unparse(node.test).endswith("is not None"):
                yield source.at(node)


def suppressions() -> Iterator[str]:
    """Codes of rules about complexity (C901, PLR0911, PLR0912, PLR0913, PLR0915) in ``noqa`` comments."""
    for source in sources():
        for number, line in enumerate(source.lines, 1):
            for code in COMPLEXITY.findall(line.partition("# noqa:")[2]):
                yield f"{source.path.relative_to(ROOT)}:{number} {code}"


def banners() -> Iterator[str]:
    """Comment lines that begin with a rule of dashes or the like, in all Python code."""
    for source in (
        each for folder in ("consumer", "schemas", "tests", "bench", "examples") for each in sources(folder)
    ):
        for number, line in enumerate(source.lines, 1):
            if BANNER.match(line):
                yield f"{source.path.relative_to(ROOT)}:{number}"


FINDERS: dict[str, Callable[[], Iterator[str]]] = {
    "functions over 45 lines": long_functions,
    "modules over 250 lines": lambda: long_files("consumer", 250),
    "test files over 400 lines": lambda: long_files("tests", 400),
    "modules outside folders": flat_modules,
    "constructors with more than 7 parameters": wide_constructors,
    "callables as constructor parameters": callable_parameters,
    "parameters raw: Any": untyped_records,
    "assertions that something is not None": assertions_of_presence,
    "suppressed complexity rules": suppressions,
    "section banners": banners,
}


@pytest.mark.parametrize("what", FINDERS)
def test_a_count_only_goes_down(what: str) -> None:
    """Each kind of fault occurs exactly as often as COUNTS says."""
    count, found = COUNTS[what], list(FINDERS[what]())
    listed = "\n".join(["", *found])
    assert len(found) <= count, f"{what}: {len(found)}, and at most {count} are allowed. Remove one of:{listed}"
    assert len(found) == count, f"{what}: only {len(found)} are left. Lower the number in COUNTS to {len(found)}."


def test_every_count_is_taken() -> None:
    """COUNTS names what is counted, and nothing else."""
    assert set(COUNTS) == set(FINDERS)
