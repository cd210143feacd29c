"""Rows to matrices: layout, types, ranges and categories of features, checked."""
