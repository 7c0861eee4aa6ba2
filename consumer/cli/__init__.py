"""The commands; ``main`` is what the console script calls."""

from consumer.cli.main import main

__all__ = ["main"]
