"""Compares inferd with hand-written loops and a simple Faust agent on the same Kafka: `python -m bench`."""

from inferd.streams.openmp import load_openmp

# Before any of its modules imports lightgbm.
load_openmp()
