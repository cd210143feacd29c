"""Prediction requests: their processor, micro-batch sizing and the table of the prediction cache."""
