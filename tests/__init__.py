"""The tests, and what they share."""

from streams.inference.openmp import load_openmp

# Before the first of them imports lightgbm.
load_openmp()
