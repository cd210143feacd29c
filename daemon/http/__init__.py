"""The worker's HTTP server: probes, status, metrics and the live page. It answers before Kafka does."""
