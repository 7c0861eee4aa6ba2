"""The Kafka clients; the only folder that imports aiokafka."""
