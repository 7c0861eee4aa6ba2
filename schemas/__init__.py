"""The session event, and the reader that decodes it."""
