"""``python -P -m consumer`` is ``session-consumer``."""

from consumer.cli import main

main()
