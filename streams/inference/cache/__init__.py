"""The prediction cache of one tenant: keys, values, eviction, and the changes that its tables need."""
