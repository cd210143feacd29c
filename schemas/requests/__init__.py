"""Prediction requests and results: values, validation and codecs."""
