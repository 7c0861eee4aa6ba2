"""The life of the process: its parts, its signals, its threads, and one Kafka client after another."""
