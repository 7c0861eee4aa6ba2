"""Audit of the pinned versions by ``uv audit``: ``python -m tests.audit [URL of a vulnerability database]``.

It fails for a version with a known vulnerability. Without a database it says that nothing was audited, and passes.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
SECONDS = 60.0
PINNED = re.compile(r"^([\w.-]+)==([^\s;\\]+)", re.MULTILINE)
HEAD = 'version = 1\nrequires-python = ">=3.11"\n'
PROJECT = '[project]\nname = "audited"\nversion = "0"\nrequires-python = ">=3.11"\n'
VULNERABLE = 1
"""The exit code of ``uv audit`` for a known vulnerability; others than 0 say that it could not find out."""


def pinned_versions() -> list[tuple[str, str]]:
    """Return each name and version in requirements/, once."""
    files = sorted((ROOT / "requirements").glob("*.txt"))
    return sorted({found for file in files for found in PINNED.findall(file.read_text(encoding="utf-8"))})


def lock_of(versions: list[tuple[str, str]]) -> str:
    """Return a lock file of uv for a project that depends on these versions; uv audits no other kind of file."""
    needs = ", ".join(f'{{ name = "{name}", version = "{version}" }}' for name, version in versions)
    packages = [("audited", "0", f'source = {{ virtual = "." }}\ndependencies = [{needs}]\n')]
    packages += [(name, version, 'source = { registry = "index" }\n') for name, version in versions]
    return HEAD + "".join(f'\n[[package]]\nname = "{name}"\nversion = "{v}"\n{rest}' for name, v, rest in packages)


def audit(database: str | None = None, seconds: float = SECONDS) -> int:
    """Print what ``uv audit`` finds; return the exit code."""
    versions = pinned_versions()
    where = ["--service-url", database] if database else []
    uv = Path(sys.executable).with_name("uv")
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "pyproject.toml").write_text(PROJECT, encoding="utf-8")
        Path(folder, "uv.lock").write_text(lock_of(versions), encoding="utf-8")
        try:
            done = subprocess.run(
                [uv, "audit", "--frozen", "--preview", "--no-config", *where],
                cwd=folder,
                env={**os.environ, "UV_HTTP_RETRIES": "1", "UV_HTTP_TIMEOUT": "10"},
                capture_output=True,
                text=True,
                timeout=seconds,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return _not_audited(f"no answer within {seconds:g} s")
    if done.returncode not in (0, VULNERABLE):
        return _not_audited((done.stderr.strip().splitlines() or ["no reason given"])[0])
    print(done.stdout + done.stderr, end="")
    return done.returncode


def _not_audited(why: str) -> int:
    print(f"audit: NOT DONE, the pinned versions were not compared with a vulnerability database: {why}")
    return 0


if __name__ == "__main__":
    sys.exit(audit(sys.argv[1] if len(sys.argv) > 1 else None))
