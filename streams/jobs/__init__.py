"""Batch jobs on Kafka: ownership of jobs, scoring of chunks, and queries from HTTP."""
