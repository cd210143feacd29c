"""Lanes: topics consumed in batches. Partitions, processing guarantees, assignment and scheduling."""
