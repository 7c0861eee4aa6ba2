"""What the author of a handler needs: the Record that a second parameter gets, and what a handler may raise.

The event itself is ``schemas.session.Session``.
"""

from consumer.instructions import Pause, Reject, Retry
from consumer.record import Position, Record

__all__ = ["Pause", "Position", "Record", "Reject", "Retry"]
