"""Model formats: each is a package that reads, checks, loads and scores files of its kind."""
