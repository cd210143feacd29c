"""Rows in files and on standard input: CSV, NDJSON and Parquet, read the same way by every command."""
