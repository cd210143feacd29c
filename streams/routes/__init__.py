"""Routes: topics of others, scored in their own format into enriched or result topics."""
