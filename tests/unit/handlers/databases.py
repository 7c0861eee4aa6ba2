"""Databases of tests: a file of SQLite, and a PostgreSQL of its own where its programs are installed."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import create_async_engine

from consumer.record import Position, Record


def programs() -> Path | None:
    """Return the folder of PostgreSQL's programs; Debian keeps them out of PATH."""
    found = shutil.which("postgres")
    paths = [Path(found).resolve()] if found else sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    return paths[-1].parent if paths and (paths[-1].parent / "initdb").exists() else None


class Postgres:
    """A server on 127.0.0.1 with its data in a folder that vanishes with it; root runs it as ``postgres``."""

    def __init__(self, folder: Path, binaries: Path) -> None:
        self._folder, self._binaries = folder, binaries
        self._user: dict[str, Any] = {"user": "postgres", "group": "postgres"} if os.getuid() == 0 else {}
        with socket.create_server(("127.0.0.1", 0)) as free:
            self._port = free.getsockname()[1]
        self.url = f"postgresql://tester@127.0.0.1:{self._port}/postgres"

    def create(self) -> Self:
        if self._user:
            shutil.chown(self._folder, **self._user)
        self._run("initdb", "-D", "data", "-U", "tester", "--auth=trust", "--no-sync", "--encoding=UTF8")
        return self

    def start(self, *, fsync: bool = False) -> None:
        options = f"-p {self._port} -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c fsync={fsync}"
        self._run("pg_ctl", "-D", "data", "-w", "-t", "60", "-l", "log", "-o", options, "start")

    def stop(self) -> None:
        self._run("pg_ctl", "-D", "data", "-w", "-m", "immediate", "stop")

    def _run(self, program: str, *arguments: str) -> None:
        command = [str(self._binaries / program), *arguments]
        environment = {"PATH": os.defpath, "LC_ALL": "C"}
        subprocess.run(
            command, cwd=self._folder, env=environment, check=True, stdout=subprocess.DEVNULL, timeout=90, **self._user
        )


@contextmanager
def postgres_server(*, fsync: bool = False) -> Iterator[Postgres]:
    """Run a server; without its programs the test is skipped, and fails where ``.ci/run`` has installed them."""
    binaries = programs()
    if binaries is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("PostgreSQL's programs are not installed")
    with tempfile.TemporaryDirectory(prefix="pg-", dir="/tmp") as folder:
        server = Postgres(Path(folder), binaries).create()
        server.start(fsync=fsync)
        try:
            yield server
        finally:
            server.stop()


def async_url(url: str) -> str:
    return url.replace("sqlite://", "sqlite+aiosqlite://").replace("postgresql://", "postgresql+asyncpg://")


async def execute(url: str, *statements: str) -> list[dict[str, Any]]:
    """Execute statements in one transaction; return the rows of the last one."""
    engine = create_async_engine(async_url(url))
    try:
        async with engine.begin() as connection:
            for each in statements:
                result = await connection.execute(sa.text(each))
            return [dict(row) for row in result.mappings()] if result.returns_rows else []
    finally:
        await engine.dispose()


def a_record(offset: int, partition: int = 0, letter_of: Position | None = None, topic: str = "t") -> Record:
    return Record(topic, partition, offset, 1, b"k", b"{}", (), letter_of)
