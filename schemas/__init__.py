"""The wire contract: records and their encodings, error codes, limits. No I/O."""
