"""Model formats. Each is a package that reads, checks, loads and scores its files."""
