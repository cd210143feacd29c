"""The peers of the comparison; each is a separate process."""
