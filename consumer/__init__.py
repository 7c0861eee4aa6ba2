"""What the author of a handler needs: the Record that a second parameter gets.

The event itself is ``schemas.session.Session``.
"""

from consumer.record import Record

__all__ = ["Record"]
