"""What is consumed: the session event and how it is read from the wire."""
