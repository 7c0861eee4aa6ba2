"""The public names for authors of handlers: the Record of a second parameter, and the instructions that may be raised.

An option annotated ``Secret`` is text that no command line may hold. One annotated ``WorkerPath`` is a file that one
process writes: with ``run --workers`` its name gets the worker's number.

The type of an event is ``schemas.session.Session``, unless ``[[schemas]]`` names another for its topic.
"""

from pathlib import Path
from typing import Annotated

import msgspec

from consumer.instructions import Pause, Reject, Retry
from consumer.record import Position, Record

Secret = Annotated[str, msgspec.Meta(extra={"secret": True})]
WorkerPath = Annotated[Path, msgspec.Meta(extra={"worker": True})]

__all__ = ["Pause", "Position", "Record", "Reject", "Retry", "Secret", "WorkerPath"]
