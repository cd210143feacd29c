"""The disposable process in which a model is tried before it serves."""
