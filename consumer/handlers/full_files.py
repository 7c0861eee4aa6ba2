"""Full files: their names, and their compression in the background."""

from __future__ import annotations

import asyncio
import gzip
import os
import re
import threading
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from queue import SimpleQueue

import structlog

from consumer.handlers.line_file import sync_folder

log = structlog.get_logger("consumer.handlers.full_files")

WRITE = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
CHUNK_BYTES = 1_048_576
LEVEL = 6
"""Level of gzip: higher ones take several times as long for a hundredth of the size."""


class Compressor:
    """Compresses files in a thread, one after the other; started and stopped with its handler.

    ``NAME.jsonl`` becomes ``NAME.jsonl.gz``, and is removed once that is on disk. A file whose compression was stopped,
    killed or failed stays as it is, and is compressed after the next start.
    """

    def __init__(self) -> None:
        self._queue: SimpleQueue[Path | None] = SimpleQueue()
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, files: Iterable[Path]) -> None:
        """Start the thread, with files that were left before."""
        for file in files:
            self.add(file)
        self._thread = threading.Thread(target=self._run, name="session-consumer-compression", daemon=True)
        self._thread.start()

    def add(self, file: Path) -> None:
        """Compress a file that is full and synced; returns at once."""
        self._queue.put(file)

    async def stop(self) -> None:
        """Stop after the megabyte at hand, whatever is left to do."""
        self._stopped.set()
        self._queue.put(None)
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join)

    def _run(self) -> None:
        while (file := self._queue.get()) is not None and not self._stopped.is_set():
            try:
                self._compress(file)
            except OSError as error:
                log.warning("compression_failed", file=str(file), why=error.strerror)

    def _compress(self, file: Path) -> None:
        part = file.with_name(f"{file.name}.gz.part")
        try:
            if self._pack(file, part):
                part.rename(file.with_name(f"{file.name}.gz"))
                sync_folder(file.parent)
                file.unlink()
        finally:
            part.unlink(missing_ok=True)

    def _pack(self, file: Path, part: Path) -> bool:
        """Write the compressed form and sync it; return False if the daemon stops before its end."""
        with file.open("rb") as plain, os.fdopen(os.open(part, WRITE, 0o640), "wb") as out:
            with gzip.GzipFile(file.name, "wb", LEVEL, out) as packed:
                while data := plain.read(CHUNK_BYTES):
                    if self._stopped.is_set():
                        return False
                    packed.write(data)
            out.flush()
            os.fsync(out.fileno())
        return True


def free_name(path: Path) -> Path:
    """Return an unused name with the time for a full file; a rename would replace an existing file."""
    now = datetime.now(UTC)
    while _is_taken(old := path.with_name(f"{path.stem}-{now:%Y%m%dT%H%M%S.%fZ}{path.suffix}")):
        now += timedelta(microseconds=1)
    return old


def _is_taken(path: Path) -> bool:
    return path.exists() or path.with_name(f"{path.name}.gz").exists()


def full_files(path: Path) -> Iterable[Path]:
    """Return the full files of a path that are not compressed, the oldest first."""
    name = re.compile(rf"{re.escape(path.stem)}-\d{{8}}T\d{{6}}\.\d{{6}}Z{re.escape(path.suffix)}")
    return sorted(each for each in path.parent.iterdir() if name.fullmatch(each.name))
