"""A run of pytest in a folder of a user, who has none of this project's settings."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.docs import ROOT


def pytest_in(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run pytest in a folder; return its exit code and output."""
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
