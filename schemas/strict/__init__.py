"""Strict MessagePack and JSON, shared by all record families: every byte is checked before it is decoded."""
