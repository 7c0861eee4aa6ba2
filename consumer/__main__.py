"""Entry point: ``python -P -m consumer`` does the same as ``session-consumer``."""

from consumer.cli import main

main()
