"""Scoring chunks of jobs: pure functions from rows and a model to results."""
