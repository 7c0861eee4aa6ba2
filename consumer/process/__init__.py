"""The life of the process: its parts, signals and threads, and the replacement of a lost Kafka client."""
