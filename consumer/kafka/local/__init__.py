"""A local Apache Kafka, without Docker, for the demo, the tests and the benchmarks."""
