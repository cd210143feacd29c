"""Models of a worker: following model records, fetching artifacts, trying and loading versions."""
