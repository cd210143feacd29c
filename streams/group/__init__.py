"""The consumer group: membership, assignment and fetching, built on Faust."""
