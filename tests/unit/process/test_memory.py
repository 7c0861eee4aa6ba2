"""Returning free memory to the system."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

PROGRAM = """
import os
from consumer.process.memory import give_back_memory

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

many = [bytes(4000) for _ in range(20_000)]
last = bytes(4000)  # the top of the heap stays in use, so nothing below it can be given back by itself
del many
before = resident()
give_back_memory()
print(before - resident())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be told to give memory back")
def test_free_memory_between_used_pieces_is_given_back() -> None:
    """80 MB of free memory below a used block are returned to the system."""
    freed = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, check=True, text=True).stdout
    assert int(freed) > 40_000_000
