"""``session-consumer`` with a task that samples its process once a second as a line of JSON, for soaks."""

from __future__ import annotations

import asyncio
import ctypes
import os
import sys
import time
from pathlib import Path
from typing import Any

import msgspec

from consumer.cli import run as run_command
from consumer.cli.main import run_cli

FILE = "WATCHED_FILE"
SAMPLE_SECONDS = 1.0


class Sample(msgspec.Struct):
    """Resources that one process used at one time."""

    at: float
    rss_mb: float
    descriptors: int
    threads: int
    tasks: int
    loop_delay: float
    """Seconds by which the event loop came late to this sample."""
    blocks: int
    """Blocks that Python's allocator has given out: a leak of objects shows here, without the noise of freed pages."""
    native_mb: float
    """What the C library's allocator has given out: with ``rss_mb`` it tells memory in use from memory kept."""


class _Mallinfo2(ctypes.Structure):
    _fields_ = tuple((name, ctypes.c_size_t) for name in (
        "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost",
    ))  # fmt: skip


def _native_bytes() -> int:
    try:
        mallinfo2 = ctypes.CDLL(None).mallinfo2
    except AttributeError:  # not glibc ≥ 2.33
        return 0
    mallinfo2.restype = _Mallinfo2
    info = mallinfo2()
    return int(info.uordblks + info.hblkhd)


async def sample_forever(file: Path) -> None:
    """Append one sample a second."""
    while True:
        due = time.monotonic() + SAMPLE_SECONDS
        await asyncio.sleep(SAMPLE_SECONDS)
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        sample = Sample(
            at=time.time(),
            rss_mb=pages * os.sysconf("SC_PAGE_SIZE") / 1e6,
            descriptors=len(os.listdir("/proc/self/fd")),
            threads=len(os.listdir("/proc/self/task")),
            tasks=len(asyncio.all_tasks()),
            loop_delay=max(0.0, time.monotonic() - due),
            blocks=sys.getallocatedblocks(),
            native_mb=_native_bytes() / 1e6,
        )
        with file.open("ab") as opened:
            opened.write(msgspec.json.encode(sample) + b"\n")


def main() -> int:
    """Run the command line with a sampler beside its daemon."""
    usual: Any = run_command.run_daemon

    async def watched(*given: Any) -> None:
        sampling = asyncio.create_task(sample_forever(Path(os.environ[FILE])))
        try:
            await usual(*given)
        finally:
            sampling.cancel()

    run_command.run_daemon = watched  # type: ignore[assignment]
    return run_cli(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
