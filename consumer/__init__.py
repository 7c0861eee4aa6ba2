"""The public names for authors of handlers: the Record of a second parameter, and the instructions that may be raised.

An option annotated ``Secret`` is text that no command line may hold.

The type of an event is ``schemas.session.Session``, unless ``[[schemas]]`` names another for its topic.
"""

from typing import Annotated

import msgspec

from consumer.instructions import Pause, Reject, Retry
from consumer.record import Position, Record

Secret = Annotated[str, msgspec.Meta(extra={"secret": True})]

__all__ = ["Pause", "Position", "Record", "Reject", "Retry", "Secret"]
