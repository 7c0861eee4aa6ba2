"""Foreign packages with the names of ours: one clear line, and exit code 2."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent.parent
SCRIPT = f"import sys; sys.path.append({str(ROOT)!r}); from session_consumer import main; main()"


def ended(folder: Path, *command: str) -> tuple[int, list[str]]:
    """Run Python with a folder in PYTHONPATH; return the exit code and the lines on stderr."""
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    words = [sys.executable, "-P", *command]
    result = subprocess.run(words, env=environment, cwd=folder, capture_output=True, text=True, timeout=60, check=False)
    return result.returncode, result.stderr.splitlines()


def make(folder: Path, name: str, kind: str) -> None:
    if kind == "module":
        (folder / f"{name}.py").touch()
    else:
        (folder / name).mkdir()
    if kind == "package":
        (folder / name / "__init__.py").touch()


@pytest.mark.parametrize("kind", ["module", "package"])
@pytest.mark.parametrize("name", ["consumer", "schemas"])
def test_a_foreign_package_ends_the_script(tmp_path: Path, name: str, kind: str) -> None:
    """The console script names the foreign package and where it is, and exits with 2."""
    make(tmp_path, name, kind)
    code, lines = ended(tmp_path, "-c", SCRIPT, "--help")
    assert code == 2, lines
    (line,) = lines
    assert line.startswith(f"session-consumer: the package '{name}' comes from {tmp_path}")
    assert "PYTHONPATH" in line


@pytest.mark.parametrize("kind", ["module", "package"])
def test_foreign_schemas_end_the_module(tmp_path: Path, kind: str) -> None:
    """So does ``python -m consumer`` for a foreign `schemas`."""
    make(tmp_path, "schemas", kind)
    code, lines = ended(tmp_path, "-m", "consumer", "--help")
    assert code == 2, lines
    (line,) = lines
    assert line.startswith(f"session-consumer: the package 'schemas' comes from {tmp_path}")


def test_our_own_packages_start(tmp_path: Path) -> None:
    """With other modules in PYTHONPATH the script starts."""
    make(tmp_path, "consumers", "module")
    assert ended(tmp_path, "-c", SCRIPT, "--help") == (0, [])
