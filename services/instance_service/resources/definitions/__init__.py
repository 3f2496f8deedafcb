"""Definitions and their versions: what they carry, what they change, and what expressions call by name."""
