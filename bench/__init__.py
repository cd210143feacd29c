"""Measures inferd beside hand-written loops and a naive Faust agent on one Kafka: `python -m bench`."""

from inferd.streams.openmp import load_openmp

# Before any of its modules imports lightgbm.
load_openmp()
