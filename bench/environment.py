"""Environments of the peers, each made on demand in ``bench/.venvs`` from ``bench/peers/NAME.txt``."""

from __future__ import annotations

import asyncio
import sys
import venv
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent
VENVS = HERE / ".venvs"
INSTALL_SECONDS = 600.0


class PeerUnavailableError(Exception):
    """A peer cannot be installed or run here; its text is the reason that the table shows."""


async def python_of(peer: str | None, say) -> Path:
    """Return the interpreter of a peer's environment, after installing it; None is this project's."""
    if peer is None:
        return Path(sys.executable)
    folder, requirements = VENVS / peer, HERE / "peers" / f"{peer}.txt"
    python, stamp = folder / "bin" / "python", folder / "installed.txt"
    wanted = requirements.read_text(encoding="utf-8")
    if not stamp.exists() or stamp.read_text(encoding="utf-8") != wanted:
        say(f"installing {peer}")
        await _install(folder, requirements)
        stamp.write_text(wanted, encoding="utf-8")
    return python


async def _install(folder: Path, requirements: Path) -> None:
    uv = Path(sys.executable).with_name("uv")
    venv.create(folder, clear=True, with_pip=not uv.exists(), symlinks=True)
    python = str(folder / "bin" / "python")
    installer = [str(uv), "pip", "install", "--python", python] if uv.exists() else [python, "-m", "pip", "install"]
    process = await asyncio.create_subprocess_exec(
        *installer,
        "--quiet",
        "--require-hashes",
        "-r",
        str(requirements),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(INSTALL_SECONDS):
            _, errors = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.wait()
        raise PeerUnavailableError(f"not installed within {INSTALL_SECONDS:.0f} s") from None
    if process.returncode:
        last = (errors.decode(errors="replace").strip().splitlines() or ["no reason given"])[-1]
        raise PeerUnavailableError(f"cannot be installed: {last[:120]}")
