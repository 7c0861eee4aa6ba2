"""The health check of the image: asks the daemon of its container at the address in the daemon's own settings.

``python -m consumer.cli.healthcheck`` exits 0 when ``/healthz`` returns 200, else 1, with the reason on stderr.
"""

from __future__ import annotations

import sys
from pathlib import Path
from urllib.request import ProxyHandler, build_opener

import click

from consumer.cli.options import loaded, settings_options
from consumer.errors import ConsumerError

DAEMON = Path("/proc/1/cmdline")
"""The command line of the container's first process: the daemon, or the init that runs it."""
SECONDS = 4.0


@click.command(context_settings={"ignore_unknown_options": True, "allow_extra_args": True})
@settings_options
def healthcheck(config: Path | None, overrides: tuple[str, ...]) -> None:
    """Ask the daemon that was started with these arguments of ``run``. Raises OSError if it is not healthy."""
    http = loaded(config, overrides).settings.http
    # Without a proxy, also if the environment names one. A 503 raises.
    build_opener(ProxyHandler({})).open(f"http://{http.own_address()}/healthz", timeout=SECONDS).close()


def main() -> int:
    """Check, print what is wrong and return the exit code."""
    try:
        words = DAEMON.read_bytes().decode(errors="surrogateescape").rstrip("\0").split("\0")
        arguments = words[words.index("run") + 1 :] if "run" in words else []
        healthcheck.main(arguments, standalone_mode=False)
    except (ConsumerError, click.ClickException, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
