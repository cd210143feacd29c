"""Measures inferd beside hand-written loops and a naive Faust agent on one Kafka: `python -m bench`."""
