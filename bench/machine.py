"""The machine on which the numbers were measured."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

from bench.environment import ROOT
from consumer.kafka.local.jars import KAFKA_VERSION


def machine() -> dict[str, Any]:
    """Return the cores, the CPU model, the memory and the relevant versions."""
    return {
        "cores": os.cpu_count(),
        "cpu": _line("/proc/cpuinfo", "model name") or platform.processor() or "unknown",
        "memory_gb": round(int((_line("/proc/meminfo", "MemTotal") or "0 kB").split()[0]) / 1e6),
        "python": platform.python_version(),
        "kafka": KAFKA_VERSION,
        "aiokafka": version("aiokafka"),
        "msgspec": version("msgspec"),
    }


def commit() -> str:
    """Return the measured commit, with a + if files differ from it; empty outside a repository."""
    try:
        command = ["git", "describe", "--always", "--dirty=+", "--exclude=*"]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def _line(path: str, name: str) -> str:
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in text.splitlines() if line.startswith(name)), "")
