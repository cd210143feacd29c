"""Batch jobs on Kafka: what owns them, what scores their chunks, and what answers questions about them."""
