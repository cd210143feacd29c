"""Models of a worker: reads model records, collects artifacts, tests and loads versions."""
