"""The public names for authors of handlers: the Record of a second parameter, and the instructions that may be raised.

The type of an event is ``schemas.session.Session``.
"""

from consumer.instructions import Pause, Reject, Retry
from consumer.record import Position, Record

__all__ = ["Pause", "Position", "Record", "Reject", "Retry"]
