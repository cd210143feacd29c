"""Model records: manifests and aliases, their checks and their codec."""
