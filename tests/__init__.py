"""The tests and their shared modules."""

from inferd.streams.openmp import load_openmp

# Before the first of them imports lightgbm.
load_openmp()
