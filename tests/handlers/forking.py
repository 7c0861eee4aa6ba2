"""Handlers that start processes, in every way in which one does."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any


def square(number: int) -> int:
    return number * number


class Working:
    """Gives work to processes that are made by ``method``, ends some that take too long, and notes how they ended."""

    def __init__(self, path: Path, method: str) -> None:
        self.path = path
        self.made: Any = multiprocessing.get_context(method)

    def __call__(self, _event: Any) -> None:
        found = [self.pooled(), self.terminated(), self.executed(), self.run()]
        with self.path.open("a") as file:
            file.write(f"{found}\n")

    def pooled(self) -> int:
        """Leave a pool whose worker still works; leaving it sends SIGTERM."""
        with self.made.Pool(1) as pool:
            found: int = pool.apply(square, (3,))
            pool.apply_async(time.sleep, (600,))
            return found

    def terminated(self) -> list[int]:
        """End processes as soon as they are started."""
        codes = []
        for _ in range(10 if self.made.get_start_method() == "fork" else 1):
            process = self.made.Process(target=time.sleep, args=(600,))
            process.start()
            process.terminate()
            process.join()
            codes.append(process.exitcode)
        return sorted(set(codes))

    def executed(self) -> int:
        with ProcessPoolExecutor(1, mp_context=self.made) as executor:
            return executor.submit(square, 4).result()

    def run(self) -> int:
        with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]) as process:
            process.terminate()
            return process.wait()


class Orphaning:
    """Forks one child that outlives the daemon, and notes its pid and what it has open and would do at a signal."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.forked = path.exists()

    def __call__(self, _event: Any) -> None:
        if not self.forked:
            self.forked = True
            if os.fork() == 0:
                self.live_on()

    def live_on(self) -> None:
        caught = [each.name for each in signal.Signals if callable(signal.getsignal(each))]
        numbers = list(map(int, os.listdir("/proc/self/fd")))
        targets = [os.readlink(f"/proc/self/fd/{number}") for number in numbers if open_still(number)]
        kinds = sorted({target for target in targets if target.startswith(("socket:", "anon_inode:"))})
        part = self.path.with_suffix(".part")
        part.write_text(f"{os.getpid()}\n{caught}\n{kinds}\n{signal.set_wakeup_fd(-1)}\n")
        part.rename(self.path)
        signal.pause()
        os._exit(0)


def open_still(number: int) -> bool:
    return os.path.lexists(f"/proc/self/fd/{number}")


class StartingEarly:
    """Notes, while it is made, what a program and a forked child would do at the signals of a daemon."""

    NUMBERS = (signal.SIGHUP, signal.SIGUSR1, signal.SIGTERM)
    ASK = "import signal; print([signal.getsignal(number).name for number in (1, 10, 15)])"

    def __init__(self, path: Path) -> None:
        with path.open("wb") as file:
            subprocess.run([sys.executable, "-c", self.ASK], stdout=file, check=True)
            if child := os.fork():
                os.waitpid(child, 0)
                return
            found = [getattr(signal.getsignal(each), "name", "caught") for each in self.NUMBERS]
            os.write(file.fileno(), f"{found}\n".encode())
            os._exit(0)

    def __call__(self, _event: Any) -> None: ...
