"""Faults of tables: the place for a compacted changelog, a torn changelog tail and lost tombstones.

No load uses a table yet. Such a fault enters itself with `@fault("state lost")`; what the tables must hold then
is for a kind of load (`tests/chaos/kinds.py`) whose answers depend on them.
"""
