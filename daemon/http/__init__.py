"""HTTP servers: that of a worker, and that of a script without Kafka."""
